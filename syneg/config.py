"""Configuration: dataclasses, filled from ``--config FILE.yaml`` and ``--key value`` over it.

One mechanism for every subcommand, recipe and data-set YAML. It is transformers' `HfArgumentParser`
with these things added: the values of YAML files go through the same checks as those of the command
line, a later ``--config`` wins over an earlier one key by key, unknown keys name the nearest known one,
and an error is an `InputError`. ``{config}`` in a file's text stands for the files' names, joined by "-".
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

import yaml
from transformers.hf_argparser import HfArgumentParser

from syneg.errors import InputError, nearest
from syneg.help import help_text

Given = dict[str, tuple[Any, str]]
"""A key of YAML files -> its value, and the file that it is from."""


@dataclass
class OutputArguments:
    """Where the result goes, and the seed of every random choice on the way."""

    output: str = field(metadata={"help": "The folder to write."})
    seed: int = field(default=0, metadata={"help": "Seed of every random choice."})


class ConfigParser(HfArgumentParser):
    """Parses dataclasses from YAML files and a command line; the command line wins.

    Args:
        dataclass_types: The dataclasses to fill. Their keys share one flat namespace.
        basics: The keys that ``--help`` shows beside the required ones, where there are many; ``--help all``
            shows all.
        **kwargs: Passed to `argparse.ArgumentParser`.
    """

    def __init__(self, dataclass_types: Any, basics: Collection[str] = (), **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(dataclass_types, **kwargs)
        self.basics = basics
        self.add_argument(
            "--config",
            metavar="FILE",
            action="append",
            help="a YAML file with any of these keys; of several files a later one wins",
        )

    def error(self, message: str) -> NoReturn:
        """Raises what argparse would print, so that there is one way to report bad input."""
        raise InputError(message)

    def format_help(self, everything: bool = False) -> str:
        """Returns the help: the keys that most people need, or all."""
        return help_text(self, self.dataclass_types, self.basics, everything)

    def parse(self, argv: Sequence[str] | None = None) -> tuple[Any, ...]:
        """Returns the dataclasses, filled.

        Args:
            argv: The command line without the program's name; `sys.argv` where it is None.

        Raises:
            InputError: For an unknown key, a value of the wrong type, a missing required key, or a
                file that is missing or is not a mapping.
        """
        argv = list(sys.argv[1:] if argv is None else argv)
        asked = next((i for i, word in enumerate(argv) if word in ("-h", "--help")), None)
        if asked is not None:
            print(self.format_help(everything=argv[asked + 1 : asked + 2] == ["all"]), end="")
            raise SystemExit(0)
        tokens = self._tokens(self._given(_read_configs(_config_paths(argv)), argv))
        argv = tokens + argv
        namespace, rest = self.parse_known_args(argv)
        unknown_keys = [word for word in rest if word.startswith("--")]
        if unknown_keys:
            key = unknown_keys[0].split("=")[0]
            raise InputError(
                f"unknown key {key!r} on the command line."
                f"{nearest(key, self._option_string_actions)} --help lists all."
            )
        if rest:
            raise InputError(f"{rest[0]!r} belongs to no key; write --key value. --help lists all.")
        return self._fill(vars(namespace))

    def _given(self, config: Given, argv: Sequence[str]) -> Given:
        """Returns what of the files' keys is to count, given the command line; here all."""
        return config

    def _fill(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        filled = []
        for dataclass_type in self.dataclass_types:
            names = {field.name for field in dataclass_type.__dataclass_fields__.values() if field.init}
            given = {k: v for k, v in values.items() if k in names}
            hints = get_type_hints(dataclass_type)
            null = [name for name, value in given.items() if value is None]
            for name in null:
                if hints[name] in (int, bool):
                    raise InputError(f"--{name} must not be null; give a value, or leave it out.")
            try:
                filled.append(dataclass_type(**given))
            except TypeError:
                # A comparison with null, of a key that says nothing of null.
                wrong = next((name for name in null if hints[name] is float), None)
                if wrong is None:
                    raise
                raise InputError(f"--{wrong} must not be null; give a value, or leave it out.") from None
        return tuple(filled)

    def _tokens(self, config: Given) -> list[str]:
        """Turns YAML keys into command-line words, so that one parser checks both.

        Args:
            config: Key -> its value and the file that it is from.
        """
        tokens: list[str] = []
        for key, (value, path) in config.items():
            flag = f"--{key}"
            action = self._option_string_actions.get(flag)
            if action is None or key in ("config", "help"):
                known = [word[2:] for word in self._option_string_actions if word.startswith("--")]
                raise InputError(f"{path}: unknown key {key!r}.{nearest(str(key), known)}")
            if value is None or (value == [] and action.nargs == "+"):
                # There are no words for them; the key counts as given.
                action.required, action.default = False, value
            elif isinstance(value, list) and action.nargs == "+":
                tokens += [flag, *(_word(item) for item in value)]
            else:
                tokens.append(f"{flag}={_word(value)}")
        return tokens


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which PyYAML would take the last without a word.

    What looks like a date is text, as it was written: no key takes a date.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            # Keys of a merge (<<) may be overridden: that is what it is for.
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key.value!r} stands twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Reads a YAML file that holds a mapping.

    Raises:
        InputError: Where the file is missing, is not UTF-8 or YAML, is not a mapping or has a key twice.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such configuration file.")
    try:
        # With a byte order mark or without.
        config = yaml.load(path.read_text(encoding="utf-8-sig"), _Loader)
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        problem = getattr(error, "problem", None) or "it cannot be parsed"
        raise InputError(f"{path}{line}: not valid YAML: {problem}.") from None
    except (ValueError, RecursionError) as error:
        # Not UTF-8; a number that is none; nested deeper than Python goes.
        raise InputError(f"{path}: not valid YAML: {str(error).rstrip('.')}.") from None
    if config is None:
        return {}
    if not isinstance(config, dict):
        raise InputError(f"{path}: expected 'key: value' lines, found a {type(config).__name__}.")
    return config


