"""How sure one is that two arms differ: paired tests over queries, corrected for several arms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 9999


@dataclass(frozen=True)
class Difference:
    """An arm's mean less that of what it is compared with, over the same queries.

    Attributes:
        mean: The mean difference of the queries' scores, each averaged over the seeds.
        low: Lower end of its 95% interval (percentile bootstrap over queries).
        high: Upper end.
        p_value: Two-sided, by permutation of the two within a query; not corrected.
        wins: Queries that score higher.
        losses: Queries that score lower.
        ties: The others.
    """

    mean: float
    low: float
    high: float
    p_value: float
    wins: int
    losses: int
    ties: int


def paired_difference(ours: np.ndarray, theirs: np.ndarray, seed: int = 0) -> Difference:
    """Compares two arms query by query, by scipy's permutation test and bootstrap.

    The queries are what is resampled: the test says whether the difference would hold on other
    queries of the kind. How far it hangs on the seed is shown by the spread over seeds beside it.

    Args:
        ours: The queries' scores, averaged over seeds, shape (queries,).
        theirs: Those of the other arm, for the same queries in the same order.
        seed: Seed of the resampling.

    Raises:
        ValueError: Where the shapes differ or hold no query.
    """
    from scipy.stats import bootstrap, permutation_test

    ours, theirs = np.asarray(ours, dtype=float), np.asarray(theirs, dtype=float)
    if ours.shape != theirs.shape or ours.ndim != 1 or not len(ours):
        raise ValueError(f"scores of shapes {ours.shape} and {theirs.shape} cannot be paired")
    delta = ours - theirs
    # A mean over seeds of equal scores can differ in its last bits.
    wins, losses = int((delta > 1e-9).sum()), int((delta < -1e-9).sum())
    ties = len(delta) - wins - losses
    mean = float(delta.mean())
    if wins + losses == 0:
        return Difference(0.0, 0.0, 0.0, 1.0, wins, losses, ties)
    if len(delta) == 1:
        return Difference(mean, float("nan"), float("nan"), 1.0, wins, losses, ties)
    test = permutation_test(
        (ours, theirs),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        n_resamples=RESAMPLES,
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    interval = bootstrap(
        (delta,),
        np.mean,
        n_resamples=RESAMPLES,
        method="percentile",
        batch=1000,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Difference(mean, float(interval.low), float(interval.high), float(test.pvalue), wins, losses, ties)


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns the p-values corrected by Holm's step-down method (Holm, 1979), in the given order."""
    order = np.argsort(p_values, kind="stable")
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(order.tolist()):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = highest
    return corrected


def format_interval(difference: Difference | None) -> str:
    """Returns a difference's interval as text; "" where there is none, as with a single query."""
    if difference is None or math.isnan(difference.low):
        return ""
    return f"{difference.low:+.4f} to {difference.high:+.4f}"


def format_p(p_value: float) -> str:
    """Returns a p-value as text; below a thousandth only that is said."""
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"
