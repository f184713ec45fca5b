from __future__ import annotations

import pytest
from datasets import Dataset

from syneg.errors import InputError
from syneg.rows import FEATURES, check_rows, interleave_sources, make_negative, make_row, to_triplets


def rows() -> list:
    few = [make_negative("b1", "bm25", rank=1, score=2.0)]
    many = [make_negative(f"b{i}", "bm25", rank=i) for i in range(1, 4)]
    many += [make_negative("s1", "synthetic", difficulty="hard"), make_negative("d1", "dense")]
    return [make_row("q1", "one", "d1", "first", many), make_row("q2", "two", "d2", "second", few)]


def test_rows_have_the_features_and_come_back_unchanged() -> None:
    dataset = Dataset.from_list(rows(), features=FEATURES)
    assert dataset.features == FEATURES
    assert list(dataset) == rows()


def test_triplets_take_the_sources_in_turn_and_leave_short_rows_out() -> None:
    triplets = to_triplets(Dataset.from_list(rows(), features=FEATURES), 3)
    assert list(triplets) == [
        {"anchor": "one", "positive": "first", "negative_1": "b1", "negative_2": "s1", "negative_3": "d1"}
    ]
    assert [n["text"] for n in interleave_sources(rows()[0]["negatives"])] == ["b1", "s1", "d1", "b2", "b3"]


def test_no_row_is_long_enough() -> None:
    assert to_triplets(Dataset.from_list(rows(), features=FEATURES), 9).column_names[-1] == "negative_9"


def test_a_missing_column_is_named() -> None:
    with pytest.raises(InputError, match=r"data: column 'negatives' is missing \(found: .*query_id"):
        check_rows(Dataset.from_list(rows(), features=FEATURES).remove_columns("negatives"), "data")


def test_a_negative_has_no_other_fields() -> None:
    with pytest.raises(TypeError, match="scor"):
        make_negative("text", "bm25", scor=1)
