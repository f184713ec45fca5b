"""The card of a model: results as model-index, base model and data sets linked."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from markupsafe import Markup
from yaml import YAMLError

from syneg.errors import InputError
from syneg.evaluation.metrics import METRICS, is_written
from syneg.hub.cards import CITATION, card_environment, code

TAGS = ("syneg", "sentence-transformers", "dense-retrieval", "hard-negatives")
PLACEHOLDER = "sentence_transformers_model_id"
"""What sentence-transformers' card says in place of the model's id."""


@dataclass(frozen=True)
class ModelResult:
    """Scores of a model on one split of one task.

    Attributes:
        task: MTEB's name of the task.
        split: The split.
        metrics: MTEB's name of a metric -> value, from 0 to 1.
        dataset: Hub id of the task's data set.
        revision: Its revision.
        before: The same metrics of the base model; empty where it was not evaluated.
    """

    task: str
    split: str
    metrics: dict[str, float]
    dataset: str | None = None
    revision: str | None = None
    before: dict[str, float] = field(default_factory=dict)


@dataclass
class ModelCardInfo:
    """What a model's card says. What is None is taken from the card that the folder has.

    Attributes:
        name: The model's name.
        repo_id: Where it is to be published.
        revision: The revision's tag.
        base_model: Hub id or name of the model that training began with.
        datasets: Hub ids of the data sets it was trained on.
        licence: Licence identifier of the Hub.
        languages: ISO 639 codes.
        training: Arguments and report of the training, as plain values.
        results: Scores.
        limits: Known limits of this model.
    """

    name: str
    repo_id: str | None = None
    revision: str | None = None
    base_model: str | None = None
    datasets: list[str] = field(default_factory=list)
    licence: str | None = None
    languages: list[str] = field(default_factory=list)
    training: dict[str, Any] = field(default_factory=dict)
    results: list[ModelResult] = field(default_factory=list)
    limits: list[str] = field(default_factory=list)


def model_card(info: ModelCardInfo, folder: str | Path) -> str:
    """Returns the card of a SentenceTransformer folder.

    The card that training left in the folder is kept, its metadata completed and the results put
    before its training details; a folder without a card gets one.

    Args:
        info: What it says.
        folder: The model.

    Raises:
        InputError: Where the metadata of the folder's card cannot be read.
    """
    folder = Path(folder)
    card = _existing(folder)
    data = cast(ModelCardData, card.data) if card else ModelCardData()
    data.language = info.languages or data.language
    data.license = info.licence or data.license
    data.library_name = data.library_name or "sentence-transformers"
    data.pipeline_tag = data.pipeline_tag or "sentence-similarity"
    data.base_model = info.base_model or _ids(data.base_model)
    data.datasets = info.datasets or _ids(data.datasets)
    data.tags = list(dict.fromkeys([*(data.tags or []), *TAGS]))
    if info.results:
        data.model_name = info.name
        data.eval_results = [entry for result in info.results for entry in _eval_results(result)]
    environment, context = card_environment(_FILTERS), _context(info, data, folder)
    if card is None:
        text = environment.get_template("model_card.md.j2").render(context)
        return f"---\n{data.to_yaml()}\n---\n\n{text}\n"
    card.text = card.text.replace(PLACEHOLDER, str(context["repo_id"]))
    if info.results:
        results = environment.get_template("model_results.md.j2").render(context)
        card.text = put_section(card.text, "results", results, before="## Training Details")
    return str(card)


def put_section(text: str, name: str, section: str, before: str) -> str:
    """Returns a model's card with a section put in, in place of an earlier one of that name.

    Args:
        text: The card.
        name: The section's name, for the comments that mark where it begins and ends.
        section: Its text, Markdown.
        before: The heading that a new one goes before; at the end where the card does not have it.
    """
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    block = f"{start}\n{section.strip()}\n\n{end}\n"
    if start in text and end in text:
        head, rest = text.split(start, 1)
        return head + block + rest.split(f"{end}\n", 1)[-1]
    head, heading, rest = text.partition(f"\n{before}\n")
    return f"{head}\n{block}{heading}{rest}" if heading else f"{text.rstrip()}\n\n{block}"


def read_mteb_results(folder: str | Path, before: str | Path | None = None) -> list[ModelResult]:
    """Reads MTEB's result files, as `syneg evaluate` writes them.

    Args:
        folder: A folder with ``<task>.json`` files of one model, at any depth.
        before: The same for the base model.

    Raises:
        InputError: Where there is none, a file is not MTEB's, or a task was evaluated twice.
    """
    earlier = {(r.task, r.split): r.metrics for r in _read_results(Path(before))} if before else {}
    return [
        ModelResult(
            result.task,
            result.split,
            result.metrics,
            result.dataset,
            result.revision,
            earlier.get((result.task, result.split), {}),
        )
        for result in _read_results(Path(folder))
    ]


def _read_results(folder: Path) -> list[ModelResult]:
    results: dict[tuple[str, str], ModelResult] = {}
    for path in sorted(folder.rglob("*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            raise InputError(f"{path}: not JSON, so no result of MTEB.") from None
        if not isinstance(record, dict) or not {"task_name", "scores"} <= record.keys():
            continue  # model_meta.json and the like lie beside the results
        for split, subsets in record["scores"].items():
            result = _result(record, split, subsets, path)
            if (result.task, split) in results:
                raise InputError(
                    f"{path}: {result.task} ({split}) has two results below {folder}. Name the folder of one "
                    "model and revision."
                )
            results[result.task, split] = result
    if not results:
        raise InputError(f"{folder}: no result files of MTEB. Write them with `syneg evaluate`.")
    return list(results.values())


def _result(record: Mapping[str, Any], split: str, subsets: Any, path: Path) -> ModelResult:
    try:
        names = [name for name in METRICS if name in subsets[0]]
        metrics = {name: sum(subset[name] for subset in subsets) / len(subsets) for name in names}
    except (KeyError, TypeError, IndexError):
        raise InputError(f"{path}: split {split!r} has no scores of the usual form.") from None
    return ModelResult(
        task=str(record["task_name"]),
        split=split,
        metrics=metrics,
        dataset=_dataset_of(str(record["task_name"])),
        revision=record.get("dataset_revision"),
    )


def _dataset_of(task: str) -> str | None:
    """Returns the Hub id of a task's data set; None for a task that MTEB does not know."""
    import mteb

    try:
        return mteb.get_task(task).metadata.dataset["path"]
    except KeyError:
        return None


