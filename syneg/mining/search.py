"""Nearest documents by inner product: exact in blocks with a running top-k, or through a faiss index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from syneg.mining.cache import cached_folder
from syneg.mining.candidates import MISSING, Candidates, order
from syneg.mining.embeddings import Embeddings

_TRAINING_ROWS = 262_144
"""Documents that an approximate index is trained on, at most."""


def search_flat(queries: np.ndarray, corpus: Embeddings, depth: int, block: int, device: str) -> Candidates:
    """Returns the exact best documents.

    Memory is bounded by a block of documents and queries x depth, never queries x corpus.

    Args:
        queries: float32, shape (queries, dimension).
        corpus: The documents' embeddings.
        depth: Documents a query.
        block: Documents searched at once.
        device: Where to compute; faiss on the CPU, torch elsewhere.
    """
    depth = min(depth, len(corpus))
    best = _CPUHeap(len(queries), depth) if device == "cpu" else _TorchHeap(queries, depth, device)
    with tqdm(total=len(corpus), desc="Dense search", unit="document") as bar:
        for start, rows in corpus.blocks(block):
            best.add(queries, rows, start)
            bar.update(len(rows))
    return order(*best.result())


class _CPUHeap:
    """The running top-k in faiss's heaps."""

    def __init__(self, queries: int, depth: int) -> None:
        import faiss

        self._faiss = faiss
        self._heap = faiss.ResultHeap(queries, depth, keep_max=True)
        self._depth = depth

    def add(self, queries: np.ndarray, rows: np.ndarray, start: int) -> None:
        depth = min(self._depth, len(rows))
        scores, found = self._faiss.knn(queries, rows, depth, metric=self._faiss.METRIC_INNER_PRODUCT)
        self._heap.add_result(scores, found + start)

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        self._heap.finalize()
        return self._heap.I, self._heap.D


class _TorchHeap:
    """The running top-k on an accelerator; queries in parts, so that scores fit its memory."""

    def __init__(self, queries: np.ndarray, depth: int, device: str, part: int = 2048) -> None:
        import torch

        self._torch = torch
        self._device = device
        self._part = part
        self._queries = torch.from_numpy(queries).to(device)
        self._scores = torch.full((len(queries), depth), -torch.inf, device=device)
        self._rows = torch.full((len(queries), depth), MISSING, dtype=torch.int64, device=device)

    def add(self, queries: np.ndarray, rows: np.ndarray, start: int) -> None:
        torch = self._torch
        documents = torch.from_numpy(rows).to(self._device)
        depth = self._scores.shape[1]
        for at in range(0, len(self._queries), self._part):
            here = slice(at, at + self._part)
            scores, found = torch.topk(self._queries[here] @ documents.T, min(depth, len(documents)), dim=1)
            scores = torch.cat([self._scores[here], scores], dim=1)
            found = torch.cat([self._rows[here], found + start], dim=1)
            self._scores[here], chosen = torch.topk(scores, depth, dim=1)
            self._rows[here] = found.gather(1, chosen)

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        return self._rows.cpu().numpy(), self._scores.cpu().numpy()


def search_index(
    queries: np.ndarray, corpus: Embeddings, depth: int, kind: str, probes: int, folder: Path
) -> Candidates:
    """Returns the best documents that an inverted-file index finds, with exact scores.

    The index is made once and mapped from disk. With ``ivfpq`` the index holds 1 byte for 4 numbers;
    four times `depth` are then looked up and scored again from the embeddings.

    Args:
        queries: float32, shape (queries, dimension).
        corpus: The documents' embeddings.
        depth: Documents a query.
        kind: "ivf" or "ivfpq".
        probes: Cells looked into for a query.
        folder: The index's place in the cache.
    """
    import faiss

    with cached_folder(folder) as (place, ready):
        if not ready:
            faiss.write_index(_build(corpus, kind), str(place / "index.faiss"))
    index = faiss.read_index(str(folder / "index.faiss"), faiss.IO_FLAG_MMAP)
    faiss.extract_index_ivf(index).nprobe = probes
    depth = min(depth, len(corpus))
    wide = min(depth * 4, len(corpus)) if kind == "ivfpq" else depth
    rows = np.full((len(queries), depth), MISSING, dtype=np.int64)
    scores = np.full((len(queries), depth), -np.inf, dtype=np.float32)
    for at in tqdm(range(0, len(queries), 512), desc="Dense search", unit="block"):
        part = queries[at : at + 512]
        found = index.search(part, wide)[1]
        ordered = order(found, rescore(part, corpus, found))
        rows[at : at + 512], scores[at : at + 512] = ordered.rows[:, :depth], ordered.scores[:, :depth]
    return Candidates(rows, scores)


def rescore(queries: np.ndarray, corpus: Embeddings, rows: np.ndarray) -> np.ndarray:
    """Returns the exact scores of candidates, -inf for missing ones; shape of `rows`."""
    documents = corpus.take(np.maximum(rows, 0).ravel()).reshape(*rows.shape, -1)
    return np.where(rows == MISSING, -np.inf, np.einsum("qd,qkd->qk", queries, documents))


def _build(corpus: Embeddings, kind: str) -> Any:
    """Trains on documents spread over the corpus, then adds all, block by block."""
    import faiss

    total = len(corpus)
    # faiss asks for 39 training points a cell at least; 4 sqrt(n) cells is its documentation's advice.
    chosen = np.unique(np.linspace(0, total - 1, min(total, _TRAINING_ROWS)).astype(np.int64))
    cells = max(1, min(int(4 * total**0.5), len(chosen) // 39))
    codes = max(m for m in range(1, corpus.dimension // 4 + 1) if corpus.dimension % m == 0)
    # A codebook of 2^bits centroids is trained on as many points at least.
    bits = min(8, max(1, int(np.log2(max(2, len(chosen) // 39)))))
    text = f"IVF{cells},Flat" if kind == "ivf" else f"IVF{cells},PQ{codes}x{bits}"
    index = faiss.index_factory(corpus.dimension, text, faiss.METRIC_INNER_PRODUCT)
    index.train(corpus.take(chosen))
    with tqdm(total=total, desc=f"Building {text}", unit="document") as bar:
        for _, rows in corpus.blocks(65536):
            index.add(rows)
            bar.update(len(rows))
    return index
