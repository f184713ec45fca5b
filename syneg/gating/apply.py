"""Gates over rows, streaming: each row comes out with what is left of it and what was dropped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from syneg.errors import InputError
from syneg.gating.arguments import GatingArguments
from syneg.gating.checks import Checks
from syneg.gating.gate import Gate, Gated, Tolls
from syneg.rows import Dropped, Row

if TYPE_CHECKING:
    from syneg.llm.requests import Engine
    from syneg.writing.arguments import GenerationArguments


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
        with ExitStack() as stack:
            stream: Iterator[Gated] = self._count_in(self._rows)
            for gate in self._gates:
                stack.enter_context(closing(gate))
                stream = self._through(gate, stream)
            yield from self._count_out(stream)

    def _count_out(self, stream: Iterator[Gated]) -> Iterator[tuple[Row, list[Dropped]]]:
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


def apply_gates(
    rows: Iterable[Row],
    args: GatingArguments,
    seed: int = 0,
    *,
    generation: GenerationArguments | None = None,
    journal: str | Path | None = None,
    engine: Engine | None = None,
) -> Gating:
    """Sends rows through the gates.

    Args:
        rows: The rows; read as they are needed, a gate's group at a time.
        args: The gates and their bounds.
        seed: Seed of what a gate draws (the judge's sampling).
        generation: For the judge: engine, LLM and limits.
        journal: For the judge: the folder of its journal.
        engine: For the judge: an engine that runs already, and is left running.

    Returns:
        An iterable of (row, what was dropped from it), in order. A row that lost all its negatives
        comes out too. A row that the judge made of a relabelled document follows the row it came
        from, with nothing dropped.

    Raises:
        InputError: For what a gate cannot use, or a judge without engine and journal.
    """
    gates: list[Gate] = []
    for name in args.gates:
        if name == "checks":
            gates.append(Checks(args))
        elif name == "teacher":
            from syneg.gating.teacher import Teacher

            gates.append(Teacher(args))
        else:
            from syneg.gating.judge import Judge

            if generation is None or journal is None:
                raise InputError("gate 'judge' needs an engine and an LLM, and a folder for its journal.")
            gates.append(Judge(args, generation, journal, seed, engine))
    return Gating(rows, gates)
