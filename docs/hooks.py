"""What of the site is made of the code when it is built: options, messages, notebooks, results, changes.

Nothing of syneg is imported, so that a site can be built without torch: options and messages are read off the
source. `tests/test_docs.py` holds what is read against what the commands take.
"""

from __future__ import annotations

import ast
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.structure.files import Files

ROOT = Path(__file__).resolve().parent.parent
BLOB = "https://github.com/syneg/syneg/blob/main/"

# Command -> the dataclasses that its keys come from.
COMMAND_GROUPS = {
    "demo": ["DemoArguments"],
    "mine": ["FolderArguments", "SourceArguments", "MiningArguments"],
    "generate": ["FolderArguments", "RowsArguments", "SourceArguments", "GenerationArguments"],
    "compact": ["CompactArguments"],
    "init": ["InitArguments", "SourceArguments"],
    "pilot": [
        *("PilotArguments", "BuildArguments", "SourceArguments", "MiningArguments"),
        *("GenerationArguments", "GatingArguments", "EncodingArguments"),
    ],
    "ask": ["AskFolderArguments", "SourceArguments", "QueryArguments", "QueryGateArguments"],
    "tune": [
        "AskFolderArguments",
        "SourceArguments",
        "QueryArguments",
        "QueryGateArguments",
        "TuneArguments",
    ],
    "gate": ["FolderArguments", "GateRowsArguments", "GatingArguments", "GenerationArguments"],
    "build": [
        *("FolderArguments", "BuildArguments", "SourceArguments", "MiningArguments"),
        *("GenerationArguments", "GatingArguments"),
    ],
    "inspect": ["InspectArguments"],
    "train": ["TrainArguments", "GuardedArguments"],
    "evaluate": ["EvaluationArguments", "EvaluationSourceArguments", "EncodingArguments"],
    "compare": ["CompareArguments", "EvaluationSourceArguments", "EncodingArguments"],
    "report": ["ReportArguments"],
    "push": ["PushArguments", "ModelCardArguments"],
}

# Module -> the section of the page on troubleshooting that its messages belong to. The longest wins.
SECTIONS = {
    "syneg.sources": "a-source-cannot-be-read",
    "syneg.reading": "a-source-cannot-be-read",
    "syneg.config": "a-key-or-a-value-is-refused",
    "syneg.errors": "a-key-or-a-value-is-refused",
    "syneg.api": "a-key-or-a-value-is-refused",
    "syneg.commands": "a-key-or-a-value-is-refused",
    "syneg.building": "a-build-stops",
    "syneg.stages": "a-build-stops",
    "syneg.mining": "mining-stops",
    "syneg.encoders": "a-model-cannot-be-loaded",
    "syneg.resources": "a-model-cannot-be-loaded",
    "syneg.writing": "a-strategy-a-gate-or-a-miner-of-your-own-is-refused",
    "syneg.llm": "the-llm-does-not-answer-as-it-should",
    "syneg.llm.journal": "the-journal",
    "syneg.llm.compaction": "the-journal",
    "syneg.llm.recordings": "recordings-do-not-fit",
    "syneg.gating": "a-gate-stops-or-drops-too-much",
    "syneg.rows": "rows-cannot-be-read",
    "syneg.hub": "a-folder-or-the-hub-refuses",
    "syneg.training": "training-stops",
    "syneg.training.columns": "rows-cannot-be-read",
    "syneg.evaluation": "an-evaluation-or-a-comparison-stops",
    "syneg.asking": "the-llm-does-not-answer-as-it-should",
    "syneg.describing": "the-llm-does-not-answer-as-it-should",
    "syneg.planning": "a-build-stops",
    "syneg.inspect": "rows-cannot-be-read",
    "dataset_builders": "a-build-stops",
    "syneg": "anything-else",
}


@dataclass(frozen=True)
class Option:
    """One key of a command.

    Attributes:
        name: The key, without dashes.
        kind: Its type, as the source has it.
        default: Its default as the source has it; None where it must be given.
        text: Its help.
        choices: The values it may have, where they are few.
        as_in: "Group.name" of the option that it shares default, help and choices with.
    """

    name: str
    kind: str
    default: str | None
    text: str
    choices: tuple[str, ...] = ()
    as_in: str = ""


