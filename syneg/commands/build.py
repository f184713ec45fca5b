"""`syneg build`: one YAML file to a Hub-ready data set folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from syneg.commands.common import FolderArguments
from syneg.config import parse_mapping, split_commas
from syneg.errors import InputError

if TYPE_CHECKING:
    from dataset_builders.hardneg import HardNegatives


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the subcommand.

    Raises:
        InputError: Where an argument or what it names cannot be used.
    """
    from dataset_builders.hardneg import BuildSeedArguments, HardNegatives, argument_parser, config_file

    parser = argument_parser(
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
    if stages[3].journal is None:
        stages[3].journal = f"{output.output}-journal"
    if stages[3].dry_run:
        _dry_run(stages, output.seed)
        return
    builder = HardNegatives.from_dataclasses(*stages, BuildSeedArguments(output.seed))
    folder = build_folder(builder, output)
    for report in builder.report().values():
        print("\n".join(report["lines"]))
    print(folder)


def _dry_run(stages: Sequence[Any], seed: int) -> None:
    """Prints what the generation of each split would cost; nothing is mined or asked for."""
    from syneg.llm.estimate import estimate_generation
    from syneg.sources import load_source

    where, generation = stages[1], stages[3]
    source = load_source(where.source, where.unknown_documents)
    for split in split_commas(where.split):
        print(f"{split} of {source.name}:")
        estimate = estimate_generation(source.pairs(split), generation, generation.journal, seed)
        print("\n".join(estimate.lines()))


def build_folder(builder: HardNegatives, output: FolderArguments) -> Path:
    """Prepares a builder and writes its configurations as one Hub-ready folder.

    Args:
        builder: A builder of part "default".
        output: Where the folder goes.

    Returns:
        The folder.

    Raises:
        InputError: Where a stage says so, or the folder is there already.
    """
    from datasets.exceptions import DatasetGenerationError

    from syneg.hub.folders import FolderWriter, check_replaceable
    from syneg.rows import DROPPED_FEATURES, FEATURES, iter_triplets, triplet_features

    check_replaceable(Path(output.output), output.overwrite)
    try:
        builder.download_and_prepare()
    except DatasetGenerationError as error:
        raise (error.__cause__ if isinstance(error.__cause__, InputError) else error) from None
    count = builder.config.triplet_negatives
    with FolderWriter(output.output, overwrite=output.overwrite) as folder:
        for split, rows in builder.as_dataset().items():
            folder.write("default", split, rows, FEATURES)
            folder.write("triplet", split, iter_triplets(rows, count), triplet_features(count))
            folder.write("dropped", split, _parquet_rows(builder.dropped_files(split)), DROPPED_FEATURES)
        folder.write_card(card_info(builder, output.repo_id))
    return Path(output.output)


def card_info(builder: HardNegatives, repo_id: str | None = None) -> Any:
    """Returns what the card says of a data set that `builder` made."""
    from syneg.hub.cards import DatasetCardInfo
    from syneg.writing.planning import strategy_of

    config, report = builder.config, builder.report()
    strategy = strategy_of(config)
    return DatasetCardInfo(
        name=config.name,
        repo_id=repo_id,
        version=str(config.version),
        # Of a folder its name alone: where it lies on the maker's machine is nobody's business.
        source=Path(config.source).name if Path(config.source).is_dir() else config.source,
        source_datasets=config.source_datasets,
        licence=config.licence,
        languages=config.languages,
        mining={split: part["mining"] for split, part in report.items()},
        strategy=config.strategy,
        prompt_version=strategy.version,
        prompt=strategy.shared(config.negatives_per_request),
        attributes=parse_mapping(config.attributes, "attributes") if config.with_attributes else {},
        engine=config.engine,
        # What was replayed was not written by the model that the arguments would have asked.
        llm=None if config.engine == "recorded" else config.llm,
        # Without the figures of the last run, which differ between equal builds.
        generation={split: _without_run(part["generation"]) for split, part in report.items()},
        gating={split: part["gating"] for split, part in report.items()},
        seeds={"seed": config.seed},
        limits=[
            line
            for split, part in report.items()
            if (line := _shortage(split, part["rows"], config.pairs_without_negatives))
        ],
    )


def _without_run(generation: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in generation.items() if key != "run"}


def _shortage(split: str, counts: dict[str, int], what: str) -> str | None:
    if not counts["without_negatives"]:
        return None
    fate = "kept without any" if what == "keep" else "left out"
    return f"{counts['without_negatives']} pairs of {split} ended without negatives and are {fate}."


def _parquet_rows(files: Sequence[Path]) -> Any:
    import pyarrow.parquet as pq

    for path in files:
        for batch in pq.ParquetFile(path).iter_batches(500):
            yield from batch.to_pylist()
