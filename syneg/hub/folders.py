"""A data set folder: Parquet shards, a card and what made them, as the Hub wants them.

The layout is ``README.md`` (the card), ``syneg.json`` (what made the data set, for machines) and
``<configuration>/<split>-00000-of-0000N.parquet``. `datasets.load_dataset` reads it, from disk and
from the Hub, without this package.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from datasets import (
    Dataset,
    Features,
    IterableDataset,
    get_dataset_config_names,
    get_dataset_split_names,
    load_dataset,
)
from datasets.naming import INVALID_WINDOWS_CHARACTERS_IN_PATH
from huggingface_hub.errors import HfHubHTTPError

from syneg.errors import InputError, unknown
from syneg.hub.cards import DatasetCardInfo, dataset_card
from syneg.hub.reading import CARD, DATASET_FORMAT, MANIFEST, FolderInfo, read_manifest
from syneg.hub.replacing import LOCK, clear_leftovers, disk_errors, is_full, move_into_place, sync, try_lock
from syneg.hub.shards import SHARD_BYTES, SplitFiles, SplitWriter, read_split, shard_name
from syneg.rows import DROPPED_FEATURES, FEATURES, Dropped, Row, iter_triplets, triplet_features

FREE_BYTES = 100 * 2**20
"""Room that a folder's disk must have where nobody knows how large the folder will be, in bytes."""

_FEATURES = {"default": FEATURES, "dropped": DROPPED_FEATURES}


class FolderWriter:
    """Writes a data set folder beside its final place and moves it there when it is whole.

    So a build that is killed leaves what was there before, and at most a hidden folder
    ``.<name>.partial-*`` beside it, which the next build removes.

    A split without rows has no file and is not in the card, since `datasets` (5.2) refuses to load
    one, and with it every other split of its configuration. The manifest names it, and `load_split`
    gives it back, empty, with its columns.

    Args:
        output: The folder.
        overwrite: Whether a data set folder of ours that is there may be replaced.
        shard_bytes: A shard is closed once its file is this large, in bytes.

    Raises:
        InputError: Where the folder exists and may not be replaced.
    """

    def __init__(self, output: str | Path, overwrite: bool = False, shard_bytes: int = SHARD_BYTES) -> None:
        self.output = Path(output).absolute()
        self._overwrite = overwrite
        self._shard_bytes = shard_bytes
        self.written: dict[str, dict[str, SplitFiles]] = {}
        self._card: tuple[str, dict[str, Any]] | None = None
        self._lock: IO[str] | None = None
        check_names(self.output, [])
        check_replaceable(self.output, overwrite)

    def __enter__(self) -> FolderWriter:
        with disk_errors(self.output):
            self.output.parent.mkdir(parents=True, exist_ok=True)
            clear_leftovers(self.output)
            self.path = self.output.with_name(f".{self.output.name}.partial-{uuid.uuid4().hex[:12]}")
            self.path.mkdir()
            self._lock = try_lock(self.path)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                with disk_errors(self.output):
                    self._finish()
        finally:
            if self._lock is not None:
                self._lock.close()
            shutil.rmtree(self.path, ignore_errors=True)

    @property
    def info(self) -> FolderInfo:
        """What has been written so far, splits without rows left out."""
        configs = {
            config: {name: split for name, split in splits.items() if split.num_examples}
            for config, splits in self.written.items()
        }
        configs = {config: splits for config, splits in configs.items() if splits}
        empty = {
            config: [name for name, split in splits.items() if not split.num_examples]
            for config, splits in self.written.items()
        }
        empty = {config: names for config, names in empty.items() if names}
        return FolderInfo(self.path, configs, self._card[1] if self._card else {}, empty)

    @contextmanager
    def open_split(self, config: str, split: str, features: Features) -> Iterator[SplitWriter]:
        """Opens a split to which rows are added one by one.

        Several may be open at once, so that one pass over the rows can fill several configurations.

        Args:
            config: The configuration.
            split: The split.
            features: The columns; the same for all splits of a configuration.

        Raises:
            InputError: Where the split was written already, or the disk is full.
        """
        _check_name(self.output, "configuration", config)
        _check_name(self.output, "split", split)
        # Configurations stay in the order in which they were opened.
        if split in self.written.setdefault(config, {}):
            raise InputError(f"{self.output}: split {config}/{split} was written already.")
        writer = SplitWriter(self.path, config, split, features, self._shard_bytes)
        try:
            with disk_errors(self.output):
                yield writer
                written = writer.close()
        except BaseException:
            with disk_errors(self.output):
                writer.abandon()
            raise
        self.written[config][split] = written

    @contextmanager
    def open_rows(self, split: str, triplet_negatives: int | None = None) -> Iterator[RowsWriter]:
        """Opens the configurations of a split together, so that one pass over the rows fills them all.

        What is written is, byte for byte, what one `write` for each configuration writes.

        Args:
            split: The split.
            triplet_negatives: Negatives of a row of `triplet`; that configuration is not written
                where it is None.

        Raises:
            InputError: As `open_split`.
        """
        with ExitStack() as stack:
            default = stack.enter_context(self.open_split("default", split, FEATURES))
            triplet = None
            if triplet_negatives is not None:
                features = triplet_features(triplet_negatives)
                triplet = stack.enter_context(self.open_split("triplet", split, features))
            dropped = stack.enter_context(self.open_split("dropped", split, DROPPED_FEATURES))
            yield RowsWriter(default, dropped, triplet, triplet_negatives or 0)

    def write(
        self,
        config: str,
        split: str,
        rows: Iterable[Mapping[str, Any]] | Dataset | IterableDataset,
        features: Features,
    ) -> SplitFiles:
        """Writes one split whole.

        Args:
            config: The configuration.
            split: The split.
            rows: The rows; read once, never held.
            features: The columns; the same for all splits of a configuration.

        Returns:
            What was written.

        Raises:
            InputError: Where the split was written already, a row has other columns, or the disk is
                full.
        """
        with self.open_split(config, split, features) as writer:
            if isinstance(rows, Dataset):
                writer.add_dataset(rows)
            else:
                for row in rows:
                    writer.add(row)
        return self.written[config][split]

    def write_card(self, info: DatasetCardInfo) -> str:
        """Writes the card and the manifest; call it after the last split. Returns the card."""
        folder = self.info
        manifest = {"format": DATASET_FORMAT, **asdict(info), "empty": folder.empty}
        text = dataset_card(info, folder)
        self._card = text, manifest
        return text

    def _finish(self) -> None:
        if "default" not in self.info.configs:
            raise InputError(
                f"{self.output}: configuration 'default' has no rows, so there is no data set to write."
            )
        if self._card is None:
            self.write_card(DatasetCardInfo(name=self.output.name))
        assert self._card is not None
        card, manifest = self._card
        (self.path / CARD).write_text(card, encoding="utf-8")
        text = json.dumps(manifest, ensure_ascii=False, indent=1, default=str)
        (self.path / MANIFEST).write_text(text + "\n", encoding="utf-8")
        for path in self.path.rglob("*"):
            sync(path)
        (self.path / LOCK).unlink()
        check_replaceable(self.output, self._overwrite)  # another build may have finished meanwhile
        move_into_place(self.path, self.output)


