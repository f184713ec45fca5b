"""Reading parts of a data set, from a folder or from the Hub, without loading the whole."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
from datasets import DatasetInfo, SplitDict, SplitInfo

from syneg.errors import InputError
from syneg.hub.network import reading_errors
from syneg.hub.shards import Shards, SplitFiles, evenly_spaced

CARD = "README.md"
MANIFEST = "syneg.json"
"""What made the data set, for machines. Also the mark of a folder that may be overwritten."""

DATASET_FORMAT = "syneg-dataset"


@dataclass(frozen=True)
class FolderInfo:
    """What a data set folder holds.

    Attributes:
        path: The folder.
        configs: Configuration -> split -> what was written for it.
        manifest: What made the data set: the fields of `DatasetCardInfo`.
        empty: Configuration -> splits that were written without rows, and so have no file.
    """

    path: Path
    configs: dict[str, dict[str, SplitFiles]]
    manifest: dict[str, Any] = field(default_factory=dict)
    empty: dict[str, list[str]] = field(default_factory=dict)

    def dataset_infos(self) -> dict[str, DatasetInfo]:
        """Returns features and sizes by configuration, as the card's YAML states them."""
        infos = {}
        for config, splits in self.configs.items():
            sizes = SplitDict()
            for name, split in splits.items():
                sizes[name] = SplitInfo(name, num_bytes=split.num_bytes, num_examples=split.num_examples)
            download = sum(sum(split.files.values()) for split in splits.values())
            size = sum(split.num_bytes for split in splits.values())
            features = next(iter(splits.values())).features
            infos[config] = DatasetInfo(
                features=features, splits=sizes, download_size=download, dataset_size=size
            )
        return infos

    def examples(self, config: str = "default", count: int = 5) -> list[dict[str, Any]]:
        """Returns `count` rows of the first split, evenly spaced, so that none is picked by hand."""
        splits = self.configs.get(config)
        if not splits:
            return []
        return evenly_spaced([self.path / name for name in next(iter(splits.values())).files], count)


def read_manifest(path: Path) -> dict[str, Any] | None:
    """Returns what made the data set of a folder; None where the folder is not ours."""
    try:
        return _manifest((path / MANIFEST).read_bytes())
    except OSError:
        return None


def _manifest(content: bytes) -> dict[str, Any] | None:
    try:
        manifest = json.loads(content)
    except ValueError:
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("format") == DATASET_FORMAT else None


class PublishedDataset:
    """A data set where it lies: a folder here, or a repository on the Hub, read over the network.

    Args:
        spec: A folder, or a Hub id, with ``@revision`` where it is not the newest.

    Raises:
        InputError: Where there is no such data set, or it was not made by this package.
    """

    def __init__(self, spec: str | Path) -> None:
        self.spec = str(spec)
        if Path(spec).is_dir():
            self._system, self._root = fsspec.filesystem("file"), str(Path(spec).absolute())
        elif self.spec.count("/") == 1 and not self.spec.startswith((".", "/")):
            self._system, self._root = fsspec.filesystem("hf"), f"datasets/{self.spec}"
        else:
            raise InputError(f"{self.spec!r}: neither a folder here nor a Hub id (owner/name).")
        with reading_errors(self.spec):
            content = self._read(MANIFEST)
        manifest = _manifest(content) if content is not None else None
        if manifest is None:
            raise InputError(
                f"{self.spec!r}: no data set of ours here or on the Hub ({MANIFEST} is missing or not ours)."
            )
        self.manifest = manifest

    def splits(self, config: str = "default") -> list[str]:
        """Returns the splits of a configuration that have rows."""
        names = (Path(path).name for path in self._glob(f"{config}/*-00000-of-*.parquet"))
        return sorted(name.rsplit("-", 3)[0] for name in names)

    def open(self, config: str, split: str) -> Shards:
        """Opens the shards of a split; there are none where it has no rows."""
        paths = sorted(self._glob(f"{config}/{split}-*-of-*.parquet"))
        return Shards([self._system.open(path, "rb") for path in paths])

    def _glob(self, pattern: str) -> list[str]:
        return [str(path) for path in self._system.glob(f"{self._root}/{pattern}")]

    def _read(self, name: str) -> bytes | None:
        try:
            return self._system.cat_file(f"{self._root}/{name}")
        except FileNotFoundError:
            return None
