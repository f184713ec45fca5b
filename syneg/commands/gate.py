"""`syneg gate`: rows to rows that passed the gates, without generating anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from syneg.commands.common import FolderArguments, counted, read_dropped, read_rows, write_folder
from syneg.config import ConfigParser
from syneg.errors import InputError
from syneg.gating.arguments import GatingArguments
from syneg.writing.arguments import GenerationArguments


@dataclass
class GateRowsArguments:
    """The rows that are gated."""

    dataset: str = field(metadata={"help": "Rows to gate: a folder that syneg wrote, or a Hub id."})
    split: str = field(default="train", metadata={"help": "The data set's split."})


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the subcommand.

    Raises:
        InputError: Where an argument, the rows or a gate cannot be used.
    """
    parser = ConfigParser(
        [FolderArguments, GateRowsArguments, GatingArguments, GenerationArguments],
        prog="syneg gate",
        description="Sends the rows of a data set through the gates and writes a new data set folder.",
    )
    output, given, args, generation = parser.parse(argv)

    from syneg.gating.apply import apply_gates
    from syneg.hub.cards import DatasetCardInfo
    from syneg.hub.folders import check_replaceable

    if Path(given.dataset).absolute() == Path(output.output).absolute():
        raise InputError(f"--output is the folder that is read ({output.output}); give another.")
    check_replaceable(Path(output.output), output.overwrite)
    rows = read_rows(given.dataset, given.split)
    before = read_dropped(given.dataset, given.split)
    journal = generation.journal or f"{Path(output.output)}-journal"
    gating = apply_gates(rows, args, output.seed, generation=generation, journal=Path(journal) / "judge")

    def gated() -> Iterator[Any]:
        for row, dropped in gating:
            yield row, before.pop((row["query_id"], row["positive_id"]), []) + dropped

    tolls: dict[str, Any] = {}
    card = DatasetCardInfo(
        name=Path(output.output).absolute().name,
        repo_id=output.repo_id,
        source=given.dataset,
        gating=tolls,
        seeds={"seed": output.seed},
    )

    def counting() -> Iterator[Any]:
        yield from counted(gated(), "Gating", len(rows))
        tolls[given.split] = gating.tolls.to_dict()

    folder = write_folder(output, given.split, counting(), card)
    lines = gating.tolls.lines()
    if args.audit:
        from syneg.gating.audit import audit, encoder_for_audit

        left = read_rows(str(folder), given.split)
        lines += audit(left, encoder_for_audit(args.audit_encoder), output.seed).lines()
    print("\n".join([*lines, str(folder)]))
