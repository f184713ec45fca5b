from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from syneg.errors import InputError
from syneg.mining.arguments import MiningArguments
from syneg.mining.mine import MinedNegatives, iter_mined, mine
from syneg.sources import CORPUS_FEATURES, QUERY_FEATURES, Source
from tests.stand_in import tiny_encoder, tiny_source


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture()
def arguments(encoder: str, tmp_path: Path):
    def make(**options) -> MiningArguments:
        defaults = {"encoder": encoder, "mining_cache": str(tmp_path), "mined_per_miner": 3}
        return MiningArguments(**{**defaults, **options})

    return make


def rows_of(mined: MinedNegatives) -> list[list[tuple]]:
    return [[(n["source"], n["doc_id"], n["rank"], n["score"]) for n in group] for group in mined]


def test_negatives_are_never_positives_of_any_split(arguments) -> None:
    source = tiny_source()
    # q0 has a positive that only the test split knows.
    source.qrels["test"]["q0"] = {"d40": 1, "d30": 0}
    pairs = source.pairs("train")
    mined = mine(pairs, arguments(miners=["bm25", "dense", "random"], relative_margin="{}"))
    assert len(mined) == len(pairs) == len(list(iter_mined(mined)))
    positives = {
        q: {d for qrels in source.qrels.values() for d, r in qrels.get(q, {}).items() if r > 0}
        for q in source.query_ids
    }
    for pair, negatives in zip(pairs, mined, strict=True):
        ids = [n["doc_id"] for n in negatives]
        assert len(ids) == len(set(ids)) == 9
        assert not positives[pair.query_id] & set(ids)
        assert [n["source"] for n in negatives] == ["bm25"] * 3 + ["dense"] * 3 + ["random"] * 3
    # A document judged irrelevant may be one.
    assert "d30" in {n["doc_id"] for n in next(iter(mined))}


def test_ranks_and_scores_are_the_miners(arguments) -> None:
    mined = mine(tiny_source().pairs("train"), arguments(relative_margin="{}"))
    for group in mined:
        for source in ("bm25", "dense"):
            part = [n for n in group if n["source"] == source]
            ranks, scores = [n["rank"] for n in part], [n["score"] for n in part]
            assert ranks == sorted(ranks) and scores == sorted(scores, reverse=True)
            assert all(rank >= 1 for rank in ranks)
    # The positive itself takes the first place of BM25's list for its own query.
    assert next(iter(mined))[0]["rank"] == 2


def test_equal_texts_are_excluded_under_other_ids(arguments) -> None:
    texts = ["the river bends", "The  river BENDS", "what bends?", "the copper bends", "the engine bends"]
    source = Source(
        "equal",
        Dataset.from_dict({"id": list("abcde"), "title": [""] * 5, "text": texts}, features=CORPUS_FEATURES),
        Dataset.from_dict({"id": ["q"], "text": ["what bends?"]}, features=QUERY_FEATURES),
        {"train": {"q": {"a": 1}}},
    )
    mined = mine(source.pairs("train"), arguments(miners="bm25"))
    assert sorted(n["doc_id"] for n in next(iter(mined))) == ["d", "e"]
    dropped = mined.report.miners["bm25"].dropped
    assert (dropped["positive"], dropped["equal to positive"], dropped["equal to query"]) == (1, 1, 1)
    assert mined.report.miners["bm25"].short_rows == 1
    assert any("1 pairs are short" in line for line in mined.report.lines())


def test_every_candidate_is_accounted_for(arguments) -> None:
    mined = mine(tiny_source().pairs("train"), arguments(miners="bm25,dense,random", mining_depth=25))
    for name, report in mined.report.miners.items():
        assert report.candidates == report.kept + sum(report.dropped.values())
        at = mined.sources.index(name)
        assert report.kept == int((mined.source_index == at).sum())
    assert mined.report.to_dict()["miners"]["dense"]["candidates"] == 25 * len(mined)


def test_margins_use_the_exact_score_of_a_positive_beyond_the_depth(arguments) -> None:
    pairs = tiny_source().pairs("train")
    deep = mine(pairs, arguments(miners="bm25", mining_depth=60, relative_margin="bm25=0.3"))
    shallow = mine(pairs, arguments(miners="bm25", mining_depth=4, rank_from=1, relative_margin="bm25=0.3"))
    assert shallow.report.miners["bm25"].positives_beyond > 0
    for a, b in zip(rows_of(deep), rows_of(shallow), strict=True):
        # Ranks and scores; which of several documents with one score comes within the depth is open.
        assert [n[2:] for n in a if n[2] <= 4] == [n[2:] for n in b]


