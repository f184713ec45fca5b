from __future__ import annotations

from pathlib import Path

import pytest
from datasets import Dataset

from syneg.errors import InputError
from syneg.sources import CORPUS_FEATURES, QUERY_FEATURES, Source, load_source
from syneg.sources.overlap import shared_judgements

SCIFACT = Path(__file__).parents[2].parent / "shared/data/scifact"


def test_a_document_is_shared_by_its_id_or_its_text_and_by_positive_scores_alone():
    corpus = ["one", "two", "three", "TWO ", "four"]
    source = Source(
        "s",
        Dataset.from_list(
            [{"id": f"d{i}", "title": "", "text": text} for i, text in enumerate(corpus)],
            features=CORPUS_FEATURES,
        ),
        Dataset.from_list([{"id": f"q{i}", "text": f"q{i}"} for i in range(5)], features=QUERY_FEATURES),
        {
            "train": {"q0": {"d0": 1}, "q1": {"d1": 0.5, "d2": 0}},
            "test": {"q2": {"d0": 1, "d4": 2}, "q3": {"d3": 0.1, "d0": -1}, "q4": {"d2": 1}},
        },
    )
    overlap = shared_judgements(source, "test")
    # d0 by its id; d3 by the text of d1; d2 is not relevant in train.
    assert (overlap.judgements, overlap.shared) == (4, 2)
    assert overlap.shared_queries == {"q2", "q3"} and overlap.queries == {"q2", "q3", "q4"}
    assert list(overlap.halves()) == ["with a document of train (2)", "without a document of train (1)"]
    assert str(overlap).startswith("2 of 4 judgements of split test are of a document that is relevant in")
    assert shared_judgements(source, "train", "test").shared == 2
    with pytest.raises(InputError, match="no split 'dev'"):
        shared_judgements(source, "test", "dev")


@pytest.mark.shared
@pytest.mark.skipif(not SCIFACT.exists(), reason="shared/data/scifact is not there")
def test_most_of_scifacts_test_documents_are_in_its_training_split():
    overlap = shared_judgements(load_source(SCIFACT), "test")
    assert (overlap.shared, overlap.judgements) == (216, 339)
    assert (len(overlap.shared_queries), len(overlap.queries)) == (196, 300)
