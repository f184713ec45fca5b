"""Gates over rows, as a test wants them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from syneg.gating.stage import Gating
from syneg.rows import Dropped, Row
from syneg.stages import Draft, finished_rows


class apply_gates:
    """Rows sent through the gates, once; `tolls` is complete after that."""

    def __init__(self, rows: Iterable[Row], *arguments: Any, **options: Any) -> None:
        self._rows, self._gating = rows, Gating(*arguments, **options)
        self.tolls = self._gating.tolls

    def __iter__(self) -> Iterator[tuple[Row, list[Dropped]]]:
        return finished_rows([self._gating], map(Draft, self._rows))
