"""`syneg mine`: pairs of a source to rows with mined negatives."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from syneg.config import ConfigParser
from syneg.mining.arguments import MiningArguments
from syneg.rows import mined_source
from syneg.sources import SourceArguments

_BASICS = ("source", "split", "miners", "encoder", "mined_per_miner", "relative_margin", "seed", "overwrite")
"""What ``--help`` shows; ``--help all`` shows all."""


def main(argv: Sequence[str] | None = None, says_next: bool = True) -> None:
    """Runs the subcommand.

    Args:
        argv: The command line after ``mine``.
        says_next: Whether it ends with what to run next.

    Raises:
        InputError: Where an argument, the source or a miner cannot be used.
    """
    from syneg.building import FolderArguments, mine_parts, new_card, write_folder
    from syneg.commands.endings import look_and_train, outcome, told

    parser = ConfigParser(
        [FolderArguments, SourceArguments, MiningArguments],
        basics=_BASICS,
        prog="syneg mine",
        description="Mines negatives for the pairs of a source and writes them as a data set folder.",
    )
    output, where, args = parser.parse(argv)
    reports = write_folder(mine_parts(where, args, output.seed), output, new_card(output, where.source))
    print("\n".join([*told(reports), outcome(output.output, reports)]))
    if not says_next:
        return
    # What was mined is what training gains by, so it comes before what an LLM may add.
    mined = mined_source([name for name in args.miners if name.isidentifier()])
    mixture = "all" if mined is None else f"{mined}=3"
    print("\n".join(look_and_train(output.output, where.split, args.encoder, mixture)))
    named = ("--split", where.split) if where.split != "train" else ()
    written = ("--output", f"{Path(output.output)}-written")
    print(f"  or: {shlex.join(('syneg', 'generate', '--dataset', output.output, *named, *written))}")
