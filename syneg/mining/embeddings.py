"""Embeddings as memory-mapped shards: made once for a text collection and a model, read in blocks."""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from syneg.errors import InputError
from syneg.mining.arguments import CPU_BATCH_TOKENS, DEVICE_BATCH_TOKENS
from syneg.reading import reason

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer


SHARD_ROWS = 2048
"""Texts in a file, at least: what an interrupted run may lose."""
_MOST_SHARDS = 4096


class Embeddings:
    """A matrix of embeddings in one or several memory-mapped parts, one row a text.

    Args:
        parts: The parts, in order; each of shape (rows, dimension).
        normalize: Whether rows are divided by their length as they are read (cosine similarity).
        name: What they are called in errors.
    """

    def __init__(
        self, parts: Sequence[np.ndarray], normalize: bool = False, name: str = "embeddings"
    ) -> None:
        self.name = name
        self.parts = list(parts)
        self.normalize = normalize
        self._starts = np.cumsum([0, *(len(part) for part in self.parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def dimension(self) -> int:
        """Numbers in an embedding."""
        return int(self.parts[0].shape[1])

    def blocks(self, size: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yields the first row's number and float32 rows, `size` at most, in order."""
        for start, part in zip(self._starts[:-1], self.parts, strict=True):
            for at in range(0, len(part), size):
                first = int(start) + at
                yield first, self._read(part[at : at + size], range(first, first + size))

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Returns the float32 embeddings of these rows, shape (n, dimension)."""
        taken = np.empty((len(rows), self.dimension), dtype=np.float32)
        owner = np.searchsorted(self._starts, rows, side="right") - 1
        for part in np.unique(owner):
            here = owner == part
            # Sorted reading goes once through the file.
            unique, inverse = np.unique(rows[here] - self._starts[part], return_inverse=True)
            taken[here] = self._read(self.parts[part][unique], unique + self._starts[part])[inverse]
        return taken

    def _read(self, rows: np.ndarray, numbers: Sequence[int] | np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):  # what is too large for float32 is told below
            values = np.array(rows, dtype=np.float32, order="C")
            lengths = np.linalg.norm(values, axis=1, keepdims=True)
        # Of a row that holds infinity, NaN, or numbers too large, the length is no number either.
        if not np.isfinite(lengths).all():
            bad = int((~np.isfinite(lengths[:, 0])).argmax())
            raise InputError(
                f"{self.name}, row {numbers[bad]}: the embeddings hold values that are no numbers; encode in "
                "another precision."
            )
        if self.normalize:
            values /= np.maximum(lengths, 1e-12)
        return values


def read_embeddings(path: str, rows: int, what: str, normalize: bool) -> Embeddings:
    """Maps a user's .npy file.

    Args:
        path: The file.
        rows: How many rows it must have.
        what: What they are, for the error: "documents" or "queries".
        normalize: See `Embeddings`.

    Raises:
        InputError: Where it is missing, is no matrix of numbers or has another number of rows.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file of embeddings.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of numpy's parser, about a header that is damaged
            matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    # Cut off, or of a header that is damaged: numpy, its parser and zipfile raise what they like.
    except Exception as error:
        raise InputError(
            f"{path}: not a .npy file of numbers ({reason(error)}); write it with numpy.save."
        ) from None
    if not isinstance(matrix, np.ndarray):
        raise InputError(f"{path}: an archive of several arrays; write one matrix with numpy.save.")
    if matrix.ndim != 2 or matrix.dtype.kind != "f" or not matrix.shape[1]:
        raise InputError(
            f"{path}: expected a matrix of floats, found shape {matrix.shape} of {matrix.dtype}."
        )
    if len(matrix) != rows:
        raise InputError(
            f"{path}: {len(matrix)} rows for {rows} {what}; there must be one a {what[:-1]}, in their order."
        )
    return Embeddings([matrix], normalize, path)


def encode_shards(
    folder: Path,
    total: int,
    read: Callable[[range], list[str]],
    encode: Callable[[list[str]], np.ndarray],
    what: str,
    rank: int = 0,
    world: int = 1,
) -> None:
    """Encodes texts to files ``00000.npy`` ... ; those that are there are left alone.

    An interrupted run goes on where it stopped. Several processes share the work by rank.

    Args:
        folder: Where the files go.
        total: How many texts there are.
        read: Returns the texts at these positions.
        encode: Returns their embeddings, shape (texts, dimension).
        what: What is encoded, for the progress bar.
        rank: This process's number.
        world: The number of processes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mine = shard_paths(folder, total)[rank::world]
    missing = [path for path in mine if not path.is_file()]
    if not missing:
        return
    rows = _shard_rows(total)
    spans = [range(int(p.stem) * rows, min((int(p.stem) + 1) * rows, total)) for p in missing]
    with tqdm(total=sum(map(len, spans)), desc=f"Encoding {what}", unit="text", disable=rank > 0) as bar:
        for path, span in zip(missing, spans, strict=True):
            texts = read(span)
            # Longest first: little padding, and what does not fit in memory fails at once.
            by_length = np.argsort([-len(text) for text in texts], kind="stable")
            parts = []
            for at in range(0, len(texts), 1024):
                parts.append(encode([texts[i] for i in by_length[at : at + 1024]]))
                bar.update(len(parts[-1]))
            encoded = np.concatenate(parts)
            ordered = np.empty_like(encoded)
            ordered[by_length] = encoded
            partial = path.with_suffix(f".{os.getpid()}.partial")
            with open(partial, "wb") as file:
                np.save(file, ordered, allow_pickle=False)
            partial.replace(path)


def shard_paths(folder: Path, total: int) -> list[Path]:
    """Returns the files that `encode_shards` writes for `total` texts."""
    return [folder / f"{number:05d}.npy" for number in range(-(-total // _shard_rows(total)))]


def _shard_rows(total: int) -> int:
    """Returns the rows of a file: few, but not so few that there are too many files to map."""
    return max(SHARD_ROWS, -(-total // _MOST_SHARDS))


def open_shards(folder: Path, total: int, normalize: bool) -> Embeddings:
    """Maps the files of `encode_shards`.

    Raises:
        InputError: Where they do not hold `total` rows, as after a change from outside.
    """
    paths = shard_paths(folder, total)
    embeddings = Embeddings([np.load(p, mmap_mode="r", allow_pickle=False) for p in paths], normalize)
    if len(embeddings) != total:
        raise InputError(f"{folder}: {len(embeddings)} embeddings for {total} texts; delete this folder.")
    return embeddings


def choose_device(device: str | None) -> str:
    """Returns the device to compute on: the one given, or the first accelerator, or the CPU."""
    if device:
        return device
    import torch

    # Where there is none, sentence-transformers need not be imported: that takes time and memory.
    if not torch.accelerator.is_available() and importlib.util.find_spec("habana_frameworks") is None:
        return "cpu"
    from sentence_transformers.util import get_device_name

    return get_device_name()


def choose_dtype(precision: str, device: str) -> torch.dtype:
    """Returns the precision to encode in; "auto" is bf16 where the device has it in hardware."""
    import torch

    if precision != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    if device.startswith("cuda"):
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device == "cpu":
        capabilities = torch.cpu.get_capabilities()
        fast = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    else:
        fast = False
    return torch.bfloat16 if fast else torch.float32


def encode_texts(
    model: SentenceTransformer,
    texts: list[str],
    side: str,
    prompt: str | None,
    batch_size: int | None = None,
) -> np.ndarray:
    """Returns embeddings as the model gives them, before any normalization.

    Args:
        model: The model.
        texts: The texts.
        side: "query" or "document": the model's own prompts and routes are taken for it.
        prompt: Text put before each instead of the model's own prompt.
        batch_size: Texts at once; by their length where it is None.

    Returns:
        Shape (texts, dimension); float16 where the model is in half precision, else float32.
    """
    import torch

    batch_size = batch_size or _batch_size(model, max(map(len, texts), default=0))
    encode = model.encode_query if side == "query" else model.encode_document
    embeddings = encode(
        texts,
        prompt=prompt,
        batch_size=batch_size,
        convert_to_tensor=True,
        show_progress_bar=False,
        **_few_lengths(model),
    )
    # numpy has no bf16, and float16 is finer where embeddings lie; its range suffices after scaling.
    if embeddings.dtype in (torch.bfloat16, torch.float16):
        wide = embeddings.float()
        if bool(wide.abs().max() < 1000):
            return wide.half().cpu().numpy()
        return wide.cpu().numpy()
    return embeddings.float().cpu().numpy()


def _few_lengths(model: SentenceTransformer) -> dict[str, Any]:
    """Returns what makes an encoder on a CPU pad to few different lengths.

    oneDNN keeps a kernel for each shape it has met, which took most of the memory of encoding.
    """
    longest = model.max_seq_length
    able = model.device.type == "cpu" and hasattr(model[0], "processing_kwargs")
    if not able or not longest or longest % 8:
        return {}
    return {"processing_kwargs": {"text": {"pad_to_multiple_of": 8}}}


def _batch_size(model: SentenceTransformer, characters: int) -> int:
    """Returns how many texts of at most so many characters make a good batch.

    See `arguments.CPU_BATCH_TOKENS`.
    """
    tokens = min(characters // 4 + 8, model.max_seq_length or 8192)
    return max(1, (CPU_BATCH_TOKENS if model.device.type == "cpu" else DEVICE_BATCH_TOKENS) // tokens)
