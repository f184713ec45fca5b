"""Stages: what is done to pairs on their way to rows, one after the other in one stream.

A stage is prepared on the pairs, which takes long and resumes where it was stopped, and then maps drafts to
drafts, in order and in bounded memory. `run` takes drafts through a list of stages to one writer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, ClassVar, Protocol

from datasets import Dataset

from syneg.rows import SYNTHETIC, Dropped, Row, make_row
from syneg.sources import Pair


@dataclass
class Draft:
    """A row on its way.

    Attributes:
        row: The row, with the negatives that it has so far.
        dropped: The negatives that it lost, each with gate and reason.
        made: Rows that were made of it, mirrored or relabelled; they stand behind it.
        mirror_queries: For the text of a synthetic negative the query that it satisfies, where the LLM wrote
            one.
        is_left_out: Whether the row is not written, nor what it lost; rows made of it are.
    """

    row: Row
    dropped: list[Dropped] = field(default_factory=list)
    made: list[Row] = field(default_factory=list)
    mirror_queries: dict[str, str] = field(default_factory=dict)
    is_left_out: bool = False


class Report(Protocol):
    """What a stage has to say: as plain values, and as lines for a person."""

    def to_dict(self) -> dict[str, Any]:
        """Returns it as plain values."""

    def lines(self) -> list[str]:
        """Returns it as lines for a person."""


class SizedPairs(Protocol):
    """Pairs that can be counted, and walked through more than once."""

    def __len__(self) -> int:
        """Returns how many there are."""

    def __iter__(self) -> Iterator[Pair]:
        """Yields them in order."""


class Stage(ABC):
    """What is done to pairs, and then to drafts.

    Attributes:
        name: Its key in reports, as in "mining".
        group: Drafts that it wants at once, so that models can work in batches.
    """

    name: ClassVar[str]
    group: int = 1

    def check(self) -> None:  # noqa: B027
        """Finds out what it needs and would not have, before any stage does what takes long.

        Raises:
            InputError: For a model, library, device or file that is not to be had.
        """

    def prepare(self, pairs: SizedPairs) -> None:  # noqa: B027
        """Does what takes long and resumes: mines, asks the LLM, embeds."""

    @abstractmethod
    def apply(self, drafts: list[Draft]) -> list[Draft]:
        """Returns the drafts, in order, with what this stage adds to them and takes away."""

    def report(self) -> Report | None:
        """Returns what it did; complete once all drafts have gone through."""
        return None

    def card(self) -> dict[str, Any]:
        """Returns what the data set's card says of it beside its report: fields of `DatasetCardInfo`."""
        return {}

    def close(self) -> None:  # noqa: B027
        """Frees what it holds; the report stays. May be called twice."""


class RowWriter(Protocol):
    """Where rows go."""

    def add(self, row: Row, dropped: Sequence[Dropped]) -> None:
        """Takes a row, and what was dropped from it."""


def run(stages: Sequence[Stage], drafts: Iterable[Draft], writer: RowWriter) -> None:
    """Takes drafts through prepared stages, and writes the rows that come out; see `finished_rows`."""
    for row, dropped in finished_rows(stages, drafts):
        writer.add(row, dropped)


def finished_rows(stages: Sequence[Stage], drafts: Iterable[Draft]) -> Iterator[tuple[Row, list[Dropped]]]:
    """Yields the rows that come out of prepared stages, and what was dropped from each.

    Args:
        stages: The stages, in order; they are closed at the end.
        drafts: The drafts, in the order of the pairs that the stages were prepared on.

    Raises:
        InputError: For what a stage cannot use.
    """
    with ExitStack() as stack:
        stream = iter(drafts)
        for stage in stages:
            stack.enter_context(closing(stage))
            stream = _through(stage, stream)
        for draft in stream:
            if not draft.is_left_out:
                yield draft.row, draft.dropped
            yield from ((row, []) for row in draft.made)


def _through(stage: Stage, stream: Iterator[Draft]) -> Iterator[Draft]:
    while group := list(islice(stream, stage.group)):
        yield from stage.apply(group)


def pair_drafts(
    pairs: Iterable[Pair], origin_of: Callable[[str], str] = lambda _: "source"
) -> Iterator[Draft]:
    """Yields a draft without negatives for each pair; `origin_of` says of a query what its row comes from."""
    for pair in pairs:
        origin = origin_of(pair.query_id)
        yield Draft(make_row(pair.query_id, pair.query, pair.positive_id, pair.positive, origin=origin))


class RowPairs:
    """The pairs of a finished data set's rows, read as they are asked for.

    Args:
        rows: The rows.
        dropped: What was dropped from them before.
    """

    def __init__(self, rows: Dataset, dropped: Dataset) -> None:
        self._rows, self._dropped = rows, dropped
        self._at: dict[tuple[str, str], int] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Pair]:
        columns = ["query_id", "query", "positive_id", "positive"]
        for row in self._rows.select_columns(columns):
            yield Pair(**row)

    def select(self, indices: Iterable[int]) -> RowPairs:
        """Returns the pairs at these positions."""
        return RowPairs(self._rows.select(indices), self._dropped)

    def drafts(self) -> Iterator[Draft]:
        """Yields the rows as drafts, with what was dropped from them before."""
        places: dict[tuple[str, str], list[int]] = {}
        for i, identity in enumerate(_identities(self._dropped)):
            places.setdefault(identity, []).append(i)
        for row in self._rows:
            # Of several rows of one pair the first has what was dropped.
            before = places.pop((row["query_id"], row["positive_id"]), [])
            yield Draft(row, [self._dropped[i] for i in before])  # type: ignore[misc]

    def mined(self, pair: Pair) -> list[str]:
        """Returns the texts of a pair's mined negatives, best first."""
        if not self._at:
            self._at = {identity: i for i, identity in enumerate(_identities(self._rows))}
        row = self._rows[self._at[pair.query_id, pair.positive_id]]
        return [negative["text"] for negative in row["negatives"] if negative["source"] != SYNTHETIC]


def _identities(rows: Dataset) -> Iterator[tuple[str, str]]:
    return zip(rows["query_id"][:], rows["positive_id"][:], strict=True)
