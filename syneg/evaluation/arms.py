"""One run of a comparison: an arm with a seed is trained, evaluated and recorded."""

from __future__ import annotations

import gc
import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from syneg.errors import InputError
from syneg.evaluation.evaluate import METRICS, QueryScores, Scores, evaluate, read_queries

if TYPE_CHECKING:
    from syneg.sources import Source

RECORD = "run.json"


@dataclass(frozen=True)
class Bench:
    """What all runs of a comparison share.

    Attributes:
        output: The comparison's folder.
        source: What is evaluated on.
        split: The split of its qrels.
        encoding: Keyword arguments of `evaluate`: batch_size, bf16.
        keep_models: Whether models are kept.
    """

    output: Path
    source: Source
    split: str
    encoding: Mapping[str, Any] = field(default_factory=dict)
    keep_models: bool = False


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


def write_configuration(folder: Path, values: Mapping[str, Any]) -> Path:
    """Writes a run's configuration, which `syneg train --config` reads too, and returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


def parse_configuration(path: Path) -> tuple[Any, Any]:
    """Returns the training's arguments (what, how) from a run's configuration.

    Raises:
        InputError: Where something in it is wrong.
    """
    from syneg.config import ConfigParser
    from syneg.training.arguments import ContrastiveArguments
    from syneg.training.run import TrainArguments

    return ConfigParser((TrainArguments, ContrastiveArguments)).parse(["--config", str(path)])


def fingerprint(values: Mapping[str, Any], *parts: str) -> str:
    """Returns a hash of what decides a run's result: its configuration, its rows and its source."""
    decisive = {key: value for key, value in values.items() if key != "output"}
    text = json.dumps([decisive, *parts], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def rows_revision(dataset: str) -> str:
    """Returns a hash of a data set folder's Parquet files; a Hub id stands for itself."""
    folder = Path(dataset)
    if not folder.is_dir():
        return dataset
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.parquet")):
        digest.update(str(path.relative_to(folder)).encode())
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def read_run(folder: Path, output: Path, expected: str | None = None) -> Run | None:
    """Returns the finished run in `folder`.

    Args:
        folder: The run's folder.
        output: The comparison's folder, which paths in the record start from.
        expected: The fingerprint that the run must have, where one is asked for.

    Returns:
        The run; None where it is unfinished, or was made from something else than expected.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if expected is not None and record["fingerprint"] != expected:
            return None
        return Run(
            record["arm"],
            record["seed"],
            record["metrics"],
            read_queries(output / record["queries"]),
            record["history"],
            record["work"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: not the record of a run ({error}). Delete it, and it is run again."
        ) from None


def train_run(bench: Bench, arm: str, seed: int, folder: Path, mark: str) -> Run:
    """Trains an arm with a seed, evaluates the model, and records both.

    Raises:
        InputError: For a model, data set or argument that cannot be used.
    """
    from syneg.training.run import make_trainer, save

    what, how = parse_configuration(folder / "config.yaml")
    started = time.perf_counter()
    trainer = make_trainer(what, how)
    trainer.train()
    trained = time.perf_counter()
    report = trainer.report
    work = {
        "steps": trainer.state.global_step,
        "rows": len(trainer.train_dataset),
        "instances": report.instances,
        "negatives": dict(report.drawn),
        "fallback": dict(report.fallback),
        "missing": report.missing,
        "without_negatives": report.without_negatives,
        "tokens": report.tokens,
        "train_seconds": round(trained - started, 1),
    }
    history = [
        {key: value for key, value in line.items() if isinstance(value, int | float)}
        for line in trainer.state.log_history
        if "loss" in line
    ]
    if bench.keep_models:
        save(trainer, what)
    model = trainer.model
    model.eval()
    scores = evaluate(
        model,
        bench.source,
        bench.split,
        bench.output / "evaluation",
        name=f"compare/{arm}-seed-{seed}",
        overwrite=True,
        **bench.encoding,
    )
    work["evaluate_seconds"] = round(time.perf_counter() - trained, 1)
    del trainer, model
    gc.collect()
    if not bench.keep_models:
        _remove_checkpoints(folder)
    return write_run(bench, folder, arm, seed, scores, history, work, mark)


def write_run(
    bench: Bench,
    folder: Path,
    arm: str,
    seed: int | None,
    scores: Scores,
    history: list[dict[str, float]],
    work: dict[str, Any],
    mark: str,
) -> Run:
    """Writes a run's record, last and whole: a run without one is not finished."""
    record = {
        "arm": arm,
        "seed": seed,
        "fingerprint": mark,
        "metrics": {metric: getattr(scores, metric) for metric in METRICS},
        "queries": str(scores.queries_path.relative_to(bench.output)),
        "result": str(scores.path.relative_to(bench.output)),
        "history": history,
        "work": work,
    }
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{RECORD}.part"
    part.write_text(json.dumps(record, indent=1), encoding="utf-8")
    part.replace(folder / RECORD)
    run = read_run(folder, bench.output)
    assert run is not None
    return run


def _remove_checkpoints(folder: Path) -> None:
    for path in folder.glob("checkpoint-*"):
        shutil.rmtree(path)
