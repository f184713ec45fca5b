"""A comparison in figures: means, spread over seeds, differences and how sure they are."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING

import numpy as np

from syneg.evaluation.arguments import ZERO_SHOT
from syneg.evaluation.metrics import METRICS, aligned
from syneg.evaluation.significance import (
    Difference,
    format_interval,
    format_p,
    holm,
    paired_difference,
)
from syneg.evaluation.work import work_of

if TYPE_CHECKING:
    from syneg.evaluation.comparison import Comparison, Run


@dataclass(frozen=True)
class Line:
    """One arm of the results.

    Attributes:
        arm: Its name.
        means: Metric -> mean over the seeds.
        spreads: Metric -> standard deviation over the seeds; None with fewer than two.
        by_seed: Seed -> the metric that is tested (of zero-shot: None -> it).
        difference: From the baseline; None for the baseline itself.
        corrected_p: Holm's p-value over all arms compared with the baseline; None for the baseline.
        better_seeds: Seeds that beat the baseline's run with the same seed, and how many there are; where the
            baseline is zero-shot, seeds that beat it.
    """

    arm: str
    means: dict[str, float]
    spreads: dict[str, float | None]
    by_seed: dict[int | None, float]
    difference: Difference | None
    corrected_p: float | None
    better_seeds: tuple[int, int] | None


def query_means(runs: list[Run], metric: str) -> dict[str, float]:
    """Returns query -> its score, averaged over the runs; a query of a subset is named with it."""
    sums: dict[str, list[float]] = {}
    for run in runs:
        for query in run.queries:
            name = query.query_id if query.subset == "default" else f"{query.subset}/{query.query_id}"
            sums.setdefault(name, []).append(getattr(query, metric))
    return {name: fmean(values) for name, values in sums.items()}


def summarise(comparison: Comparison) -> list[Line]:
    """Returns the results, zero-shot first, then the finished arms in their order.

    Every arm, and zero-shot, is tested against the baseline on the metric of the comparison; where the
    baseline has no finished run, nothing is tested.
    """
    metric, baseline = comparison.settings["metric"], comparison.settings["baseline"]
    groups = {ZERO_SHOT: [comparison.zero_shot], **comparison.arms}
    theirs = query_means(groups[baseline], metric) if baseline in groups else None
    differences: dict[str, Difference] = {}
    if theirs is not None:
        for arm, runs in groups.items():
            if arm != baseline:
                ours = query_means(runs, metric)
                ids = sorted(theirs)
                differences[arm] = paired_difference(
                    np.array([ours[i] for i in ids]), np.array([theirs[i] for i in ids])
                )
    corrected = dict(zip(differences, holm([d.p_value for d in differences.values()]), strict=True))
    lines = []
    for arm, runs in groups.items():
        values = {name: [run.metrics[name] for run in runs] for name in METRICS}
        lines.append(
            Line(
                arm,
                {name: fmean(numbers) for name, numbers in values.items()},
                {name: stdev(numbers) if len(numbers) > 1 else None for name, numbers in values.items()},
                {run.seed: run.metrics[metric] for run in runs},
                differences.get(arm),
                corrected.get(arm),
                _better_seeds(runs, groups.get(baseline, []), metric) if arm in differences else None,
            )
        )
    return lines


def _better_seeds(runs: list[Run], base: list[Run], metric: str) -> tuple[int, int] | None:
    theirs = {run.seed: run.metrics[metric] for run in base}
    if None in theirs:
        # The model before training has no seed: it is the same beside each.
        theirs = {run.seed: theirs[None] for run in runs}
    shared = [run for run in runs if run.seed in theirs]
    if not shared:
        return None
    return sum(run.metrics[metric] > theirs[run.seed] for run in shared), len(shared)


def summary_table(comparison: Comparison) -> str:
    """Returns the results as a Markdown table."""
    metric, baseline = comparison.settings["metric"], comparison.settings["baseline"]
    others = [METRICS[name] for name in METRICS if name != metric]
    headings = ["arm", "seeds", comparison.heading, *others, f"Δ vs {baseline}", "95% interval", "p (Holm)"]
    cells = [headings]
    for line in summarise(comparison):
        spread = line.spreads[metric]
        mean = f"{line.means[metric]:.4f}" + ("" if spread is None else f" ± {spread:.4f}")
        difference = line.difference
        cells.append(
            [
                line.arm,
                "" if line.arm == ZERO_SHOT else str(len(line.by_seed)),
                mean,
                *(f"{line.means[name]:.4f}" for name in METRICS if name != metric),
                "" if difference is None else f"{difference.mean:+.4f}",
                format_interval(difference),
                "" if line.corrected_p is None else format_p(line.corrected_p),
            ]
        )
    return aligned(cells)


def work_notes(comparison: Comparison) -> list[str]:
    """Returns what a reader must know before comparing: unequal work, what is missing or unfinished."""
    kind = comparison.settings.get("written")
    told = f"Evaluated on queries that an LLM wrote ({kind}): they favour what resembles the writer."
    notes = [told] if kind else []
    runs = [run for arm in comparison.arms.values() for run in arm]
    work = work_of(comparison)
    for what in ("steps", "rows", "instances"):
        counts = {part.arm: getattr(part, what) for part in work}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{arm} {number}" for arm, number in counts.items())
            notes.append(f"Not the same number of {what}: {listed}.")
    per_instance = {part.arm: round(sum(part.negatives.values()), 2) for part in work}
    if len(set(per_instance.values())) > 1:
        listed = ", ".join(f"{arm} {number:g}" for arm, number in per_instance.items())
        notes.append(f"Not the same number of negatives an instance: {listed}.")
    for name, said in (
        ("fallback", "Negatives that were drawn from another source than asked for"),
        ("missing", "Negatives that could not be had"),
    ):
        total = {arm: sum(_total(run.work[name]) for run in part) for arm, part in comparison.arms.items()}
        listed = ", ".join(f"{arm} {number}" for arm, number in total.items() if number)
        if listed:
            notes.append(f"{said}: {listed}.")
    if len({len(run.queries) for run in [comparison.zero_shot, *runs]}) > 1:
        notes.append("The runs were evaluated on different numbers of queries.")
    begun: dict[str, list[str]] = {}
    for arm, seed in comparison.unfinished:
        if arm in comparison.arms:
            begun.setdefault(arm, []).append(str(seed))
    if begun:
        listed = "; ".join(f"{arm} (seed {', '.join(seeds)})" for arm, seeds in begun.items())
        notes.append(f"Not finished: {listed}.")
    missing = dict.fromkeys(arm for arm, _ in comparison.unfinished if arm not in comparison.arms)
    if missing:
        notes.append(f"Not run: {', '.join(missing)}.")
    return notes


def _total(value: int | dict[str, int]) -> int:
    return sum(value.values()) if isinstance(value, dict) else value
