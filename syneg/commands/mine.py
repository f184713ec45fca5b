"""`syneg mine`: pairs of a source to rows with mined negatives."""

from __future__ import annotations

from collections.abc import Sequence

from syneg.config import ConfigParser
from syneg.mining.arguments import MiningArguments
from syneg.sources import SourceArguments


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the subcommand.

    Raises:
        InputError: Where an argument, the source or a miner cannot be used.
    """
    from syneg.building import FolderArguments, mine_parts, new_card, write_folder

    parser = ConfigParser(
        [FolderArguments, SourceArguments, MiningArguments],
        prog="syneg mine",
        description="Mines negatives for the pairs of a source and writes them as a data set folder.",
    )
    output, where, args = parser.parse(argv)
    reports = write_folder(mine_parts(where, args, output.seed), output, new_card(output, where.source))
    print("\n".join([*(line for report in reports.values() for line in report["lines"]), output.output]))
