"""What is shown of a data set: evenly spaced pairs, and examples of what each gate dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from syneg.errors import InputError, unknown
from syneg.hub.network import reading_errors
from syneg.hub.reading import PublishedDataset
from syneg.hub.shards import Shards, spaced
from syneg.rows import FEATURES, Negative, interleave_sources


@dataclass(frozen=True)
class Drop:
    """A negative that a gate kept out, with the gate and its reason."""

    negative: Negative
    gate: str
    reason: str


@dataclass
class ShownPair:
    """A pair as it is shown: kept negatives, and dropped ones where any are among the examples.

    `number` is the row's in its split, from 0; None for a pair that is shown for what was dropped.
    """

    query_id: str
    query: str
    positive_id: str
    positive: str
    origin: str
    negatives: list[Negative] = field(default_factory=list)
    dropped: list[Drop] = field(default_factory=list)
    number: int | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it from other pairs."""
        return self.query_id, self.positive_id, self.origin


@dataclass
class Sample:
    """A data set, as far as it is looked at.

    Attributes:
        name: Its name.
        split: The split.
        total: Pairs in the split.
        gates: Gate -> negatives that it dropped, over the whole split.
        shown: Pairs to show.
        evenly: So many of these, the first, are evenly spaced; the others show what gates dropped.
        measured: Rows for the distributions.
        manifest: What made it.
    """

    name: str
    split: str
    total: int
    gates: Counter[str]
    shown: list[ShownPair]
    evenly: int
    measured: list[dict[str, Any]]
    manifest: dict[str, Any]


def read_sample(spec: str | Path, split: str, shown: int, measured: int) -> Sample:
    """Reads the parts of a data set that are shown; the rest is not read.

    Args:
        spec: A folder or a Hub id.
        split: The split.
        shown: Pairs to show.
        measured: Pairs to measure.

    Raises:
        InputError: Where there is no such data set of ours, no such split, or a row is not as it
            should be.
    """
    published = PublishedDataset(spec)
    with reading_errors(str(spec)):
        return _read(published, split, shown, measured)


def _read(published: PublishedDataset, split: str, shown: int, measured: int) -> Sample:
    spec = published.spec
    splits = published.splits()
    if split not in splits:
        raise unknown(f"split of {spec!r}:", split, splits)
    with published.open("default", split) as shards:
        total = len(shards)
        positions = set(spaced(total, shown))
        both = sorted(positions | set(spaced(total, measured)))
        rows = dict(zip(both, shards.rows(both), strict=True))
    missing = FEATURES.keys() - rows[both[0]].keys()
    if missing:
        raise InputError(f"{spec!r}: column {sorted(missing)[0]!r} is missing from its rows.")
    pairs = [_pair(row, at) for at, row in rows.items() if at in positions]
    by_key = {pair.key: pair for pair in pairs}
    with published.open("dropped", split) as shards:
        dropped = _by_gate(shards) if len(shards) else {}
        for row in shards.rows(_examples(dropped, shown)):
            pair = _pair(row)
            if pair.key not in by_key:
                by_key[pair.key] = pair
                pairs.append(pair)
            by_key[pair.key].dropped.append(Drop(row["negative"], row["gate"], row["reason"]))
    return Sample(
        name=str(published.manifest.get("name") or spec),
        split=split,
        total=total,
        gates=Counter({gate: len(positions) for gate, positions in dropped.items()}),
        shown=pairs,
        evenly=len(positions),
        measured=[rows[at] for at in spaced(total, measured)],
        manifest=published.manifest,
    )


def _by_gate(shards: Shards) -> dict[str, np.ndarray]:
    """Returns the positions of the dropped negatives by gate."""
    column = shards.column("gate").combine_chunks()
    codes = column.indices.to_numpy()
    return {gate: np.flatnonzero(codes == i) for i, gate in enumerate(column.dictionary.to_pylist())}


def _examples(dropped: Mapping[str, np.ndarray], shown: int) -> list[int]:
    """Returns positions of dropped negatives: about as many as pairs are shown, the same of each gate."""
    each = max(1, shown // max(1, len(dropped)))
    return [int(where[i]) for where in dropped.values() for i in spaced(len(where), each)]


def _pair(row: dict[str, Any], number: int | None = None) -> ShownPair:
    return ShownPair(
        query_id=row["query_id"],
        query=row["query"],
        positive_id=row["positive_id"],
        positive=row["positive"],
        origin=row["origin"],
        # In turns, so that each source is seen before the page is left.
        negatives=interleave_sources(row.get("negatives") or []),
        number=number,
    )
