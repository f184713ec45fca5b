"""Fixtures; what they are made of is in `looks`, imported under any of pytest's import modes."""

import sys
from pathlib import Path

import pytest

from syneg.rows import make_dropped, make_negative, make_row

sys.path.insert(0, str(Path(__file__).parent))

from looks import EVIL, make_rows, write


@pytest.fixture
def toy(tmp_path):
    rows = list(make_rows(40))
    dropped = [make_dropped(row, row["negatives"][0], "length", "too long") for row in rows[:6]]
    dropped += [make_dropped(row, row["negatives"][1], "copy", "equals the positive") for row in rows[6:8]]
    gating = {"length": {"seen": 120, "dropped": 6}, "copy": {"seen": 114, "dropped": 2}}
    return write(tmp_path / "toy", rows, dropped, gating=gating, audit={"separability": {"auc": 0.61}})


@pytest.fixture
def evil(tmp_path):
    """A data set in which every text tries to run a script."""
    rows, dropped = [], []
    for i, text in enumerate(EVIL):
        negative = make_negative(
            f"negative {text}",
            text,
            **dict.fromkeys(("doc_id", "difficulty", "domain", "length", "reasoning", "verdict"), text),
        )
        row = make_row(f"q{i}{text}", f"query {text}", f"p{text}", f"positive {text}", [negative], text)
        rows.append(row)
        dropped.append(make_dropped(row, negative, text, text))
    return write(tmp_path / "evil", rows, dropped, name=EVIL[5], gating={text: {text: text} for text in EVIL})