def parse_mapping(value: Mapping[str, Any] | str | None, key: str) -> dict[str, Any]:
    """Returns a mapping given as such, as JSON, or as ``a=1,b=2``.

    Args:
        value: What the dataclass was given. From the command line it is a string.
        key: The key's name, for the error.

    Raises:
        InputError: Where the string is neither JSON nor of the form ``a=1,b=2``.
    """
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return dict(value)
    try:
        if value.lstrip().startswith("{"):
            parsed = json.loads(value)
        else:
            items = (item.split("=", 1) for item in value.split(",") if item.strip())
            parsed = {name.strip(): yaml.safe_load(number) for name, number in items}
    except (ValueError, RecursionError, yaml.YAMLError):
        raise InputError(f"--{key}: {value!r} is neither JSON nor of the form a=1,b=2.") from None
    return parsed


def split_commas(values: Sequence[str] | str | None) -> list[str]:
    """Returns ``["a", "b"]`` for ``["a,b"]``, ``["a", "b"]`` and ``"a, b"``."""
    if values is None:
        return []
    if isinstance(values, str):
        values = [values]
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def _word(value: Any) -> str:
    if not isinstance(value, dict | list | bool):
        return str(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def _config_paths(argv: Sequence[str]) -> list[Path]:
    """Returns the files that ``--config`` names, in their order; of a recipe both of its files.

    ``recipes/scifact/minilm.yaml``, where there is no such file, stands for
    ``recipes/data/scifact.yaml`` and ``recipes/backbones/minilm.yaml``. The recipes that are shipped need no
    folder and no ending, as in ``scifact/minilm``, or ``listwise`` for what goes with any of them.
    """
    paths = []
    for i, word in enumerate(argv):
        if word == "--config":
            if i + 1 == len(argv):
                raise InputError("--config needs the name of a YAML file.")
            paths.append(Path(argv[i + 1]))
        elif word.startswith("--config="):
            paths.append(Path(word.removeprefix("--config=")))
    return [part for path in paths for part in (_recipe(path) or [path])]


def shipped_recipes() -> Path:
    """Returns the folder of the recipes: in the package, or beside it in a clone."""
    inside = Path(__file__).parent / "recipes"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "recipes"


def _recipe(path: Path) -> list[Path]:
    if path.exists():
        return []
    if len(path.parts) == 1 and (shipped := shipped_recipes() / f"{path.stem}.yaml").is_file():
        return [shipped]
    folders = [path.parent.parent / name for name in ("data", "backbones")]
    if not all(folder.is_dir() for folder in folders) and len(path.parts) == 2:
        path = path if path.suffix == ".yaml" else path.with_name(f"{path.name}.yaml")
        if (shipped_recipes() / path).is_file():
            return [shipped_recipes() / path]
        folders = [shipped_recipes() / name for name in ("data", "backbones")]
        if not (folders[0] / f"{path.parent}.yaml").is_file():
            # What is no recipe's folder is a folder of the user's own.
            return []
    if not all(folder.is_dir() for folder in folders):
        return []
    datasets, backbones = (sorted(folder.glob("*.yaml")) for folder in folders)
    known = {f"{one.stem}/{two.name}": [one, two] for one in datasets for two in backbones}
    name = f"{path.parent.name}/{path.name}"
    if name not in known:
        raise InputError(f"{path}: no such configuration file.{nearest(name, known)}")
    return known[name]


def _read_configs(paths: Sequence[Path]) -> Given:
    """Returns key -> its value in the last file that has it, and that file."""
    merged: Given = {}
    for path in paths:
        merged |= {key: (value, str(path)) for key, value in read_yaml(path).items()}
    names = "-".join(path.stem for path in paths)
    return {
        key: (value.replace("{config}", names) if isinstance(value, str) else value, path)
        for key, (value, path) in merged.items()
    }
