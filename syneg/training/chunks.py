"""How a batch's texts are embedded: in which chunks, and which of them keep their activations."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from syneg.errors import InputError
from syneg.training.texts import Texts

logger = logging.getLogger(__name__)

DEFAULT_CHUNK_TOKENS = {"cpu": 2048, "cuda": 32768}
"""Measured on a CPU: larger chunks leave its caches. A GPU wants enough work for a kernel."""

CHUNK_COST = {"cpu": 128, "cuda": 4096}
"""What a chunk costs beside its tokens (embedding table's gradient, kernel launches), in tokens."""

EXACT_SPLIT = 4096
"""Texts up to which the best split is looked for: among more, neighbours are about equally long."""


class Kept(NamedTuple):
    """What a step keeps until its way back.

    Attributes:
        chunks: How many chunks, the last ones, keep activations. The others go by GradCache.
        whole: How many of them, again the last ones, keep all; the others what is not cheap to have again.
    """

    chunks: int
    whole: int


@dataclass
class ChunkPlan:
    """How one batch is embedded.

    Attributes:
        texts: The texts, with their tokens on the model's device.
        chunks: Positions of each chunk's texts, the longest texts first in each.
        starts: Where each text's tokens begin.
    """

    texts: Texts
    chunks: list[list[int]]
    starts: Tensor

    @classmethod
    def of(cls, texts: Texts, budget: int, cost: int) -> ChunkPlan:
        """Plans a batch; see `split_chunks`."""
        # What must be equal within a chunk: the prompt's length, where pooling leaves the prompt out.
        kinds = [texts.prompt_lengths[i] for i in texts.prompt.tolist()]
        chunks = split_chunks(texts.lengths.tolist(), kinds, budget, cost)
        return cls(texts, chunks, texts.lengths.cumsum(0) - texts.lengths)

    def padded(self, chunk: Sequence[int]) -> int:
        """Tokens that are computed for a chunk, padding included."""
        return len(chunk) * int(self.texts.lengths[chunk[0]])

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """Returns the chunks' embeddings in the order of the texts, shape (n, d)."""
        laid = torch.tensor([i for chunk in self.chunks for i in chunk], device=parts[0].device)
        return torch.cat(list(parts))[torch.argsort(laid)]

    def fitting(self, everything: float, costly: float, memory: float) -> Kept:
        """Returns what fits into memory.

        Args:
            everything: Bytes of a token's activations.
            costly: Bytes of those that must be kept where the others are computed again.
            memory: Bytes that there are.
        """
        sums = np.cumsum([self.padded(chunk) for chunk in reversed(self.chunks)])
        chunks = max(int(np.searchsorted(sums * costly, memory, side="right")), 1)
        rest = costly * (sums[chunks - 1] - sums[:chunks])
        whole = int(np.searchsorted(sums[:chunks] * everything + rest, memory, side="right"))
        return Kept(chunks, max(whole, 1))


def split_chunks(lengths: Sequence[int], kinds: Sequence[int], budget: int, cost: int = 0) -> list[list[int]]:
    """Splits texts into chunks of similar length, so that padding and chunks cost least together.

    Args:
        lengths: Tokens of each text.
        kinds: What must be equal within a chunk.
        budget: Most tokens of a chunk, padding included. A longer text is a chunk alone.
        cost: What one more chunk costs, in tokens.

    Returns:
        Positions of each chunk's texts, the longest first: what does not fit into memory fails at once.
    """
    order = sorted(range(len(lengths)), key=lambda i: (kinds[i], -lengths[i], i))
    chunks = []
    for _, group in groupby(order, key=lambda i: kinds[i]):
        texts = list(group)
        sizes = np.array([lengths[i] for i in texts])
        cuts = _best_cuts(sizes, budget, cost) if len(texts) <= EXACT_SPLIT else _full_cuts(sizes, budget)
        chunks += [texts[begin:end] for begin, end in zip([0, *cuts], cuts, strict=False)]
    return sorted(chunks, key=lambda chunk: -lengths[chunk[0]])


def _most(size: int, budget: int) -> int:
    """How many texts of this length a chunk holds."""
    return max(budget // max(int(size), 1), 1)


def _full_cuts(sizes: np.ndarray, budget: int) -> list[int]:
    """Ends of chunks that are filled up; `sizes` fall."""
    cuts = [0]
    while cuts[-1] < len(sizes):
        cuts.append(min(cuts[-1] + _most(sizes[cuts[-1]], budget), len(sizes)))
    return cuts[1:]


def _best_cuts(sizes: np.ndarray, budget: int, cost: int) -> list[int]:
    """Ends of the chunks with the least padded tokens and cost, by dynamic programming; `sizes` fall."""
    n = len(sizes)
    least = np.full(n + 1, np.inf)
    least[0] = 0
    begins = np.zeros(n + 1, dtype=np.int64)
    for i, size in enumerate(sizes):
        count = min(_most(size, budget), n - i)
        found = least[i] + cost + size * np.arange(1, count + 1)
        ends = slice(i + 1, i + 1 + count)
        better = found < least[ends]
        least[ends][better] = found[better]
        begins[ends][better] = i
    cuts = [n]
    while begins[cuts[-1]]:
        cuts.append(int(begins[cuts[-1]]))
    return cuts[::-1]


class ChunkBudget:
    """How large chunks are and how many keep their activations, as measured and as memory ran out.

    Args:
        device: Where the model is.
        processes: How many train together, and share this machine's memory.
        chunk_tokens: Most tokens of a chunk; by device where None.
        gradient_cache: "auto", "always", "selective" or "never".
        selective: Whether "auto" may recompute selectively.
        memory_share: Share of the free memory that activations may take.
    """

    def __init__(
        self,
        device: torch.device,
        processes: int,
        chunk_tokens: int | None,
        gradient_cache: str,
        selective: bool,
        memory_share: float,
    ) -> None:
        self.device = device
        self.processes = processes
        self.tokens = chunk_tokens or DEFAULT_CHUNK_TOKENS.get(device.type, 8192)
        self.cost = CHUNK_COST.get(device.type, 1024)
        self.gradient_cache = gradient_cache
        self.selective = selective
        self.memory_share = memory_share
        self._bytes_per_token: tuple[float, float] | None = None

    def plan(self, texts: Texts) -> ChunkPlan:
        """Returns how a batch is embedded."""
        return ChunkPlan.of(texts, self.tokens, self.cost)

    def kept(self, plan: ChunkPlan, passes: int, measure: Callable[[ChunkPlan], tuple[float, float]]) -> Kept:
        """Returns what a step keeps.

        Args:
            plan: The batch.
            passes: How many forwards every process must do (see `Embedder.without_graph`), or 0.
            measure: Gives the bytes that a token's activations take, and those of them that are not cheap
                to have again; asked once.
        """
        count = len(plan.chunks)
        if passes > 1 and self.gradient_cache != "never":
            return Kept(0, 0)
        if count == 1 or passes or self.gradient_cache == "never":
            return Kept(count, count)
        # The last chunk is the first on the way back: its activations are never there beside another's.
        if self.gradient_cache == "always":
            return Kept(1, 1)
        if self.gradient_cache == "selective":
            return Kept(count, 1)
        if self._bytes_per_token is None:
            self._bytes_per_token = measure(plan)
        everything, costly = self._bytes_per_token
        free = self.memory_share * free_memory(self.device, self.processes)
        return plan.fitting(everything, costly if self.selective else everything, free)

    def halve(self, plan: ChunkPlan, error: BaseException) -> None:
        """Halves the chunks after memory ran out.

        Raises:
            InputError: Where that is of no use: a text alone does not fit, or other processes may be waiting
                in an exchange that this one would not reach.
        """
        longest = int(plan.texts.lengths.max())
        if self.processes > 1 or self.tokens <= longest:
            raise InputError(
                f"out of memory with chunks of {self.tokens} tokens, the longest text having {longest}. "
                "Lower --chunk_tokens or --max_length, or set --gradient_checkpointing true."
            ) from error
        self.tokens = max(self.tokens // 2, longest)
        self._bytes_per_token = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        logger.warning("Out of memory: going on with chunks of %d tokens.", self.tokens)


def free_memory(device: torch.device, processes: int) -> int:
    """Returns the bytes that are free for this process, of `processes` on this machine."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + unused
    import psutil

    return psutil.virtual_memory().available // max(processes, 1)
