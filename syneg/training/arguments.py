"""`ContrastiveArguments`: what `ContrastiveTrainer` can be told."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

import torch
from sentence_transformers import SentenceTransformerTrainingArguments

from syneg.config import parse_mapping
from syneg.errors import InputError, unknown

_INHERITED = {
    "prompts": "set query_prompt and document_prompt (of SyNegCollator, or --query_prompt)",
    "router_mapping": "the model's own prompts and modules are used for both sides",
    "batch_sampler": "batches are drawn at random, and equal texts of a batch count once",
    "multi_dataset_batch_sampler": "join data sets with datasets.concatenate_datasets",
    "train_sampling_strategy": "batches are drawn at random, and chunks hold texts of similar length anyway",
    "length_column_name": "chunks hold texts of similar length anyway",
    "label_smoothing_factor": "the loss has no labels to smooth",
    "label_names": "rows have no labels",
    "auto_find_batch_size": "set chunk_tokens or gradient_cache: memory does not depend on the batch size",
    "torch_empty_cache_steps": "set chunk_tokens or memory_share",
    "include_num_input_tokens_seen": "tokens_per_second is logged",
    "neftune_noise_alpha": "embeddings get no noise here",
    "use_liger_kernel": "its kernels are for language models",
    "liger_kernel_config": "its kernels are for language models",
    "parallelism_config": "use DDP, FSDP or DeepSpeed",
    "include_for_metrics": "give an evaluator",
    "batch_eval_metrics": "give an evaluator",
}
"""Inherited arguments that this trainer has no use for, and what to do instead."""


@dataclass
class ContrastiveArguments(SentenceTransformerTrainingArguments):
    """Arguments of `ContrastiveTrainer`: those of sentence-transformers' trainer and the following.

    Where a default differs from that class the help says so.

    Raises:
        InputError: For a value out of range, a word that is none of the choices, or an inherited argument
            that would have no effect here.
    """

    help_groups: ClassVar[dict[str, str]] = {
        "output_dir": "Training",
        "objective": "Loss",
        "gradient_cache": "Step",
    }
    """The groups of ``--help``: the first argument of each -> its title."""

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
    objective: str | None = field(
        default=None,
        metadata={
            "help": "FILE.py:CLASS, a ContrastiveObjective of your own, which is run; ours where null."
        },
    )
    temperature: float = field(default=0.02, metadata={"help": "tau in exp(similarity / tau)."})
    similarity: Literal["model", "cosine", "dot"] = field(
        default="model", metadata={"help": "cosine, dot, or what the model is used with."}
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
    distillation: Literal["none", "kl", "margin_mse"] = field(
        default="none", metadata={"help": "Loss from the teacher's scores in the rows."}
    )
    distillation_weight: float = field(default=1.0, metadata={"help": "Weight of the distillation loss."})
    contrastive_weight: float = field(
        default=1.0,
        metadata={"help": "Weight of the contrastive loss beside the distillation loss (CADET: 0.1)."},
    )
    student_temperature: float | None = field(
        default=None,
        metadata={
            "help": "Divides the similarities in the distillation loss (CADET: 0.05, with 0.01 in the "
            "contrastive loss); --temperature where null."
        },
    )
    teacher_temperature: float = field(
        default=1.0, metadata={"help": "Divides the teacher's scores before the softmax of the KL loss."}
    )
    teacher_scale: Literal["none", "unit"] = field(
        default="none",
        metadata={
            "help": "unit: the teacher's scores of an instance are brought to the range from 0 to 1 first, "
            "so that one temperature suits any teacher."
        },
    )
    teacher_mask: float | None = field(
        default=None,
        metadata={
            "help": "Own negatives that the teacher scores above this share of its best score for the query "
            "are left out of the contrastive loss (CADET: 0.6), and those that it alone does not score; null "
            "to keep all."
        },
    )
    source_entropy_weight: float = field(
        default=0.0, metadata={"help": "Weight of our term against telling sources apart; 0.05 was tried."}
    )
    source_entropy_temperature: float = field(
        default=0.1, metadata={"help": "Temperature of our term against telling sources apart."}
    )
    causalneg_weight: float = field(
        default=0.0,
        metadata={
            "help": "Weight of CausalNeg's entropy term over the synthetic negatives (0.05 in its code), of "
            "which a row needs several."
        },
    )
    causalneg_temperature: float = field(
        default=0.1, metadata={"help": "Temperature of CausalNeg's entropy term."}
    )
    matryoshka_dims: list[int] | None = field(
        default=None, metadata={"help": "Dimensions at which the loss is computed too (Matryoshka)."}
    )

    # Guard
    guard: Literal["error", "warn", "off"] = field(
        default="warn",
        metadata={
            "help": "What to do before the first step where the model scores too many of a source's "
            "negatives above the positive: stop, warn, or not look."
        },
    )
    guard_share: float = field(
        default=0.2,
        metadata={
            "help": "The share of a source's negatives above the positive that is let through; more where "
            "the model cannot tell other rows' positives from the query's own either."
        },
    )
    guard_rows: int = field(
        default=256, metadata={"help": "Most rows that are looked at, at random; a small run looks at fewer."}
    )

    # Step
    gradient_cache: Literal["auto", "never", "selective", "always"] = field(
        default="auto",
        metadata={
            "help": "What a step keeps. never: all activations; selective: all but what is cheap to compute "
            "again; always: one chunk's, GradCache embeds the others twice; auto: as much as fits into "
            "memory, as measured, chunk by chunk.",
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

    @property
    def distillation_temperature(self) -> float:
        """What divides the similarities in the distillation loss."""
        return self.temperature if self.student_temperature is None else self.student_temperature

    def __post_init__(self) -> None:
        for known in fields(self):
            default = known.default if known.default_factory is MISSING else known.default_factory()
            if known.name in _INHERITED and getattr(self, known.name) not in (default, None, False, {}, []):
                raise InputError(f"--{known.name} has no effect here: {_INHERITED[known.name]}.")
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
            "student_temperature": 1 if self.student_temperature is None else self.student_temperature,
            "causalneg_temperature": self.causalneg_temperature,
            "source_entropy_temperature": self.source_entropy_temperature,
            "memory_share": self.memory_share,
            "guard_rows": self.guard_rows,
            "chunk_tokens": 1 if self.chunk_tokens is None else self.chunk_tokens,
            **{f"source_weights {name}": weight for name, weight in (self.source_weights or {}).items()},  # type: ignore[union-attr]
        }
        for name, value in above_zero.items():
            if not value > 0:
                raise InputError(f"--{name} is {value}; it must be above 0.")
        for name, choices in _choices(type(self)).items():
            if getattr(self, name) not in choices:
                raise unknown(name, getattr(self, name), choices)
        if self.contrastive_weight < 0 or self.distillation_weight < 0:
            raise InputError("--contrastive_weight and --distillation_weight must be at least 0.")
        if not self.contrastive_weight and (self.distillation == "none" or not self.distillation_weight):
            raise InputError("--contrastive_weight 0 leaves no loss: set --distillation, or another weight.")
        if self.teacher_mask is not None and not 0 <= self.teacher_mask <= 1:
            raise InputError(f"--teacher_mask is {self.teacher_mask}; it must be between 0 and 1.")
        if not 0 <= self.guard_share <= 1:
            raise InputError(f"--guard_share is {self.guard_share}; it must be between 0 and 1.")
        if self.gradient_cache == "selective" and (self.gradient_checkpointing or self.torch_compile):
            raise InputError(
                "--gradient_cache selective does its own recomputation, in eager mode: leave out "
                "--gradient_checkpointing and --torch_compile, or take --gradient_cache auto."
            )
        if any(dim < 1 for dim in self.matryoshka_dims or []):
            raise InputError(
                f"--matryoshka_dims holds {min(self.matryoshka_dims or [])}; they must be above 0."
            )


@dataclass
class GuardedArguments(ContrastiveArguments):
    """The command line's arguments: there the guard stops, unless it is told otherwise."""

    guard: Literal["error", "warn", "off"] = field(
        default="error", metadata=ContrastiveArguments.__dataclass_fields__["guard"].metadata
    )


def _choices(kind: type) -> dict[str, tuple[str, ...]]:
    """Returns our own arguments that take one of several words, by name."""
    hints = {name: get_type_hints(kind)[name] for name in ContrastiveArguments.__annotations__}
    return {name: get_args(hint) for name, hint in hints.items() if get_origin(hint) is Literal}
