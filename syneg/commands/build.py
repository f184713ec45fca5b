"""`syneg build`: one YAML file to a Hub-ready data set folder."""

from __future__ import annotations

from collections.abc import Sequence

_BASICS = (
    *("name", "source", "split", "miners", "encoder", "mined_per_miner", "engine", "llm", "base_urls"),
    *("strategy", "query_kind", "document_kind", "gates", "teacher", "dry_run", "seed", "overwrite"),
)
"""What ``--help`` shows; ``--help all`` shows all."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the subcommand.

    Raises:
        InputError: Where an argument or what it names cannot be used.
    """
    from syneg.building import (
        FolderArguments,
        ShippedConfigParser,
        ask_shard,
        build_folder,
        data_set_parser,
        estimate_parts,
        stage_arguments,
        with_config_file,
    )
    from syneg.commands.endings import look_and_train, outcome, shard_ends, told

    parser = data_set_parser(
        FolderArguments,
        kind=ShippedConfigParser,
        basics=_BASICS,
        prog="syneg build",
        description="Mines, generates and gates by one YAML file (which `syneg init` writes; or the name of "
        "one that is shipped, as in --config scifact) and writes a Hub-ready data set folder.",
    )
    *stages, output = parser.parse(with_config_file(argv))
    args = stage_arguments(*stages, seed=output.seed)
    if args.journal is None:
        args.journal = f"{output.output}-journal"
    for note in getattr(parser, "notes", ()):
        print(note)
    if args.dry_run:
        print("\n".join(estimate_parts(args, args.journal)))
        return
    if args.shard:
        print("\n".join([*ask_shard(args), *shard_ends(args.shard, args.journal)]))
        return
    reports = build_folder(args, output)
    print("\n".join([*told(reports), outcome(output.output, reports)]))
    print("\n".join(look_and_train(output.output, args.split, args.encoder)))
