"""`syneg generate`: pairs to rows with negatives written by an LLM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from syneg.config import ConfigParser
from syneg.sources import SourceArguments
from syneg.writing.arguments import GenerationArguments


@dataclass
class RowsArguments:
    """A data set that is read."""

    dataset: str | None = field(
        default=None, metadata={"help": "Rows to start from: a folder that syneg wrote, or a Hub id."}
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the subcommand.

    Raises:
        InputError: Where an argument, the source or the engine cannot be used.
    """
    from syneg.building import FolderArguments, generate_parts, new_card, write_folder
    from syneg.hub.folders import check_names, check_output
    from syneg.llm.estimate import estimate
    from syneg.llm.generation import SUMMARY
    from syneg.llm.journal import Journal
    from syneg.writing.stage import Writing

    parser = ConfigParser(
        [FolderArguments, RowsArguments, SourceArguments, GenerationArguments],
        prog="syneg generate",
        description="Asks an LLM for hard negatives for the pairs of a source, or of a data set's rows, "
        "and writes them as a data set folder. Run it again to go on where it stopped.",
    )
    output, given, where, args = parser.parse(argv)
    check_output(output.output, output.overwrite)
    with Journal(args.journal or f"{output.output}-journal") as journal:
        parts = generate_parts(given.dataset, where, args, journal, output.seed)
        check_names(output.output, [part.split for part in parts])
        if args.dry_run:
            for part in parts:
                writing = part.stages[0]
                assert isinstance(writing, Writing)
                print("\n".join([*part.notes, *estimate(writing.generation_of(part.pairs)).lines()]))
            return
        if args.shard:
            # The other machines' completions are elsewhere; a run without --shard over all journals writes.
            for part in parts:
                part.prepare()
                print("\n".join(part.report()["lines"]))
            print(f"shard {args.shard} is in {journal.folder}")
            return
        card = new_card(output, where.source, dataset=given.dataset)
        reports = write_folder(parts, output, card)
    lines = [line for report in reports.values() for line in report["lines"]]
    print("\n".join([*lines, output.output, str(Path(journal.folder) / SUMMARY)]))
