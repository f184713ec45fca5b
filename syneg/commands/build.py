"""`syneg build`: one YAML file to a Hub-ready data set folder."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the subcommand.

    Raises:
        InputError: Where an argument or what it names cannot be used.
    """
    from syneg.building import (
        FolderArguments,
        build,
        config_file,
        data_set_parser,
        estimate_parts,
        stage_arguments,
    )

    parser = data_set_parser(
        FolderArguments,
        prog="syneg build",
        description="Mines, generates and gates by one YAML file (or the name of one that is shipped, as in "
        "--config scifact) and writes a Hub-ready data set folder.",
    )
    words = list(argv or [])
    if "--config" in words[:-1]:
        at = words.index("--config") + 1
        words[at] = str(config_file(words[at]))
    *stages, output = parser.parse(words)
    args = stage_arguments(*stages, seed=output.seed)
    if args.journal is None:
        args.journal = f"{output.output}-journal"
    if args.dry_run:
        print("\n".join(estimate_parts(args, args.journal)))
        return
    reports = build(args, output)
    print("\n".join([*(line for report in reports.values() for line in report["lines"]), output.output]))
