"""`syneg inspect`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from syneg.config import ConfigParser
from syneg.errors import InputError

SHOWN_ON_PAGE, SHOWN_IN_TEXT = 100, 5
_MARK = '<meta name="generator" content="syneg inspect">'


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


def main(argv: Sequence[str] | None = None) -> None:
    """Shows a data set: syneg inspect FOLDER|HUB_ID [--text] [--key value ...]."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv and not argv[0].startswith("-"):
        argv = ["--dataset", *argv]
    parser = ConfigParser(InspectArguments, prog="syneg inspect", description=main.__doc__)
    (args,) = parser.parse(argv)
    from syneg.inspect.measures import headline, measure_rows
    from syneg.inspect.sample import read_sample

    page = Path(args.page)
    if not args.text:
        _check_page(page)
    shown = args.shown_pairs or (SHOWN_IN_TEXT if args.text else SHOWN_ON_PAGE)
    sample = read_sample(args.dataset, args.split, shown, args.measured_pairs)
    encoder = None
    if args.encoder:
        from syneg.encoders import load_encoder

        encoder = load_encoder(args.encoder)
    measures = measure_rows(sample.measured, encoder)
    if args.text:
        from syneg.inspect.terminal import render_text

        print(render_text(sample, measures), end="")
        return
    from syneg.inspect.page import render_page

    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(render_page(sample, measures, encoder), encoding="utf-8")
    print(headline(measures))
    print(f"{page.resolve()}: {len(sample.shown)} of {sample.total:,} pairs. Open it in a browser.")
    # What nobody judged is skipped, and kept.
    print(
        f"Next: judge negatives there and download the verdicts, then:\n"
        f"syneg gate --dataset {shlex.quote(args.dataset)} --split {args.split} --gates judge "
        f"--judge_engine recorded --judge_recordings verdicts-{args.split}.jsonl --on_miss skip "
        "--judge_unclear keep --output judged"
    )


def _check_page(page: Path) -> None:
    """Only a page of ours is written over."""
    if page.is_dir():
        raise InputError(f"--page {str(page)!r}: is a folder; name a file, as in inspect.html.")
    if page.is_file() and _MARK not in page.read_text(encoding="utf-8", errors="replace")[:2000]:
        raise InputError(f"--page {str(page)!r}: exists and is no page of `syneg inspect`; name another.")
