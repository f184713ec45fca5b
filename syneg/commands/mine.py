"""`syneg mine`: pairs of a source to rows with mined negatives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from syneg.commands.common import FolderArguments, counted, write_folder
from syneg.config import ConfigParser
from syneg.mining.arguments import MiningArguments
from syneg.sources import SourceArguments, load_source


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the subcommand.

    Raises:
        InputError: Where an argument, the source or a miner cannot be used.
    """
    parser = ConfigParser(
        [FolderArguments, SourceArguments, MiningArguments],
        prog="syneg mine",
        description="Mines negatives for the pairs of a source and writes them as a data set folder.",
    )
    output, where, args = parser.parse(argv)

    from syneg.build import assemble_rows
    from syneg.hub.cards import DatasetCardInfo
    from syneg.hub.folders import check_replaceable
    from syneg.mining.mine import iter_mined, mine

    check_replaceable(Path(output.output), output.overwrite)
    source = load_source(where.source, where.unknown_documents)
    mined = mine(source.pairs(where.split), args, output.seed)
    rows = ((row, dropped) for row, dropped, _ in assemble_rows(mined.pairs, iter_mined(mined)))
    card = DatasetCardInfo(
        name=Path(output.output).absolute().name,
        repo_id=output.repo_id,
        source=where.source,
        mining={where.split: mined.report.to_dict()},
        seeds={"seed": output.seed},
    )
    folder = write_folder(output, where.split, counted(rows, "Writing", len(mined)), card)
    print("\n".join([*source.notes, *mined.report.lines(), str(folder)]))
