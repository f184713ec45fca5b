"""`syneg`: one thin subcommand a stage. What is heavy is imported by the subcommand that needs it."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from syneg import __version__
from syneg.errors import InputError, unknown

# name -> (module, one line of help). Each module has a function main(argv).
COMMANDS = {
    "demo": ("syneg.commands.demo", "the whole job on an embedded source, without a hub or a GPU"),
    "init": ("syneg.commands.init", "a source -> a commented YAML file for it"),
    "ask": ("syneg.commands.ask", "documents -> a source whose queries an LLM wrote"),
    "tune": ("syneg.commands.tune", "documents -> written queries -> a better retriever, before and after"),
    "mine": ("syneg.commands.mine", "pairs of a source -> rows with mined negatives"),
    "generate": ("syneg.commands.generate", "pairs -> rows with negatives written by an LLM"),
    "compact": ("syneg.commands.compact", "a journal's files -> one Parquet file"),
    "gate": ("syneg.commands.gate", "rows -> rows that passed the gates, and what was dropped"),
    "build": ("syneg.commands.build", "mine, generate and gate by one YAML file -> a Hub-ready data set"),
    "pilot": ("syneg.commands.pilot", "a sample of a source -> does it pay there, and what would all cost"),
    "inspect": ("syneg.commands.inspect", "a data set -> a page to look at it"),
    "train": ("syneg.commands.train", "rows -> a trained retriever"),
    "evaluate": ("syneg.commands.evaluate", "a retriever on a source or an MTEB task -> MTEB result files"),
    "compare": ("syneg.commands.compare", "arms and seeds by one YAML file -> a table with a spread"),
    "report": ("syneg.commands.report", "a comparison -> one HTML page and a Markdown table"),
    "push": ("syneg.commands.push", "a data set or a model -> the Hub"),
}


def usage() -> str:
    """Returns the text of ``syneg --help``."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name.ljust(width)}  {line}" for name, (_, line) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: syneg COMMAND [--config FILE.yaml] [--key value ...]",
            "",
            "Hard negatives for dense retrievers: written by a local LLM, mixed with mined ones.",
            "",
            *lines,
            "",
            "syneg COMMAND --help shows the keys that most need, --help all every one. A key on the command",
            "line wins over the file.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand.

    Args:
        argv: The command line without the program's name; `sys.argv` where it is None.

    Returns:
        The exit code: 0; 2 after bad input, told in one line on stderr; 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if words else 2
    if words[0] in ("-V", "--version"):
        print(f"syneg {__version__}")
        return 0
    # A launch prints a line once, not once a process.
    speaks = int(os.environ.get("RANK", 0)) == 0
    try:
        if words[0] not in COMMANDS:
            raise unknown("command", words[0], COMMANDS)
        module = importlib.import_module(COMMANDS[words[0]][0])
        code = int(module.main(words[1:]) or 0)
        _leave_group()
        return code
    except InputError as error:
        if speaks:
            print(f"syneg: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if speaks:
            print(
                "syneg: interrupted; what is finished stays, run the same command to go on", file=sys.stderr
            )
        return 130


def _leave_group() -> None:
    """Leaves the group of a launch's processes: one that ends within it aborts now and then."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
