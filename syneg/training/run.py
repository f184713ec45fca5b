"""From a training configuration to a saved model."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from syneg.errors import InputError
from syneg.evaluation.metrics import worse_line
from syneg.rows import SYNTHETIC, mined_source
from syneg.training.mixing import ANONYMOUS, Mixture

if TYPE_CHECKING:
    from syneg.training.arguments import ContrastiveArguments
    from syneg.training.trainer import ContrastiveTrainer

logger = logging.getLogger(__name__)

_LOOKED_AT = 256
"""Rows that are looked at for the sources of their negatives."""


@dataclass
class TrainArguments:
    """What is trained, and on script. How is in `ContrastiveArguments`."""

    model: str = field(metadata={"help": "The retriever: a folder, a Hub id or package:NAME/FOLDER."})
    dataset: str = field(metadata={"help": "Rows with negatives: a folder or a Hub id."})
    dataset_config: str | None = field(
        default=None, metadata={"help": "The data set's configuration; its default one where null."}
    )
    split: str = field(default="train", metadata={"help": "The data set's split."})
    streaming: bool = field(default=False, metadata={"help": "Whether to stream the data set."})
    max_rows: int | None = field(default=None, metadata={"help": "Train on the first so many rows only."})
    mixture: str | None = field(
        default=None,
        metadata={
            "help": "Negatives an instance: dense=3 (if null; of another miner where rows have none of that "
            "one's); synthetic=1,dense=2 (the paper's); none; all; pure:synthetic=3; "
            "ratio:synthetic=0.7,dense=1,total=4; direct:synthetic=1,dense=2,total=3. What a row lacks is "
            "drawn from its other mined ones."
        },
    )
    negative_order: Literal["random", "easy_to_hard", "hard_to_easy"] = field(
        default="random", metadata={"help": "random, or a curriculum over the epochs."}
    )
    synthetic_rise: float = field(
        default=1.0, metadata={"help": "By what factor the synthetic share has grown in the last epoch."}
    )
    empty_rows: Literal["error", "in_batch"] = field(
        default="error", metadata={"help": "Rows without negatives: an error, or in-batch only."}
    )
    max_length: int | None = field(
        default=None, metadata={"help": "Longest text in tokens; the model's own where null."}
    )
    pooling: str | None = field(
        default=None,
        metadata={"help": "cls, mean or lasttoken, for a model that does not say; its own where null."},
    )
    query_prompt: str | None = field(
        default=None, metadata={"help": "Put before queries, and saved with the model; else the model's."}
    )
    document_prompt: str | None = field(
        default=None, metadata={"help": "Put before documents, and saved with the model; else the model's."}
    )
    held_out: str | None = field(
        default=None,
        metadata={"help": "A source to measure retrieval on, before, during and after training."},
    )
    held_out_split: str = field(default="test", metadata={"help": "The held-out source's split."})
    held_out_documents: int | None = field(
        default=None, metadata={"help": "Rank so many documents only: the judged ones, and others at random."}
    )
    save_best: float = field(
        default=0.0,
        metadata={
            "help": "Share of the queries that are held back from training, with the documents relevant to "
            "them, and measured on after each epoch; the best epoch's model is kept. 0 keeps the last one."
        },
    )
    patience: int | None = field(
        default=None,
        metadata={
            "help": "Stop after so many evaluations without a better one (with save_best or "
            "load_best_model_at_end)."
        },
    )
    lora_rank: int = field(default=0, metadata={"help": "Rank of LoRA adapters; 0 trains all weights."})
    lora_alpha: int | None = field(
        default=None, metadata={"help": "LoRA's alpha; twice the rank where null."}
    )
    lora_dropout: float = field(default=0.0, metadata={"help": "LoRA's dropout."})
    lora_modules: str = field(
        default="all-linear", metadata={"help": "Modules that get adapters, split by commas."}
    )
    lora_merge: bool = field(
        default=False, metadata={"help": "Whether to merge the adapters into the saved weights."}
    )
    quantize: Literal["none", "4bit"] = field(
        default="none", metadata={"help": "4bit: QLoRA, with bitsandbytes; made for a GPU, slow on a CPU."}
    )


class LoggedLoss(NamedTuple):
    """The mean loss of the steps since the log line before, and the step of the log line."""

    step: int
    loss: float


@dataclass(frozen=True)
class Trained:
    """What came of a training run.

    Attributes:
        folder: Where the model is; `SentenceTransformer(folder)` loads it.
        steps: Steps made, those before a checkpoint that was resumed from included.
        epochs: Passes over the rows.
        rows: How many rows were trained on; None for a stream.
        losses: Every log line's loss, in order; one of the whole run where nothing was logged.
        best_step: The step of the checkpoint that was kept as the best; None where the last one stays.
        before: What was measured on ("held_out", "held_back") -> metric -> value, before training.
        after: The same of the model that was saved.
    """

    folder: Path
    steps: int
    epochs: float
    rows: int | None
    losses: list[LoggedLoss]
    best_step: int | None
    before: dict[str, dict[str, float]]
    after: dict[str, dict[str, float]]


def run(script: TrainArguments, training: ContrastiveArguments) -> Trained:
    """Trains and saves a model.

    Args:
        script: What is trained, and on what.
        training: How.

    Returns:
        What came of it.

    Raises:
        InputError: For a model, data set or argument that cannot be used.
    """
    from syneg.training.saving import find_checkpoint

    # Before anything is loaded.
    find_checkpoint(str(training.output_dir), training.resume_from_checkpoint)
    trainer = make_trainer(script, training)
    before = measure(trainer, "before")
    done = trainer.train(training.resume_from_checkpoint)
    after = measure(trainer, "after")
    save(trainer, script)
    if training.push_to_hub:
        trainer.push_to_hub()
    state = trainer.state
    logged = [LoggedLoss(entry["step"], entry["loss"]) for entry in state.log_history if "loss" in entry]
    return Trained(
        folder=Path(str(training.output_dir)),
        steps=state.global_step,
        epochs=state.epoch or 0.0,
        rows=len(trainer.train_dataset) if isinstance(trainer.train_dataset, Sized) else None,
        losses=logged or [LoggedLoss(state.global_step, done.training_loss)],
        best_step=state.best_global_step if training.load_best_model_at_end else None,
        before=before,
        after=after,
    )


def measure(trainer: ContrastiveTrainer, when: str) -> dict[str, dict[str, float]]:
    """Measures retrieval on what is held out or held back, where there is any, for the card.

    After training it prints one line where the model is worse than the one that training began with.

    Returns:
        What was measured on ("held_out", "held_back") -> metric -> value.
    """
    from syneg.training.held_out import figures

    if trainer.evaluator is None:
        return {}
    found = figures(trainer.evaluate())
    metrics = trainer.report.metrics
    metrics[when] = next(iter(found.values()))
    worse = worse_line(metrics["before"], metrics["after"]) if {"before", "after"} <= metrics.keys() else None
    if worse and trainer.is_world_process_zero():
        print(f"{worse} Measured on: {trainer.report.measured_on}.")
    return found


def make_trainer(script: TrainArguments, training: ContrastiveArguments, **kwargs: Any) -> ContrastiveTrainer:
    """Loads model and data set and returns the trainer; `kwargs` are passed to it.

    Raises:
        InputError: For a model, data set or argument that cannot be used.
    """
    import torch
    from sentence_transformers.sentence_transformer.evaluation import SequentialEvaluator
    from transformers import EarlyStoppingCallback, set_seed

    from syneg.sources import load_source
    from syneg.training.collator import SyNegCollator
    from syneg.training.held_out import (
        HELD_BACK,
        choose_metric,
        held_back_evaluator,
        held_back_name,
        hold_back_rows,
        keep_best,
        retrieval_evaluator,
    )
    from syneg.training.trainer import ContrastiveTrainer

    if not training.output_dir:
        raise InputError("--output is missing: the folder to write.")
    # What is wrong in it is said before anything is loaded.
    Mixture.parse(script.mixture or "none", order=script.negative_order, rise=script.synthetic_rise)
    # Before the model is loaded: new adapters start from random numbers.
    set_seed(training.seed)
    dataset = load_rows(script)
    mixture = Mixture.parse(
        script.mixture or _mined_mixture(dataset), order=script.negative_order, rise=script.synthetic_rise
    )
    measured_on = ""
    if script.save_best:
        dataset, held = hold_back_rows(dataset, script.save_best)
        measured_on = held_back_name(held)
    model = load_model(script)
    collator = SyNegCollator(
        model,
        mixture=mixture,
        seed=training.seed,
        query_prompt=script.query_prompt,
        document_prompt=script.document_prompt,
        empty_rows=script.empty_rows,
    )
    precision = torch.bfloat16 if training.bf16 else torch.float16 if training.fp16 else None
    if script.held_out is not None:
        source = load_source(script.held_out)
        kind = source.written_of(script.held_out_split)
        measured_on = f"{source.name}, {script.held_out_split}" + (f" ({kind})" if kind else "")
        kwargs["evaluator"] = retrieval_evaluator(
            source,
            script.held_out_split,
            script.held_out_documents,
            training.seed,
            training.per_device_eval_batch_size,
            precision,
        )
        if not script.save_best:
            choose_metric(training, kwargs["evaluator"])
    if script.save_best:
        by = held_back_evaluator(
            dataset,
            held,
            script.held_out_documents,
            training.seed,
            training.per_device_eval_batch_size,
            precision,
        )
        keep_best(training)
        choose_metric(training, by, HELD_BACK)
        both = [kwargs["evaluator"], by] if "evaluator" in kwargs else [by]
        kwargs["evaluator"] = SequentialEvaluator(both) if len(both) > 1 else by
    if script.patience is not None:
        kwargs["callbacks"] = [*kwargs.get("callbacks", []), EarlyStoppingCallback(script.patience)]
    trainer = ContrastiveTrainer(
        model=model, args=training, train_dataset=dataset, data_collator=collator, **kwargs
    )
    trainer.report.model, trainer.report.dataset = script.model, script.dataset
    trainer.report.measured_on = measured_on
    return trainer


def _mined_mixture(rows: Any) -> str:
    """Returns three negatives of a miner that the first rows have; warns where it leaves written ones out."""
    from syneg.training.columns import read_row

    found: set[str] = set()
    for row in itertools.islice(rows, _LOOKED_AT):
        # What cannot be read is said with its place where all rows are checked.
        with contextlib.suppress(InputError):
            found |= {candidate.source for candidate in read_row(row).candidates}
    # Texts without a source stand in for any.
    mixture = f"{mined_source(found - {ANONYMOUS}) or 'dense'}=3"
    if SYNTHETIC in found and found - {SYNTHETIC}:
        logger.warning(
            "the rows have synthetic negatives, which the mixture %s leaves out. Beside mined ones they have "
            "brought nothing on the sources measured (RESULTS.md); to train on them: --mixture "
            "synthetic=1,dense=2. Whether they pay on your data says syneg pilot",
            mixture,
        )
    return mixture


def load_rows(script: TrainArguments) -> Any:
    """Loads the data set's rows.

    Raises:
        InputError: Where there is no such data set, configuration or split.
    """
    from datasets import load_dataset

    name = script.dataset
    looks_like_path = Path(name).is_absolute() or name.startswith(".") or name.count("/") != 1
    if looks_like_path and not Path(name).is_dir():
        raise InputError(
            f"data set {name!r}: no such folder. Give a folder that `syneg build` wrote, or a Hub id."
        )
    try:
        rows = load_dataset(name, script.dataset_config, split=script.split, streaming=script.streaming)
    except (ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"data set {name!r}, split {script.split!r} cannot be read: {reason}") from error
    return rows if script.max_rows is None else rows.take(script.max_rows)


def load_model(script: TrainArguments) -> Any:
    """Loads the model, with adapters where the arguments ask for them.

    Raises:
        InputError: Where the model cannot be found, or quantised here.
    """
    from syneg.encoders import load_encoder

    options: dict[str, Any] = {}
    if script.quantize == "4bit":
        options["model_kwargs"] = {"quantization_config": _four_bit(script)}
    model = load_encoder(script.model, max_length=script.max_length, **options)
    # As the model's own they are saved with it, so that whoever loads it, an evaluation say, puts them too.
    prompts = {"query": script.query_prompt, "document": script.document_prompt}
    model.prompts |= {name: prompt for name, prompt in prompts.items() if prompt is not None}
    if script.pooling:
        _set_pooling(model, script.pooling)
    if script.lora_rank:
        from peft import LoraConfig, TaskType

        names = [name.strip() for name in script.lora_modules.split(",") if name.strip()]
        model.add_adapter(
            LoraConfig(
                task_type=TaskType.FEATURE_EXTRACTION,
                r=script.lora_rank,
                lora_alpha=script.lora_alpha or 2 * script.lora_rank,
                lora_dropout=script.lora_dropout,
                target_modules=names[0] if len(names) == 1 else names,
            )
        )
    return model


def _set_pooling(model: Any, pooling: str) -> None:
    from sentence_transformers.sentence_transformer.modules import Pooling

    for name, module in model.named_children():
        if isinstance(module, Pooling):
            try:
                model[int(name)] = Pooling(module.embedding_dimension, pooling_mode=pooling)
            except (ValueError, TypeError) as error:
                raise InputError(f"--pooling {pooling}: {str(error).splitlines()[0]}") from error
            return
    raise InputError(f"--pooling {pooling}: the model has no pooling of its own to replace.")


def _four_bit(script: TrainArguments) -> Any:
    import importlib.util

    import torch
    from transformers import BitsAndBytesConfig

    if not script.lora_rank:
        raise InputError("--quantize 4bit needs adapters to train: set --lora_rank, to 16 say.")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError("--quantize 4bit needs the package bitsandbytes: pip install 'syneg[qlora]'.")
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )


def save(trainer: ContrastiveTrainer, script: TrainArguments) -> None:
    """Saves the model, merged where asked for, and its card."""
    if script.lora_rank and script.lora_merge:
        merge_adapters(trainer.model)
    trainer.save_model()
    trainer.save_state()


def merge_adapters(model: Any) -> None:
    """Adds the adapters' product to the weights they adapt, and removes the adapters."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    transformer = model[0].model
    for module in list(transformer.modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
    for name, module in list(transformer.named_modules()):
        if isinstance(module, BaseTunerLayer):
            parent = transformer.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], module.get_base_layer())
    transformer._hf_peft_config_loaded = False
    if hasattr(transformer, "peft_config"):
        del transformer.peft_config
