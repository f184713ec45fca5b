from __future__ import annotations

from pathlib import Path

import numpy as np
from datasets import Dataset

from syneg.mining.arguments import MiningArguments
from syneg.mining.bm25 import BM25Miner
from syneg.mining.candidates import MISSING
from syneg.sources import QUERY_FEATURES
from tests.stand_in import tiny_source


def test_search_and_score_agree_with_bm25s(tmp_path: Path) -> None:
    source = tiny_source()
    miner = BM25Miner(source, MiningArguments(mining_cache=str(tmp_path)))
    rows = np.arange(12)
    found = miner.search(rows, 60)
    for query in rows:
        there = found.rows[query] != MISSING
        documents = found.rows[query][there]
        scores = miner.score(np.full(len(documents), query), documents)
        assert np.allclose(scores, found.scores[query][there], rtol=1e-5)
        rest = np.setdiff1d(np.arange(60), documents)
        assert (miner.score(np.full(len(rest), query), rest) == 0).all()
        assert documents[0] == query


def test_numba_and_numpy_rank_alike(tmp_path: Path) -> None:
    miner = BM25Miner(tiny_source(), MiningArguments(mining_cache=str(tmp_path)))
    plain = miner.search(np.arange(12), 10)
    miner._choose_backend = lambda: setattr(miner._index, "backend", "numba") or 1  # type: ignore[method-assign]
    compiled = miner.search(np.arange(12), 10)
    assert np.allclose(plain.scores, compiled.scores)


def test_a_query_without_known_terms_has_no_candidates(tmp_path: Path) -> None:
    source = tiny_source()
    source.queries = Dataset.from_dict(
        {"id": ["a", "b", "c"], "text": ["", "xyzzy", "copper"]}, features=QUERY_FEATURES
    )
    found = BM25Miner(source, MiningArguments(mining_cache=str(tmp_path))).search(np.arange(3), 60)
    assert (found.rows[:2] == MISSING).all()
    assert (found.rows[2] != MISSING).sum() == 6


def test_the_index_is_made_once(tmp_path: Path, monkeypatch) -> None:
    args = MiningArguments(mining_cache=str(tmp_path))
    first = BM25Miner(tiny_source(), args).search(np.arange(12), 5)
    monkeypatch.setattr("bm25s.BM25.index", None)
    again = BM25Miner(tiny_source(), args).search(np.arange(12), 5)
    assert np.array_equal(first.rows, again.rows)


def test_stems_and_stop_words_by_language(tmp_path: Path) -> None:
    source = tiny_source()
    source.queries = Dataset.from_dict({"id": ["a"], "text": ["the bending"]}, features=QUERY_FEATURES)
    english = BM25Miner(source, MiningArguments(mining_cache=str(tmp_path)))
    plain = BM25Miner(source, MiningArguments(mining_cache=str(tmp_path), bm25_language="none"))
    # "bending" meets "bends" by its stem only; "the" is in every document.
    assert 0 < (english.search(np.array([0]), 60).rows != MISSING).sum() < 60
    assert (plain.search(np.array([0]), 60).rows != MISSING).sum() == 60
