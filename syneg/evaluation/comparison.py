"""A comparison as it lies on disk: its settings, and the record of every finished run."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from syneg.errors import InputError
from syneg.evaluation.arguments import ZERO_SHOT
from syneg.evaluation.metrics import METRICS, QueryScores, Scores, mean_scores, read_queries

RECORD = "run.json"
LAST = "last.json"
"""The record of a run's model after its last step, where `save_best` chose an earlier one."""


@dataclass(frozen=True)
class Run:
    """A finished run, as its record says.

    Attributes:
        arm: The arm's name.
        seed: The seed; None before training.
        metrics: MTEB's name of a metric -> its mean over the queries.
        queries: The queries' scores.
        history: What the trainer logged, a record a log line.
        work: steps, instances, negatives drawn by source, seconds ...
    """

    arm: str
    seed: int | None
    metrics: dict[str, float]
    queries: list[QueryScores]
    history: list[dict[str, float]]
    work: dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """What was compared, and every finished run.

    Attributes:
        settings: source, split, held_back, written (what an LLM's queries are called, or None), model,
            baseline, metric, arms (name -> changes), training.
        zero_shot: The model before training.
        arms: Arm -> its runs, in the order of the seeds.
        unfinished: Runs that are missing: arm and seed.
    """

    settings: dict[str, Any]
    zero_shot: Run
    arms: dict[str, list[Run]]
    unfinished: list[tuple[str, int]]

    @property
    def heading(self) -> str:
        """What the metric is called in tables, with "(written)" where an LLM wrote the queries."""
        name, kind = METRICS[self.settings["metric"]], self.settings.get("written")
        return f"{name} ({kind})" if kind else name

    def select(self, query_ids: Collection[str]) -> Comparison:
        """Returns the comparison on these queries alone, of which there must be one."""

        def part(run: Run) -> Run:
            queries = [query for query in run.queries if query.query_id in query_ids]
            return replace(run, queries=queries, metrics=mean_scores(queries))

        arms = {arm: [part(run) for run in runs] for arm, runs in self.arms.items()}
        return replace(self, zero_shot=part(self.zero_shot), arms=arms)


def load_comparison(folder: str | Path, last: bool = False) -> Comparison:
    """Reads a comparison's finished runs.

    Args:
        folder: What `syneg compare` wrote.
        last: Whether to take each run's model after its last step, so that all made equal steps, where
            `save_best` chose an earlier one (`evaluate_last`).

    Raises:
        InputError: Where `folder` holds no comparison, the model before training is not evaluated, or runs
            were evaluated on other queries; with `last`, where a run's last model was not evaluated.
    """
    folder = Path(folder)
    path = folder / "comparison.json"
    if not path.is_file():
        raise InputError(f"{path}: no such file. `syneg compare --output {folder}` writes it.")
    settings = json.loads(path.read_text(encoding="utf-8"))
    # What was made from another configuration, or other data, does not belong beside the rest.
    zero_shot = read_run(folder / "runs" / ZERO_SHOT, folder, settings["fingerprints"][ZERO_SHOT])
    if zero_shot is None:
        raise InputError(f"{folder}: the model before training is not evaluated yet. Run syneg compare.")
    arms: dict[str, list[Run]] = {}
    unfinished: list[tuple[str, int]] = []
    for arm in settings["arms"]:
        for seed in settings["seeds"]:
            run = read_run(
                run_folder(folder, arm, seed), folder, settings["fingerprints"][run_key(arm, seed)]
            )
            if run is None:
                unfinished.append((arm, int(seed)))
            else:
                arms.setdefault(arm, []).append(_last(run, settings, folder) if last else run)
    queries = {q.query_id for q in zero_shot.queries}
    for arm, runs in arms.items():
        if any({q.query_id for q in run.queries} != queries for run in runs):
            raise InputError(
                f"{folder}: arm {arm!r} was evaluated on other queries. Run syneg compare again."
            )
    return Comparison(settings, zero_shot, arms, unfinished)


def run_folder(output: Path, arm: str, seed: int) -> Path:
    """Returns the folder of a run."""
    return output / "runs" / arm / f"seed-{seed}"


def run_key(arm: str, seed: int) -> str:
    """Returns what a run is called among the fingerprints."""
    return f"{arm}/{seed}"


def _last(run: Run, settings: dict[str, Any], output: Path) -> Run:
    assert run.seed is not None
    if not {**settings["training"], **settings["arms"][run.arm]}.get("save_best"):
        return run
    mark = settings["fingerprints"][run_key(run.arm, run.seed)]
    last = read_run(run_folder(output, run.arm, run.seed), output, mark, LAST)
    if last is None:
        raise InputError(
            f"{output}: arm {run.arm!r}, seed {run.seed}: its model after the last step was not evaluated. "
            "Run syneg compare with --evaluate_last true."
        )
    return last


def read_run(folder: Path, output: Path, expected: str | None = None, record: str = RECORD) -> Run | None:
    """Returns the finished run in `folder`.

    Args:
        folder: The run's folder.
        output: The comparison's folder, which paths in the record start from.
        expected: The fingerprint that the run must have, where one is asked for.
        record: The file's name.

    Returns:
        The run; None where it is unfinished, or was made from something else than expected.
    """
    path = folder / record
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if expected is not None and values["fingerprint"] != expected:
            return None
        return Run(
            values["arm"],
            values["seed"],
            values["metrics"],
            read_queries(output / values["queries"]),
            values["history"],
            values["work"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: not the record of a run ({error}). Delete it, and it is run again."
        ) from None


def write_run(
    output: Path,
    folder: Path,
    arm: str,
    seed: int | None,
    scores: Scores,
    history: list[dict[str, float]],
    work: dict[str, Any],
    mark: str,
    name: str = RECORD,
) -> Run:
    """Writes a run's record, last and whole: a run without one is not finished."""
    record = {
        "arm": arm,
        "seed": seed,
        "fingerprint": mark,
        "metrics": {metric: getattr(scores, metric) for metric in METRICS},
        "queries": str(scores.queries_path.relative_to(output)),
        "result": str(scores.path.relative_to(output)),
        "history": history,
        "work": work,
    }
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{name}.part"
    part.write_text(json.dumps(record, indent=1), encoding="utf-8")
    part.replace(folder / name)
    run = read_run(folder, output, record=name)
    assert run is not None
    return run
