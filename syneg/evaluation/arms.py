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

from syneg.encoders import load_encoder
from syneg.evaluation.comparison import LAST, Run, write_run
from syneg.evaluation.evaluate import evaluate

if TYPE_CHECKING:
    from syneg.evaluation.metrics import Scores
    from syneg.sources import Source
    from syneg.training.arguments import ContrastiveArguments
    from syneg.training.run import TrainArguments


@dataclass(frozen=True)
class RunSettings:
    """What all runs of a comparison share.

    Attributes:
        output: The comparison's folder.
        source: What is evaluated on.
        split: The split of its qrels.
        encoding: Keyword arguments of `evaluate`: batch_size, bf16.
        keep_models: Whether models are kept.
        evaluate_last: Whether the model after the last step is evaluated too, where another is kept.
    """

    output: Path
    source: Source
    split: str
    encoding: Mapping[str, Any] = field(default_factory=dict)
    keep_models: bool = False
    evaluate_last: bool = False


def write_configuration(folder: Path, values: Mapping[str, Any]) -> Path:
    """Writes a run's configuration, which `syneg train --config` reads too, and returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


def parse_configuration(path: Path) -> tuple[TrainArguments, ContrastiveArguments]:
    """Returns the training's arguments from a run's configuration.

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


def train_run(settings: RunSettings, arm: str, seed: int, folder: Path, mark: str) -> Run:
    """Trains an arm with a seed, evaluates the model, and records both.

    Raises:
        InputError: For a model, data set or argument that cannot be used.
    """
    from syneg.training.run import make_trainer, save

    arguments, hyperparameters = parse_configuration(folder / "config.yaml")
    evaluates_last = settings.evaluate_last and arguments.save_best > 0
    if evaluates_last:
        # With 1 the last checkpoint is deleted where another is the best.
        hyperparameters.save_total_limit = 2
    started = time.perf_counter()
    trainer = make_trainer(arguments, hyperparameters)
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
        if any(key == "loss" or key.startswith("eval_") for key in line)
    ]
    if settings.keep_models:
        save(trainer, arguments)
    model = trainer.model
    model.eval()
    scores = _evaluate(settings, model, f"{arm}-seed-{seed}")
    work["evaluate_seconds"] = round(time.perf_counter() - trained, 1)
    if evaluates_last:
        last = folder / f"checkpoint-{trainer.state.global_step}"
        after = scores
        if trainer.state.best_model_checkpoint != str(last):
            model = load_encoder(str(last), max_length=arguments.max_length)
            after = _evaluate(settings, model, f"{arm}-seed-{seed}-last")
        write_run(settings.output, folder, arm, seed, after, history, work, mark, LAST)
    del trainer, model
    gc.collect()
    if not settings.keep_models:
        _remove_checkpoints(folder)
    return write_run(settings.output, folder, arm, seed, scores, history, work, mark)


def _evaluate(settings: RunSettings, model: Any, name: str) -> Scores:
    return evaluate(
        model,
        settings.source,
        settings.split,
        settings.output / "evaluation",
        name=f"compare/{name}",
        overwrite=True,
        **settings.encoding,
    )


def _remove_checkpoints(folder: Path) -> None:
    for path in folder.glob("checkpoint-*"):
        shutil.rmtree(path)