def test_margins_by_the_dense_scores_reach_bm25(arguments) -> None:
    pairs = tiny_source().pairs("train")
    own = mine(pairs, arguments(miners="bm25", relative_margin="bm25=0"))
    by_dense = mine(pairs, arguments(miners="bm25", relative_margin="bm25=0", margin_scores="dense"))
    dense = mine(pairs, arguments(miners="dense", mining_depth=60, relative_margin="{}", mined_per_miner=60))
    score = {
        (pair, negative["doc_id"]): negative["score"]
        for pair, group in enumerate(dense)
        for negative in group
    }
    everything = tiny_source()
    assert rows_of(own) != rows_of(by_dense)
    positive = _dense_positive_scores(arguments, everything)
    for pair, group in enumerate(by_dense):
        for negative in group:
            assert score[pair, negative["doc_id"]] <= positive[pair] + 1e-6


def _dense_positive_scores(arguments, source: Source) -> np.ndarray:
    from syneg.mining.dense import DenseMiner

    pairs = source.pairs("train")
    return DenseMiner(source, arguments(), pairs.query_rows).score(pairs.query_rows, pairs.positive_rows)


def test_short_rows_are_kept_or_filled_with_marked_random_ones(arguments) -> None:
    pairs = tiny_source().pairs("train")
    tight = {"miners": "dense,bm25", "relative_margin": "dense=3", "mined_per_miner": 5}
    kept = mine(pairs, arguments(**tight))
    assert kept.report.miners["dense"].empty_rows == len(pairs)
    filled = mine(pairs, arguments(**tight, short_rows="random"))
    for before, after in zip(rows_of(kept), rows_of(filled), strict=True):
        assert after[: len(before)] == before
        assert len(after) == 10 and {n[0] for n in after[len(before) :]} == {"random"}
        assert len({n[1] for n in after}) == 10
    filling = sum(report.filled for report in filled.report.miners.values())
    assert filling == len(filled.document_rows) - len(kept.document_rows) > 0


def test_same_seed_same_negatives_other_seed_others(arguments, tmp_path: Path) -> None:
    pairs = tiny_source().pairs("train")
    options = {"miners": "bm25,dense,random", "mined_selection": "sampled", "relative_margin": "{}"}
    first = rows_of(mine(pairs, arguments(**options), seed=1))
    assert rows_of(mine(pairs, arguments(**options, mining_cache=str(tmp_path / "other")), seed=1)) == first
    assert rows_of(mine(pairs, arguments(**options), seed=2)) != first
    # A pair's negatives do not depend on which other pairs are mined.
    some = [5, 2, 7]
    assert rows_of(mine(pairs.select(some), arguments(**options), seed=1)) == [first[i] for i in some]


def test_bad_values_are_named() -> None:
    with pytest.raises(InputError, match=r"unknown miner 'desne'.*'dense'"):
        MiningArguments(miners="desne")
    with pytest.raises(InputError, match="name each miner once"):
        MiningArguments(miners="bm25,bm25")
    with pytest.raises(InputError, match=r"relative_margin.*densee"):
        MiningArguments(relative_margin="densee=0.1")
    with pytest.raises(InputError, match="dense='much' is not a number"):
        MiningArguments(relative_margin="dense=much")
    with pytest.raises(InputError, match="rank_from 200 is beyond"):
        MiningArguments(rank_from=200)
    with pytest.raises(InputError, match="mined_per_miner 0"):
        MiningArguments(mined_per_miner=0)
    with pytest.raises(InputError, match="go together"):
        MiningArguments(query_embeddings="q.npy")
    assert MiningArguments(relative_margin="0.1").relative_margin == {"bm25": 0.1, "dense": 0.1}


def test_no_pairs_are_said(arguments) -> None:
    with pytest.raises(InputError, match="no pairs"):
        mine(tiny_source().pairs("train").select([]), arguments())


def test_an_unknown_language_is_named(arguments) -> None:
    with pytest.raises(InputError, match=r"'klingon': no stemmer. Known: .*english"):
        mine(tiny_source().pairs("train"), arguments(miners="bm25", bm25_language="klingon"))
