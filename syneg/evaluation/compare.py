"""Comparisons: arms over seeds, each a training configuration, on the same queries.

What is finished is not done again, so a comparison can be interrupted, and arms and seeds added. A
run whose configuration, rows or source changed since is done again. Several processes (one a GPU) share
a comparison: each takes the next run that no other is at.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
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
from syneg.evaluation.comparison import (
    Comparison,
    load_comparison,
    read_run,
    run_folder,
    run_key,
    write_run,
)
from syneg.rows import check_rows, source_query_id

if TYPE_CHECKING:
    from syneg.evaluation.arms import RunSettings
    from syneg.sources import Source
    from syneg.sources.source import Qrels

HELD_BACK_SPLIT = "held-back"
"""The split made of held-back queries."""


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
    from syneg.evaluation.arms import train_run

    assert arguments.only is not None
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise InputError("syneg compare runs in one process; start it without accelerate launch or torchrun.")
    output = Path(arguments.output)
    output.mkdir(parents=True, exist_ok=True)
    with FileLock(output / ".lock"):
        shared, expected = _prepare(arguments, where, encoding)
    # Seed by seed: what an interruption leaves is every arm with as many seeds, give or take one.
    chosen = [(arm, int(seed)) for seed in arguments.seeds for arm in arguments.only]
    with tqdm(chosen, desc="Runs", unit="run") as bar:
        for arm, seed in bar:
            bar.set_postfix_str(f"{arm}, seed {seed}")
            folder = run_folder(output, arm, seed)
            try:
                with FileLock(folder / ".lock", blocking=False):
                    if read_run(folder, output, expected[arm, seed]) is None:
                        train_run(shared, arm, seed, folder, expected[arm, seed])
            except Timeout:
                tqdm.write(f"{arm}, seed {seed}: another process is at it")
    return load_comparison(output)


def _prepare(
    arguments: CompareArguments, where: EvaluationSourceArguments, encoding: EncodingArguments
) -> tuple[RunSettings, dict[tuple[str, int], str]]:
    """Checks and writes all configurations, evaluates the model before training, and tells what runs share.

    Returns:
        What runs share, and (arm, seed) -> the run's fingerprint.
    """
    from syneg.evaluation.arms import RunSettings, fingerprint, rows_revision
    from syneg.evaluation.tasks import source_revision
    from syneg.sources import source_of

    assert isinstance(arguments.training, Mapping)
    output = Path(arguments.output)
    source, split = source_of(where), where.split
    for note in source.notes:
        tqdm.write(note)
    held: Qrels = {}
    if arguments.held_back:
        source, _ = hold_back(source, split, arguments.held_back)
        split, held = HELD_BACK_SPLIT, source.qrels[HELD_BACK_SPLIT]
    source.pairs(split)
    shared = RunSettings(
        output, source, split, encoding.options(), arguments.keep_models, arguments.evaluate_last
    )
    planned = write_configurations(arguments, held)
    marks = [source_revision(source), split, "bf16" if encoding.eval_bf16 else "as is"]
    revisions = {values["dataset"]: "" for values in planned.values()}
    revisions = {dataset: rows_revision(dataset) for dataset in revisions}
    # Asked for later, it is another run.
    also = ["last"] if arguments.evaluate_last else []
    expected = {
        key: fingerprint(values, *marks, revisions[values["dataset"]], *also)
        for key, values in planned.items()
    }
    length = encoding.max_length or arguments.training.get("max_length")
    before = fingerprint({"model": arguments.model, "max_length": length}, *marks)
    fingerprints = {run_key(*key): mark for key, mark in expected.items()}
    _write_settings(arguments, where, split, source.written_of(split), fingerprints, before)
    if read_run(output / "runs" / ZERO_SHOT, output, before) is None:
        _evaluate_before(shared, arguments.model, length, before)
    return shared, expected


def hold_back(source: Source, split: str, share: float) -> tuple[Source, set[str]]:
    """Returns the source with a split of held-back queries, and their ids.

    Queries that are joined by a relevant document, or by an equal text (Unicode form, case and blanks
    aside), go to one side together; see `syneg.sources.cutting.held_back`.

    Raises:
        InputError: Where the split is missing, or none or all of its queries would be held back.
    """
    from dataclasses import replace

    from syneg.sources.cutting import held_back, query_groups

    qrels = source.judgements(split)
    held = held_back(query_groups(source, qrels), share)
    if not held or len(held) == len(qrels):
        raise InputError(
            f"--held_back {share} holds back {len(held)} of the {len(qrels)} queries of split {split!r}; "
            "take another share."
        )
    part = {query: documents for query, documents in qrels.items() if query in held}
    return replace(source, qrels={**source.qrels, HELD_BACK_SPLIT: part}), held


def write_configurations(
    arguments: CompareArguments, held: Qrels, read: bool = True
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
    kept: dict[tuple[str, str | None, str], str] = {}
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
                    rows = values["dataset"], values.get("dataset_config"), values.get("split", "train")
                    with contextlib.nullcontext() if wanted else contextlib.suppress(InputError):
                        if rows not in kept:
                            kept[rows] = _without(*rows, held, output)
                        values["dataset"] = kept[rows]
                        values.pop("dataset_config", None)
                path = write_configuration(folder, values)
                training, _ = parse_configuration(path)
                Mixture.parse(training.mixture or "none")
                rows = training.dataset, training.dataset_config, training.split
                if read and wanted and rows not in found:
                    load_rows(training)
                    found.add(rows)
            except InputError as error:
                raise InputError(f"arm {arm!r}: {error}") from None
            planned[arm, seed] = values
    return planned


def _without(dataset: str, config: str | None, split: str, held: Qrels, output: Path) -> str:
    """Writes a data set's rows without held-back queries and their documents, and returns the folder."""
    from syneg.training.run import TrainArguments, load_rows

    rows = load_rows(TrainArguments(model="", dataset=dataset, dataset_config=config, split=split))
    check_rows(rows, dataset)
    documents = {d for scores in held.values() for d, score in scores.items() if score > 0}
    # Of a made row the query that it comes from counts, and its document, which a judge may have relabelled.
    kept = rows.filter(
        lambda row: (
            row["query_id"] not in held
            and source_query_id(row) not in held
            and row["positive_id"] not in documents
        )
    )
    if not len(kept):
        raise InputError(f"data set {dataset!r}: no row is left when the held-back queries are left out.")
    name = dataset if config is None else f"{dataset}\0{config}"
    folder = output / "rows" / hashlib.sha256(name.encode()).hexdigest()[:8]
    folder.mkdir(parents=True, exist_ok=True)
    # Another process may be reading it.
    part = folder / f"{split}.part"
    kept.to_parquet(str(part))
    part.replace(folder / f"{split}-00000-of-00001.parquet")
    return str(folder)


def _write_settings(
    arguments: CompareArguments,
    where: EvaluationSourceArguments,
    split: str,
    written: str | None,
    fingerprints: dict[str, str],
    before: str,
) -> None:
    settings = {
        **dataclasses.asdict(where),
        "held_back": arguments.held_back,
        "evaluated_split": split,
        "written": written,
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


def _evaluate_before(shared: RunSettings, model: str, length: int | None, mark: str) -> None:
    """Evaluates the model before training, with the length that it is trained with."""
    from syneg.encoders import load_encoder
    from syneg.evaluation.evaluate import evaluate

    scores = evaluate(
        load_encoder(model, max_length=length),
        shared.source,
        shared.split,
        shared.output / "evaluation",
        name=f"compare/{ZERO_SHOT}",
        overwrite=True,
        **shared.encoding,
    )
    write_run(shared.output, shared.output / "runs" / ZERO_SHOT, ZERO_SHOT, None, scores, [], {}, mark)
