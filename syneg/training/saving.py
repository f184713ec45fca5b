"""Saving what was trained."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.model_card import SentenceTransformerModelCardCallback
from torch import nn
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import get_last_checkpoint

from syneg.errors import InputError
from syneg.hub.model_cards import put_section
from syneg.training.arguments import ContrastiveArguments
from syneg.training.report import TrainingReport


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
        card = model.model_card_data
        card.add_tags(["generated_from_trainer", "hard-negatives", "syneg"])
        card.set_losses([])
        card.ir_model = True
        dataset = trainer.train_dataset
        if dataset is None:
            return
        size = len(dataset) if hasattr(dataset, "__len__") else None
        columns = [f"<code>{name}</code>" for name in dataset.column_names or []]
        loss = {"fullname": "InfoNCE over the query's own negatives" + _in_batch(args)}
        info = {"name": trainer.report.dataset or None, "size": size, "columns": columns, "loss": loss}
        card.train_datasets = [info]
        if size:
            card.add_tags(f"dataset_size:{size}")


def _in_batch(args: ContrastiveArguments) -> str:
    if not args.in_batch_negatives:
        return ""
    return " and the batch's other documents" + ("" if args.cross_device_negatives else " (of one process)")


def describe(report: TrainingReport, args: ContrastiveArguments) -> str:
    """Returns the card's section on the negatives: what was asked for, and what was drawn.

    Args:
        report: The run's counts, of the main process where there were several.
        args: The run's arguments.
    """
    processes = " (main process; the others had as many)" if report.processes > 1 else ""
    facts = {
        "Base model": f"`{report.model}`" if report.model else None,
        "Data set": f"`{report.dataset}`" if report.dataset else None,
        "Mixture": f"`{report.mixture}`",
        "Temperature": args.temperature,
        "In-batch negatives": "yes" if args.in_batch_negatives else "no",
        "Processes": report.processes,
        f"Instances trained on{processes}": f"{report.instances:,}",
        "Negatives drawn": ", ".join(f"{n:,} {source}" for source, n in sorted(report.drawn.items()))
        or "none",
        "Drawn from another source than asked for": ", ".join(
            f"{n:,} instead of {source}" for source, n in sorted(report.fallback.items())
        )
        or "none",
        "Asked for and not to be had": f"{report.missing:,}",
        "Instances without negatives of their own": f"{report.without_negatives:,}",
    }
    lines = [
        "### Negatives",
        "",
        *(f"- **{name}:** {value}" for name, value in facts.items() if value is not None),
    ]
    names = list(dict.fromkeys(name for metrics in report.metrics.values() for name in metrics))
    if names:
        lines += [
            "",
            "### Retrieval before and after",
            "",
            f"| | {' | '.join(names)} |",
            "|---" * (1 + len(names)) + "|",
        ]
        for when, metrics in report.metrics.items():
            cells = [f"{metrics[name]:.4f}" if name in metrics else "" for name in names]
            lines.append(f"| {when} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def add_section(folder: str | Path, section: str) -> None:
    """Puts a section at the head of a card's training details, replacing an earlier one of its kind."""
    path = Path(folder) / "README.md"
    if not path.is_file():
        return
    path.write_text(
        put_section(path.read_text(encoding="utf-8"), "negatives", section, True), encoding="utf-8"
    )
