from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from syneg.errors import InputError
from syneg.mining.arguments import MiningArguments
from syneg.mining.bm25 import BM25Miner, Terms
from syneg.mining.candidates import MISSING
from syneg.mining.mine import mine_pairs
from syneg.sources import QUERY_FEATURES, Source
from tests.stand_in import small, tiny_source


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
    pytest.importorskip("numba", reason="numba is not installed; bm25s does without")
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


def corpus_of(documents: list[str], queries: list[str]) -> Source:
    return small(documents, queries, train={f"q{i}": {"d0": 1} for i in range(len(queries))})


def found_by(miner: BM25Miner) -> list[list[int]]:
    found = miner.search(np.arange(len(miner.source.queries)), len(miner.source.corpus))
    return [row[row != MISSING].tolist() for row in found.rows]


@pytest.mark.parametrize("language", ["english", "french", "none"])
def test_scores_are_those_of_bm25s_to_the_bit(tmp_path: Path, language: str) -> None:
    import bm25s
    import Stemmer

    documents = [*tiny_source().documents(), "Les cafés d'été, l'Œuvre – naïve", "Über 40 %, don’t: “Été” ½"]
    source = corpus_of(documents, ["the river bends in winter", "the café’s naïve été", "under 40 loads"])
    options = {
        "stopwords": {"english": "en", "french": "fr", "none": []}[language],
        "stemmer": None if language == "none" else Stemmer.Stemmer(language),
        "show_progress": False,
    }
    index = bm25s.BM25()
    index.index(bm25s.tokenize(documents, **options), show_progress=False)
    queries = bm25s.tokenize(source.queries["text"][:], return_ids=False, **options)
    theirs = np.stack([index.get_scores(tokens) for tokens in queries])
    ours = BM25Miner(source, MiningArguments(mining_cache=str(tmp_path), bm25_language=language))
    found = ours.search(np.arange(3), len(documents))
    for scores, row, expected in zip(found.scores, found.rows, theirs, strict=True):
        there = row != MISSING
        assert there.sum() == (expected > 0).sum()
        assert np.array_equal(scores[there], expected[row[there]])


def test_words_meet_in_every_script(tmp_path: Path) -> None:
    words = [
        "水壶",
        "やかん",
        "주전자",
        "กาน้ำ",
        "ກາ​ນ້ຳ",
        "កំសៀវ",
        "ရေနွေးအိုး",
        "केतली",
        "கெண்டி",
        "غلاية",
        "קומקום",
        "чайник",
        "βραστήρας",
    ]
    source = corpus_of([*(f"1 {word}。 2" for word in words), "teapot"], [f"{word}?" for word in words])
    miner = BM25Miner(source, MiningArguments(mining_cache=str(tmp_path)))
    assert found_by(miner) == [[i] for i in range(len(words))]


@pytest.mark.parametrize("documents", [["", "  "], ["。。", "!?"], ["a", "b c"]])
def test_a_corpus_without_words_has_no_candidates(tmp_path: Path, documents: list[str]) -> None:
    miner = BM25Miner(corpus_of(documents, ["river", "!"]), MiningArguments(mining_cache=str(tmp_path)))
    assert found_by(miner) == [[], []]
    assert miner.score(np.array([0]), np.array([1])).tolist() == [0]


def test_terms_are_a_tokenizers_tokens_on_demand(tmp_path: Path, encoder: str) -> None:
    source = corpus_of(
        ["The RIVER bends", "the lattice signals", "item4 freezes", ""], ["river", "what signals", "zzz"]
    )
    words = MiningArguments(mining_cache=str(tmp_path), bm25_language="none")
    tokens = MiningArguments(mining_cache=str(tmp_path), bm25_tokenizer=encoder)
    assert found_by(BM25Miner(source, words)) == [[0], [1], []]
    # The same texts and folder, but another index: all that its vocabulary lacks is one term here.
    miner = BM25Miner(source, tokens)
    assert [set(rows) for rows in found_by(miner)] == [{0}, {1}, set()]
    assert next(iter(miner._terms(["The RIVER  bends"]))) == ["the", "river", "bends"]
    assert len(list((tmp_path / "bm25").glob("*/"))) == 2
    assert Terms(tokens).key == Terms(tokens).key != Terms(words).key


def test_other_words_are_another_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = MiningArguments(mining_cache=str(tmp_path))
    before = Terms(args).key
    monkeypatch.setattr("syneg.mining.bm25.WORDS_VERSION", "another")
    assert Terms(args).key != before


def test_what_is_no_tokenizer_is_named_before_anything_is_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr("syneg.mining.mine.DenseMiner", None)
    pairs = tiny_source().pairs("train")
    for spec in (str(tmp_path / "empty"), str(tmp_path / "none"), "package:nowhere/x"):
        args = MiningArguments(mining_cache=str(tmp_path), bm25_tokenizer=spec)
        with pytest.raises(InputError) as caught:
            mine_pairs(pairs, args)
        assert spec.split("/")[-1] in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(InputError, match="'klingon': no stemmer"):
        mine_pairs(pairs, MiningArguments(mining_cache=str(tmp_path), bm25_language="klingon"))
    with pytest.raises(InputError, match="--bm25_tokenizer is empty"):
        MiningArguments(bm25_tokenizer="")
