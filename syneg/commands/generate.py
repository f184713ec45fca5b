"""`syneg generate`: pairs to rows with negatives written by an LLM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from syneg.config import ConfigParser
from syneg.sources import SourceArguments
from syneg.writing.arguments import GenerationArguments

_BASICS = (
    *("dataset", "source", "split", "engine", "llm", "base_urls", "recordings", "strategy", "query_kind"),
    *("document_kind", "slots", "mirror", "journal", "shard", "dry_run", "seed", "overwrite"),
)
"""What ``--help`` shows; ``--help all`` shows all."""


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
    from syneg.building import FolderArguments, check_parts, generate_parts, new_card, write_folder
    from syneg.commands.endings import next_steps, outcome, shard_ends, told
    from syneg.hub.folders import check_names, check_output
    from syneg.llm.estimate import estimate
    from syneg.llm.generation import SUMMARY
    from syneg.llm.journal import Journal
    from syneg.planning import by_llm, problems, prompt_lines, table
    from syneg.writing.stage import Writing

    parser = ConfigParser(
        [FolderArguments, RowsArguments, SourceArguments, GenerationArguments],
        basics=_BASICS,
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
                found = estimate(writing.generation_of(part.pairs))
                step = by_llm("generate", f"{found.pairs:,} pairs", found, found.open_requests)
                print(*part.notes, *found.lines(), *prompt_lines(found.example), sep="\n")
                print(*table([step], args.gpu_price), sep="\n")
            for line in problems(parts[0].stages):
                print(line)
            return
        if args.shard:
            # The other machines' completions are elsewhere; a run without --shard over all journals writes.
            check_parts(parts)
            for part in parts:
                part.prepare()
                print("\n".join(part.report()["lines"]))
            print("\n".join(shard_ends(args.shard, journal.folder)))
            return
        card = new_card(output, where.source, dataset=given.dataset)
        reports = write_folder(parts, output, card)
    print("\n".join([*told(reports), str(Path(journal.folder) / SUMMARY), outcome(output.output, reports)]))
    named = ("--split", where.split) if where.split != "train" else ()
    gated = f"{Path(output.output)}-gated"
    print(*next_steps(("syneg", "gate", "--dataset", output.output, *named, "--output", gated)), sep="\n")