class RowsWriter:
    """Takes the rows of one split, and what was dropped from them, in order.

    Made by `FolderWriter.open_rows`.

    Attributes:
        rows: Rows added.
        dropped: Dropped negatives added.
        without_triplet: Rows added that have too few negatives for a row of `triplet`.
    """

    def __init__(
        self, default: SplitWriter, dropped: SplitWriter, triplet: SplitWriter | None, triplet_negatives: int
    ) -> None:
        self._default, self._dropped, self._triplet = default, dropped, triplet
        self._triplet_negatives = triplet_negatives
        self.rows = self.dropped = self.without_triplet = 0

    def add(self, row: Row | None, dropped: Iterable[Dropped] = ()) -> None:
        """Adds a row, and what was dropped from it.

        Args:
            row: The row; None for one that is left out itself, whose dropped negatives stay on record.
            dropped: What the gates kept out of it.
        """
        for negative in dropped:
            self._dropped.add(negative)
            self.dropped += 1
        if row is None:
            return
        self._default.add(row)
        self.rows += 1
        if self._triplet is not None:
            triplets = list(iter_triplets([row], self._triplet_negatives))
            self.without_triplet += not triplets
            for triplet in triplets:
                self._triplet.add(triplet)


def read_folder(path: str | Path) -> FolderInfo:
    """Returns what a data set folder holds, after checking that it is whole.

    Raises:
        InputError: Where it is no data set folder of ours, or a shard is missing or broken.
    """
    path = Path(path)
    manifest = read_manifest(path)
    if manifest is None:
        raise InputError(
            f"{path}: no data set folder ({MANIFEST} is missing or not ours). "
            "Write one with `syneg build --output FOLDER`."
        )
    configs: dict[str, dict[str, SplitFiles]] = {}
    for shard in sorted(path.glob("*/*-of-*.parquet")):
        split, number, count = shard_name(shard)
        if number == 0:
            names = [shard.with_name(f"{split}-{i:05d}-of-{count:05d}.parquet") for i in range(count)]
            configs.setdefault(shard.parent.name, {})[split] = read_split(path, names)
    if not configs:
        raise InputError(f"{path}: holds no <configuration>/<split>-00000-of-0000N.parquet.")
    return FolderInfo(path, configs, manifest, manifest.get("empty", {}))


def load_split(spec: str | Path, config: str = "default", split: str = "train") -> Dataset:
    """Loads one split of a data set folder or of a data set on the Hub.

    It is `datasets.load_dataset`, with splits that have no rows loaded as such, and its errors for
    what does not exist turned into ours.

    Args:
        spec: A folder or a Hub id.
        config: "default", "triplet" or "dropped".
        split: The split.

    Raises:
        InputError: Where there is no such data set, configuration or split.
    """
    text = str(spec)
    try:
        return _load_split(text, config, split)
    except InputError:
        raise
    except Exception as error:
        if is_full(error):
            raise InputError(
                f"{text!r}: the disk is full. Make room where `datasets` keeps its cache (HF_HOME)."
            ) from error
        if not isinstance(error, FileNotFoundError | ConnectionError | HfHubHTTPError):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{text!r}: neither a folder here nor a data set that the Hub gives ({reason})."
        ) from error


