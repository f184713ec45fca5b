"""The builder of hard-negative data sets: one YAML file defines a data set whole.

    builder = HardNegatives.from_yaml("scifact", source="data/scifact")
    builder.download_and_prepare()
    rows = builder.as_dataset(split="train")

`datasets` runs no loading scripts from the Hub: the builder runs on the maker's machine, and what
`syneg push` publishes is Parquet and a card.
"""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.fingerprint import Hasher

import syneg
from syneg.build import BuildArguments, SplitBuild, StageArguments
from syneg.config import ConfigParser, split_commas
from syneg.errors import unknown
from syneg.gating.arguments import GatingArguments
from syneg.hub.shards import SplitWriter
from syneg.mining.arguments import MiningArguments
from syneg.resources import resource_path
from syneg.rows import DROPPED_FEATURES, FEATURES, iter_triplets, triplet_features
from syneg.sources import SourceArguments, load_source
from syneg.writing.arguments import GenerationArguments
from syneg.writing.strategies import find_strategy

HERE = Path(__file__).parent
PARTS = ("default", "triplet", "dropped")
REPORT = "report.json"
_ROWS_AT_ONCE = 500
_SHARD_BYTES = 500_000_000
# What changes where or how fast the rows are made, and not the rows.
_IMMATERIAL = {
    "name",
    "version",
    "description",
    "data_dir",
    "data_files",
    "licence",
    "languages",
    "source_datasets",
    "journal",
    "mining_cache",
    "mining_device",
    "encode_batch_size",
    "search_block",
    "engine_options",
    "teacher_batch_size",
    "teacher_device",
    "base_urls",
    "concurrency",
    "shard",
    "dry_run",
    "dry_run_prompts",
    "tokens_per_second",
    "audit",
    "audit_encoder",
}


@dataclasses.dataclass
class BuildSeedArguments:
    """The seed of a data set."""

    seed: int = dataclasses.field(default=0, metadata={"help": "Seed of every random choice."})


@dataclasses.dataclass
class HardNegativesConfig(datasets.BuilderConfig, StageArguments):
    """Everything that determines a data set: source, splits, miners, strategy, engine, gates, seed.

    Attributes:
        part: Which configuration the builder prepares: default, triplet or dropped.
    """

    part: str = "default"

    def __post_init__(self) -> None:
        datasets.BuilderConfig.__post_init__(self)
        StageArguments.__post_init__(self)
        if self.part not in PARTS:
            raise unknown("part", self.part, PARTS)

    def create_config_id(
        self, config_kwargs: dict[str, Any], custom_features: datasets.Features | None = None
    ) -> str:
        """Returns the name and a hash of all that matters, so that a change is never served stale."""
        return f"{self.name}-{self.part}-{self.fingerprint()}"

    def fingerprint(self) -> str:
        """Returns a hash of the arguments, the source's files, the prompt's version and the code's."""
        fields = dataclasses.asdict(self)
        material = {key: fields[key] for key in sorted(fields.keys() - _IMMATERIAL)}
        stamps = [
            _stamp(self.source),
            _stamp(self.recordings and resource_path(self.recordings)),
            find_strategy(self.strategy).version,
        ]
        return str(Hasher.hash([material, stamps, syneg.__version__]))