@dataclass(frozen=True)
class Group:
    """A dataclass of options.

    Attributes:
        name: Its name.
        module: Where it stands.
        text: The first paragraph of its docstring.
        bases: The names of its bases.
        options: Its own options; those of bases are theirs.
    """

    name: str
    module: str
    text: str
    bases: tuple[str, ...]
    options: tuple[Option, ...]


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Yields the name and the tree of every module of the package."""
    for package in ("syneg", "dataset_builders"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            yield name, ast.parse(path.read_text(encoding="utf-8"))


def groups() -> dict[str, Group]:
    """Returns every dataclass whose fields have a help, by its name."""
    constants: dict[str, Any] = {}
    trees = list(modules())
    for _, tree in trees:
        for node in tree.body:
            constants |= _constants(node)
    found = {}
    for module, tree in trees:
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.name.endswith("Arguments"):
                options = tuple(_option(item, constants) for item in node.body if _is_option(item))
                text = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
                bases = tuple(ast.unparse(base) for base in node.bases)
                found[node.name] = Group(node.name, module, text, bases, options)
    return found


def _constants(node: ast.stmt) -> dict[str, Any]:
    """Returns what a statement of a module gives names to, where that can be read off it."""
    if isinstance(node, ast.Assign):
        target, value = node.targets[0], node.value
    elif isinstance(node, ast.AnnAssign) and node.value is not None:
        target, value = node.target, node.value
    else:
        return {}
    try:
        found = ast.literal_eval(value)
    except ValueError:
        return {}
    if isinstance(target, ast.Name):
        return {target.id: found}
    if isinstance(target, ast.Tuple):
        return dict(zip(map(ast.unparse, target.elts), found, strict=True))
    return {}


def _is_option(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.AnnAssign)
        and isinstance(node.value, ast.Call)
        and ast.unparse(node.value.func) in ("field", "dataclasses.field", "_as_in")
        and not any(
            key.arg == "init" and isinstance(key.value, ast.Constant) and key.value.value is False
            for key in node.value.keywords
        )
    )


def _option(node: Any, constants: dict[str, Any]) -> Option:
    if ast.unparse(node.value.func) == "_as_in":
        group, name = node.value.args
        return Option(
            node.target.id, ast.unparse(node.annotation), None, "", as_in=f"{group.id}.{name.value}"
        )
    given = {key.arg: key.value for key in node.value.keywords}
    default = None
    if "default" in given:
        default = _text(given["default"], constants)
    elif "default_factory" in given:
        factory = given["default_factory"]
        default = _text(factory.body, constants) if isinstance(factory, ast.Lambda) else "[]"
        if ast.unparse(factory) == "dict":
            default = "{}"
    metadata = given.get("metadata")
    # What is no mapping is that of the field of the same name of a base.
    values = (
        {ast.literal_eval(k): v for k, v in zip(metadata.keys, metadata.values, strict=True) if k}
        if isinstance(metadata, ast.Dict)
        else {}
    )
    text = _text(values["help"], constants) if "help" in values else ""
    choices = _value(values["choices"], constants) if "choices" in values else ()
    several = choices if isinstance(choices, (list, tuple)) else (str(choices),)
    return Option(node.target.id, ast.unparse(node.annotation), default, text, tuple(map(str, several)))


def _value(node: ast.expr, constants: dict[str, Any]) -> Any:
    """Returns what an expression stands for, or its source where that takes running it."""
    if isinstance(node, ast.Name) and node.id in constants:
        return constants[node.id]
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else _formatted(part, constants)
            for part in node.values
            if isinstance(part, (ast.Constant, ast.FormattedValue))
        )
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "list":
        return _value(node.args[0], constants)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "join":
        return str(_value(node.func.value, constants)).join(map(str, _value(node.args[0], constants)))
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)


def _formatted(part: ast.FormattedValue, constants: dict[str, Any]) -> str:
    value = _value(part.value, constants)
    how = _message(part.format_spec) if part.format_spec else ""
    return str(value) if isinstance(value, str) else format(value, how)


def _text(node: ast.expr, constants: dict[str, Any]) -> str:
    value = _value(node, constants)
    return value if isinstance(value, str) else "null" if value is None else str(value)


def group_options(name: str, known: dict[str, Group]) -> list[Option]:
    """Returns a group's options, those of its bases that are ours first."""
    group = known[name]
    options: dict[str, Option] = {}
    for base in group.bases:
        if base in known:
            options |= {option.name: option for option in group_options(base, known)}
    for option in group.options:
        if option.as_in:
            other, _, name = option.as_in.partition(".")
            same = next(one for one in group_options(other, known) if one.name == name)
            option = replace(same, name=option.name, kind=option.kind)
        above = options.get(option.name)
        options[option.name] = option if option.text or above is None else replace(option, text=above.text)
    return list(options.values())


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def commands_page() -> str:
    """Returns the page of every command and every option."""
    known = groups()
    lines = ["# Commands and options", ""]
    lines += [
        "Made of the source when the site is built. Every key can stand in a YAML file (`--config FILE`, "
        "several times; a later wins) or on the command line (`--key value`), which wins over all files. An "
        "unknown key is an error that names the nearest.",
        "",
        "| command | what it does | its keys |",
        "| --- | --- | --- |",
    ]
    tree = ast.parse((ROOT / "syneg" / "cli.py").read_text(encoding="utf-8"))
    table = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "COMMANDS"
    )
    used: list[str] = []
    for command, (_, line) in table.items():
        names = COMMAND_GROUPS[command]
        links = ", ".join(f"[{name}](#{name.lower()})" for name in names)
        lines.append(f"| `syneg {command}` | {_cell(line)} | {links} |")
        used += [name for name in names if name not in used]
    for name in used:
        group = known[name]
        takers = ", ".join(f"`{command}`" for command, names in COMMAND_GROUPS.items() if name in names)
        lines += ["", f"## {name}", "", f"{group.text} Of {takers}.", ""]
        if name == "GuardedArguments":
            lines += [
                "Every key of transformers' `TrainingArguments` (such as `--num_train_epochs`, "
                "`--learning_rate`, `--per_device_train_batch_size`, `--bf16`) is taken too, but for those "
                "that have no effect here, which are refused.",
                "",
            ]
        lines += ["| key | type | default | what it says |", "| --- | --- | --- | --- |"]
        for option in group_options(name, known):
            default = "must be given" if option.default is None else f"`{_cell(option.default)}`"
            choices = (
                f" One of {', '.join(f'`{choice}`' for choice in option.choices)}." if option.choices else ""
            )
            kind = f"`{_cell(option.kind)}`"
            lines.append(f"| `--{option.name}` | {kind} | {default} | {_cell(option.text)}{choices} |")
    return "\n".join(lines) + "\n"


