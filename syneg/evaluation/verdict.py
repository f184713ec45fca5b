"""Whether an arm of a comparison pays: one of three words, the sentence that says it, and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from syneg.errors import InputError
from syneg.evaluation.arguments import ZERO_SHOT
from syneg.evaluation.significance import Difference, format_interval, format_p
from syneg.evaluation.summary import Line, query_means, summarise

if TYPE_CHECKING:
    from syneg.evaluation.comparison import Comparison

PAYS, COSTS, UNDECIDED = "pays", "costs", "undecided"

LEVEL = 0.05
"""Below this a corrected p-value decides."""
FEWEST_SEEDS = 2
"""Below this nothing is decided: one training more may turn a difference round."""
POWER = 0.8
"""How often a difference of its true size is to be told, where it is said how many pairs that takes."""


@dataclass(frozen=True)
class Verdict:
    """Whether an arm pays against the baseline.

    Attributes:
        word: "pays", "costs" or "undecided".
        arm: The arm.
        baseline: What it is compared with.
        metric: MTEB's name of the metric.
        heading: What it is called, with "(written)" where an LLM wrote the queries.
        difference: The arm's mean less the baseline's, over the same queries.
        p_value: Its p-value, corrected for all arms of the comparison.
        queries: Queries that were evaluated.
        queries_to_tell: Queries after which a difference of this size and spread is told from none in
            `POWER` of all comparisons like this one; None where there is no difference at all.
        smallest: The smallest difference that this number of queries tells, likewise.
        better_seeds: Seeds in which the arm is better, and how many there are.
    """

    word: str
    arm: str
    baseline: str
    metric: str
    heading: str
    difference: Difference
    p_value: float
    queries: int
    queries_to_tell: int | None
    smallest: float
    better_seeds: tuple[int, int]

    def pairs_to_tell(self, pairs: int) -> int | None:
        """Returns how large a pilot tells this difference, by how many pairs this one had."""
        return (
            None if self.queries_to_tell is None else math.ceil(self.queries_to_tell * pairs / self.queries)
        )

    def to_dict(self, pairs: int) -> dict[str, Any]:
        """Returns all for JSON.

        Args:
            pairs: Pairs of the pilot, those that were trained on and those that were evaluated.
        """
        return {
            "verdict": self.word,
            "sentence": self.sentence(pairs),
            "arm": self.arm,
            "baseline": self.baseline,
            "metric": self.metric,
            "difference": self.difference.mean,
            "interval": [self.difference.low, self.difference.high],
            "p": self.p_value,
            "pairs_to_tell": self.pairs_to_tell(pairs),
            "smallest_difference_told": self.smallest,
        }

    def sentence(self, pairs: int) -> str:
        """Returns the verdict for a person.

        Args:
            pairs: Pairs of the pilot, those that were trained on and those that were evaluated.
        """
        metric, found = self.heading, self.difference
        sure = f"({self._interval()}p {format_p(self.p_value)}; better in {self._seeds()})"
        to_tell = self.pairs_to_tell(pairs)
        if self.word == UNDECIDED:
            told = (
                f"{self.arm} cannot be told from {self.baseline}: {found.mean:+.4f} {metric} {sure} on "
                f"{self.queries:,} queries"
            )
            if self.p_value < LEVEL:
                return (
                    f"{told}; its queries would tell it, and its seeds do not (at least {FEWEST_SEEDS} must "
                    "be trained, and agree): give more --seeds."
                )
            if to_tell is None:
                return f"{told}; there is no difference, so no number of pairs would tell one."
            return (
                f"{told}; to tell a difference of this size takes about {to_tell:,} pairs, and these "
                f"{pairs:,} tell one of about {self.smallest:.3f} or more."
            )
        return (
            f"{self.arm} {self.word} {abs(found.mean):.4f} {metric} against {self.baseline} {sure} on "
            f"{self.queries:,} queries; about {to_tell or pairs:,} pairs tell a difference of this size."
        )

    def _interval(self) -> str:
        interval = format_interval(self.difference)
        return f"95% interval {interval}, " if interval else ""

    def _seeds(self) -> str:
        better, seeds = self.better_seeds
        return f"{better} of {seeds} seed{'s' if seeds > 1 else ''}"


def judge(comparison: Comparison, arm: str, baseline: str | None = None) -> Verdict:
    """Says whether an arm pays against a baseline, on the comparison's metric.

    An arm pays, or costs, where the p-value, corrected for all arms, is below `LEVEL`, and where at least
    `FEWEST_SEEDS` seeds were trained that all say the same.

    Args:
        comparison: At least the arm and the baseline are finished.
        arm: The arm.
        baseline: What it is held to, an arm or `ZERO_SHOT`; the comparison's own if None.

    Raises:
        InputError: Where either is not finished.
    """
    if baseline is not None:
        comparison = replace(comparison, settings={**comparison.settings, "baseline": baseline})
    metric, baseline = comparison.settings["metric"], comparison.settings["baseline"]
    runs = {ZERO_SHOT: [comparison.zero_shot], **comparison.arms}
    for name in (arm, baseline):
        if name not in runs:
            raise InputError(f"arm {name!r} has no finished run, so nothing can be said of it.")
    lines = {line.arm: line for line in summarise(comparison)}
    line = lines[arm]
    assert line.difference is not None and line.corrected_p is not None
    ours, theirs = (query_means(runs[name], metric) for name in (arm, baseline))
    delta = np.array([ours[query] - theirs[query] for query in sorted(theirs)])
    # The strictest step of the correction, so that none of the others' outcome is presumed.
    reach = _deviations(LEVEL / (len(lines) - 1)) * (float(delta.std(ddof=1)) if len(delta) > 1 else 0.0)
    mean = line.difference.mean
    return Verdict(
        _word(line),
        arm,
        baseline,
        metric,
        comparison.heading,
        line.difference,
        line.corrected_p,
        len(delta),
        # The size of a paired sample, by the normal approximation.
        max(2, math.ceil((reach / mean) ** 2)) if mean else None,
        reach / math.sqrt(len(delta)),
        line.better_seeds or (0, 0),
    )


def best_arm(comparison: Comparison, never: Collection[str] = ()) -> str:
    """Returns the arm to use: the baseline, unless another is better by more than chance.

    Of several that are better the one with the highest mean. So the noise of a small sample recommends
    nobody; the model before training is among those that may be better.

    Args:
        comparison: The comparison.
        never: Arms that are not recommended, whatever they came to.
    """
    metric = comparison.settings["metric"]
    better = [
        line
        for line in summarise(comparison)
        if line.arm not in never and line.difference is not None and _word(line) == PAYS
    ]
    if not better:
        return str(comparison.settings["baseline"])
    return max(better, key=lambda line: line.means[metric]).arm


def _word(line: Line) -> str:
    assert line.difference is not None and line.corrected_p is not None
    if line.corrected_p >= LEVEL or not _seeds_agree(line.difference, line.better_seeds):
        return UNDECIDED
    return PAYS if line.difference.mean > 0 else COSTS


def _seeds_agree(difference: Difference, better_seeds: tuple[int, int] | None) -> bool:
    """Whether training's own chance is looked at, and does not speak against the difference.

    The test is over queries: it says nothing of what another seed would have trained.
    """
    if better_seeds is None:
        return True
    better, seeds = better_seeds
    return seeds >= FEWEST_SEEDS and better == (seeds if difference.mean > 0 else 0)


def _deviations(level: float) -> float:
    """Returns how many standard errors a mean must be from 0 to be told from it in `POWER` of all samples."""
    from scipy.stats import norm

    return float(norm.ppf(1 - level / 2) + norm.ppf(POWER))
