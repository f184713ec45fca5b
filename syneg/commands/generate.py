"""`syneg generate`: pairs to rows with negatives written by an LLM."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from syneg.commands.common import FolderArguments, RowsArguments, counted, read_rows, write_folder
from syneg.config import ConfigParser
from syneg.sources import Pair, SourceArguments, load_source
from syneg.writing.arguments import GenerationArguments


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the subcommand.

    Raises:
        InputError: Where an argument, the source or the engine cannot be used.
    """
    parser = ConfigParser(
        [FolderArguments, RowsArguments, SourceArguments, GenerationArguments],
        prog="syneg generate",
        description="Asks an LLM for hard negatives for the pairs of a source, or of a data set's rows, "
        "and writes them as a data set folder. Run it again to go on where it stopped.",
    )
    output, given, where, args = parser.parse(argv)

    from syneg.hub.cards import DatasetCardInfo
    from syneg.hub.folders import check_replaceable
    from syneg.llm.estimate import estimate_generation
    from syneg.writing.generate import SUMMARY, iter_synthetic, run_generation
    from syneg.writing.strategies import find_strategy

    check_replaceable(Path(output.output), output.overwrite)
    rows, mined = None, None
    if given.dataset:
        rows = read_rows(given.dataset, where.split)
        pairs: Any = _RowPairs(rows)
        if find_strategy(args.strategy).wants_mined:
            mined = pairs.mined
    else:
        pairs = load_source(where.source, where.unknown_documents).pairs(where.split)
    journal = Path(args.journal or f"{output.output}-journal")
    if args.dry_run:
        print("\n".join(estimate_generation(pairs, args, journal, output.seed, mined=mined).lines()))
        return
    report = run_generation(pairs, args, journal, output.seed, mined=mined)
    if args.shard:
        # The other machines' completions are elsewhere; a run without --shard over all journals writes.
        print("\n".join([*report.lines(), f"shard {args.shard} is in {journal}"]))
        return
    card = DatasetCardInfo(
        name=Path(output.output).absolute().name,
        repo_id=output.repo_id,
        source=given.dataset or where.source,
        generation={where.split: report.to_dict()},
        attributes=dict(args.attributes),
        engine=args.engine,
        llm=args.llm,
        strategy=args.strategy,
        seeds={"seed": output.seed},
    )
    synthetic = iter_synthetic(pairs, args, journal, output.seed, mined=mined)
    joined = _joined(pairs, synthetic, rows, args.mirror)
    folder = write_folder(output, where.split, counted(joined, "Writing", len(pairs)), card)
    print("\n".join([*report.lines(), str(folder), str(journal / SUMMARY)]))


def _joined(pairs: Iterable[Pair], synthetic: Iterable[Any], rows: Any, mirror: bool) -> Iterator[Any]:
    from syneg.build import assemble_rows, mirror_rows

    there = (row["negatives"] for row in rows) if rows is not None else None
    for row, dropped, mirrors in assemble_rows(pairs, there, synthetic):
        yield row, dropped
        if mirror:
            yield from ((mirrored, []) for mirrored in mirror_rows(row, mirrors))


class _RowPairs:
    """The pairs of rows, read as they are asked for."""

    def __init__(self, rows: Any) -> None:
        self._rows = rows
        self._at: dict[tuple[str, str], int] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Pair]:
        columns = ["query_id", "query", "positive_id", "positive"]
        for row in self._rows.select_columns(columns):
            yield Pair(**row)

    def mined(self, pair: Pair) -> list[str]:
        """Returns the texts of a pair's mined negatives, best first."""
        from syneg.rows import SYNTHETIC

        if not self._at:
            identities = zip(self._rows["query_id"][:], self._rows["positive_id"][:], strict=True)
            self._at = {identity: i for i, identity in enumerate(identities)}
        row = self._rows[self._at[pair.query_id, pair.positive_id]]
        return [negative["text"] for negative in row["negatives"] if negative["source"] != SYNTHETIC]
