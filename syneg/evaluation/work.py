"""What each arm of a comparison did: its work, and how its training went."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from syneg.evaluation.metrics import aligned

if TYPE_CHECKING:
    from syneg.evaluation.comparison import Comparison

GRADIENT_VARIANCE = "gradient_variance"
"""As the trainer logs it."""
_MASS = "_mass"


@dataclass(frozen=True)
class Work:
    """What an arm's finished runs did.

    Attributes:
        arm: Its name.
        changes: Its configuration, where it differs.
        rows: Rows of the training set; several numbers where the runs differ.
        steps: Optimiser steps, likewise.
        instances: Instances that were trained on, likewise.
        negatives: Source -> negatives of its own that an instance had, on average.
        train_seconds: Mean over the runs.
        evaluate_seconds: Mean over the runs.
    """

    arm: str
    changes: Mapping[str, Any]
    rows: str
    steps: str
    instances: str
    negatives: dict[str, float]
    train_seconds: float
    evaluate_seconds: float


def work_of(comparison: Comparison) -> list[Work]:
    """Returns what each arm with a finished run did."""
    found = []
    for arm, runs in comparison.arms.items():
        work = [run.work for run in runs]
        instances = sum(part["instances"] for part in work)
        drawn: Counter[str] = Counter()
        for part in work:
            drawn.update(part["negatives"])
        rows, steps, counted = (
            "/".join(str(n) for n in sorted({part[key] for part in work}))
            for key in ("rows", "steps", "instances")
        )
        found.append(
            Work(
                arm,
                comparison.settings["arms"].get(arm, {}),
                rows,
                steps,
                counted,
                {name: number / max(instances, 1) for name, number in sorted(drawn.items())},
                sum(part["train_seconds"] for part in work) / len(work),
                sum(part["evaluate_seconds"] for part in work) / len(work),
            )
        )
    return found


def training_courses(comparison: Comparison) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Returns how the training of each arm went.

    Returns:
        Arm -> what was logged -> the mean over the runs at the first logged step, at half of the steps,
        and at the last; without what was not logged.
    """
    keys = [*logged_masses(comparison), GRADIENT_VARIANCE]
    found = {}
    for arm, runs in comparison.arms.items():
        series = {key: mean_series([run.history for run in runs], key) for key in keys}
        found[arm] = {key: _course(line) for key, line in series.items() if line}
    return found


def _course(line: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    half = line[-1][0] / 2
    middle = min(line, key=lambda point: abs(point[0] - half))
    return line[0][1], middle[1], line[-1][1]


def logged_masses(comparison: Comparison) -> list[str]:
    """Returns the logged shares of the softmax, one a source of negatives."""
    runs = [run for arm in comparison.arms.values() for run in arm]
    logged = {key for run in runs for line in run.history for key in line}
    return sorted(key for key in logged if key.endswith(_MASS) and key != f"own_negatives{_MASS}")


def mass_source(mass: str) -> str:
    """Returns the source of negatives that a logged share of the softmax is of."""
    return mass.removesuffix(_MASS)


def mean_series(
    histories: Sequence[Sequence[Mapping[str, float]]], key: str, by: str = "step"
) -> list[tuple[float, float]]:
    """Returns (step, or epoch; mean over the runs that logged `key` at it)."""
    at: dict[float, list[float]] = {}
    for history in histories:
        for line in history:
            if key in line and by in line and math.isfinite(line[key]):
                at.setdefault(line[by], []).append(line[key])
    return [(place, sum(values) / len(values)) for place, values in sorted(at.items())]


def run_time(comparison: Comparison) -> str:
    """Returns how many runs are finished and how long they took."""
    work = [run.work for runs in comparison.arms.values() for run in runs]
    minutes = sum(part["train_seconds"] + part["evaluate_seconds"] for part in work) / 60
    return f"{len(work)} runs, {minutes:.0f} minutes of training and evaluation."


def work_table(comparison: Comparison) -> str:
    """Returns what each arm did as a Markdown table; a course is first, half-way, last logged step."""
    masses = logged_masses(comparison)
    cells = [
        ["arm", "steps", "negatives an instance", "training, s", "evaluation, s"]
        + [f"softmax mass of {mass_source(mass)}" for mass in masses]
        + ["variance of the gradient"]
    ]
    courses = training_courses(comparison)
    for work in work_of(comparison):
        course = courses[work.arm]
        cells.append(
            [
                work.arm,
                work.steps,
                format_negatives(work.negatives),
                f"{work.train_seconds:.0f}",
                f"{work.evaluate_seconds:.0f}",
                *(format_course(course.get(mass), "{:.3f}") for mass in masses),
                format_course(course.get(GRADIENT_VARIANCE), "{:.1f}"),
            ]
        )
    return aligned(cells)


def format_negatives(negatives: Mapping[str, float]) -> str:
    """Returns the negatives an instance by source as text."""
    return ", ".join(f"{name} {number:.2f}" for name, number in negatives.items()) or "in-batch only"


def format_course(course: Sequence[float] | None, form: str) -> str:
    """Returns the values of a course as text; "" where nothing was logged."""
    return "" if course is None else ", ".join(form.format(value) for value in course)
