"""Saving what was trained."""

from __future__ import annotations

import copy
from pathlib import Path
from textwrap import shorten
from typing import Any

from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.model_card import SentenceTransformerModelCardCallback
from torch import nn
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import get_last_checkpoint

from syneg.errors import InputError
from syneg.evaluation.metrics import worse_line
from syneg.hub.model_cards import is_repo_id, put_section
from syneg.hub.reading import read_manifest
from syneg.text import visible
from syneg.training.arguments import ContrastiveArguments
from syneg.training.columns import read_row
from syneg.training.report import TrainingReport

_NO_NAMES = {"", "dataset", "generator", *_PACKAGED_DATASETS_MODULES}
"""What `datasets` calls rows that have no name of their own: by the reader that made them."""


def find_checkpoint(output_dir: str, wanted: str | bool | None) -> str | None:
    """Returns the checkpoint to resume from, or None to start anew.

    Args:
        output_dir: The folder of the training.
        wanted: A checkpoint's folder; True, or "true" as the command line has it, for the last one of
            `output_dir`; False, "false" or None for none.

    Raises:
        InputError: Where there is no such checkpoint.
    """
    word = str(wanted).strip()
    if word.casefold() in ("none", "null", "false", ""):
        return None
    folder: str | None = word
    if word.casefold() == "true":
        folder = get_last_checkpoint(output_dir) if Path(output_dir).is_dir() else None
        if folder is None:
            raise InputError(
                f"--resume_from_checkpoint true: {output_dir!r} has no checkpoint (checkpoint-N). Leave it "
                "out to start anew."
            )
    elif not Path(word).is_dir():
        raise InputError(
            f"--resume_from_checkpoint {word!r}: no such folder. Give a checkpoint-N, or true for the last."
        )
    if not (Path(str(folder)) / TRAINER_STATE_NAME).is_file():
        raise InputError(
            f"--resume_from_checkpoint: {folder!r} is no checkpoint, it has no {TRAINER_STATE_NAME}. "
            "Give a checkpoint-N, or true for the last one of --output."
        )
    return folder


def without_weights(model: SentenceTransformer) -> SentenceTransformer:
    """Returns a copy of a model whose weights take no memory, to be filled with a state dict.

    FSDP turns a model's weights into shards in place; the copy is what can be saved like any model.
    """
    memo: dict[int, Any] = {
        id(p): nn.Parameter(p.to("meta"), requires_grad=p.requires_grad) for p in model.parameters()
    }
    memo[id(model.model_card_data)] = model.model_card_data
    return copy.deepcopy(model, memo)


class TrainingCard(SentenceTransformerModelCardCallback):
    """sentence-transformers' model card, with our rows and loss described as what they are.

    Its own description takes every column, ids and nested negatives included, for a text to embed.
    """

    def on_init_end(
        self, args: Any, state: Any, control: Any, model: Any, trainer: Any, **kwargs: Any
    ) -> None:
        """Describes the data set and the loss."""
        self._report: TrainingReport = trainer.report
        card = model.model_card_data
        card.add_tags(["generated_from_trainer", "hard-negatives", "syneg"])
        card.set_losses([])
        card.ir_model = True
        if card.task_name == type(card).task_name:
            card.task_name = "retrieval: finding the documents that are relevant to a query"
        dataset = trainer.train_dataset
        if dataset is None:
            return
        size = len(dataset) if hasattr(dataset, "__len__") else None
        columns = [f"<code>{name}</code>" for name in dataset.column_names or []]
        loss = {"fullname": "InfoNCE over the query's own negatives" + _in_batch(args)}
        card.train_datasets = [{"name": None, "size": size, "columns": columns, "loss": loss}]
        if size:
            card.add_tags(f"dataset_size:{size}")
        if card.usage_examples is None:
            card.usage_examples = _usage_examples(dataset)

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
        """Names the base model and the data set, which are known by now."""
        super().on_train_begin(args, state, control, model, **kwargs)
        card, report = model.model_card_data, self._report
        if card.base_model is None and is_repo_id(report.model):
            card.base_model = report.model
        for part in card.train_datasets:
            part["name"] = shown_name(report.dataset)
            if is_repo_id(report.dataset):
                part["id"] = report.dataset
                card.datasets = list(dict.fromkeys([*card.datasets, report.dataset]))


