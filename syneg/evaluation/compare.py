"""Comparisons: arms over seeds, each a training configuration, on the same queries.

What is finished is not done again, so a comparison can be interrupted, and arms and seeds added. A
run whose configuration, rows or source changed since is done again. Several processes (one a GPU) share
a comparison: each takes the next run that no other is at.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from syneg.errors import InputError
from syneg.evaluation.arguments import (
    ZERO_SHOT,
    CompareArguments,
    EncodingArguments,
    EvaluationSourceArguments,
)

if TYPE_CHECKING:
    from syneg.evaluation.arms import Bench, Run
    from syneg.sources import Source

HELD_BACK = "held-back"
"""The split made of held-back queries."""


@dataclass(frozen=True)
class Comparison:
    """What was compared, and every finished run.

    Attributes:
        settings: source, split, held_back, model, baseline, metric, arms (name -> changes), training.
        zero_shot: The model before training.
        arms: Arm -> its runs, in the order of the seeds.
        unfinished: Runs that are missing: arm and seed.
    """

    settings: dict[str, Any]
    zero_shot: Run
    arms: dict[str, list[Run]]
    unfinished: list[tuple[str, int]]


def compare(
    arguments: CompareArguments, where: EvaluationSourceArguments, encoding: EncodingArguments
) -> Comparison:
    """Runs what is not finished of a comparison.

    Args:
        arguments: Arms, seeds and what they share.
        where: What is evaluated on.
        encoding: How it is encoded.

    Returns:
        The comparison, with all that is finished.

    Raises:
        InputError: For anything that cannot be used; all arms are checked before the first is trained.
            For a launch of several processes.
    """
    from syneg.evaluation.arms import read_run, train_run

    assert arguments.only is not None
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise InputError("syneg compare runs in one process; start it without accelerate launch or torchrun.")
    output = Path(arguments.output)
    output.mkdir(parents=True, exist_ok=True)
    with FileLock(output / ".lock"):
        bench, expected = _prepare(arguments, where, encoding)
    # Seed by seed: what an interruption leaves is every arm with as many seeds, give or take one.
    chosen = [(arm, int(seed)) for seed in arguments.seeds for arm in arguments.only]
    with tqdm(chosen, desc="Runs", unit="run") as bar:
        for arm, seed in bar:
            bar.set_postfix_str(f"{arm}, seed {seed}")
            folder = run_folder(output, arm, seed)
            try:
                with FileLock(folder / ".lock", blocking=False):
                    if read_run(folder, output, expected[arm, seed]) is None:
                        train_run(bench, arm, seed, folder, expected[arm, seed])
            except Timeout:
                tqdm.write(f"{arm}, seed {seed}: another process is at it")
    return load_comparison(output)


def _prepare(
    arguments: CompareArguments, where: EvaluationSourceArguments, encoding: EncodingArguments
) -> tuple[Bench, dict[tuple[str, int], str]]:
    """Checks and writes all configurations, evaluates the model before training, and tells what runs share.

    Returns:
        What runs share, and (arm, seed) -> the run's fingerprint.
    """
    from syneg.evaluation.arms import Bench, fingerprint, read_run, rows_revision
    from syneg.evaluation.tasks import source_revision
    from syneg.sources import load_source

    assert isinstance(arguments.training, Mapping)
    output = Path(arguments.output)
    source, split = load_source(where.source, where.unknown_documents), where.split
    held: set[str] = set()
    if arguments.held_back:
        source, held = hold_back(source, split, arguments.held_back)
        split = HELD_BACK
    source.pairs(split)
    bench = Bench(output, source, split, encoding.options(), arguments.keep_models)
    planned = _write_configurations(arguments, held)
    marks = [source_revision(source), split, "bf16" if encoding.eval_bf16 else "as is"]
    revisions = {values["dataset"]: "" for values in planned.values()}
    revisions = {dataset: rows_revision(dataset) for dataset in revisions}
    expected = {
        key: fingerprint(values, *marks, revisions[values["dataset"]]) for key, values in planned.items()
    }
    length = encoding.max_length or arguments.training.get("max_length")
    before = fingerprint({"model": arguments.model, "max_length": length}, *marks)
    _write_settings(arguments, where, split, {_key(*key): mark for key, mark in expected.items()}, before)
    if read_run(output / "runs" / ZERO_SHOT, output, before) is None:
        _evaluate_before(bench, arguments.model, length, before)
    return bench, expected


def load_comparison(folder: str | Path) -> Comparison:
    """Reads a comparison's finished runs.

    Raises:
        InputError: Where `folder` holds no comparison, or the baseline has no finished run.
    """
    from syneg.evaluation.arms import read_run

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
            run = read_run(run_folder(folder, arm, seed), folder, settings["fingerprints"][_key(arm, seed)])
            if run is None:
                unfinished.append((arm, int(seed)))
            else:
                arms.setdefault(arm, []).append(run)
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


def _key(arm: str, seed: int) -> str:
    return f"{arm}/{seed}"


def hold_back(source: Source, split: str, share: float) -> tuple[Source, set[str]]:
    """Returns the source with a split of held-back queries, and their ids.

    A query is held back by a hash of its id, so the choice does not hang on order or seed.

    Raises:
        InputError: Where the split is missing, or none or all of its queries would be held back.
    """
    from dataclasses import replace

    qrels = source.judgements(split)
    held = {query for query in qrels if _position(query) < share}
    if not held or len(held) == len(qrels):
        raise InputError(
            f"--held_back {share} holds back {len(held)} of the {len(qrels)} queries of split {split!r}; "
            "take another share."
        )
    part = {query: documents for query, documents in qrels.items() if query in held}
    return replace(source, qrels={**source.qrels, HELD_BACK: part}), held


def _position(query_id: str) -> float:
    digest = hashlib.blake2b(query_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _write_configurations(
    arguments: CompareArguments, held: set[str], read: bool = True
) -> dict[tuple[str, int], dict[str, Any]]:
    """Writes every run's configuration and checks it; returns them by (arm, seed).

    Rows are checked too if `read`, of the arms that are asked for: the others' may not be there yet.
    """
    from syneg.evaluation.arms import parse_configuration, write_configuration
    from syneg.training.mixing import Mixture
    from syneg.training.run import load_rows

    assert isinstance(arguments.arms, dict) and isinstance(arguments.training, dict)
    assert arguments.only is not None
    output = Path(arguments.output)
    planned: dict[tuple[str, int], dict[str, Any]] = {}
    kept: dict[str, str] = {}
    found: set[tuple[str, str | None, str]] = set()
    for arm, changes in arguments.arms.items():
        for reserved in ("output", "output_dir", "seed"):
            if reserved in changes or reserved in arguments.training:
                raise InputError(f"arm {arm!r}: {reserved!r} is set for each run; leave it out.")
        for seed in map(int, arguments.seeds):
            folder = run_folder(output, arm, seed)
            shared = {
                "model": arguments.model,
                "dataset": arguments.dataset,
                "save_strategy": "no",
                "logging_steps": 5,
                "logging_first_step": True,
            }
            values = {**shared, **arguments.training, **changes, "output": str(folder), "seed": seed}
            wanted = arm in arguments.only
            try:
                if held:
                    dataset, split = values["dataset"], values.get("split", "train")
                    key = f"{dataset}\0{split}"
                    with contextlib.nullcontext() if wanted else contextlib.suppress(InputError):
                        if key not in kept:
                            kept[key] = _without(dataset, split, held, output)
                        values["dataset"] = kept[key]
                path = write_configuration(folder, values)
                what, _ = parse_configuration(path)
                Mixture.parse(what.mixture)
                if read and wanted and (what.dataset, what.dataset_config, what.split) not in found:
                    load_rows(what)
                    found.add((what.dataset, what.dataset_config, what.split))
            except InputError as error:
                raise InputError(f"arm {arm!r}: {error}") from None
            planned[arm, seed] = values
    return planned


def _without(dataset: str, split: str, held: set[str], output: Path) -> str:
    """Writes a data set's rows whose queries are not held back, and returns the folder."""
    from syneg.training.run import TrainArguments, load_rows

    rows = load_rows(TrainArguments(model="", dataset=dataset, split=split))
    kept = rows.filter(lambda row: _asker(row) not in held)
    if not len(kept):
        raise InputError(f"data set {dataset!r}: no row is left when the held-back queries are left out.")
    folder = output / "rows" / hashlib.sha256(dataset.encode()).hexdigest()[:8]
    folder.mkdir(parents=True, exist_ok=True)
    # Another process may be reading it.
    part = folder / f"{split}.part"
    kept.to_parquet(str(part))
    part.replace(folder / f"{split}-00000-of-00001.parquet")
    return str(folder)


