"""The builder of hard-negative data sets: one YAML file defines a data set whole.

    builder = HardNegatives.from_yaml("scifact", source="data/scifact")
    builder.download_and_prepare()
    rows = builder.as_dataset(split="train")

It is the face that `syneg.building` has in `datasets`: the same stages in one stream, into Arrow files in the
cache of `datasets`, where `syneg build` writes a folder for the Hub. `datasets` runs no loading scripts from
the Hub: the builder runs on the maker's machine, and what `syneg push` publishes is Parquet and a card.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import datasets
import pyarrow as pa
from datasets.fingerprint import Hasher

import syneg
from syneg.building import (
    Part,
    StageArguments,
    build_parts,
    check_parts,
    config_file,
    data_set_parser,
    shipped_configs,
)
from syneg.errors import unknown
from syneg.llm.journal import Journal
from syneg.resources import PACKAGE_PREFIX, is_class_spec, resource_path
from syneg.rows import DROPPED_FEATURES, FEATURES, iter_triplets, triplet_features
from syneg.stages import finished_rows

HERE = shipped_configs()
PARTS = ("default", "triplet", "dropped")
REPORT = "report.json"
_ROWS_AT_ONCE = 500
_ROOMS = ("sources", "llm", "writing", "mining", "gating")
"""The packages whose code determines rows, beside the modules at the top."""

# What changes where or how fast the rows are made, and not the rows.
_IMMATERIAL = {
    "name",
    "version",
    "description",
    "data_dir",
    "data_files",
    "licence",
    "attribution",
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
    "gpu_price",
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
        """Returns a hash of the arguments, of every file or folder that they name, and of the code."""
        fields = dataclasses.asdict(self)
        material = {key: fields[key] for key in sorted(fields.keys() - _IMMATERIAL)}
        stamps = {key: _stamp(value) for key, value in material.items() if isinstance(value, str)}
        # Gates and miners of the user's own stand in lists.
        lists = (value for value in material.values() if isinstance(value, list))
        stamps |= {item: _stamp(item) for items in lists for item in items if is_class_spec(str(item))}
        return str(Hasher.hash([material, stamps, code_digest()]))


class HardNegatives(datasets.ArrowBasedBuilder):
    """Builds rows with negatives: mines, generates, gates."""

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
        fields: dict[str, Any] = {"part": part}
        for stage in argument_parser().parse(argv):
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
        path = Path(self._output_dir) / REPORT
        if not path.is_file():
            self.download_and_prepare()
        return json.loads(path.read_text(encoding="utf-8"))

    def _info(self) -> datasets.DatasetInfo:
        features = {
            "default": FEATURES,
            "triplet": triplet_features(self.config.triplet_negatives),
            "dropped": DROPPED_FEATURES,
        }
        return datasets.DatasetInfo(features=features[self.config.part], license=self.config.licence or "")

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        with Journal(self.journal) as journal:
            parts = build_parts(self.config, journal)
            check_parts(parts)
            for part in parts:
                part.prepare()
        return [datasets.SplitGenerator(name=part.split, gen_kwargs={"part": part}) for part in parts]

    def _generate_tables(self, part: Part) -> Iterator[tuple[datasets.builder.Key, pa.Table]]:
        schema = self.info.features.arrow_schema
        number, rows = 0, []
        for row in self._rows(part):
            rows.append(row)
            if len(rows) == _ROWS_AT_ONCE:
                yield datasets.builder.Key(0, number), pa.Table.from_pylist(rows, schema=schema)
                number, rows = number + 1, []
        if rows or not number:
            yield datasets.builder.Key(0, number), pa.Table.from_pylist(rows, schema=schema)
        path = Path(self._output_dir) / REPORT
        report = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        report[part.split] = part.report()
        path.write_text(json.dumps(report, ensure_ascii=False, indent=1), encoding="utf-8")

    def _rows(self, part: Part) -> Iterator[Any]:
        """Yields the rows of the configuration that is asked for."""
        for row, dropped in finished_rows(part.stages, part.drafts()):
            if self.config.part == "default":
                yield row
            elif self.config.part == "dropped":
                yield from dropped
            else:
                yield from iter_triplets([row], self.config.triplet_negatives)


def argument_parser() -> Any:
    """Returns the parser of a data set's arguments."""
    return data_set_parser(BuildSeedArguments)


@cache
def code_digest() -> str:
    """Returns a digest of the code that determines rows, so that a changed gate is never served stale."""
    root = Path(syneg.__file__).parent
    files = [*root.glob("*.py"), *(file for room in _ROOMS for file in (root / room).rglob("*.py"))]
    digest = hashlib.sha256(syneg.__version__.encode())
    for file in sorted(files):
        digest.update(file.relative_to(root).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _stamp(spec: str) -> Any:
    """Returns what tells one content of what an argument names from another; None where that is no file."""
    if spec == "pydocs":
        return [
            platform.python_version(),
            *(_version(name) for name in ("numpy", "scipy", "pandas", "torch")),
        ]
    # A strategy of the user's own may be named with its class, as in FILE.py:CLASS.
    path = Path(resource_path(spec) if spec.startswith(PACKAGE_PREFIX) else spec.partition(".py:")[0])
    if spec.partition(".py:")[1]:
        path = path.with_name(f"{path.name}.py")
    if not spec or not path.exists():
        return None
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return [(str(p.relative_to(path)), p.stat().st_size, p.stat().st_mtime_ns) for p in files]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
