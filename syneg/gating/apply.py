"""Gates over rows, streaming: each row comes out with what is left of it and what was dropped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from syneg.gating.arguments import GatingArguments
from syneg.gating.checks import Checks
from syneg.gating.gate import Gate, Gated, Tolls
from syneg.rows import Dropped, Row

_MAKERS: dict[str, Callable[[GatingArguments, int], Gate]] = {}


class Gating:
    """The result of `apply_gates`: iterate over it once; `tolls` is complete after that.

    Attributes:
        tolls: What was kept and dropped, by gate, kind of reason and source.
    """

    def __init__(self, rows: Iterable[Row], gates: list[Gate]) -> None:
        self.tolls = Tolls()
        self._rows = rows
        self._gates = gates

    def __iter__(self) -> Iterator[tuple[Row, list[Dropped]]]:
        stream: Iterator[Gated] = self._count_in(self._rows)
        for gate in self._gates:
            stream = self._through(gate, stream)
        for gated in stream:
            self.tolls.kept.update(negative["source"] for negative in gated.row["negatives"])
            self.tolls.emptied += not gated.row["negatives"] and bool(gated.dropped)
            self.tolls.added += len(gated.added)
            yield gated.row, gated.dropped
            yield from ((row, []) for row in gated.added)

    def _count_in(self, rows: Iterable[Row]) -> Iterator[Gated]:
        for row in rows:
            self.tolls.rows += 1
            self.tolls.seen.update(negative["source"] for negative in row["negatives"])
            yield Gated(row)

    def _through(self, gate: Gate, stream: Iterator[Gated]) -> Iterator[Gated]:
        while group := list(islice(stream, gate.group)):
            results = gate.apply([before.row for before in group], self.tolls)
            for before, after in zip(group, results, strict=True):
                yield Gated(after.row, before.dropped + after.dropped, before.added + after.added)


def apply_gates(rows: Iterable[Row], args: GatingArguments, seed: int = 0) -> Gating:
    """Sends rows through the gates.

    Args:
        rows: The rows; read as they are needed, a gate's group at a time.
        args: The gates and their bounds.
        seed: Seed of what a gate draws (the judge's sampling).

    Returns:
        An iterable of (row, what was dropped from it), in order. A row that lost all its negatives
        comes out too. A row that the judge made of a relabelled document follows the row it came
        from, with nothing dropped.

    Raises:
        InputError: For what a gate cannot use.
    """
    return Gating(rows, [_MAKERS[name](args, seed) for name in args.gates])


_MAKERS["checks"] = lambda args, seed: Checks(args)
