"""`ContrastiveArguments`: what `ContrastiveTrainer` can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from sentence_transformers import SentenceTransformerTrainingArguments

from syneg.config import parse_mapping
from syneg.errors import InputError, unknown

DISTILLATIONS = ("none", "kl", "margin_mse")
GRADIENT_CACHES = ("auto", "never", "selective", "always")


@dataclass
class ContrastiveArguments(SentenceTransformerTrainingArguments):
    """Arguments of `ContrastiveTrainer`: those of sentence-transformers' trainer and the following.

    Where a default differs from that class the help says so.

    Raises:
        InputError: For a value out of range or a word that is none of the choices.
    """

    output_dir: str | None = field(
        default=None, metadata={"help": "The folder to write.", "aliases": ["--output"]}
    )
    seed: int = field(default=0, metadata={"help": "Seed of every random choice: order, draws, dropout."})
    per_device_train_batch_size: int = field(
        default=32, metadata={"help": "Instances a process and step; with accumulation, times its steps."}
    )
    learning_rate: float = field(default=2e-5, metadata={"help": "The peak learning rate."})
    warmup_steps: float = field(
        default=0.1, metadata={"help": "Steps of warm-up, or a share of all steps where below 1."}
    )
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Left False: a loss that is not finite stops the training."}
    )
    report_to: str = field(
        default="none", metadata={"help": "Where to log besides the terminal, such as tensorboard."}
    )

    # Loss
    temperature: float = field(default=0.02, metadata={"help": "tau in exp(similarity / tau)."})
    similarity: str = field(
        default="model",
        metadata={
            "help": "cosine, dot, or what the model is used with.",
            "choices": ["model", "cosine", "dot"],
        },
    )
    in_batch_negatives: bool = field(
        default=True,
        metadata={"help": "Whether the other instances' documents are negatives besides its own."},
    )
    cross_device_negatives: bool = field(
        default=True,
        metadata={"help": "Whether the in-batch negatives of all processes count, not of this one only."},
    )
    symmetric: bool = field(
        default=False,
        metadata={
            "help": "Whether the loss also ranks the queries for each positive (half the weight each)."
        },
    )
    mask_known_positives: bool = field(
        default=True,
        metadata={
            "help": "Whether in-batch documents known as the query's positives (id or text) are left out."
        },
    )
    false_negative_margin: float | None = field(
        default=0.1,
        metadata={
            "help": "In-batch documents scoring above the positive plus this are left out (Qwen3-Embedding); "
            "null to keep them."
        },
    )
    mask_own_negatives: bool = field(
        default=False,
        metadata={"help": "Whether the margin also holds for the instance's own negatives."},
    )
    source_weights: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "Weight of a source's negatives in the softmax, as in synthetic=0.5. Default 1."},
    )
    hardness: float = field(
        default=0.0,
        metadata={
            "help": "Adds this times the similarity to the own negatives' logits (EmbeddingGemma used 5)."
        },
    )
    distillation: str = field(
        default="none",
        metadata={"help": "Loss from the teacher's scores in the rows.", "choices": list(DISTILLATIONS)},
    )
    distillation_weight: float = field(
        default=1.0, metadata={"help": "Weight of the distillation loss; the contrastive loss has weight 1."}
    )
    teacher_temperature: float = field(
        default=1.0, metadata={"help": "Divides the teacher's scores before the softmax of the KL loss."}
    )
    source_entropy_weight: float = field(
        default=0.0, metadata={"help": "Weight of CausalNeg's source-blind term (0.05 in its paper)."}
    )
    source_entropy_temperature: float = field(
        default=0.1, metadata={"help": "Temperature of CausalNeg's source-blind term."}
    )
    matryoshka_dims: list[int] | None = field(
        default=None, metadata={"help": "Dimensions at which the loss is computed too (Matryoshka)."}
    )

    # Step
    gradient_cache: str = field(
        default="auto",
        metadata={
            "help": "What a step keeps. never: all activations; selective: all but what is cheap to compute "
            "again; always: one chunk's, GradCache embeds the others twice; auto: as much as fits into "
            "memory, as measured, chunk by chunk.",
            "choices": list(GRADIENT_CACHES),
        },
    )
    chunk_tokens: int | None = field(
        default=None, metadata={"help": "Tokens of one chunk, padding included; by device where null."}
    )
    memory_share: float = field(
        default=0.5,
        metadata={"help": "Share of the free memory that activations may take."},
    )
    attention: str = field(
        default="auto",
        metadata={
            "help": "eager, sdpa, flash_attention_2; auto: eager on CPU in bf16, else the model's own."
        },
    )
    gradient_variance: bool = field(
        default=False,
        metadata={"help": "Whether to log the variance of the queries' gradients over the instances."},
    )

    def __post_init__(self) -> None:
        drop_last: bool = self.dataloader_drop_last  # type: ignore[has-type]
        # sentence-transformers drops the uneven last batch under DDP. Here every process takes its part of
        # it, so the setting stays as given; setting it for the moment saves its warning.
        self.dataloader_drop_last = True
        # transformers asks for this before it allows bf16 where there is no accelerator.
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()  # type: ignore[has-type]
        super().__post_init__()
        self.dataloader_drop_last = drop_last
        self.source_weights = {
            source: float(weight)
            for source, weight in parse_mapping(self.source_weights, "source_weights").items()
        }
        self._check_ranges()

    def _check_ranges(self) -> None:
        above_zero = {
            "temperature": self.temperature,
            "teacher_temperature": self.teacher_temperature,
            "source_entropy_temperature": self.source_entropy_temperature,
            "memory_share": self.memory_share,
            "chunk_tokens": 1 if self.chunk_tokens is None else self.chunk_tokens,
            **{f"source_weights {name}": weight for name, weight in (self.source_weights or {}).items()},  # type: ignore[union-attr]
        }
        for name, value in above_zero.items():
            if not value > 0:
                raise InputError(f"--{name} is {value}; it must be above 0.")
        if self.distillation not in DISTILLATIONS:
            raise unknown("distillation", self.distillation, DISTILLATIONS)
        if self.gradient_cache not in GRADIENT_CACHES:
            raise unknown("gradient_cache", self.gradient_cache, GRADIENT_CACHES)
        if self.gradient_cache == "selective" and (self.gradient_checkpointing or self.torch_compile):
            raise InputError(
                "--gradient_cache selective does its own recomputation, in eager mode: leave out "
                "--gradient_checkpointing and --torch_compile, or take --gradient_cache auto."
            )
        if any(dim < 1 for dim in self.matryoshka_dims or []):
            raise InputError(
                f"--matryoshka_dims holds {min(self.matryoshka_dims or [])}; they must be above 0."
            )
