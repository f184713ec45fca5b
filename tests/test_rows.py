from __future__ import annotations

import pytest
from datasets import Dataset

from syneg.errors import InputError
from syneg.rows import (
    FEATURES,
    check_rows,
    interleave_sources,
    make_negative,
    make_row,
    mirror_ids,
    source_query_id,
    to_triplets,
)


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


@pytest.mark.parametrize("query_id", ["q1", "q~1", "~", "a~d1~1~query", "q\n2"])
@pytest.mark.parametrize("document_id", ["d1", "d~2", "x~1~query", "~3", "d.*"])
def test_a_mirrored_row_is_read_back_to_its_query(query_id, document_id):
    row = make_row(query_id, "query", document_id, "positive")
    made, document = mirror_ids(row, 12)
    assert (made, document) == (
        f"{query_id}~{document_id}~12~query",
        f"{query_id}~{document_id}~12~document",
    )
    negative = make_negative("positive", "mirror", doc_id=document_id)
    mirrored = make_row(made, "mirror query", document, "synthetic", [negative], "mirror")
    assert source_query_id(mirrored) == query_id
    # The judge found that the first row's positive satisfies the mirrored query too.
    relabelled = make_row(made, "mirror query", document_id, "positive", [], "relabelled")
    assert source_query_id(relabelled) == query_id
    assert source_query_id(row) == query_id
    assert source_query_id({**row, "origin": "relabelled", "positive_id": "another"}) == query_id


def test_a_mirrored_row_without_its_negative_is_not_guessed_at():
    assert source_query_id(make_row("q4~d4~1~query", "q", "q4~d4~1~document", "p", [], "mirror")) == "q4"
    row = make_row("q~4~d4~1~query", "q", "q~4~d4~1~document", "p", [], "mirror")
    with pytest.raises(InputError, match=r"row 'q~4~d4~1~query': .*does not say which query"):
        source_query_id(row)