class HardNegatives(datasets.ArrowBasedBuilder):
    """Builds rows with negatives: mines, generates, gates.

    Beside the Arrow files of configuration `default`, its cache folder holds what was dropped and
    the stages' report, from which the other configurations and the card are made.
    """

    BUILDER_CONFIG_CLASS = HardNegativesConfig
    BUILDER_CONFIGS: ClassVar[list[datasets.BuilderConfig]] = []
    config: HardNegativesConfig

    @classmethod
    def from_yaml(
        cls, config: str | Path, cache_dir: str | None = None, part: str = "default", **overrides: Any
    ) -> HardNegatives:
        """Makes a builder from a YAML file.

        Args:
            config: A YAML file, or the name of one that is shipped, such as "scifact".
            cache_dir: Where Arrow files go; that of `datasets` where it is None.
            part: The configuration to prepare.
            **overrides: Keys that replace those of the file.

        Raises:
            InputError: For an unknown name or key, or a value of the wrong type.
        """
        argv = [f"--{key}={json.dumps(v) if isinstance(v, dict) else v}" for key, v in overrides.items()]
        return cls.from_arguments(["--config", str(config_file(config)), *argv], cache_dir, part)

    @classmethod
    def from_arguments(
        cls, argv: list[str], cache_dir: str | None = None, part: str = "default"
    ) -> HardNegatives:
        """Makes a builder from a command line with ``--config`` and ``--key value``."""
        return cls.from_dataclasses(*argument_parser().parse(argv), cache_dir=cache_dir, part=part)

    @classmethod
    def from_dataclasses(
        cls, *arguments: Any, cache_dir: str | None = None, part: str = "default"
    ) -> HardNegatives:
        """Makes a builder from the stages' dataclasses."""
        fields: dict[str, Any] = {"part": part}
        for stage in arguments:
            fields |= dataclasses.asdict(stage)
        return cls(config_name=fields.pop("name"), cache_dir=cache_dir, **fields)

    @property
    def journal(self) -> Path:
        """The journal's folder. It does not depend on the gates, so changing one asks for nothing."""
        if self.config.journal:
            return Path(self.config.journal)
        return Path(self._cache_dir_root) / "syneg-journals" / self.config.name

    def report(self) -> dict[str, Any]:
        """Returns, for each split, the stages' reports, and their lines for people."""
        base = self._default_part()
        return json.loads((Path(base._output_dir) / REPORT).read_text(encoding="utf-8"))

    def dropped_files(self, split: str) -> list[Path]:
        """Returns the Parquet files of what was dropped; the builder is prepared if need be."""
        return sorted((Path(self._default_part()._output_dir) / "dropped").glob(f"{split}-*.parquet"))

    def _info(self) -> datasets.DatasetInfo:
        features = {
            "default": FEATURES,
            "triplet": triplet_features(self.config.triplet_negatives),
            "dropped": DROPPED_FEATURES,
        }
        return datasets.DatasetInfo(features=features[self.config.part], license=self.config.licence or "")

    def _default_part(self) -> HardNegatives:
        """Returns the builder of part "default", prepared."""
        if self.config.part == "default":
            base = self
        else:
            fields = {f.name: getattr(self.config, f.name) for f in dataclasses.fields(self.config)}
            name = fields.pop("name")
            base = type(self)(
                config_name=name, cache_dir=self._cache_dir_root, **fields | {"part": "default"}
            )
            base.config.journal = str(self.journal)
        if not (Path(base._output_dir) / REPORT).is_file():
            base.download_and_prepare()
        return base

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        splits = split_commas(self.config.split)
        if self.config.part != "default":
            base = self._default_part()
            return [datasets.SplitGenerator(name=s, gen_kwargs={"build": base, "split": s}) for s in splits]
        source = load_source(self.config.source, self.config.unknown_documents)
        builds = {split: SplitBuild(source.pairs(split), self.config, self.journal) for split in splits}
        for split, build in builds.items():
            skipped = source.skipped.get(split, 0)
            build.report["source"] = {
                "pairs": len(build.pairs),
                "documents": len(source.corpus),
                "judgements_skipped": skipped,
            }
            build.lines = [
                f"{split} of {source.name}: {len(build.pairs):,} pairs, {len(source.corpus):,} documents"
                + (f", {skipped:,} judgements of unknown documents or queries left out" if skipped else ""),
                *source.notes,
            ]
            build.prepare()
        return [
            datasets.SplitGenerator(name=split, gen_kwargs={"build": build, "split": split})
            for split, build in builds.items()
        ]

    def _generate_tables(
        self, build: SplitBuild | HardNegatives, split: str
    ) -> Iterator[tuple[datasets.builder.Key, pa.Table]]:
        if isinstance(build, SplitBuild):
            tables = self._default_tables(build, split)
        elif self.config.part == "dropped":
            tables = self._dropped_tables(build, split)
        else:
            tables = self._triplet_tables(build, split)
        number = 0
        for number, table in enumerate(tables, start=1):
            yield datasets.builder.Key(0, number), table
        if not number:
            yield datasets.builder.Key(0, 0), self.info.features.arrow_schema.empty_table()

    def _default_tables(self, build: SplitBuild, split: str) -> Iterator[pa.Table]:
        folder = Path(self._output_dir)
        writer = SplitWriter(folder, "dropped", split, DROPPED_FEATURES, _SHARD_BYTES)
        rows: list[Any] = []
        for row, dropped in build.rows():
            rows.append(row)
            for negative in dropped:
                writer.add(negative)
            if len(rows) == _ROWS_AT_ONCE:
                yield _table(rows, FEATURES)
                rows = []
        if rows:
            yield _table(rows, FEATURES)
        writer.close()
        path = folder / REPORT
        report = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        report[split] = {**build.report, "lines": build.lines}
        path.write_text(json.dumps(report, ensure_ascii=False, indent=1), encoding="utf-8")

    def _dropped_tables(self, base: HardNegatives, split: str) -> Iterator[pa.Table]:
        for path in base.dropped_files(split):
            yield from (
                pa.Table.from_batches([batch]).cast(DROPPED_FEATURES.arrow_schema)
                for batch in pq.ParquetFile(path).iter_batches(_ROWS_AT_ONCE)
            )

    def _triplet_tables(self, base: HardNegatives, split: str) -> Iterator[pa.Table]:
        rows = base.as_dataset(split=split)
        features = self.info.features
        batch: list[dict[str, str]] = []
        for triplet in iter_triplets(rows, self.config.triplet_negatives):
            batch.append(triplet)
            if len(batch) == _ROWS_AT_ONCE:
                yield _table(batch, features)
                batch = []
        if batch:
            yield _table(batch, features)


def argument_parser(*further: Any, **kwargs: Any) -> ConfigParser:
    """Returns the parser of a data set's arguments, with further dataclasses at its end."""
    stages = [BuildArguments, SourceArguments, MiningArguments, GenerationArguments, GatingArguments]
    return ConfigParser([*stages, *(further or [BuildSeedArguments])], **kwargs)


def config_file(config: str | Path) -> Path:
    """Returns the path of a YAML file, given as such or as the name of one that is shipped.

    Raises:
        InputError: Where there is neither; names the nearest shipped one.
    """
    path = Path(config)
    if path.is_file():
        return path
    shipped = {file.stem: file for file in sorted(HERE.glob("*.yaml"))}
    if str(config) in shipped:
        return shipped[str(config)]
    raise unknown("data set configuration", str(config), shipped)


def _table(rows: list[Any], features: datasets.Features) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=features.arrow_schema)


def _stamp(spec: str | None) -> Any:
    """Returns what tells one content of a source or recording from another."""
    if spec is None:
        return None
    path = Path(spec)
    if path.exists():
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        return [(str(p.relative_to(path)), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    if spec == "pydocs":
        return [
            platform.python_version(),
            *(_version(name) for name in ("numpy", "scipy", "pandas", "torch")),
        ]
    return spec


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
