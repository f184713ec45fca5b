"""What MTEB is given: a local source as its task, and an encoder with bf16 and a traceable revision."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from copy import deepcopy
from fractions import Fraction
from typing import Any

import mteb
import numpy as np
import torch
from datasets import Dataset
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models import SentenceTransformerEncoderWrapper
from mteb.types import PromptType
from sentence_transformers import SentenceTransformer
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from syneg.sources import Source

PART = 512
"""Texts of similar length that are encoded with one batch size."""


MAX_GAIN = 100_000
"""The highest gain that a fraction is scaled up to: trec_eval counts through all whole numbers below."""


def whole_gains(scores: Mapping[str, float]) -> dict[str, int]:
    """Returns one query's scores as whole numbers in the same proportions: trec_eval takes no others.

    nDCG is linear in the gains and divided by its value for the same query's best order, so a factor
    common to a query falls out; recall and MRR ask only which scores are above 0. Whole scores stay as they
    are; fractions are multiplied by their smallest common denominator. Where that takes the highest beyond
    `MAX_GAIN`, as with probabilities to many digits, gains are rounded to that many steps, which moves
    none by more than a 200,000th of the highest.

    Args:
        scores: Document id -> finite score; 0 and below is not relevant.
    """
    fractions = {document: max(Fraction(str(score)), Fraction(0)) for document, score in scores.items()}
    factor = Fraction(math.lcm(*(fraction.denominator for fraction in fractions.values())))
    highest = max(fractions.values(), default=Fraction(0))
    if highest * factor > MAX_GAIN:
        factor = MAX_GAIN / highest
    # However small: what is relevant stays relevant.
    return {document: max(round(gain * factor), int(gain > 0)) for document, gain in fractions.items()}


class SourceRetrieval(AbsTaskRetrieval):
    """A source's split as an MTEB retrieval task; nothing is fetched.

    Args:
        source: Corpus, queries and qrels.
        split: The split to evaluate.

    Raises:
        InputError: Where `source` has no such split, or nothing relevant in it.
    """

    def __init__(self, source: Source, split: str) -> None:
        source.pairs(split)  # Raises where there is nothing to find.
        qrels = source.judgements(split)
        # Before super().__init__, which reads it; a class attribute would be shared by all sources.
        self.metadata = _metadata(source, split)
        super().__init__()
        judged = source.query_ids.get_indexer(list(qrels))
        self.dataset = {
            "default": {
                split: {
                    "corpus": source.corpus.select_columns(["id", "title", "text"]),
                    "queries": source.queries.select_columns(["id", "text"]).select(judged.tolist()),
                    "relevant_docs": {query: whole_gains(docs) for query, docs in qrels.items()},
                    "top_ranked": None,
                }
            }
        }
        self.data_loaded = True


def task_name(source: Source, split: str) -> str:
    """Returns the name of a source's task: its own, made fit for a file and no other MTEB task's.

    Where an LLM wrote the split's queries the name says so, and with it every file and table: "(written)".
    """
    kind = source.written_of(split)
    return f"{_plain_name(source)} ({kind})" if kind else _plain_name(source)


def _plain_name(source: Source) -> str:
    name = re.sub(r"[^\w.-]+", "-", source.name).strip("-.") or "source"
    try:
        mteb.get_task(name)
    except KeyError:
        return name
    return f"{name}-local"


def source_revision(source: Source) -> str:
    """Returns a hash of everything in `source`, so that a result is not taken for that of other data."""
    digest = hashlib.sha256()
    for dataset, columns in ((source.corpus, ("id", "title", "text")), (source.queries, ("id", "text"))):
        for batch in dataset.select_columns(list(columns)).iter(batch_size=1000):
            for values in zip(*(batch[column] for column in columns), strict=True):
                digest.update("\0".join(value or "" for value in values).encode() + b"\1")
    for split in sorted(source.qrels):
        # A whole score is the same judgement, read as 1 or as 1.0.
        judged = (
            (query, sorted((d, int(s) if s == int(s) else s) for d, s in documents.items()))
            for query, documents in source.qrels[split].items()
        )
        digest.update(repr((split, sorted(judged))).encode())
    return digest.hexdigest()[:16]


def _metadata(source: Source, split: str) -> TaskMetadata:
    return TaskMetadata(
        name=task_name(source, split),
        # `path` is what MTEB would download; the data is in place before it looks.
        dataset={"path": f"local/{_plain_name(source)}", "revision": source_revision(source)},
        description=f"The source {source.name}.",
        type="Retrieval",
        category="t2t",
        modalities=["text"],
        eval_splits=[split],
        eval_langs=["und-Latn"],
        main_score="ndcg_at_10",
        is_public=False,
    )


class Encoder(SentenceTransformerEncoderWrapper):
    """MTEB's wrapper of a SentenceTransformer, with a name and a revision of our own.

    Texts are encoded longest first, in parts with a batch size that suits their length.

    Args:
        model: The retriever.
        name: organization/name, for the result files.
        revision: The Hub's commit; where it is None, a hash of the weights stands for it.
        dtype: A type other than the model's own, named in the path of the results.
        batch_size: Texts encoded at once; by their length where it is None.
        progress: Whether to show a progress bar.
    """

    mteb_model_meta: Any

    def __init__(
        self,
        model: SentenceTransformer,
        name: str,
        revision: str | None,
        dtype: str | None = None,
        batch_size: int | None = None,
        progress: bool = True,
    ) -> None:
        super().__init__(model)
        self.batch_size = batch_size
        self.progress = progress
        update = {"name": name, "revision": revision or model_revision(model)}
        self.mteb_model_meta = self.mteb_model_meta.model_copy(
            update=update | {"experiment_kwargs": {"dtype": dtype} if dtype else None}
        )

    def encode(self, inputs: Any, **kwargs: Any) -> np.ndarray:
        """Encodes a data loader's texts.

        Args:
            inputs: A data loader whose batches hold "text".
            **kwargs: What MTEB passes: task_metadata, prompt_type, device ...

        Returns:
            float32, shape (texts, dimension), in the order of the texts.
        """
        texts = [text for batch in inputs for text in batch["text"]]
        order = np.argsort([-len(text) for text in texts], kind="stable")
        # Starting processes anew for each part would cost more than the padding that it saves.
        size = len(texts) if isinstance(kwargs.get("device"), list) else PART
        kwargs["show_progress_bar"] = False
        encoded = []
        what = "queries" if kwargs.get("prompt_type") == PromptType.query else "documents"
        with tqdm(total=len(texts), desc=f"Encoding {what}", unit="text", disable=not self.progress) as bar:
            for start in range(0, len(texts), size):
                part = [texts[i] for i in order[start : start + size]]
                kwargs["batch_size"] = self.batch_size or batch_size_for(self.model, len(part[0]))
                loader = DataLoader(Dataset.from_dict({"text": part}), batch_size=len(part))  # type: ignore[arg-type]
                encoded.append(np.asarray(super().encode(loader, **kwargs)))
                bar.update(len(part))
        together = np.concatenate(encoded)
        ordered = np.empty_like(together)
        ordered[order] = together
        return ordered


def batch_size_for(model: SentenceTransformer, characters: int) -> int:
    """Returns how many texts of at most so many characters make a good batch: 2,048 tokens on a CPU.

    A larger batch no longer fits a processor's cache: on one core, in bf16, batches of 8 passages of
    256 tokens take a fifth less time than batches of 32.
    """
    tokens = min(characters // 4 + 8, model.max_seq_length or 8192)
    return max(1, (2048 if model.device.type == "cpu" else 32_768) // tokens)


def in_bf16(model: SentenceTransformer, copy: bool) -> SentenceTransformer:
    """Returns the model with its weights in bfloat16.

    Weights rather than autocast: on CPUs autocast with sdpa attention is slower than float32.

    Args:
        model: The model.
        copy: Whether `model` itself must stay as it is.
    """
    return (deepcopy(model) if copy else model).to(torch.bfloat16)


def model_revision(model: SentenceTransformer) -> str:
    """Returns a hash of all that decides a model's embeddings: weights, length, prompts, modules."""
    digest = hashlib.sha256()
    settings = (str(model), model.max_seq_length, sorted(model.prompts.items()), model.truncate_dim)
    digest.update(repr(settings).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def per_query(scores: Mapping[str, Mapping[str, float]], qrels: Any, results: Any) -> list[dict[str, Any]]:
    """Returns a record a query: nDCG@10, recall@10, MRR@10 and the first ten documents.

    Args:
        scores: query id -> pytrec_eval's measures.
        qrels: query id -> document id -> relevance.
        results: query id -> document id -> similarity.
    """
    records = []
    for query_id in sorted(scores):
        # Equal similarities are ordered by id, descending, as pytrec_eval and MTEB's MRR do.
        ranking = sorted(results[query_id].items(), key=lambda item: (item[1], item[0]), reverse=True)[:10]
        ranks = [i for i, (d, _) in enumerate(ranking, start=1) if qrels[query_id].get(d, 0) > 0]
        records.append(
            {
                "query_id": query_id,
                "ndcg_at_10": scores[query_id]["ndcg_cut_10"],
                "recall_at_10": scores[query_id]["recall_10"],
                "mrr_at_10": 1 / ranks[0] if ranks else 0.0,
                "retrieved": [document_id for document_id, _ in ranking],
            }
        )
    return records