def _eval_results(result: ModelResult) -> list[EvalResult]:
    return [
        EvalResult(
            task_type="information-retrieval",
            dataset_type=result.dataset or result.task,
            dataset_name=result.task,
            dataset_split=result.split,
            dataset_revision=result.revision,
            metric_type=name,
            metric_name=METRICS.get(name, name),
            metric_value=round(value, 5),
        )
        for name, value in result.metrics.items()
    ]


def _existing(folder: Path) -> ModelCard | None:
    path = folder / "README.md"
    if not path.is_file():
        return None
    try:
        return ModelCard(path.read_text(encoding="utf-8"), ignore_metadata_errors=True)
    except (ValueError, YAMLError) as error:
        raise InputError(f"{path}: its YAML cannot be read ({' '.join(str(error).split())}).") from None


def _context(info: ModelCardInfo, data: ModelCardData, folder: Path) -> dict[str, Any]:
    datasets = [data.datasets] if isinstance(data.datasets, str) else data.datasets or []
    base = data.base_model[0] if isinstance(data.base_model, list) else data.base_model
    pooling = _read_json(folder / "1_Pooling" / "config.json")
    config = _read_json(folder / "config_sentence_transformers.json")
    return {
        "title": info.name,
        "dimension": pooling.get("embedding_dimension", pooling.get("word_embedding_dimension", "some")),
        "similarity": config.get("similarity_fn_name") or "cosine",
        "base_model": base,
        "base_model_is_id": base is not None and is_repo_id(base),
        "datasets": [name for name in datasets if is_repo_id(name)],
        "repo_id": code(info.repo_id or info.name),
        "revision": code(info.revision) if info.revision else None,
        "results": info.results,
        "metrics": [name for name in METRICS if any(name in result.metrics for result in info.results)],
        "compared": any(result.before for result in info.results),
        "tables": {"Training": info.training} if info.training else {},
        "limits": [*info.limits, *_limits(info)],
        "citation": Markup(CITATION),
    }


def _limits(info: ModelCardInfo) -> list[str]:
    limits = [
        "Trained for retrieval in the domain of its data; elsewhere it may be worse than its base model."
    ]
    if info.results:
        limits.append("Scores are of one training run; runs with other seeds differ.")
    if any(is_written(result.task) for result in info.results):
        limits.append(
            "Scores marked (written) are on queries that an LLM wrote; they favour what resembles the writer."
        )
    if any(result.split == "train" for result in info.results):
        limits.append("A score on a train split says nothing of texts that the model has not seen.")
    return limits


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _ids(names: str | list[str] | None) -> list[str] | None:
    """Keeps Hub ids; what sentence-transformers took from a path is nobody else's business."""
    names = [names] if isinstance(names, str) else names or []
    return [name for name in names if is_repo_id(name)] or None


def is_repo_id(name: str) -> bool:
    """Whether a name can be a repository's on the Hub (owner/name) and is no folder here."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return "/" in name and not Path(name).is_dir()


def _hub(name: str, prefix: str) -> Markup:
    """A link to a repository. Of what an id may hold, only `_` means something in Markdown."""
    shown = name.replace("_", r"\_")
    return Markup(f"[{shown}](https://huggingface.co/{prefix}{name})")


def _score(result: ModelResult, metric: str) -> str:
    if metric not in result.metrics:
        return ""
    before = f" ({result.before[metric]:.4f})" if metric in result.before else ""
    return f"{result.metrics[metric]:.4f}{before}"


_FILTERS: dict[str, Callable[..., Any]] = {
    "hub": _hub,
    "score": _score,
    "metric_name": lambda name: METRICS.get(name, name),
}
