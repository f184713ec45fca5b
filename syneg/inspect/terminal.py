"""The data set as plain text, for a terminal."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from syneg.hub.cards import number
from syneg.inspect.measures import Measure, headline
from syneg.inspect.page import facts, tolls
from syneg.inspect.sample import Sample, ShownPair
from syneg.text import visible

LINES = 6
"""Lines of a document before it is cut."""


def render_text(sample: Sample, measures: list[Measure], width: int | None = None) -> str:
    """Returns the data set as plain text.

    Args:
        sample: What to show.
        measures: Distributions.
        width: Characters a line; the terminal's where it is None.
    """
    width = width or min(shutil.get_terminal_size().columns, 110)
    lines = [f"{sample.name}, {sample.split}: {sample.total:,} pairs"]
    lines += [*_wrapped(headline(measures), width, ""), ""]
    for measure in measures:
        lines += [f"{measure.name} ({measure.meaning}; {len(sample.measured):,} pairs measured)"]
        lines += [f"  {'':<14}{'number':>9}{'10%':>9}{'median':>9}{'90%':>9}{'above positive':>16}"]
        for d in measure.distributions:
            above = "" if d.above is None else f"{d.above:.0%}"
            lines += [f"  {d.source:<14}{d.count:>9,}{d.low:>9.3g}{d.median:>9.3g}{d.high:>9.3g}{above:>16}"]
        lines += [""]
    for heading, table in tolls(sample).items():
        lines += [heading, *_tree(table, "  "), ""]
    for pair in sample.shown:
        lines += _pair(pair, width)
    return visible("\n".join(lines)) + "\n"


def _tree(value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            if isinstance(item, Mapping | list) and not item:
                continue
            if isinstance(item, Mapping | list):
                yield f"{indent}{name}"
                yield from _tree(item, indent + "  ")
            elif item is not None:
                yield f"{indent}{name}: {number(item)}"
    else:
        for item in value:
            if isinstance(item, Mapping):
                yield indent + ", ".join(f"{name} {number(part)}" for name, part in item.items())
            else:
                yield f"{indent}{number(item)}"


def _pair(pair: ShownPair, width: int) -> list[str]:
    lines = ["-" * width, *_wrapped(f"query: {pair.query}", width, "")]
    lines += _wrapped(f"positive: {pair.positive}", width, "  ")
    shown = [(negative, None) for negative in pair.negatives]
    for negative, drop in [*shown, *((drop.negative, drop) for drop in pair.dropped)]:
        known = ", ".join(f"{name} {value}" for name, value in facts(negative))
        head = f"{negative['source']} ({known})" if known else negative["source"]
        if drop is not None:
            head += f" [dropped by {drop.gate}: {drop.reason}]"
        lines += ["", *_wrapped(head, width, "  "), *_wrapped(negative["text"], width, "    ")]
        if negative["reasoning"]:
            lines += _wrapped(f"reasoning: {negative['reasoning']}", width, "      ")
    return [*lines, ""]


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    return textwrap.wrap(
        " ".join(text.split()),
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        max_lines=LINES,
        placeholder=" …",
    )