def messages(*calls: str) -> list[tuple[str, str]]:
    """Returns (module, message) for every such call in the source; ``…`` stands for what is filled in."""
    found = []
    for module, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and node.args and ast.unparse(node.func) in calls:
                text = _message(node.args[0])
                if ast.unparse(node.func) == "unknown":
                    text = f"unknown {text} …. Did you mean …? Known: …"
                if re.search(r"[a-z]{2}", text):
                    found.append((module, " ".join(text.split())))
    return found


def _message(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_message(part) if isinstance(part, ast.Constant) else "…" for part in node.values)
    if isinstance(node, ast.BinOp):
        return _message(node.left) + _message(node.right)
    return "…"


def section_of(module: str) -> str:
    """Returns the anchor of the section that a module's messages belong to.

    Raises:
        KeyError: For a module that no section is responsible for.
    """
    parts = module.split(".")
    for end in range(len(parts), 0, -1):
        if ".".join(parts[:end]) in SECTIONS:
            return SECTIONS[".".join(parts[:end])]
    raise KeyError(module)


def messages_page() -> str:
    """Returns the page of every message that ends a command with code 2."""
    lines = ["# Every message", ""]
    lines += [
        "What `syneg` says, with exit code 2, when it is given something that it cannot use; `…` stands for "
        "a name, a number or a place. A message says what is wrong, where, and how to mend it; the "
        "sections link to more. Made of the source when the site is built: search this page for a few "
        "words of what you saw.",
    ]
    by_section: dict[str, dict[str, None]] = defaultdict(dict)
    for module, text in messages("InputError", "NothingWritten", "NonFiniteLoss", "unknown"):
        by_section[section_of(module)][f"`{text.replace('`', chr(39))}`"] = None
    for module, text in messages("logger.warning"):
        shown = re.sub(r"%(\.\d+)?[sdfr]", "…", text)
        by_section[section_of(module)][f"*warning*: `{shown}`"] = None
    for section in dict.fromkeys(SECTIONS.values()):
        if not by_section[section]:
            continue
        title = section.replace("-", " ").replace("llm", "LLM").replace(" hub", " Hub").capitalize()
        lines += ["", f"## {title}", "", f"See [what to do](../troubleshooting.md#{section}).", ""]
        lines += [f"- {text}" for text in sorted(by_section[section])]
    return "\n".join(lines) + "\n"


def notebook_page(path: Path) -> str:
    """Returns a notebook as a page: its texts, and its code in blocks."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    parts = []
    for cell in cells:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    parts.insert(1, f"[Download this notebook]({path.name}). A test runs it as it stands.")
    return "\n\n".join(parts) + "\n"


def repository_page(name: str) -> str:
    """Returns a page of the repository's top, its links to the site's pages and to the repository turned."""
    text = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](./")
    return re.sub(r"\]\((?!https?://|#|\./)([^)]+)\)", rf"]({BLOB}\1)", text)


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that are made."""
    from mkdocs.structure.files import File

    pages = {
        "reference/commands.md": commands_page(),
        "reference/messages.md": messages_page(),
        "results.md": repository_page("RESULTS.md"),
        "changes.md": repository_page("CHANGELOG.md"),
    }
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        pages[f"notebooks/{path.stem}.md"] = notebook_page(path)
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Shows what a block needs that is marked ``<!-- needs: ... -->``."""
    return re.sub(r"<!-- needs: (.+?) -->", r'<p class="needs">Needs \1.</p>', markdown)
