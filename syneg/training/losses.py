"""Losses, as functions of embeddings and scores.

All are over one batch: b queries, each with a positive and k negatives of its own, and c candidates
that the batch shares. Each returns one value an instance, shape (b,), in float32 at least.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

MASKED = -torch.inf


def precise(values: Tensor) -> Tensor:
    """Returns the values in float32, or in float64 where they are: losses are not for half precision."""
    return values if values.dtype == torch.float64 else values.float()


def own_scores(queries: Tensor, documents: Tensor, positive: Tensor, negatives: Tensor) -> Tensor:
    """Returns the similarity of each query with its positive and its own negatives.

    Args:
        queries: Shape (b, d).
        documents: Shape (n, d).
        positive: Row of each positive in `documents`, shape (b,).
        negatives: Rows of the negatives, -1 where there is none, shape (b, k).

    Returns:
        Shape (b, 1 + k), the positive first; what stands for no negative is to be masked.
    """
    own = torch.cat([positive.unsqueeze(1), negatives.clamp(min=0)], dim=1)
    return torch.einsum("bd,bkd->bk", queries, documents[own])


def info_nce(
    own: Tensor,
    own_mask: Tensor,
    temperature: float,
    shared: Tensor | None = None,
    shared_mask: Tensor | None = None,
    own_bias: Tensor | None = None,
) -> Tensor:
    """InfoNCE: -log softmax of the positive among the instance's negatives (SyNeg, section 3).

    L = -log( f(q,d+) / (f(q,d+) + sum over own negatives f(q,d-) + sum over shared ones f(q,d')) ) with
    f = exp(s / temperature). The paper's loss is the one without `shared`.

    Args:
        own: Similarities with the positive and the own negatives, shape (b, 1 + k).
        own_mask: True where there is a negative that counts, shape (b, k).
        temperature: tau.
        shared: Similarities with the batch's other documents, shape (b, c).
        shared_mask: True where such a document counts, shape (b, c).
        own_bias: Added to the own negatives' logits, shape (b, k): log weights, or hardness.

    Returns:
        Shape (b,).
    """
    logits = negative_logits(own, own_mask, temperature, own_bias)
    rest = torch.logsumexp(logits, dim=1)
    if shared is not None and shared_mask is not None and shared.shape[1] > 0:
        others = (precise(shared) / temperature).masked_fill(~shared_mask, MASKED)
        rest = torch.logaddexp(rest, torch.logsumexp(others, dim=1))
    return rest - logits[:, 0]


def negative_logits(own: Tensor, own_mask: Tensor, temperature: float, own_bias: Tensor | None) -> Tensor:
    """Returns the logits of the positive and the own negatives, shape (b, 1 + k)."""
    logits = precise(own) / temperature
    negatives = logits[:, 1:] if own_bias is None else logits[:, 1:] + own_bias
    return torch.cat([logits[:, :1], negatives.masked_fill(~own_mask, MASKED)], dim=1)


def shared_candidates(
    columns: Tensor,
    positive: Tensor,
    negatives: Tensor,
    text_key: Tensor,
    doc_key: Tensor,
    known: Tensor,
    mask_known: bool = True,
) -> Tensor:
    """Says which of the batch's documents count as in-batch negatives of which instance.

    Never the instance's own positive and negatives, nor a text equal to one of them; and, with
    `mask_known`, no document that is known to be a positive of the query, by its id or by its text.

    Args:
        columns: Position of each candidate among the texts, shape (c,).
        positive: Position of each instance's positive, shape (b,).
        negatives: Positions of its own negatives, -1 where there is none, shape (b, k).
        text_key: Key of every text, shape (n,).
        doc_key: Key of every text's document id, 0 where it has none, shape (n,).
        known: Keys that the query's positives have, 0 where there are fewer, shape (b, m).
        mask_known: Whether known positives are left out.

    Returns:
        True where the candidate counts, shape (b, c).
    """
    candidate_text, candidate_id = text_key[columns], doc_key[columns]
    own = torch.cat([positive.unsqueeze(1), negatives], dim=1)
    own_text = torch.where(own >= 0, text_key[own.clamp(min=0)], 0)
    counts = torch.ones(len(positive), len(columns), dtype=torch.bool, device=columns.device)
    # One comparison a column of `own`: (b, c) at a time instead of (b, c, k).
    for key in own_text.unbind(1):
        counts &= candidate_text != key.unsqueeze(1)
    if mask_known:
        for key in known.unbind(1):
            is_known = (candidate_text == key.unsqueeze(1)) | (candidate_id == key.unsqueeze(1))
            counts &= ~(is_known & (key != 0).unsqueeze(1))
    return counts


def below_margin(scores: Tensor, positive_scores: Tensor, margin: float | None) -> Tensor:
    """Says which scores are not suspiciously high: at most the positive's plus a margin.

    A negative above that is likely to be a false one (Qwen3-Embedding, section 3.1, with 0.1).

    Args:
        scores: Similarities, shape (b, c).
        positive_scores: The positives' similarities, shape (b,).
        margin: The margin; None lets everything pass.

    Returns:
        True where it passes, shape (b, c).
    """
    if margin is None:
        return torch.ones_like(scores, dtype=torch.bool)
    return scores.detach() <= positive_scores.detach().unsqueeze(1) + margin


def hardness_bias(own: Tensor, strength: float) -> Tensor:
    """Returns what hardness weighting adds to the own negatives' logits, shape (b, k).

    strength * stop_grad(similarity): the softmax's weight of a negative is multiplied by
    exp(strength * s) (Lan et al. 2025, arXiv 2503.04812, equation 5; EmbeddingGemma, arXiv 2509.20354,
    for explicit negatives).
    """
    return strength * precise(own[:, 1:].detach())


def to_unit_range(teacher: Tensor) -> Tensor:
    """Returns a teacher's scores with the lowest of each instance at 0 and the highest at 1.

    One temperature then suits teachers whose scores have different ranges.

    Args:
        teacher: The teacher's scores, NaN where unknown, shape (b, 1 + k).

    Returns:
        Shape (b, 1 + k), NaN where unknown; 0 where all scores of an instance are equal.
    """
    low = teacher.nan_to_num(nan=torch.inf).amin(dim=1, keepdim=True)
    high = teacher.nan_to_num(nan=-torch.inf).amax(dim=1, keepdim=True)
    width = high - low
    return torch.where(width > 0, (teacher - low) / width, teacher * 0.0)


def below_teacher(teacher: Tensor, share: float | None) -> Tensor:
    """Says which own negatives a teacher does not take for relevant: those far enough below its best score.

    What scores above top - |top| * (1 - share) is left out of the contrastive loss (CADET, arXiv 2505.19274,
    with 0.6 of the best score); so is what it does not score where it scores others.

    Args:
        teacher: The teacher's scores, the positive's first, NaN where unknown, shape (b, 1 + k).
        share: The share; None lets everything pass.

    Returns:
        True where the negative passes, shape (b, k); all of an instance of which nothing is scored.
    """
    if share is None:
        return torch.ones_like(teacher[:, 1:], dtype=torch.bool)
    top = teacher.nan_to_num(nan=-torch.inf).amax(dim=1, keepdim=True)
    passes = teacher[:, 1:] <= top - top.abs() * (1 - share)
    return passes | teacher.isnan().all(dim=1, keepdim=True)


def kl_distillation(
    own: Tensor, own_mask: Tensor, teacher: Tensor, temperature: float, teacher_temperature: float = 1.0
) -> Tensor:
    """KL divergence from the teacher's distribution over positive and own negatives to the student's.

    (Hinton et al. 2015, arXiv 1503.02531; over a query's candidates: RocketQAv2, arXiv 2110.07367.)

    Args:
        own: The student's similarities, the positive first, shape (b, 1 + k).
        own_mask: True where there is a negative, shape (b, k).
        teacher: The teacher's scores, NaN where unknown, shape (b, 1 + k). An instance whose positive
            has no score gives 0, a negative without a score is left out.
        temperature: The student's.
        teacher_temperature: The teacher's.

    Returns:
        Shape (b,).
    """
    present = torch.cat([torch.ones_like(own_mask[:, :1]), own_mask], dim=1) & ~teacher.isnan()
    usable = present[:, 0] & (present.sum(dim=1) > 1)
    present[:, 0] = True  # An empty row would be NaN; `usable` takes it out below.
    student_log = F.log_softmax((precise(own) / temperature).masked_fill(~present, MASKED), dim=1)
    teacher_logits = (teacher.nan_to_num() / teacher_temperature).masked_fill(~present, MASKED)
    teacher_log = F.log_softmax(teacher_logits, dim=1)
    terms = teacher_log.exp() * (teacher_log - student_log).masked_fill(~present, 0.0)
    return terms.masked_fill(~present, 0.0).sum(dim=1) * usable


def margin_mse(own: Tensor, own_mask: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Squared error of the margin between positive and negative (Hofstaetter et al. 2020, arXiv 2010.02666).

    The student's margin is that of the logits (similarity / temperature), so that cosine scores can reach
    the teacher's range.

    Args:
        own: The student's similarities, the positive first, shape (b, 1 + k).
        own_mask: True where there is a negative, shape (b, k).
        teacher: The teacher's scores, NaN where unknown, shape (b, 1 + k).
        temperature: The student's.

    Returns:
        The mean over the instance's negatives that have a score, 0 where none has, shape (b,).
    """
    logits = precise(own) / temperature
    margins = logits[:, :1] - logits[:, 1:]
    target = teacher[:, :1] - teacher[:, 1:]
    present = own_mask & ~target.isnan()
    errors = (margins - target.nan_to_num()).square() * present
    return errors.sum(dim=1) / present.sum(dim=1).clamp(min=1)


def causalneg(
    queries: Tensor,
    documents: Tensor,
    negatives: Tensor,
    own_mask: Tensor,
    generated: Tensor,
    temperature: float = 0.1,
) -> Tensor:
    """CausalNeg's entropy term, as in its authors' code (arXiv 2606.01304; src/losses/entropy_loss.py).

    With p the softmax over the instance's negatives of s(q, d) / temperature, and q_i = p_i over the mass M
    of the generated ones: sum of q_i log q_i (minus their entropy) plus (M - n_generated / n_negatives)^2.
    Query and mined negatives are detached: a gradient flows to the generated ones alone.

    Args:
        queries: Shape (b, d).
        documents: Shape (n, d).
        negatives: Rows of the negatives in `documents`, -1 where there is none, shape (b, k).
        own_mask: True where there is a negative that counts, shape (b, k).
        generated: True where the negative was written by an LLM, shape (b, k).
        temperature: Of the softmax over negatives.

    Returns:
        Shape (b,), at least -log n_generated; 0 for an instance without generated negatives. The authors
        take the mean over the others, here they stand in the mean over all.
    """
    if negatives.shape[1] == 0:
        return precise(queries).sum(dim=1) * 0.0
    vectors = documents[negatives.clamp(min=0)]
    vectors = torch.where(generated.unsqueeze(2), vectors, vectors.detach())
    scores = precise(torch.einsum("bd,bkd->bk", queries.detach(), vectors)) / temperature
    ours = generated & own_mask
    some = ours.any(dim=1)
    # A row of -inf would make the gradient NaN; such rows do not count anyway.
    everyone = own_mask | ~some.unsqueeze(1)
    log_all = F.log_softmax(scores.masked_fill(~everyone, MASKED), dim=1)
    among = ours | ~some.unsqueeze(1)
    log_ours = F.log_softmax(scores.masked_fill(~among, MASKED), dim=1).masked_fill(~ours, 0.0)
    entropy = -(log_ours.exp() * log_ours).masked_fill(~ours, 0.0).sum(dim=1)
    mass = log_all.exp().masked_fill(~ours, 0.0).sum(dim=1)
    share = ours.sum(dim=1) / own_mask.sum(dim=1).clamp(min=1)
    return ((mass - share).square() - entropy) * some


def source_entropy(own: Tensor, own_mask: Tensor, source: Tensor, temperature: float = 0.1) -> Tensor:
    """How well scores tell the sources of negatives apart: a term of our own, after CausalNeg's idea.

    The softmax over the instance's negatives is summed by source; the term is log S minus the entropy
    of that distribution over the S sources present. It is 0 where the query gives every source the same
    mass, and instances with one source give 0. Sources with more negatives are compared by their mean
    mass, since the mixture, not the query, decides how many there are. All have a gradient; the published
    term is `causalneg`.

    Args:
        own: Similarities, the positive first, shape (b, 1 + k).
        own_mask: True where there is a negative, shape (b, k).
        source: Key of each negative's source, shape (b, k).
        temperature: Of the softmax over negatives.

    Returns:
        Shape (b,), between 0 and log S.
    """
    if own_mask.shape[1] == 0:
        return precise(own).sum(dim=1) * 0.0
    scores = (precise(own[:, 1:]) / temperature).masked_fill(~own_mask, MASKED)
    same = (source.unsqueeze(2) == source.unsqueeze(1)) & own_mask.unsqueeze(1) & own_mask.unsqueeze(2)
    # The first negative of each source stands for it.
    first = own_mask & ~torch.tril(same, diagonal=-1).any(dim=2)
    log_mass = torch.logsumexp(scores.unsqueeze(1).masked_fill(~same, MASKED), dim=2)
    log_mass = (log_mass - same.sum(dim=2).clamp(min=1).log()).masked_fill(~first, MASKED)
    several = first.sum(dim=1) > 1
    # A row of -inf would make the gradient NaN; such rows do not count anyway.
    log_share = F.log_softmax(log_mass.masked_fill(~several.unsqueeze(1), 0.0), dim=1)
    entropy = -(log_share.exp() * log_share.masked_fill(~first, 0.0)).sum(dim=1)
    return (first.sum(dim=1).clamp(min=1).to(entropy.dtype).log() - entropy) * several
