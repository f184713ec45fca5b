"""What a gate is, and the count of what gates keep and drop."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Protocol

from syneg.stages import Draft


@dataclass
class Tolls:
    """What the gates kept and dropped.

    Attributes:
        rows: Rows that came in.
        emptied: Rows that lost their last negative.
        added: Rows that a gate made.
        seen: Negatives that came in, by source.
        kept: Negatives that came out, by source; those of added rows are not counted.
        dropped: Negatives dropped, by (gate, kind of reason, source).
        notes: Other figures of a gate, by (gate, what).
        not_checked: What no gate looked at, though it would by default, for people.
    """

    rows: int = 0
    emptied: int = 0
    added: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    dropped: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    notes: Counter[tuple[str, str]] = field(default_factory=Counter)
    not_checked: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Returns the counts as plain nested values."""
        dropped: dict[str, dict[str, dict[str, int]]] = {}
        for (gate, kind, source), count in sorted(self.dropped.items()):
            dropped.setdefault(gate, {}).setdefault(kind, {})[source] = count
        notes: dict[str, dict[str, int]] = {}
        for (gate, what), count in sorted(self.notes.items()):
            notes.setdefault(gate, {})[what] = count
        return {
            "rows": self.rows,
            "emptied": self.emptied,
            "added": self.added,
            "seen": dict(sorted(self.seen.items())),
            "kept": dict(sorted(self.kept.items())),
            "dropped": dropped,
            "notes": notes,
            **({"not_checked": self.not_checked} if self.not_checked else {}),
        }

    def lines(self) -> list[str]:
        """Returns the counts as lines for a person."""
        total, kept = sum(self.seen.values()), sum(self.kept.values())
        share = f" ({kept / total:.1%})" if total else ""
        lines = [f"kept {kept:,} of {total:,} negatives{share} in {self.rows:,} rows"]
        for source, seen in sorted(self.seen.items()):
            lines.append(f"  {source}: kept {self.kept[source]:,} of {seen:,}")
        by_kind: dict[tuple[str, str], dict[str, int]] = {}
        for (gate, kind, source), count in self.dropped.items():
            by_kind.setdefault((gate, kind), {})[source] = count
        for (gate, kind), sources in sorted(by_kind.items()):
            detail = ", ".join(f"{count:,} {source}" for source, count in sorted(sources.items()))
            lines.append(f"  {gate} dropped {sum(sources.values()):,}: {kind} ({detail})")
        lines += [f"  {gate}: {count:,} {what}" for (gate, what), count in sorted(self.notes.items())]
        lines += [f"  not checked: {what}" for what in self.not_checked]
        if self.added:
            lines.append(f"  {self.added:,} rows were added")
        if self.emptied:
            lines.append(f"  {self.emptied:,} rows are left without negatives")
        return lines


class Gate(Protocol):
    """Keeps or drops negatives; sees drafts in groups, so that models can work in batches.

    One of a user's own is derived from this class, in a file that ``--gates FILE.py:CLASS`` names. It is made
    with the gates' arguments (`GatingArguments`).
    """

    name: str
    group: int = 1
    """Drafts that are wanted at once."""

    def __init__(self, args: Any) -> None:
        """Takes the gates' arguments, where one of a user's own does not."""

    def apply(self, drafts: list[Draft], tolls: Tolls) -> None:
        """Takes from each row what may not stay, says in the draft why, and counts it in `tolls.dropped`."""

    def close(self) -> None:
        """Frees what the gate holds."""
