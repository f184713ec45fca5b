"""The training step: embed every text once, take the loss over the whole batch, go back.

Texts are embedded in chunks of similar length under a token budget. Chunks whose activations fit into
memory keep them (direct), or keep all but what is cheap to have again (see `recompute`). The others go by
GradCache (Gao et al. 2021, arXiv 2101.06983): it embeds without activations, takes the gradient of the loss
with respect to the embeddings, and embeds chunk by chunk again to go back from there. All give the same
gradients, so a step may do several.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses.gradcache import RandContext
from torch import Tensor, nn

from syneg.training.chunks import ChunkPlan, Kept
from syneg.training.losses import precise
from syneg.training.recompute import keeping_less, marked, recipe_of
from syneg.training.texts import Padder


class Embedder:
    """Embeds the chunks of a plan, and takes gradients back through them.

    Args:
        model: The model as accelerate prepared it.
        plain: The same model, not wrapped.
        padder: Makes a chunk's features.
        sparse_table: Whether the gradient of the table of input embeddings is sparse within a step, where
            it would else be as large as the table for every chunk.
        autocast: Returns the context of mixed precision.
        no_sync: Returns the context in which gradients are not exchanged between processes.
        backward: Takes a scalar back (accelerate's, which scales losses and drives DeepSpeed).
    """

    def __init__(
        self,
        model: nn.Module,
        plain: SentenceTransformer,
        padder: Padder,
        sparse_table: bool,
        autocast: Callable[[], AbstractContextManager[Any]],
        no_sync: Callable[[], AbstractContextManager[Any]],
        backward: Callable[[Tensor], None],
    ) -> None:
        self.model = model
        self.padder = padder
        # What the last module need not return is taken out there.
        self.last_module = list(plain.children())[-1]
        self.transformer = getattr(plain[0], "model", None)
        self.table = self._table() if sparse_table else None
        self.autocast = autocast
        self.no_sync = no_sync
        self.backward = backward

    def _table(self) -> nn.Embedding | None:
        """Returns the table of input embeddings, where it is trained and can have a sparse gradient."""
        try:
            table = self.transformer.get_input_embeddings() if self.transformer is not None else None
        except (AttributeError, NotImplementedError):
            return None
        if not isinstance(table, nn.Embedding) or table.scale_grad_by_freq:
            return None
        return table if table.weight.requires_grad else None

    @contextlib.contextmanager
    def sparse_table(self) -> Iterator[None]:
        """Within it a chunk's gradient of the table holds the rows of its tokens, and is added to all."""
        table = self.table
        if table is None or table.sparse:
            yield
            return
        if table.weight.grad is None:
            # Else chunks' rows would be strung together.
            table.weight.grad = torch.zeros_like(table.weight)
        table.sparse = True
        try:
            yield
        finally:
            table.sparse = False

    def embed(self, plan: ChunkPlan, chunk: Sequence[int]) -> Tensor:
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

    def without_graph(
        self, plan: ChunkPlan, chunks: list[list[int]], passes: int = 0
    ) -> tuple[list[Tensor], list[RandContext]]:
        """Embeds chunks, keeping no activations.

        Args:
            plan: The texts.
            chunks: Those of the plan's chunks to embed.
            passes: How many forwards every process does at least. Where each is an exchange (FSDP),
                processes with fewer chunks repeat one and throw the result away.

        Returns:
            Each chunk's embeddings, shape (chunk, d), and each chunk's random state.
        """
        states, parts = [], []
        device_of = next(iter(plan.texts.tokens.values()))
        with torch.no_grad(), self.only_embeddings(), self.autocast():
            for chunk in chunks:
                states.append(RandContext(device_of))
                parts.append(self.embed(plan, chunk))
            for _ in range(passes - len(chunks)):
                self.embed(plan, chunks[-1])
        # Casts of weights that were cached without a graph must not serve the second pass.
        torch.clear_autocast_cache()
        return parts, states

    def step(
        self,
        plan: ChunkPlan,
        loss: Callable[[Tensor], tuple[Tensor, Tensor]],
        kept: Kept,
        passes: int = 0,
    ) -> Tensor:
        """Embeds all texts, takes the loss, and goes back: directly for what is kept, else by GradCache.

        To be called within `sparse_table`.

        Args:
            plan: The texts.
            loss: Gives the loss and its gradient by the embeddings of all texts.
            kept: Which chunks keep what. All of all is a direct step.
            passes: See `without_graph`.

        Returns:
            The loss.
        """
        count = len(plan.chunks)
        first = count - kept.chunks
        parts, states = self.without_graph(plan, plan.chunks[:first], passes) if first else ([], [])
        # One outer context: weights are cast once for all chunks, and kept once.
        with self.only_embeddings(), self.autocast():
            for i, chunk in enumerate(plan.chunks[first:], first):
                # DDP prepares its one exchange in the last forward that it is told to synchronise.
                last = i == count - 1 and not first
                whole = i >= count - kept.whole
                with (
                    contextlib.nullcontext() if last else self.no_sync(),
                    contextlib.nullcontext() if whole else keeping_less(self.model),
                ):
                    parts.append(self.embed(plan, chunk))
        embeddings = plan.joined(parts)
        value, gradient = loss(embeddings.detach())
        if kept.chunks:
            with contextlib.nullcontext() if not first else self.no_sync():
                self.backward((embeddings * gradient).sum())
        del embeddings, parts
        self.again(plan, plan.chunks[:first], states, gradient, passes)
        return value

    def again(
        self,
        plan: ChunkPlan,
        chunks: list[list[int]],
        states: list[RandContext],
        gradient: Tensor,
        passes: int,
    ) -> None:
        """The second half of GradCache: embeds chunk by chunk with a graph and goes back at once."""
        # What is repeated for the other processes' sake goes back without weight.
        work = [(chunk, state, 1.0) for chunk, state in zip(chunks, states, strict=True)]
        work = [(*last[:2], 0.0) for last in work[-1:]] * (passes - len(work)) + work
        # One cast of the weights serves all chunks, but where they are gathered for each forward (FSDP).
        outer, inner = (
            (contextlib.nullcontext, self.autocast) if passes else (self.autocast, contextlib.nullcontext)
        )
        with self.only_embeddings(), outer():
            for i, (chunk, state, weight) in enumerate(work):
                with contextlib.nullcontext() if i == len(work) - 1 else self.no_sync():
                    with state, inner():
                        part = self.embed(plan, chunk)
                    with torch.autocast(part.device.type, enabled=False):
                        self.backward((part * gradient[chunk]).sum() * weight)

    def bytes_per_token(self, plan: ChunkPlan) -> tuple[float, float]:
        """Measures what the longest chunk keeps, in bytes a padded token.

        Returns:
            All activations, and those that are not cheap to have again.
        """
        everything: dict[int, int] = {}
        costly: dict[int, int] = {}
        weights = {p.untyped_storage().data_ptr() for p in self.model.parameters()}

        def count(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                everything[storage.data_ptr()] = storage.nbytes()
                if recipe_of(tensor) is None:
                    costly[storage.data_ptr()] = storage.nbytes()
            return tensor.detach()  # Else what saves its own result would hold itself, for good.

        hooks = torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor)
        # The random state is put back, so that measuring leaves no trace in the training.
        state = RandContext(next(iter(plan.texts.tokens.values())))
        with state, self.only_embeddings(), self.no_sync(), self.autocast(), marked(self.model), hooks:
            embedding = self.embed(plan, plan.chunks[0])
            sums = sum(everything.values()), sum(costly.values())
        del embedding
        torch.clear_autocast_cache()
        tokens = plan.padded(plan.chunks[0])
        return sums[0] / tokens, sums[1] / tokens
