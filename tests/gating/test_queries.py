from __future__ import annotations

import pytest
from datasets import Dataset

from syneg.gating.queries import QueryGateArguments, WrittenQuery, gate_queries
from syneg.sources import CORPUS_FEATURES, QUERY_FEATURES, Source


def source_of(*documents: str) -> Source:
    ids = [f"d{i}" for i in range(len(documents))]
    return Source(
        "s",
        Dataset.from_dict(
            {"id": ids, "title": [""] * len(ids), "text": list(documents)}, features=CORPUS_FEATURES
        ),
        Dataset.from_dict({"id": [], "text": []}, features=QUERY_FEATURES),
        {},
    )


def gated(*texts: str, gate: str, documents: tuple[str, ...] = (), held_out: tuple[str, ...] = (), **options):
    """Returns why each query is dropped; query i is of document i."""
    documents = documents or tuple(f"Document {i} on river {i}" for i in range(len(texts)))
    queries = [WrittenQuery(f"w{i}", text, i, f"d{i}", i) for i, text in enumerate(texts)]
    args = QueryGateArguments(gates=[gate], **options)
    tolls = gate_queries(queries, source_of(*documents), args, held_out=held_out)
    assert sum(tolls.dropped.values()) == sum(query.gate == gate for query in queries)
    assert tolls.read == {gate: len(texts)}
    return [query.cause for query in queries]


def test_signs_tell_queries_apart_and_punctuation_does_not():
    assert gated("a < b", "a > b", "learn C", "learn C++", gate="duplicates") == [""] * 4
    twice = "written for several documents"
    assert gated("Who built it?", "who built  IT", "other", gate="duplicates") == [twice, twice, ""]
    assert gated("東京の人口は？", "東京の人口は", gate="duplicates") == [twice, twice]


@pytest.mark.parametrize(
    ("query", "held_out", "cause"),
    [
        (
            "how long is the river Elbe in km",
            "How long is the river Elbe in km?",
            "equal to a held-out query",
        ),
        (
            "how long is the great river Elbe in km",
            "how long is the river Elbe in km",
            "near to a held-out query",
        ),
        ("how long is the river Rhine", "how wide is the river Elbe", ""),
        ("learn C", "learn R", ""),
        ("東京都の人口は何人ですか", "東京都の人口は何人か", "near to a held-out query"),
        ("東京都の人口は何人ですか", "大阪府の面積はどれくらい", ""),
    ],
)
def test_what_is_nearly_a_held_out_query_leaks(query, held_out, cause):
    found = gated("something else", query, gate="leaks", held_out=("unlike all others", held_out))
    assert found == ["", cause]


def test_only_the_same_words_leak_at_1():
    held_out = ("how long is the river Elbe in km",)
    assert gated(
        "how long is the great river Elbe in km", gate="leaks", held_out=held_out, leak_similarity=1.0
    ) == [""]
    assert gated(
        "How long is the river Elbe in km!", gate="leaks", held_out=held_out, leak_similarity=1.0
    ) != [""]


def test_a_copy_is_told_in_any_script_and_a_short_title_is_none():
    text = "The Elbe rises in the Giant Mountains of Bohemia and flows into the North Sea near Cuxhaven."
    asian = "東京は日本の首都であり、世界でも最大級の都市圏を形成している。"
    found = gated(
        "rises in the Giant Mountains of Bohemia, and flows into the North Sea",
        "where does the river of Hamburg come from",
        "Giant Mountains",
        "世界でも最大級の都市圏を形成",
        "日本でいちばん大きい町はどこですか",
        gate="checks",
        documents=(text, text, text, asian, asian),
    )
    copy = "copy of the text"
    assert found == [copy, "", "", copy, ""]


def test_what_the_document_has_too_is_no_sign():
    said = "what is stated in this document"
    assert gated(
        said, said, gate="checks", documents=("A will: this document, I say, is mine.", "Rivers")
    ) == [
        "",
        "speaks of the document",
    ]


def test_a_document_of_equal_text_is_found_as_well_as_the_own(tmp_path, monkeypatch):
    monkeypatch.setenv("SYNEG_CACHE", str(tmp_path))
    documents = ("The river Elbe is long", "the  river ELBE is long", "A lake of Italy", "A hill in Wales")
    found = gated(
        "river Elbe",
        "river Elbe",
        "hill Wales",
        "no word of it",
        gate="round_trip",
        documents=documents,
        round_trip=["bm25"],
        round_trip_k=1,
    )
    missed = "not among the first 1"
    assert found == ["", "", missed, missed]
