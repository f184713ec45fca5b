"""The training step: embed every text once, take the loss over the whole batch, go back.

Texts are embedded in chunks of similar length under a token budget. Where all chunks' activations fit
into memory they are kept (direct). Where they don't, GradCache (Gao et al. 2021, arXiv 2101.06983) embeds
without activations, takes the gradient of the loss with respect to the embeddings, and embeds chunk by
chunk again to go back from there. Both give the same gradients.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from sentence_transformers.base.losses.gradcache import RandContext
from torch import Tensor, nn

from syneg.training.losses import precise
from syneg.training.texts import Padder, Texts

DEFAULT_CHUNK_TOKENS = {"cpu": 2048, "cuda": 32768}
"""Measured on a CPU: larger chunks leave its caches. A GPU wants enough work for a kernel."""


@dataclass
class Plan:
    """How one batch is embedded.

    Attributes:
        texts: The texts, with their tokens on the model's device.
        chunks: Positions of each chunk's texts.
        starts: Where each text's tokens begin.
    """

    texts: Texts
    chunks: list[list[int]]
    starts: Tensor

    @property
    def padded_tokens(self) -> int:
        """Tokens that are computed, padding included."""
        return sum(len(chunk) * int(self.texts.lengths[chunk[0]]) for chunk in self.chunks)

    @property
    def order(self) -> Tensor:
        """Where each text stands in the chunks laid end to end, shape (n,)."""
        laid = torch.tensor([i for chunk in self.chunks for i in chunk])
        return torch.argsort(laid)


class Embedder:
    """Embeds the chunks of a plan, and takes gradients back through them.

    Args:
        model: The model as accelerate prepared it.
        padder: Makes a chunk's features.
        last_module: The model's last module; what it need not return is taken out there.
        autocast: Returns the context of mixed precision.
        no_sync: Returns the context in which gradients are not exchanged between processes.
        backward: Takes a scalar back (accelerate's, which scales losses and drives DeepSpeed).
    """

    def __init__(
        self,
        model: nn.Module,
        padder: Padder,
        last_module: nn.Module,
        autocast: Callable[[], AbstractContextManager[Any]],
        no_sync: Callable[[], AbstractContextManager[Any]],
        backward: Callable[[Tensor], None],
    ) -> None:
        self.model = model
        self.padder = padder
        self.last_module = last_module
        self.autocast = autocast
        self.no_sync = no_sync
        self.backward = backward

    def embed(self, plan: Plan, chunk: Sequence[int]) -> Tensor:
        """Returns the embeddings of one chunk in float32 at least, shape (chunk, d)."""
        features = self.padder.features(plan.texts, plan.starts, chunk)
        return precise(self.model(features)["sentence_embedding"])

    @contextlib.contextmanager
    def only_embeddings(self) -> Iterator[None]:
        """Within it the model gives no token embeddings, which mixed precision would copy in float32."""

        def drop(module: nn.Module, inputs: Any, output: dict[str, Any]) -> dict[str, Any]:
            return {"sentence_embedding": output["sentence_embedding"]}

        handle = self.last_module.register_forward_hook(drop)
        try:
            yield
        finally:
            handle.remove()

    def without_graph(self, plan: Plan, passes: int = 0) -> tuple[Tensor, list[RandContext]]:
        """Embeds all texts, keeping no activations.

        Args:
            plan: The texts.
            passes: How many forwards every process does at least. Where each is an exchange (FSDP),
                processes with fewer chunks repeat one and throw the result away.

        Returns:
            The embeddings in the order of the texts, shape (n, d), and each chunk's random state.
        """
        states, parts = [], []
        device_of = next(iter(plan.texts.tokens.values()))
        with torch.no_grad(), self.only_embeddings(), self.autocast():
            for chunk in plan.chunks:
                states.append(RandContext(device_of))
                parts.append(self.embed(plan, chunk))
            for _ in range(passes - len(plan.chunks)):
                self.embed(plan, plan.chunks[-1])
        # Casts of weights that were cached without a graph must not serve the second pass.
        torch.clear_autocast_cache()
        return torch.cat(parts)[plan.order], states

    def direct(self, plan: Plan, loss: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        """One pass with all activations kept. `loss` gives the loss and its gradient by embedding."""
        parts = []
        # One outer context: weights are cast once for all chunks, and kept once.
        with self.only_embeddings(), self.autocast():
            for i, chunk in enumerate(plan.chunks):
                last = i == len(plan.chunks) - 1
                # DDP prepares its one exchange in the last forward that it is told to synchronise.
                with contextlib.nullcontext() if last else self.no_sync():
                    parts.append(self.embed(plan, chunk))
        embeddings = torch.cat(parts)[plan.order.to(parts[0].device)]
        value, gradient = loss(embeddings.detach())
        self.backward((embeddings * gradient).sum())
        return value

    def cached(self, plan: Plan, loss: Callable[[Tensor], tuple[Tensor, Tensor]], passes: int = 0) -> Tensor:
        """GradCache; for `passes` see `without_graph`."""
        embeddings, states = self.without_graph(plan, passes)
        value, gradient = loss(embeddings)
        chunks = list(zip(plan.chunks, states, strict=True))
        # What is repeated goes back without weight.
        idle = max(passes - len(chunks), 0)
        with self.only_embeddings():
            for i, (chunk, state) in enumerate([chunks[-1]] * idle + chunks):
                weight = 0.0 if i < idle else 1.0
                last = i == idle + len(chunks) - 1
                with contextlib.nullcontext() if last else self.no_sync():
                    with state, self.autocast():
                        part = self.embed(plan, chunk)
                    self.backward((part * gradient[chunk]).sum() * weight)
        return value


def bytes_per_token(embedder: Embedder, plan: Plan) -> float:
    """Measures the activations that the longest chunk keeps for its way back, in bytes a padded token."""
    kept: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in embedder.model.parameters()}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    chunk = plan.chunks[0]
    hooks = torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor)
    # The random state is put back, so that measuring leaves no trace in the training.
    state = RandContext(next(iter(plan.texts.tokens.values())))
    with state, embedder.only_embeddings(), embedder.no_sync(), embedder.autocast(), hooks:
        embedding = embedder.embed(plan, chunk)
        total = sum(kept.values())
    del embedding
    torch.clear_autocast_cache()
    return total / (len(chunk) * int(plan.texts.lengths[chunk[0]]))


def free_memory(device: torch.device, processes: int) -> int:
    """Returns the bytes that are free for this process, of `processes` on this machine."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + unused
    import psutil

    return psutil.virtual_memory().available // max(processes, 1)
