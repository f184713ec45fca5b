from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from syneg.errors import InputError
from syneg.mining import embeddings
from syneg.mining.arguments import MiningArguments
from syneg.mining.dense import DenseMiner
from syneg.mining.embeddings import Embeddings
from syneg.mining.search import search_flat, search_index
from tests.stand_in import tiny_encoder, tiny_source

QUERIES = np.array([0, 3, 5])


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"), {"query": "what ", "document": "the "})


def miner(encoder: str, cache: Path, **options) -> DenseMiner:
    args = MiningArguments(encoder=encoder, mining_cache=str(cache), **options)
    return DenseMiner(tiny_source(), args, QUERIES)


def random_embeddings(rows: int, dimension: int = 16, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(rows, dimension)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def test_scores_are_cosines_under_the_models_own_prompts(encoder: str, tmp_path: Path) -> None:
    source = tiny_source()
    model = SentenceTransformer(encoder, device="cpu")
    queries = model.encode_query([source.queries["text"][int(i)] for i in QUERIES], normalize_embeddings=True)
    documents = model.encode_document(source.documents(), normalize_embeddings=True)
    exact = queries @ documents.T
    found = miner(encoder, tmp_path, encode_precision="fp32").search(QUERIES, 10)
    assert np.allclose(found.scores, -np.sort(-exact, axis=1)[:, :10], atol=1e-5)
    assert np.allclose(np.take_along_axis(exact, found.rows, axis=1), found.scores, atol=1e-5)
    half = miner(encoder, tmp_path, encode_precision="bf16")
    assert np.allclose(half.score(QUERIES, QUERIES), exact[[0, 1, 2], QUERIES], atol=0.02)
    own = miner(encoder, tmp_path, encode_precision="fp32", query_prompt="", document_prompt="")
    assert not np.allclose(own.score(QUERIES, QUERIES), exact[[0, 1, 2], QUERIES], atol=1e-4)


def test_a_rerun_does_not_load_the_model(encoder: str, tmp_path: Path, monkeypatch) -> None:
    first = miner(encoder, tmp_path).search(QUERIES, 10)
    monkeypatch.setattr("syneg.mining.dense.load_encoder", None)
    again = miner(encoder, tmp_path).search(QUERIES, 10)
    assert np.array_equal(first.rows, again.rows) and np.array_equal(first.scores, again.scores)
    with pytest.raises(TypeError):
        miner(encoder, tmp_path, encode_max_length=8)


def test_a_changed_corpus_or_model_is_encoded_again(encoder: str, tmp_path: Path) -> None:
    args = MiningArguments(encoder=encoder, mining_cache=str(tmp_path))
    DenseMiner(tiny_source(), args, QUERIES)
    count = len(list((tmp_path / "embeddings").iterdir()))
    DenseMiner(tiny_source(n_docs=61), args, QUERIES)
    assert len(list((tmp_path / "embeddings").iterdir())) == count + 1
    (Path(encoder) / "README.md").write_text("changed")
    DenseMiner(tiny_source(), args, QUERIES)
    assert len(list((tmp_path / "embeddings").iterdir())) == count + 3


def test_an_interrupted_encoding_goes_on(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(embeddings, "SHARD_ROWS", 10)
    calls: list[list[str]] = []

    def encode(texts: list[str]) -> np.ndarray:
        calls.append(texts)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return np.array([[float(text[1:]), len(text)] for text in texts], dtype=np.float32)

    texts = [f"t{i}" for i in range(35)]

    def run() -> None:
        embeddings.encode_shards(tmp_path, 35, lambda span: texts[span.start : span.stop], encode, "texts")

    with pytest.raises(KeyboardInterrupt):
        run()
    run()
    assert [len(call) for call in calls] == [10, 10, 10, 10, 5]
    whole = embeddings.open_shards(tmp_path, 35, normalize=False)
    assert whole.take(np.array([34, 0, 19, 19]))[:, 0].tolist() == [34, 0, 19, 19]
    assert len(whole) == 35
    np.save(tmp_path / "00001.npy", np.zeros((3, 2), dtype=np.float32))
    with pytest.raises(InputError, match="28 embeddings for 35 texts"):
        embeddings.open_shards(tmp_path, 35, normalize=False)


@pytest.mark.parametrize("block", [7, 64, 1000])
def test_flat_search_is_exact_in_any_block_size(block: int) -> None:
    queries, documents = random_embeddings(9, seed=1), random_embeddings(300)
    corpus = Embeddings([documents[:100], documents[100:]])
    found = search_flat(queries, corpus, 20, block, "cpu")
    exact = queries @ documents.T
    assert np.array_equal(found.rows, np.argsort(-exact, axis=1)[:, :20])
    assert np.allclose(found.scores, -np.sort(-exact, axis=1)[:, :20], atol=1e-6)
    # The path of accelerators gives the same; torch's "cpu:0" sends it through the CPU.
    other = search_flat(queries, corpus, 20, block, "cpu:0")
    assert np.array_equal(found.rows, other.rows)


@pytest.mark.parametrize("kind", ["ivf", "ivfpq"])
def test_an_index_finds_nearly_all_with_exact_scores(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    centres = random_embeddings(20, 32, seed=2)
    documents = centres[rng.integers(20, size=4000)] + 0.15 * random_embeddings(4000, 32)
    queries = centres[:10] + 0.1 * random_embeddings(10, 32, seed=3)
    corpus = Embeddings([documents.astype(np.float32)], normalize=True)
    exact = search_flat(queries, corpus, 10, 512, "cpu")
    found = search_index(queries, corpus, 10, kind, 16, tmp_path / "index")
    shared = [len(set(a) & set(b)) for a, b in zip(exact.rows, found.rows, strict=True)]
    if kind == "ivf":
        assert np.mean(shared) > 9
    # What a coarse code misses are near ties: what it finds is about as near to the query.
    assert found.scores.mean() > exact.scores.mean() - 0.01
    same = exact.rows == found.rows
    assert np.allclose(exact.scores[same], found.scores[same], atol=1e-5)
    stamp = (tmp_path / "index" / "index.faiss").stat().st_mtime_ns
    search_index(queries, corpus, 10, kind, 16, tmp_path / "index")
    assert (tmp_path / "index" / "index.faiss").stat().st_mtime_ns == stamp


def test_the_users_own_embeddings(tmp_path: Path) -> None:
    source = tiny_source()
    corpus, queries = random_embeddings(60), random_embeddings(12, seed=1)
    np.save(tmp_path / "c.npy", 3 * corpus)
    np.save(tmp_path / "q.npy", queries)
    options = {"query_embeddings": str(tmp_path / "q.npy"), "corpus_embeddings": str(tmp_path / "c.npy")}
    found = miner("no such model", tmp_path, **options).search(QUERIES, 5)
    assert np.allclose(found.scores, -np.sort(-(queries[QUERIES] @ corpus.T), axis=1)[:, :5], atol=1e-6)
    del source
    np.save(tmp_path / "c.npy", corpus[:59])
    with pytest.raises(InputError, match="59 rows for 60 documents"):
        miner("", tmp_path, **options)
    np.save(tmp_path / "c.npy", random_embeddings(60, 8))
    with pytest.raises(InputError, match="16 numbers an embedding, but 8"):
        miner("", tmp_path, **options)
    (tmp_path / "c.npy").write_text("not numpy")
    with pytest.raises(InputError, match=r"c\.npy: not a \.npy file"):
        miner("", tmp_path, **options)
    with pytest.raises(InputError, match="no such file of embeddings"):
        miner("", tmp_path, **{**options, "corpus_embeddings": "none.npy"})


def test_embeddings_that_are_no_numbers_are_refused() -> None:
    bad = Embeddings([np.full((3, 4), np.nan, dtype=np.float32)])
    with pytest.raises(InputError, match="no numbers"):
        bad.take(np.array([0]))
