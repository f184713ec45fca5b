"""`syneg pilot`: from a source and an LLM to a decision, on a sample."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

_BASICS = (
    *(
        "source",
        "split",
        "miners",
        "encoder",
        "engine",
        "llm",
        "base_urls",
        "recordings",
        "strategy",
        "gates",
    ),
    *("model", "pairs", "documents", "written_documents", "query_recordings", "mixture", "training"),
    *("seeds", "max_length"),
    *("dry_run", "tokens_per_second", "seed"),
)
"""What ``--help`` shows; ``--help all`` shows all."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the subcommand.

    Raises:
        InputError: Where an argument or what it names cannot be used.
    """
    from syneg.building import ShippedConfigParser, data_set_parser, stage_arguments, with_config_file
    from syneg.evaluation.arguments import EncodingArguments
    from syneg.evaluation.pilot import RECORD, PilotArguments, budget, pilot

    parser = data_set_parser(
        PilotArguments,
        EncodingArguments,
        kind=ShippedConfigParser,
        basics=_BASICS,
        prog="syneg pilot",
        description="Takes a sample of a source's pairs, has negatives written for half of them, and queries "
        "for other documents, trains and evaluates with and without, and says whether they pay, what all "
        "would cost and how to do it. Takes every key of syneg build. Run it again to go on where it "
        "stopped; with --dry_run it says what it would cost itself.",
    )
    *data_set, args, encoding = parser.parse(with_config_file(argv))
    stages = stage_arguments(*data_set, seed=args.seed)
    if stages.journal is None:
        stages.journal = f"{args.output}-journal"
    for note in getattr(parser, "notes", ()):
        print(note)
    if stages.dry_run:
        print("\n".join(budget(args, stages)))
        return
    print("\n".join(["", *pilot(args, stages, encoding).lines(), "", str(Path(args.output) / RECORD)]))
