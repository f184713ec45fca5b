"""The loss of a batch: which terms `ContrastiveArguments` asks for, put together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from syneg.errors import InputError
from syneg.resources import class_from_file, is_class_spec
from syneg.rows import SYNTHETIC
from syneg.training import losses
from syneg.training.arguments import ContrastiveArguments
from syneg.training.instances import Instances, key_of

_SCORES_AT_ONCE = 1 << 22
"""Entries of the largest score matrix held at a time (16 MiB in float32, and several like it are made on the
way): rows beyond it follow in turn."""


@dataclass
class Record:
    """What is logged of some instances; none of it carries a gradient.

    Attributes:
        source: Key of each own negative's source, 0 where there is none, shape (b, k).
        similarity: Similarity of each own negative, shape (b, k).
        mass: Its share of the softmax, which is its share of the gradient, shape (b, k).
        positive: Similarity of the positives, shape (b,).
        masked: How many in-batch documents were left out as false negatives, a scalar.
        rank_first: Whether the positive scored above all own negatives, shape (b,).
    """

    source: Tensor
    similarity: Tensor
    mass: Tensor
    positive: Tensor
    masked: Tensor
    rank_first: Tensor


def find_objective(spec: str | None) -> type[ContrastiveObjective]:
    """Returns the class that computes the loss: ours, or the one in a file of the user's own.

    Args:
        spec: ``FILE.py:CLASS``, or None for ours.

    Raises:
        InputError: Where it cannot be used; says what it would have to define.
    """
    if spec is None:
        return ContrastiveObjective
    if not is_class_spec(spec):
        raise InputError(
            f"unknown objective {spec!r}: give FILE.py:CLASS, a subclass of "
            "syneg.training.objective.ContrastiveObjective with forward(embeddings, instances, columns, "
            "rows), or leave it out for ours."
        )
    return class_from_file(spec, ContrastiveObjective, "objective", methods=("forward",), texts=())


class ContrastiveObjective(nn.Module):
    """Computes the loss of instances from embeddings.

    It holds the model only because the trainer looks for the parameters to optimise here. One of a user's own
    is derived from this class, in a file that ``--objective FILE.py:CLASS`` names; it overrides `forward`.

    Args:
        model: The SentenceTransformer.
        args: The terms, weights and temperatures.
    """

    def __init__(self, model: nn.Module, args: ContrastiveArguments) -> None:
        super().__init__()
        self.model = model
        self.args = args
        similarity = args.similarity
        if similarity == "model":
            similarity = "dot" if getattr(model, "similarity_fn_name", "cosine") == "dot" else "cosine"
        self.cosine = similarity == "cosine"

    def forward(
        self, embeddings: Tensor, instances: Instances, columns: Tensor | None, rows: slice
    ) -> tuple[Tensor, Record]:
        """Returns the loss of some instances.

        Args:
            embeddings: Of all texts of the batch, shape (n, d).
            instances: All instances of the batch, on the same device.
            columns: Positions of the in-batch candidates; None where there are none.
            rows: Which instances' losses are wanted.

        Returns:
            The losses, shape (rows,), and what is to be logged.
        """
        dims = [embeddings.shape[1], *(d for d in self.args.matryoshka_dims or [] if d < embeddings.shape[1])]
        total, record = self._at_full_width(self._normal(embeddings), instances, columns, rows)
        for dim in dims[1:]:
            # Matryoshka (arXiv 2205.13147): the same loss on the first dimensions, all with weight 1.
            part, _ = self._at_full_width(self._normal(embeddings[:, :dim]), instances, columns, rows)
            total = total + part
        return total / len(dims), record

    @torch.no_grad()
    def above_positive(self, embeddings: Tensor, instances: Instances) -> tuple[Tensor, Tensor]:
        """Says what scores above the positive, by the loss's own similarities.

        Args:
            embeddings: Of all texts of the batch, shape (n, d).
            instances: All instances of the batch, on the same device.

        Returns:
            Of the own negatives, shape (b, k): 1 above, 0 not, -1 where there is none or it does not count.
            Of the other instances' positives, shape (b, b): the same, -1 also for known positives.
        """
        vectors, everyone = self._normal(embeddings), slice(None)
        queries = vectors[instances.query]
        own = losses.own_scores(queries, vectors, instances.positive, instances.negatives)
        counts = self._counts(own, instances.negatives, self._teacher(instances.teacher))
        _, others, _ = self._shared(queries, own, vectors, instances, instances.positive, everyone, None)
        scores = queries @ vectors[instances.positive].T
        return (
            (own[:, 1:] > own[:, :1]).long().masked_fill(~counts, -1),
            (scores > own[:, :1]).long().masked_fill(~others, -1),
        )

    def _counts(self, own: Tensor, negatives: Tensor, teacher: Tensor) -> Tensor:
        """Says which own negatives count as such, shape (b, k)."""
        return self._present(own, negatives) & losses.below_teacher(teacher, self.args.teacher_mask)

    def _present(self, own: Tensor, negatives: Tensor) -> Tensor:
        """Says which own negatives there are, but for those that the model scores too high, shape (b, k)."""
        present = negatives >= 0
        if self.args.mask_own_negatives:
            present = present & losses.below_margin(own[:, 1:], own[:, 0], self.args.false_negative_margin)
        return present

    def _teacher(self, scores: Tensor) -> Tensor:
        return losses.to_unit_range(scores) if self.args.teacher_scale == "unit" else scores

    def row_slices(self, instances: Instances, columns: Tensor | None) -> list[slice]:
        """Returns the rows in parts small enough for their score matrices to be held at a time."""
        width = 1 + instances.negatives.shape[1] + (0 if columns is None else len(columns))
        if self.args.symmetric:
            width += len(instances)
        size = max(_SCORES_AT_ONCE // width, 1)
        return [slice(i, min(i + size, len(instances))) for i in range(0, len(instances), size)]

    def _normal(self, embeddings: Tensor) -> Tensor:
        vectors = losses.precise(embeddings)
        return F.normalize(vectors, dim=1) if self.cosine else vectors

    def _at_full_width(
        self, vectors: Tensor, instances: Instances, columns: Tensor | None, rows: slice
    ) -> tuple[Tensor, Record]:
        args = self.args
        queries = vectors[instances.query[rows]]
        positive, negatives = instances.positive[rows], instances.negatives[rows]
        source = instances.source[rows]
        own = losses.own_scores(queries, vectors, positive, negatives)
        teacher = self._teacher(instances.teacher[rows])
        present, counts = negatives >= 0, self._counts(own, negatives, teacher)
        bias = self._bias(own, source)
        shared, shared_mask, masked = None, None, torch.zeros((), device=vectors.device)
        if columns is not None:
            shared, shared_mask, masked = self._shared(
                queries, own, vectors, instances, columns, rows, args.false_negative_margin
            )
        loss = losses.info_nce(own, counts, args.temperature, shared, shared_mask, bias)
        with torch.no_grad():
            logits = losses.negative_logits(own, counts, args.temperature, bias)
            mass = (logits[:, 1:] - (loss + logits[:, 0]).unsqueeze(1)).exp()
            first = (own[:, :1] > own[:, 1:].masked_fill(~present, losses.MASKED)).all(dim=1)
            record = Record(source, own[:, 1:].detach(), mass, own[:, 0].detach(), masked, first)
        if args.symmetric:
            loss = (loss + self._backwards(vectors, queries, instances, rows)) / 2
        loss = args.contrastive_weight * loss
        if args.distillation != "none":
            # What the teacher takes for relevant is no negative, but has its place in the list.
            listed = self._present(own, negatives)
            loss = loss + args.distillation_weight * self._distilled(own, listed, teacher)
        if args.source_entropy_weight:
            blind = losses.source_entropy(own, counts, source, args.source_entropy_temperature)
            loss = loss + args.source_entropy_weight * blind
        if args.causalneg_weight:
            generated = source == key_of(SYNTHETIC)
            term = losses.causalneg(
                queries, vectors, negatives, counts, generated, args.causalneg_temperature
            )
            loss = loss + args.causalneg_weight * term
        return loss, record

    def _bias(self, own: Tensor, source: Tensor) -> Tensor | None:
        bias = None
        if self.args.hardness:
            bias = losses.hardness_bias(own, self.args.hardness)
        for name, weight in (self.args.source_weights or {}).items():  # type: ignore[union-attr]
            if bias is None:
                bias = torch.zeros_like(own[:, 1:])
            # A weight w multiplies f(q, d-) in the denominator, so it is log w on the logit.
            log_weight = torch.tensor(float(weight), device=own.device).log()
            bias = torch.where(source == key_of(name), bias + log_weight, bias)
        return bias

    def _shared(
        self,
        queries: Tensor,
        own: Tensor,
        vectors: Tensor,
        instances: Instances,
        columns: Tensor,
        rows: slice,
        margin: float | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns scores and mask of the in-batch candidates, and how many were masked as false negatives."""
        shared = queries @ vectors[columns].T
        keys = (
            columns,
            instances.positive[rows],
            instances.negatives[rows],
            instances.text_key,
            instances.doc_key,
        )
        known = instances.known[rows]
        others = losses.shared_candidates(*keys, known, mask_known=False)
        mask = others
        if self.args.mask_known_positives:
            mask = losses.shared_candidates(*keys, known)
            # Positives that other rows of the batch give for the same query.
            same = instances.query_key[rows].unsqueeze(1) == instances.query_key.unsqueeze(0)
            siblings = same.nonzero()
            keys_of_siblings = instances.text_key[instances.positive[siblings[:, 1]]]
            is_sibling = instances.text_key[columns].unsqueeze(0) == keys_of_siblings.unsqueeze(1)
            hit_row, hit_column = is_sibling.nonzero().unbind(1)
            mask[siblings[hit_row, 0], hit_column] = False
        mask = mask & losses.below_margin(shared, own[:, 0], margin)
        return shared, mask, (others & ~mask).sum()

    def _backwards(self, vectors: Tensor, queries: Tensor, instances: Instances, rows: slice) -> Tensor:
        """InfoNCE from each positive to the queries of the batch."""
        positive = instances.positive[rows]
        every = vectors[instances.query]
        scores = vectors[positive] @ every.T
        own = (queries * vectors[positive]).sum(dim=1)
        # A query that has this document among its positives, or is the same query, is no negative.
        mask = instances.query_key[rows].unsqueeze(1) != instances.query_key.unsqueeze(0)
        text, doc = instances.text_key[positive], instances.doc_key[positive]
        for known in instances.known.unbind(1):
            is_known = (text.unsqueeze(1) == known) | ((doc.unsqueeze(1) == known) & (known != 0))
            mask &= ~is_known
        none = torch.zeros(len(own), 0, dtype=torch.bool, device=own.device)
        return losses.info_nce(own.unsqueeze(1), none, self.args.temperature, scores, mask)

    def _distilled(self, own: Tensor, listed: Tensor, teacher: Tensor) -> Tensor:
        args, temperature = self.args, self.args.distillation_temperature
        if args.distillation == "kl":
            return losses.kl_distillation(own, listed, teacher, temperature, args.teacher_temperature)
        return losses.margin_mse(own, listed, teacher, temperature)
