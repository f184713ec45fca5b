"""What `syneg evaluate` can be told. Light: neither torch nor mteb is imported here."""

from __future__ import annotations

from dataclasses import dataclass, field

from syneg.config import split_commas
from syneg.errors import InputError
from syneg.sources import SourceArguments


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

    eval_batch_size: int = field(
        default=32, metadata={"help": "Texts encoded at once; they are sorted by length first."}
    )
    eval_bf16: bool = field(
        default=False,
        metadata={
            "help": "Whether to encode in bfloat16: faster where the hardware has it; scores move a little."
        },
    )
    max_length: int | None = field(
        default=None, metadata={"help": "Longest text in tokens; the model's own where it is null."}
    )

    def __post_init__(self) -> None:
        for name, value in (("eval_batch_size", self.eval_batch_size), ("max_length", self.max_length)):
            if value is not None and value < 1:
                raise InputError(f"--{name} is {value}; it must be 1 or more.")


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

    def __post_init__(self) -> None:
        self.tasks = split_commas(self.tasks) or None
