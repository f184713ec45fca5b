"""Arguments of `syneg push` and `syneg inspect`."""

from __future__ import annotations

from dataclasses import dataclass, field

from syneg.config import split_commas


@dataclass
class PushArguments:
    """What to publish, and where. The token comes from ``HF_TOKEN`` or from ``hf auth login``."""

    folder: str = field(metadata={"help": "A data set folder, or a SentenceTransformer folder."})
    repo_id: str = field(metadata={"help": "Where on the Hub, as in syneg/msmarco-hardneg."})
    private: bool = field(default=False, metadata={"help": "Whether a repository made now is private."})
    dry_run: bool = field(default=False, metadata={"help": "Show the card and the files; send nothing."})
    overwrite: bool = field(
        default=False,
        metadata={"help": "Replace a repository that is not ours, or a version published before."},
    )
    tag: str | None = field(
        default=None, metadata={"help": "The revision's tag; by default v and the data set's version."}
    )


@dataclass
class ModelCardArguments:
    """What the card of a model says; for a data set, its folder has it all."""

    base_model: str | None = field(
        default=None, metadata={"help": "The model that training began with, as a Hub id."}
    )
    trained_on: list[str] | None = field(
        default=None, metadata={"help": "Data sets it was trained on, as Hub ids."}
    )
    licence: str | None = field(default=None, metadata={"help": "Licence of the model, as in apache-2.0."})
    model_results: str | None = field(
        default=None, metadata={"help": "A folder of MTEB result files of the model, for the card."}
    )
    base_model_results: str | None = field(
        default=None, metadata={"help": "The same of the base model, to compare with."}
    )

    def __post_init__(self) -> None:
        self.trained_on = split_commas(self.trained_on) or None
