"""Small stand-ins, made on the spot: a source in BEIR's layout and a random encoder."""

from __future__ import annotations

import random
import socket
from pathlib import Path

from datasets import Dataset

from syneg.sources import CORPUS_FEATURES, QUERY_FEATURES, Source

_SUBJECTS = (
    "copper",
    "river",
    "lattice",
    "protein",
    "engine",
    "harbour",
    "violin",
    "glacier",
    "market",
    "orbit",
)
_ACTIONS = ("bends", "carries", "freezes", "signals", "erodes", "repairs", "measures", "splits")
_PLACES = ("in winter", "under load", "near the coast", "at night", "for decades", "without light")


def _sentence(number: int) -> str:
    subject = _SUBJECTS[number % len(_SUBJECTS)]
    action = _ACTIONS[number * 3 % len(_ACTIONS)]
    place = _PLACES[number * 7 % len(_PLACES)]
    return f"The {subject} {action} item{number} {place}"


def tiny_source(n_docs: int = 60, n_queries: int = 12) -> Source:
    """Returns a source: query i asks for document i, every third one for document i + 20 as well.

    Two thirds of the queries are in split train, the others in test. Documents of the same subject
    share most words, so that every query has hard negatives.
    """
    documents = {
        "id": [f"d{i}" for i in range(n_docs)],
        "title": [_SUBJECTS[i % len(_SUBJECTS)].title() for i in range(n_docs)],
        "text": [f"{_sentence(i)}, and this is written down in note {i % 9}." for i in range(n_docs)],
    }
    queries = {
        "id": [f"q{i}" for i in range(n_queries)],
        "text": [f"What is it that {_sentence(i).lower()}?" for i in range(n_queries)],
    }
    judged = {f"q{i}": {f"d{i}": 1} for i in range(n_queries)}
    for i in range(0, n_queries, 3):
        judged[f"q{i}"][f"d{(i + 20) % n_docs}"] = 1
    train = {q: docs for k, (q, docs) in enumerate(judged.items()) if k < n_queries * 2 // 3}
    return Source(
        "tiny",
        Dataset.from_dict(documents, features=CORPUS_FEATURES),
        Dataset.from_dict(queries, features=QUERY_FEATURES),
        {"train": train, "test": {q: docs for q, docs in judged.items() if q not in train}},
    )


def tiny_encoder(folder: Path, prompts: dict[str, str] | None = None, dimension: int = 32) -> str:
    """Saves a random BERT as a SentenceTransformer in `folder`, and returns its path."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    vocabulary = _vocabulary()
    raw = folder / "bert"
    raw.mkdir(parents=True, exist_ok=True)
    (raw / "vocab.txt").write_text("\n".join(vocabulary))
    tokenizer = BertTokenizerFast(vocab={word: i for i, word in enumerate(vocabulary)}, do_lower_case=True)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=dimension,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=2 * dimension,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(raw)
    tokenizer.save_pretrained(raw)
    word_embeddings = Transformer(str(raw), max_seq_length=64)
    pooling = Pooling(word_embeddings.get_embedding_dimension())
    model = SentenceTransformer(modules=[word_embeddings, pooling], prompts=prompts, device="cpu")
    model.save(str(folder / "encoder"))
    return str(folder / "encoder")


def _vocabulary() -> list[str]:
    words = [f"item{i}" for i in range(60)]
    plain = " ".join([*_SUBJECTS, *_ACTIONS, *_PLACES]).split()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return [*special, *dict.fromkeys([*plain, *words, "the", "what"])]


def tiny_cross_encoder(folder: Path) -> str:
    """Saves a random BERT as a CrossEncoder in `folder`, and returns its path."""
    import torch
    from sentence_transformers import CrossEncoder
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    vocabulary = _vocabulary()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        num_labels=1,
        # So that texts of other words have other scores.
        initializer_range=0.5,
    )
    raw = folder / "cross-bert"
    BertForSequenceClassification(config).save_pretrained(raw)
    tokenizer = BertTokenizerFast(vocab={word: i for i, word in enumerate(vocabulary)}, do_lower_case=True)
    tokenizer.save_pretrained(raw)
    CrossEncoder(str(raw), device="cpu", max_length=64).save_pretrained(str(folder / "cross-encoder"))
    return str(folder / "cross-encoder")


def free_port() -> int:
    """A port below those that outgoing connections take, so that none takes it before it is used."""
    for port in random.sample(range(20_000, 30_000), 100):
        with socket.socket() as tried:
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no free port between 20000 and 30000")


def small(documents: list[str], queries: list[str], **qrels: dict[str, dict[str, int]]) -> Source:
    """Returns a source with documents d0 ... and queries q0 ..."""
    return Source(
        "small",
        Dataset.from_dict(
            {
                "id": [f"d{i}" for i in range(len(documents))],
                "title": [""] * len(documents),
                "text": documents,
            },
            features=CORPUS_FEATURES,
        ),
        Dataset.from_dict(
            {"id": [f"q{i}" for i in range(len(queries))], "text": queries}, features=QUERY_FEATURES
        ),
        qrels,
    )
