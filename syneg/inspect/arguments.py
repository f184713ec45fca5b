"""Arguments of `syneg inspect`."""

from __future__ import annotations

from dataclasses import dataclass, field

from syneg.errors import InputError


@dataclass
class InspectArguments:
    """What to look at, and how.

    Raises:
        InputError: For a number of pairs below 1.
    """

    dataset: str = field(metadata={"help": "A data set folder, or a Hub id (owner/name, or owner/name@tag)."})
    split: str = field(default="train", metadata={"help": "The split."})
    page: str = field(default="inspect.html", metadata={"help": "The HTML file to write."})
    text: bool = field(default=False, metadata={"help": "Print to the terminal in place of a page."})
    shown_pairs: int | None = field(
        default=None,
        metadata={"help": "Pairs to show, evenly spaced; 100 on a page, 5 in a terminal."},
    )
    measured_pairs: int = field(
        default=500, metadata={"help": "Pairs that the distributions are measured on, evenly spaced."}
    )
    encoder: str | None = field(
        default=None, metadata={"help": "A model that measures the similarity to the query (cosine)."}
    )

    def __post_init__(self) -> None:
        for name, value in (("shown_pairs", self.shown_pairs), ("measured_pairs", self.measured_pairs)):
            if value is not None and value < 1:
                raise InputError(f"--{name} is {value}; it must be 1 or more.")
