"""`syneg gate`: rows to rows that passed the gates, without generating anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

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
    from syneg.building import FolderArguments, gate_parts, new_card, write_folder

    parser = ConfigParser(
        [FolderArguments, GateRowsArguments, GatingArguments, GenerationArguments],
        prog="syneg gate",
        description="Sends the rows of a data set through the gates and writes a new data set folder.",
    )
    output, given, args, generation = parser.parse(argv)
    if Path(given.dataset).absolute() == Path(output.output).absolute():
        raise InputError(f"--output is the folder that is read ({output.output}); give another.")
    journal = Path(generation.journal or f"{Path(output.output)}-journal")
    parts = gate_parts(given.dataset, given.split, args, generation, journal, output.seed)
    card = new_card(output, given.dataset, dataset=given.dataset)
    reports = write_folder(parts, output, card, audit=args)
    print("\n".join([*(line for report in reports.values() for line in report["lines"]), output.output]))
