"""Evaluation through MTEB: its tasks, its metrics, its result files in its cache layout.

A local source becomes an MTEB task; the task of a `mteb:` source, and those of a benchmark, are MTEB's
own. Besides MTEB's files, what each query scored and retrieved is kept, for paired comparisons.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from syneg.encoders import load_encoder
from syneg.errors import InputError, nearest
from syneg.evaluation.metrics import METRICS, Scores
from syneg.resources import PACKAGE_PREFIX
from syneg.sources import Source, load_source

if TYPE_CHECKING:
    from mteb import AbsTask
    from sentence_transformers import SentenceTransformer


def source_task(source: Source, split: str) -> AbsTask:
    """Returns a local source's split as an MTEB retrieval task. Nothing is fetched.

    Documents are encoded as title, space, text, as MTEB does for any corpus. Scores are gains: nDCG is
    linear in them, fractions included, and what is above 0 is relevant to recall and MRR.

    Raises:
        InputError: Where `source` has no such split, or nothing relevant in it.
    """
    from syneg.evaluation.tasks import SourceRetrieval

    return SourceRetrieval(source, split)


def evaluate(
    model: SentenceTransformer | str,
    source: Source | str,
    split: str = "test",
    output: str | Path = "results",
    *,
    name: str | None = None,
    batch_size: int | None = None,
    bf16: bool = False,
    devices: list[str] | None = None,
    max_length: int | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Scores:
    """Evaluates a model on a source by MTEB, unless `output` has the result already.

    Args:
        model: A SentenceTransformer, or what `syneg.encoders.load_encoder` takes.
        source: A source, or what `load_source` takes. For ``mteb:TaskName`` MTEB's own task is run.
        split: The split of the qrels.
        output: The folder for MTEB's files (``results/<model>/<revision>/<task>.json``) and the
            queries' scores (``queries/...``).
        name: The model's name in the files, ``organization/name``. Made from `model` where it is None.
        batch_size: Texts encoded at once, sorted by length; by their length where it is None.
        bf16: Whether to encode in bfloat16. The results are then kept apart, as an MTEB experiment.
        devices: Devices to encode on, a process each; the model's own where it is None.
        max_length: Longest text in tokens; the model's own where it is None.
        overwrite: Whether to evaluate again where a result is there.
        progress: Whether to show progress bars.

    Returns:
        The scores, read from MTEB's result.

    Raises:
        InputError: Where the model, the source, the task or the split cannot be used.
    """
    if isinstance(source, str) and source.startswith("mteb:"):
        (task,) = named_tasks([source.removeprefix("mteb:")], split)
    else:
        task = source_task(load_source(source) if isinstance(source, str) else source, split)
    return evaluate_tasks(
        model,
        [task],
        output,
        name=name,
        batch_size=batch_size,
        bf16=bf16,
        devices=devices,
        max_length=max_length,
        overwrite=overwrite,
        progress=progress,
    )[0]


def named_tasks(names: Iterable[str], split: str | None = None) -> list[AbsTask]:
    """Returns MTEB's retrieval tasks of these names; the name of a benchmark stands for all of its tasks.

    Args:
        names: Such as ``SciFact`` or ``NanoBEIR``.
        split: The split to evaluate; the task's own choice where it is None.

    Raises:
        InputError: For a name that is none of MTEB's, a task of another kind, or a missing split.
    """
    import mteb

    tasks: list[AbsTask] = []
    for name in names:
        try:
            found = [mteb.get_task(name)]
        except KeyError:
            benchmarks = {benchmark.name: benchmark for benchmark in mteb.get_benchmarks()}
            if name not in benchmarks:
                known = [task.metadata.name for task in mteb.get_tasks(task_types=["Retrieval"])]
                raise InputError(
                    f"{name!r} is neither an MTEB task nor a benchmark.{nearest(name, [*known, *benchmarks])}"
                ) from None
            found = list(benchmarks[name].tasks)
        for task in found:
            if "Retrieval" not in task.metadata.type:
                raise InputError(
                    f"MTEB task {task.metadata.name!r} is a {task.metadata.type} task, not a retrieval task."
                )
            if split is not None:
                if split not in task.metadata.eval_splits:
                    raise InputError(
                        f"MTEB task {task.metadata.name!r}: no split {split!r}. "
                        f"It has: {', '.join(task.metadata.eval_splits)}."
                    )
                task._eval_splits = [split]
        tasks += found
    return tasks


def evaluate_tasks(
    model: SentenceTransformer | str,
    tasks: Iterable[AbsTask],
    output: str | Path = "results",
    *,
    name: str | None = None,
    batch_size: int | None = None,
    bf16: bool = False,
    devices: list[str] | None = None,
    max_length: int | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> list[Scores]:
    """Evaluates a model on several MTEB retrieval tasks; see `evaluate` for the arguments.

    Returns:
        One result a task and split.
    """
    from syneg.evaluation.tasks import Encoder, in_bf16, model_revision

    label = name or _model_name(model)
    if isinstance(model, str):
        revision = _hub_revision(model)
        loaded = load_encoder(model)
        if revision is not None:
            revision = loaded.model_card_data.base_model_revision
    else:
        loaded, revision = model, None
    length = loaded.max_seq_length
    if max_length is not None:
        # The revision would no longer be what the Hub's commit says.
        loaded.max_seq_length, revision = max_length, None
    try:
        with _quiet():
            if bf16:
                # After the name and the revision, which are those of the model as it was given.
                revision = revision or model_revision(loaded)
                loaded_here = isinstance(model, str)
                encoder = Encoder(
                    in_bf16(loaded, copy=not loaded_here), label, revision, "bfloat16", batch_size, progress
                )
            else:
                encoder = Encoder(loaded, label, revision, None, batch_size, progress)
            # The encoder has a bar and a batch size of its own; MTEB wants to hear one.
            options: dict[str, Any] = {"batch_size": batch_size or 32, "show_progress_bar": False}
            if devices:
                options["device"] = devices
            return [
                scores
                for task in tasks
                for scores in _run_task(encoder, task, Path(output), options, overwrite)
            ]
    finally:
        loaded.max_seq_length = length


def _run_task(
    encoder: Any, task: Any, output: Path, options: dict[str, Any], overwrite: bool
) -> list[Scores]:
    import mteb
    from datasets.exceptions import DatasetNotFoundError
    from mteb.cache import ResultCache

    cache = ResultCache(output)
    meta = encoder.mteb_model_meta
    path = cache.get_task_result_path(task.metadata.name, meta)
    queries = {split: _queries_path(output, path, split) for split in task.eval_splits}
    found = None if overwrite else cache.load_task_result(task.metadata.name, meta)
    # MTEB serves a complete result whatever data it was made on.
    stale = found is not None and found.dataset_revision != task.metadata.revision
    lacking = found is not None and any(not queries[s].exists() for s in queries if s in found.scores)
    records = _keep_queries(task)
    try:
        result = mteb.evaluate(
            encoder,
            task,
            cache=cache,
            encode_kwargs=options,
            overwrite_strategy="always" if overwrite or stale or lacking else "only-missing",
            show_progress_bar=False,
            co2_tracker=False,
        ).task_results[0]
    except (ConnectionError, DatasetNotFoundError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"MTEB task {task.metadata.name!r}: its data set cannot be had: {reason}") from error
    for split, lines in records.items():
        _write_lines(queries[split], lines)
    return [
        Scores(task.metadata.name, split, **_means(scores), path=path, queries_path=queries[split])
        for split, scores in result.scores.items()
        if split in queries
    ]


def _keep_queries(task: Any) -> dict[str, list[dict[str, Any]]]:
    """Makes `task` note each query's scores; MTEB averages them, but shows them to this method first."""
    from syneg.evaluation.tasks import per_query

    kept: dict[str, list[dict[str, Any]]] = {}
    original = task.task_specific_scores

    def noting(scores: Any, qrels: Any, results: Any, hf_split: str, hf_subset: str) -> Any:
        records = per_query(scores, qrels, results)
        kept.setdefault(hf_split, []).extend(record | {"subset": hf_subset} for record in records)
        return original(scores, qrels, results, hf_split=hf_split, hf_subset=hf_subset)

    task.task_specific_scores = noting
    return kept


