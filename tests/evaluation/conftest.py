"""A tiny source and a tiny random encoder, made on the spot."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Pooling, Transformer
from transformers import BertConfig, BertModel, BertTokenizer

from syneg.sources import CORPUS_FEATURES, QUERY_FEATURES, Source

WORDS = [
    "apple",
    "bread",
    "cheese",
    "dates",
    "eggs",
    "figs",
    "grapes",
    "honey",
    "ice",
    "jam",
    "kale",
    "lemon",
]


def make_encoder(folder: Path, seed: int = 0) -> SentenceTransformer:
    """Returns a random BERT with two small layers that knows `WORDS`."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(folder)
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    transformer = Transformer(str(folder), max_seq_length=32)
    return SentenceTransformer(
        modules=[transformer, Pooling(transformer.get_word_embedding_dimension())], device="cpu"
    )


def make_source(name: str = "food") -> Source:
    """Returns a source of twelve documents, one a word, and four test queries with known positives."""
    corpus = [{"id": f"d{i}", "title": word, "text": f"{word} {word}"} for i, word in enumerate(WORDS)]
    queries = [{"id": f"q{i}", "text": WORDS[i]} for i in range(6)]
    return Source(
        name,
        Dataset.from_list(corpus, features=CORPUS_FEATURES),
        Dataset.from_list(queries, features=QUERY_FEATURES),
        {
            "test": {"q0": {"d0": 1}, "q1": {"d5": 1, "d1": 1}, "q2": {"d7": 1}, "q3": {"d3": 2, "d4": 0}},
            "train": {"q4": {"d4": 1}, "q5": {"d5": 1}},
        },
    )


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> SentenceTransformer:
    return make_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="session")
def source() -> Source:
    return make_source()
