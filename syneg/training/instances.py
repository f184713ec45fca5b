"""What the loss needs to know of a batch besides its embeddings.

Everything refers to texts by their position in the batch's list of texts, in which equal texts stand
once. Batches of several processes, or of several accumulated steps, are joined into one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from syneg.text import text_keys


def _signed(keys: np.ndarray) -> np.ndarray:
    # Tensors have no uint64; 0 stands for "none".
    return np.maximum((keys >> np.uint64(1)).astype(np.int64), 1)


def keys_of_texts(texts: Iterable[str]) -> np.ndarray:
    """Returns the keys under which equal texts are found (see `text_keys`), int64 above 0."""
    return _signed(text_keys(texts))


def keys_of_words(words: Sequence[str]) -> np.ndarray:
    """Returns keys of words that count as they are, such as names; the same in every process, above 0."""
    return _signed(pd.util.hash_array(np.array(words, dtype=object), categorize=False))


def keys_of_ids(ids: Sequence[str]) -> np.ndarray:
    """Returns the keys of documents' or queries' ids, which differ from those of equal texts."""
    return keys_of_words([f"\x1fid\x1f{word}" for word in ids])


def key_of(word: str) -> int:
    """Returns one word's key; see `keys_of_words`."""
    return int(keys_of_words([word])[0])


def text_key(text: str) -> int:
    """Returns one text's key; see `keys_of_texts`."""
    return int(keys_of_texts([text])[0])


def id_key(doc_id: str) -> int:
    """Returns one id's key; see `keys_of_ids`."""
    return int(keys_of_ids([doc_id])[0])


@dataclass
class Instances:
    """The instances of a batch: b instances over n texts.

    Attributes:
        query: Position of each query among the texts, shape (b,).
        positive: Position of each positive, shape (b,).
        negatives: Positions of the instance's own negatives, -1 where it has fewer, shape (b, k).
        source: Key of each negative's source, shape (b, k).
        known: Keys of the query's known positives (ids and texts) and of its own text, 0 where there
            are fewer, shape (b, m).
        query_key: Key of each query, shape (b,).
        text_key: Key of each text, shape (n,).
        doc_key: Key of each text's document id, 0 where it has none, shape (n,).
        teacher: The teacher's scores of positive and negatives, NaN where unknown, shape (b, 1 + k).
    """

    query: Tensor
    positive: Tensor
    negatives: Tensor
    source: Tensor
    known: Tensor
    query_key: Tensor
    text_key: Tensor
    doc_key: Tensor
    teacher: Tensor

    def __len__(self) -> int:
        return len(self.query)

    def to(self, device: torch.device) -> Instances:
        """Returns the instances on a device."""
        return Instances(*(getattr(self, f.name).to(device) for f in fields(self)))

    def sizes(self) -> list[int]:
        """Returns b, k, m and n, which is what `unpack` needs."""
        return [len(self.query), self.negatives.shape[1], self.known.shape[1], len(self.text_key)]

    def pack(self) -> Tensor:
        """Returns everything as one int64 vector, so that processes exchange it in one message."""
        teacher = self.teacher.to(torch.float64).view(torch.int64)
        parts = [getattr(self, f.name) for f in fields(self) if f.name != "teacher"]
        return torch.cat([part.reshape(-1) for part in [*parts, teacher]])

    @staticmethod
    def packed_size(sizes: Sequence[int]) -> int:
        """Returns the length of what `pack` returns."""
        b, k, m, n = sizes
        return 3 * b + 2 * b * k + b * m + 2 * n + b * (1 + k)

    @classmethod
    def unpack(cls, packed: Tensor, sizes: Sequence[int]) -> Instances:
        """Returns the instances that `pack` put into a vector."""
        b, k, m, n = sizes
        shapes = [(b,), (b,), (b, k), (b, k), (b, m), (b,), (n,), (n,), (b, 1 + k)]
        lengths = [int(torch.Size(shape).numel()) for shape in shapes]
        parts = packed[: sum(lengths)].split(lengths)
        tensors = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
        tensors[-1] = tensors[-1].contiguous().view(torch.float64).to(torch.float32)
        return cls(*tensors)

    @classmethod
    def join(cls, parts: Sequence[Instances]) -> Instances:
        """Returns one batch over the texts of all parts, one part's after the other's."""
        if len(parts) == 1:
            return parts[0]
        width = max(part.negatives.shape[1] for part in parts)
        known = max(part.known.shape[1] for part in parts)
        shift, joined = 0, []
        for part in parts:
            moved = torch.where(part.negatives >= 0, part.negatives + shift, part.negatives)
            joined.append(
                cls(
                    part.query + shift,
                    part.positive + shift,
                    _widen(moved, width, -1),
                    _widen(part.source, width, 0),
                    _widen(part.known, known, 0),
                    part.query_key,
                    part.text_key,
                    part.doc_key,
                    _widen(part.teacher, 1 + width, float("nan")),
                )
            )
            shift += len(part.text_key)
        return cls(*(torch.cat([getattr(part, f.name) for part in joined]) for f in fields(cls)))

    def columns(self) -> Tensor:
        """Returns the positions of the distinct documents, shape (c,): the in-batch candidates.

        Of equal texts that several processes hold, the first counts.
        """
        documents = torch.cat([self.positive, self.negatives.reshape(-1)])
        documents = torch.unique(documents[documents >= 0])
        # A stable sort puts equal keys side by side, the earliest position first.
        keys, order = torch.sort(self.text_key[documents], stable=True)
        first = torch.ones_like(keys, dtype=torch.bool)
        first[1:] = keys[1:] != keys[:-1]
        return torch.sort(documents[order[first]]).values


def _widen(table: Tensor, width: int, value: float) -> Tensor:
    return torch.nn.functional.pad(table, (0, width - table.shape[1]), value=value)