def _load_split(text: str, config: str, split: str) -> Dataset:
    configs = get_dataset_config_names(text)
    if config not in configs and config not in _FEATURES:
        raise unknown(f"configuration of {text!r}:", config, configs)
    splits = get_dataset_split_names(text, config if config in configs else configs[0])
    if config in configs and split in splits:
        dataset = load_dataset(text, config, split=split)
        assert isinstance(dataset, Dataset)
        return dataset
    # A split that gave this configuration no rows is not in it, but in that of the rows.
    others = get_dataset_split_names(text, configs[0]) if config in configs else splits
    if config not in _FEATURES or split not in others:
        raise unknown(f"split of {text!r}:", split, others)
    return Dataset(_FEATURES[config].arrow_schema.empty_table())


def check_names(output: str | Path, splits: Iterable[str], name: str | None = None) -> None:
    """Checks, before any work, that what these names stand for can be written and loaded again.

    Args:
        output: The folder that is to be written.
        splits: Its splits.
        name: The data set's name, where it is not the folder's.

    Raises:
        InputError: For a name that `datasets` cannot load.
    """
    for split in splits:
        _check_name(Path(output), "split", split)
    path = str(Path(output).absolute())
    for text in ("[", "]", "::"):
        if text in path:
            raise InputError(
                f"--output {str(output)!r}: `datasets` reads {text!r} in a path as a pattern, so it could "
                f"not load {path}. Choose another --output."
            )
    bad = [character for character in INVALID_WINDOWS_CHARACTERS_IN_PATH if character in (name or "")]
    if bad or name == "":
        raise InputError(
            f"--name {name!r}: a data set's name is no path and may not "
            + (f"have {bad[0]!r} in it; " if bad else "be empty; ")
            + "say where it is published with --repo_id, and where it is written with --output."
        )


def _check_name(output: Path, kind: str, name: str) -> None:
    """Holds a configuration's or split's name to what `datasets` accepts and file names can carry."""
    if not re.fullmatch(r"\w+", name):
        raise InputError(
            f"{output}: {kind} {name!r} may only have letters, digits and '_', or `datasets` cannot load it"
            + (f"; rename it, as in {plain!r}." if (plain := re.sub(r"\W+", "_", name).strip("_")) else ".")
        )
    if kind == "split" and name == "all":
        raise InputError(f"{output}: split 'all' stands for all splits in `datasets`; give it another name.")


def check_output(output: str | Path, overwrite: bool = False, size: int = FREE_BYTES) -> None:
    """Checks, before any work, that a folder can be written: its place, its permissions, its disk.

    Nothing is left behind; folders that are missing on the way are not made.

    Args:
        output: The folder.
        overwrite: Whether a data set folder of ours that is there may be replaced.
        size: What is going to be written, in bytes. A folder that is replaced goes last, so it
            makes no room.

    Raises:
        InputError: Where the folder may not be replaced, its place cannot be written to, or the disk
            has less room.
    """
    output = Path(output).absolute()
    check_replaceable(output, overwrite)
    place = output.parent
    while not (place.exists() or place.is_symlink()):
        place = place.parent
    if not place.is_dir():
        raise InputError(f"--output {output}: {place} is no folder. Choose another --output.")
    try:
        with tempfile.TemporaryDirectory(dir=place, prefix=".writable-"):
            pass
    except OSError as error:
        if is_full(error):
            raise InputError(f"--output {output}: the disk of {place} is full. Make room there.") from error
        raise InputError(
            f"--output {output}: nothing can be written in {place} ({error.strerror or error}). "
            "Choose another --output."
        ) from error
    free = shutil.disk_usage(place).free
    if free < size:
        raise InputError(
            f"--output {output}: the disk of {place} has {free / 1e6:,.0f} MB free, and about "
            f"{size / 1e6:,.0f} MB are needed. Make room there, or choose another --output."
        )


def check_replaceable(output: Path, overwrite: bool) -> None:
    """Checks that a folder may be written.

    Raises:
        InputError: Where it exists and `overwrite` is not set, or it holds anything that this
            package did not write.
    """
    if not output.exists() and not output.is_symlink():
        return
    if not output.is_dir() or output.is_symlink():
        raise InputError(f"{output}: is no folder; choose another --output.")
    if not any(output.iterdir()):
        return
    if read_manifest(output) is None:
        raise InputError(
            f"{output}: exists and is no data set folder of ours, so it is left alone. "
            "Choose another --output."
        )
    if not overwrite:
        raise InputError(f"{output}: exists. Choose another --output, or replace it with --overwrite.")
    for path in output.rglob("*"):
        relative = path.relative_to(output).as_posix()
        ours = relative in (CARD, MANIFEST) or path.suffix == ".parquet" or relative.startswith(".cache/")
        if not path.is_dir() and not ours:
            raise InputError(f"{output}: holds {relative!r}, which is not part of a data set; move it first.")
