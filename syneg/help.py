"""Help that can be read: options in groups, each once; by default those that most people need."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

MANY = 24
"""Options from which on a command's help shows the needed ones only, where the command says which."""


def help_text(
    parser: argparse.ArgumentParser, kinds: Sequence[Any], basics: Collection[str], everything: bool
) -> str:
    """Returns a command's help.

    Args:
        parser: The parser.
        kinds: The dataclasses that its options fill.
        basics: The options that most people need. What is required is one anyway.
        everything: Whether all options are shown.
    """
    shown = {one.dest: one for one in parser._actions if one.dest != "help"}
    for one in parser._actions:
        # Of a switch and its opposite, which go to one place, the switch stands first.
        shown[one.dest] = next(other for other in parser._actions if other.dest == one.dest)
    del shown["help"]
    few = [name for name, one in shown.items() if name in basics or one.required or name == "config"]
    names = list(shown) if everything or not basics or len(shown) <= MANY else few
    width = min(max(shutil.get_terminal_size().columns, 80), 110) - 2
    formatter = argparse.HelpFormatter(parser.prog, max_help_position=30, width=width)
    required = " ".join(f"{_flag(one)} {_value(one)}" for one in shown.values() if one.required)
    formatter.add_text(
        f"usage: {parser.prog} {required + ' ' if required else ''}[--config FILE.yaml] [--key value ...]"
    )
    formatter.add_text(parser.description)
    for title, dests in _groups(kinds, [name for name in shown if name != "config"]):
        if wanted := [_readable(shown[name]) for name in dests if name in names]:
            formatter.start_section(title)
            formatter.add_arguments(wanted)
            formatter.end_section()
    formatter.start_section("Configuration")
    formatter.add_arguments([_readable(shown["config"])])
    formatter.end_section()
    if len(names) < len(shown):
        formatter.add_text(f"{parser.prog} --help all lists all {len(shown)} keys, of which these are few.")
    return formatter.format_help()


def groups_of(kind: Any) -> Iterator[tuple[str, str]]:
    """Yields the group and the name of each field of a dataclass, in order.

    A class's fields stand under its name without "Arguments"; `help_groups`, of a class's own, says where
    another group begins: the first field in it -> its title.
    """
    titles: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        title = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", base.__name__.removesuffix("Arguments")).capitalize()
        begins: Mapping[str, str] = base.__dict__.get("help_groups", {})
        title = _TITLES.get(base.__name__, title)
        for name in inspect.get_annotations(base):
            title = begins.get(name, title)
            # What only has another default stays where it was.
            if begins or name not in titles:
                titles[name] = title
    for one in dataclasses.fields(kind):
        if one.init:
            yield titles[one.name], one.name


_TITLES = {
    "AskFolderArguments": "Output",
    "BaseTrainingArguments": "Training, as in sentence-transformers",
    "BuildArguments": "Data set",
    "FolderArguments": "Output",
    "GateRowsArguments": "Rows",
    "GatingArguments": "Gates",
    "GenerationArguments": "Writing",
    "LLMArguments": "LLM",
    "QueryArguments": "Queries",
    "QueryGateArguments": "Gates",
    "RowsArguments": "Rows",
    "TrainingArguments": "Training, as in transformers",
    "SentenceTransformerTrainingArguments": "Training, as in sentence-transformers",
}


def _groups(kinds: Sequence[Any], names: Sequence[str]) -> list[tuple[str, list[str]]]:
    groups: dict[str, list[str]] = {}
    for kind in kinds:
        for title, name in groups_of(kind):
            if name in names and not any(name in others for others in groups.values()):
                groups.setdefault(title, []).append(name)
    rest = [name for name in names if not any(name in others for others in groups.values())]
    return [*groups.items(), *([("Other", rest)] if rest else [])]


def _readable(action: argparse.Action) -> argparse.Action:
    """Returns an option as help shows it: one spelling, what it takes, and its default if it has one."""
    shown = argparse.Action([_flag(action)], action.dest, metavar=_value(action))
    text = (action.help or "").replace("%%", "%")
    default = "" if action.dest == "config" else _default(action)
    shown.help = f"{text}{default}".replace("%", "%%")
    return shown


def _flag(action: argparse.Action) -> str:
    own = {f"--{action.dest}", f"--{action.dest.replace('_', '-')}"}
    # Another name was given since it is the one of all commands, as in --output.
    return next((word for word in action.option_strings if word not in own), f"--{action.dest}")


def _value(action: argparse.Action) -> str:
    if action.choices is not None:
        return "|".join(map(str, action.choices))
    if action.dest == "config":
        return "FILE"
    if isinstance(action.const, bool) or isinstance(action.default, bool):
        return "true|false"
    if action.nargs == "+":
        return "A,B"
    if action.dest in ("output", "output_dir", "journal"):
        return "FOLDER"
    return {"int": "N", "float": "X"}.get(getattr(action.type, "__name__", ""), "TEXT")


def _default(action: argparse.Action) -> str:
    if action.required:
        return " (required)"
    value = action.default
    if value is None or value == "" or value == [] or value == {}:
        return ""
    if isinstance(value, bool):
        value = str(value).lower()
    elif isinstance(value, list | tuple):
        value = ",".join(map(str, value))
    return f" (default: {value})"
