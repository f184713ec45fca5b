"""A tiny model and rows, made on the spot."""

from __future__ import annotations

import os
import random

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

WORDS = [f"{a}{b}" for a in "bcdfghklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "el", "or")]


def build_model(folder, dropout=0.0, pooling="mean"):
    """Writes a random two-layer BERT with 32 dimensions as a sentence-transformers folder."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    torch.manual_seed(0)
    (folder / "bert").mkdir(parents=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    tokenizer = BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=64)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    BertModel(config).save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    transformer = Transformer(str(folder / "bert"))
    model = SentenceTransformer(
        modules=[transformer, Pooling(32, pooling_mode=pooling)],
        device="cpu",
        prompts={"query": "", "document": ""},
    )
    model.save_pretrained(str(folder / "model"))
    return str(folder / "model")


def make_rows(count, seed=0, num_dense=3, num_synthetic=2, shared_queries=False, teacher=False):
    from syneg.rows import make_negative, make_row

    generator = random.Random(seed)

    def text(low, high):
        return " ".join(generator.choices(WORDS, k=generator.randint(low, high)))

    documents = [text(4, 30) for _ in range(count)]
    rows = []
    for i in range(count):
        negatives = [
            make_negative(text(4, 30), "synthetic", difficulty="Foundational") for _ in range(num_synthetic)
        ]
        others = generator.sample([j for j in range(count) if j != i], num_dense)
        negatives += [
            make_negative(documents[j], "dense", doc_id=f"d{j}", rank=k, score=0.9 - k / 10)
            for k, j in enumerate(others)
        ]
        if teacher:
            for negative in negatives:
                negative["teacher_score"] = generator.random()
                negative["positive_teacher_score"] = 1.0
        query = f"q{i // 2}" if shared_queries else f"q{i}"
        rows.append(make_row(query, f"{text(2, 8)}", f"d{i}", documents[i], negatives))
    if shared_queries:
        for i in range(1, count, 2):
            rows[i]["query"] = rows[i - 1]["query"]
    return rows


def make_dataset(count, **options):
    from datasets import Dataset

    from syneg.rows import FEATURES

    return Dataset.from_list(make_rows(count, **options), features=FEATURES)


@pytest.fixture(scope="session")
def tiny_model_path(tmp_path_factory):
    return build_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def dropout_model_path(tmp_path_factory):
    return build_model(tmp_path_factory.mktemp("dropout"), dropout=0.2)


@pytest.fixture
def tiny_model(tiny_model_path):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(tiny_model_path, device="cpu")


@pytest.fixture
def dropout_model(dropout_model_path):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(dropout_model_path, device="cpu")