def shown_name(name: str) -> str | None:
    """Returns what a card calls a model or data set; None where it has no name.

    Of a folder that is its manifest's name, or the folder's: where it lies is nobody else's business.
    """
    folder = Path(name)
    if name and folder.is_dir():
        name = (read_manifest(folder) or {}).get("name") or folder.resolve().name
    return None if name in _NO_NAMES else name


def _usage_examples(dataset: Any) -> list[str] | None:
    """Returns the first row's query, positive and up to two negatives, cut, each in one line."""
    row = next(iter(dataset.with_format(None).take(1)), None) if hasattr(dataset, "take") else None
    if row is None:
        return None
    example = read_row(row)
    texts = [example.query, example.positive, *(candidate.text for candidate in example.candidates[:2])]
    return [visible(shorten(text, 200, placeholder=" …")) for text in texts]


def _in_batch(args: ContrastiveArguments) -> str:
    if not args.in_batch_negatives:
        return ""
    return " and the batch's other documents" + ("" if args.cross_device_negatives else " (of one process)")


def _above(report: TrainingReport) -> str | None:
    guard = report.guard
    if guard is None or not guard.own:
        return None
    shares = ", ".join(f"{guard.share(source):.0%} of {source}" for source in sorted(guard.own))
    return f"{shares} ({guard.rows} rows)"


def _distilled(args: ContrastiveArguments) -> str | None:
    """Returns what a card says of the distillation; None where there was none."""
    if args.distillation == "none":
        return None
    scale = " (scores from 0 to 1)" if args.teacher_scale == "unit" else ""
    teacher = f", teacher at {args.teacher_temperature:g}{scale}" if args.distillation == "kl" else scale
    student = f"student at {args.distillation_temperature:g}"
    return f"{args.distillation}, {student}{teacher}, weight {args.distillation_weight:g}"


def describe(report: TrainingReport, args: ContrastiveArguments) -> str:
    """Returns the card's section on the training: on what, with which negatives, and what came of it.

    Args:
        report: The run's counts, of the main process where there were several.
        args: The run's arguments.
    """
    processes = " (main process; the others had as many)" if report.processes > 1 else ""
    lines = [
        "## Training in brief",
        "",
        *_facts(
            {
                "Base model": report.model and f"`{shown_name(report.model)}`",
                "Data set": shown_name(report.dataset) and f"`{shown_name(report.dataset)}`",
                "Mixture": f"`{report.mixture}`",
                "Temperature": args.temperature,
                "In-batch negatives": "yes" if args.in_batch_negatives else "no",
                "Contrastive loss": args.contrastive_weight != 1 and f"weight {args.contrastive_weight:g}",
                "Distillation": _distilled(args),
                "Processes": report.processes,
            }
        ),
    ]
    names = list(dict.fromkeys(name for metrics in report.metrics.values() for name in metrics))
    if names:
        lines += [
            "",
            "### Retrieval before and after",
            "",
            f"| {report.measured_on} | {' | '.join(names)} |",
            "|---" * (1 + len(names)) + "|",
        ]
        for when, metrics in report.metrics.items():
            cells = [f"{metrics[name]:.4f}" if name in metrics else "" for name in names]
            lines.append(f"| {when} | {' | '.join(cells)} |")
        if worse := worse_line(report.metrics.get("before", {}), report.metrics.get("after", {})):
            lines += ["", worse]
    fallback = ", ".join(f"{n:,} instead of {source}" for source, n in sorted(report.fallback.items()))
    lines += [
        "",
        "### Negatives",
        "",
        *_facts(
            {
                f"Instances trained on{processes}": f"{report.instances:,}",
                "Drawn": ", ".join(f"{n:,} {source}" for source, n in sorted(report.drawn.items())) or "none",
                "Drawn from another source than asked for": fallback,
                "Asked for and not to be had": report.missing and f"{report.missing:,}",
                "Instances without negatives of their own": report.without_negatives
                and f"{report.without_negatives:,}",
                "Above the positive before training": _above(report),
            }
        ),
    ]
    return "\n".join(lines) + "\n"


def _facts(facts: dict[str, Any]) -> list[str]:
    """Returns a list of what is known and not zero."""
    return [f"- **{name}:** {value}" for name, value in facts.items() if value]


def add_section(folder: str | Path, section: str) -> None:
    """Puts the section on the training before a card's details, replacing an earlier one."""
    path = Path(folder) / "README.md"
    if path.is_file():
        text = put_section(path.read_text(encoding="utf-8"), "negatives", section, before="## Model Details")
        path.write_text(text, encoding="utf-8")
