from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from syneg.errors import InputError
from syneg.mining.arguments import MiningArguments
from syneg.mining.mine import MinedNegatives, iter_mined
from syneg.mining.mine import mine_pairs as mine
from syneg.sources import CORPUS_FEATURES, QUERY_FEATURES, Source
from tests.stand_in import small, tiny_encoder, tiny_source


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


def test_a_query_is_its_text_in_every_miner_and_split(arguments) -> None:
    documents = [f"the river bends in note {i}" for i in range(12)] + ["THE river bends in note 3"]
    queries = ["what bends", "What  Bends", "wh\u200bat bends", "what carries"]
    source = small(
        documents,
        queries,
        train={"q0": {"d0": 1, "d9": 0}, "q3": {"d8": 1}},
        dev={"q1": {"d3": 1}},
        test={"q2": {"d5": 1}},
    )
    options = {"miners": "bm25,dense,random", "relative_margin": "{}", "mined_per_miner": 12}
    mined = mine(source.pairs("train"), arguments(**options))
    first, second = ({n["doc_id"] for n in group} for group in mined)
    # What is a positive under another id of the query, and the document with such a one's text.
    assert first == {f"d{i}" for i in range(12)} - {"d0", "d3", "d5"}
    # What stands in the corpus twice comes once.
    assert second | {"d12"} == {f"d{i}" for i in range(13)} - {"d8"} and len(second) == 11
    filled = mine(source.pairs("train"), arguments(**{**options, "miners": "bm25"}, short_rows="random"))
    assert not {"d0", "d3", "d5", "d12"} & {n["doc_id"] for n in next(iter(filled))}


def test_a_document_without_text_is_no_negative(arguments) -> None:
    source = small(
        ["the river bends", "", " \n", "the copper bends"], ["what bends"], train={"q0": {"d0": 1}}
    )
    options = {"miners": "dense,random", "relative_margin": "{}", "short_rows": "random"}
    mined = mine(source.pairs("train"), arguments(**options))
    assert {n["doc_id"] for n in next(iter(mined))} == {"d3"}
    assert mined.report.miners["dense"].dropped["empty"] == 2
    assert "  dropped 2: has no text" in mined.report.lines()


def test_many_positives_do_not_use_up_the_depth(arguments) -> None:
    # q0 has 9 positives and one of them three times more; the depth of 8 is eaten up but for its own.
    documents = [f"the river bends in note {i}" for i in range(9)] + ["the river bends in note 0"] * 3
    documents += [f"a river bends far from the coast in winter, part {i}" for i in range(30)]
    many = {f"d{i}": 1 for i in range(9)}
    source = small(documents, ["the river bends in note", "river part"], train={"q0": many, "q1": {"d12": 1}})
    options = {"miners": "bm25", "relative_margin": "{}", "mined_per_miner": 8, "mining_depth": 8}
    mined = mine(source.pairs("train"), arguments(**options))
    groups = list(mined)
    assert all(len(group) == 8 for group in groups[:9])
    # Ranks count what stands above: 9 positives and 3 of one's text.
    assert [n["rank"] for n in groups[0]] == list(range(13, 21))
    # An ordinary query's positive takes up a place, as ever.
    assert len(groups[9]) <= 8 and max(n["rank"] for n in groups[9]) <= 8
    report = mined.report.miners["bm25"]
    assert report.candidates == report.kept + sum(report.dropped.values()) == 9 * (8 + 12) + 8
    assert report.positives_beyond == 0
    # A query's negatives do not depend on which others are mined, however many positives those have.
    alone = mine(source.pairs("train").select([9]), arguments(**options))
    assert rows_of(alone) == rows_of(mined)[9:]


def test_queries_without_candidates_are_warned_of(arguments) -> None:
    documents = [f"the river bends in note {i}" for i in range(6)]
    train = {f"q{i}": {"d0": 1} for i in range(100)}
    for strange, warned in ((0, False), (3, False), (4, True)):
        queries = [f"xyzzy{i}" if i < strange else f"river {i}" for i in range(100)]
        report = mine(small(documents, queries, train=train).pairs("train"), arguments(miners="bm25")).report
        assert report.miners["bm25"].unanswered == strange
        lines = [line for line in report.lines() if line.startswith("WARNING: bm25 found no candidate")]
        assert len(lines) == warned
        values = report.to_dict()
        assert ("queries" in values) == ("unanswered" in values["miners"]["bm25"]) == bool(strange)
    assert "4 of 100 queries (4.0%)" in lines[0] and "--bm25_tokenizer" in lines[0]


def test_without_an_encoder_sentence_transformers_is_not_imported(beir: Path, tmp_path: Path) -> None:
    words = ["mine", "--source", str(beir), "--miners", "random", "--output", str(tmp_path / "out")]
    script = (
        "import sys; from syneg.cli import main; "
        f"assert main({words!r}) == 0; assert 'sentence_transformers' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "out" / "README.md").is_file()