def _means(scores: list[dict[str, Any]]) -> dict[str, float]:
    return {metric: sum(subset[metric] for subset in scores) / len(scores) for metric in METRICS}


def queries_name(task: str, split: str) -> str:
    """Returns the name of the file that holds what each query of a task's split scored."""
    # A split's name may hold what a file's cannot.
    return f"{task}.{quote(split, safe=' ')}.jsonl"


def _queries_path(output: Path, result: Path, split: str) -> Path:
    below = result.relative_to(output / "results")
    return output / "queries" / below.with_name(queries_name(below.stem, split))


def _write_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Whole or not at all: a part of the queries would be taken for all of them.
    part = path.with_name(f"{path.name}.part")
    with open(part, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    part.replace(path)


def _model_name(model: SentenceTransformer | str) -> str:
    """Returns organization/name, which MTEB makes a folder of."""
    if not isinstance(model, str):
        return "local/model"
    if _hub_revision(model) is not None:
        return model
    last = (
        model.removeprefix(PACKAGE_PREFIX).split("/")[0] if model.startswith(PACKAGE_PREFIX) else Path(model)
    )
    word = last if isinstance(last, str) else last.resolve().name
    return f"local/{re.sub(r'[^A-Za-z0-9_.-]+', '-', word) or 'model'}"


def _hub_revision(spec: str) -> str | None:
    """Returns "main" where `spec` is a Hub id, None where it is a folder or in a package."""
    is_local = spec.startswith(PACKAGE_PREFIX) or Path(spec).is_dir() or spec.count("/") != 1
    return None if is_local else "main"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences MTEB's notes to its developers; errors still come through."""
    from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    logger = logging.getLogger("mteb")
    level, bars_off = logger.level, are_progress_bars_disabled()
    logger.setLevel(logging.ERROR)
    disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        if not bars_off:
            enable_progress_bars()
