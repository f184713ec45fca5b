"""Arguments of `syneg push` and `syneg inspect`."""

from __future__ import annotations

from dataclasses import dataclass, field


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
