"""What `syneg evaluate`, `compare` and `report` can be told. Light: no torch, no mteb."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from syneg.config import parse_mapping, split_commas
from syneg.errors import InputError, unknown
from syneg.sources import SourceArguments

ZERO_SHOT = "zero-shot"
"""What the model before training is called beside the arms."""


@dataclass
class EvaluationSourceArguments(SourceArguments):
    """Which source to evaluate on: `SourceArguments`, with the test split for default."""

    split: str = field(default="test", metadata={"help": "The split of the qrels."})


@dataclass
class EncodingArguments:
    """How texts are encoded for an evaluation.

    Raises:
        InputError: For a size below 1.
    """

    eval_batch_size: int | None = field(
        default=None, metadata={"help": "Texts encoded at once, sorted by length; by their length if null."}
    )
    eval_bf16: bool = field(
        default=False,
        metadata={
            "help": "Whether to encode in bfloat16: faster where the hardware has it; scores move a little."
        },
    )
    eval_devices: list[str] | None = field(
        default=None,
        metadata={"help": "Devices to encode on, a process each, as in cuda:0,cuda:1; the model's if null."},
    )
    max_length: int | None = field(
        default=None, metadata={"help": "Longest text in tokens; the model's own where it is null."}
    )

    def __post_init__(self) -> None:
        self.eval_devices = split_commas(self.eval_devices) or None
        for name, value in (("eval_batch_size", self.eval_batch_size), ("max_length", self.max_length)):
            if value is not None and value < 1:
                raise InputError(f"--{name} is {value}; it must be 1 or more.")

    def options(self) -> dict[str, Any]:
        """Returns the keyword arguments of `syneg.evaluation.evaluate.evaluate`, all but max_length."""
        return {
            "batch_size": self.eval_batch_size,
            "bf16": self.eval_bf16,
            "devices": self.eval_devices,
        }


@dataclass
class EvaluationArguments:
    """Which model `syneg evaluate` evaluates, and on what."""

    model: str = field(
        metadata={"help": "The retriever: a folder, a Hub id or package:NAME/FOLDER."},
    )
    output: str = field(default="results", metadata={"help": "The folder to write, in MTEB's cache layout."})
    model_name: str | None = field(
        default=None,
        metadata={"help": "organization/name in the result files; made from --model where it is null."},
    )
    tasks: list[str] | None = field(
        default=None,
        metadata={"help": "MTEB tasks or benchmarks by name, as in SciFact,NanoBEIR, in place of --source."},
    )
    overwrite: bool = field(
        default=False, metadata={"help": "Whether to evaluate again what has a result file."}
    )
    baseline: str | None = field(
        default=None,
        metadata={
            "help": "What to compare with, as the model before training: a model, which is evaluated too, or "
            "a folder that this command wrote."
        },
    )

    def __post_init__(self) -> None:
        self.tasks = split_commas(self.tasks) or None


@dataclass
class CompareArguments:
    """What `syneg compare` compares: arms, each a training configuration, over seeds.

    Raises:
        InputError: For arms, seeds, a baseline or a metric that cannot be used.
    """

    model: str = field(
        metadata={"help": "The backbone: a folder, a Hub id or package:NAME/FOLDER."},
    )
    dataset: str = field(
        metadata={"help": "Rows with negatives, which every arm trains on unless it names its own."},
    )
    output: str = field(metadata={"help": "The folder to write; what is finished there is not done again."})
    arms: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "Arm -> what differs from `training`: any key of `syneg train`."},
    )
    training: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Keys of `syneg train` that all arms share."}
    )
    baseline: str | None = field(
        default=None, metadata={"help": "The arm that the others are tested against; the first if null."}
    )
    seeds: list[str] = field(
        default_factory=lambda: ["0", "1", "2", "3", "4"], metadata={"help": "Every arm is run with each."}
    )
    only: list[str] | None = field(default=None, metadata={"help": "Run these arms only."})
    metric: str = field(
        default="ndcg_at_10",
        metadata={"help": "What is tested.", "choices": ["ndcg_at_10", "recall_at_10", "mrr_at_10"]},
    )
    held_back: float = field(
        default=0.0,
        metadata={
            "help": "Share of the queries of --split, by a hash of their ids, that are left out of the "
            "training rows, with the documents relevant to them, and evaluated on, to choose "
            "hyper-parameters by; 0 evaluates on all of --split."
        },
    )
    keep_models: bool = field(default=False, metadata={"help": "Whether to keep each run's model."})
    evaluate_last: bool = field(
        default=False,
        metadata={
            "help": "Whether to evaluate the model after the last step too, where save_best chose an earlier "
            "one: `syneg report --last true` then compares all arms at equal steps."
        },
    )

    def __post_init__(self) -> None:
        self.training = parse_mapping(self.training, "training")
        self.arms = {
            str(name): parse_mapping(changes, f"arms, {name}")
            for name, changes in parse_mapping(self.arms, "arms").items()
        }
        if not self.arms:
            raise InputError("--arms is missing: a mapping of an arm's name to what it changes.")
        for name in self.arms:
            if not re.fullmatch(r"[\w.+=-]+", name) or name == ZERO_SHOT:
                raise InputError(
                    f"arm {name!r}: a name is made of letters, digits and . _ + = - (it names a folder), "
                    f"and is not {ZERO_SHOT!r}."
                )
        if self.baseline is None:
            self.baseline = next(iter(self.arms))
        self.only = split_commas(self.only) or list(self.arms)
        for word in (self.baseline, *self.only):
            if word not in self.arms:
                raise unknown("arm", word, self.arms)
        words = split_commas([str(seed) for seed in self.seeds])
        if not words or not all(word.isdecimal() for word in words) or len(set(words)) < len(words):
            raise InputError(f"--seeds is {','.join(words)!r}; give different whole numbers, as in 0,1,2.")
        self.seeds = words
        if not 0 <= self.held_back < 1:
            raise InputError(f"--held_back is {self.held_back}; it must be at least 0 and below 1.")


@dataclass
class ReportArguments:
    """What `syneg report` reports on."""

    comparison: str = field(metadata={"help": "The folder that `syneg compare` wrote."})
    output: str | None = field(
        default=None,
        metadata={"help": "The folder to write; the same if null (with --last its folder 'last')."},
    )
    baseline: str | None = field(
        default=None,
        metadata={"help": "The arm that the others are compared with; the comparison's own if null."},
    )
    overlap: bool = field(
        default=False,
        metadata={
            "help": "Whether to give the table for the queries with a document that is relevant in split "
            "train too, and for the others, as well."
        },
    )
    last: bool = field(
        default=False,
        metadata={
            "help": "Whether to report each run's model after its last step, not the one that save_best "
            "chose (compare's --evaluate_last)."
        },
    )
    examples: int = field(
        default=5, metadata={"help": "Queries shown among each arm's largest wins and losses."}
    )