def _asker(row: Mapping[str, Any]) -> str:
    """Returns the source's query that a row comes from; a mirrored row names it first in its own id."""
    query_id = str(row["query_id"])
    return query_id.rsplit("~", 3)[0] if row["origin"] == "mirror" else query_id


def _write_settings(
    arguments: CompareArguments,
    where: EvaluationSourceArguments,
    split: str,
    fingerprints: dict[str, str],
    before: str,
) -> None:
    settings = {
        "source": where.source,
        "unknown_documents": where.unknown_documents,
        "split": where.split,
        "held_back": arguments.held_back,
        "evaluated_split": split,
        "model": arguments.model,
        "dataset": arguments.dataset,
        "training": arguments.training,
        "arms": arguments.arms,
        "seeds": [int(seed) for seed in arguments.seeds],
        "baseline": arguments.baseline,
        "metric": arguments.metric,
        "fingerprints": {ZERO_SHOT: before, **fingerprints},
    }
    output = Path(arguments.output)
    output.mkdir(parents=True, exist_ok=True)
    text = json.dumps(settings, indent=1, ensure_ascii=False)
    (output / "comparison.json").write_text(text, encoding="utf-8")


def _evaluate_before(bench: Bench, model: str, length: int | None, mark: str) -> None:
    """Evaluates the model before training, with the length that it is trained with."""
    from syneg.encoders import load_encoder
    from syneg.evaluation.arms import write_run
    from syneg.evaluation.evaluate import evaluate

    scores = evaluate(
        load_encoder(model, max_length=length),
        bench.source,
        bench.split,
        bench.output / "evaluation",
        name=f"compare/{ZERO_SHOT}",
        overwrite=True,
        **bench.encoding,
    )
    write_run(bench, bench.output / "runs" / ZERO_SHOT, ZERO_SHOT, None, scores, [], {}, mark)
