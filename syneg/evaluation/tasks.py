"""What MTEB is given: a local source as its task, and an encoder with bf16 and a traceable revision."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import mteb
import torch
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models import SentenceTransformerEncoderWrapper
from sentence_transformers import SentenceTransformer

from syneg.sources import Source


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
                    "relevant_docs": {query: dict(docs) for query, docs in qrels.items()},
                    "top_ranked": None,
                }
            }
        }
        self.data_loaded = True


def task_name(source: Source) -> str:
    """Returns the name of a source's task: its own, made fit for a file and no other MTEB task's."""
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
        digest.update(
            repr((split, sorted((q, sorted(d.items())) for q, d in source.qrels[split].items()))).encode()
        )
    return digest.hexdigest()[:16]


def _metadata(source: Source, split: str) -> TaskMetadata:
    return TaskMetadata(
        name=task_name(source),
        # `path` is what MTEB would download; the data is in place before it looks.
        dataset={"path": f"local/{task_name(source)}", "revision": source_revision(source)},
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

    sentence-transformers sorts what it encodes by length, so a batch holds little padding.

    Args:
        model: The retriever.
        name: organization/name, for the result files.
        revision: The Hub's commit; where it is None, a hash of the weights stands for it.
        dtype: A type other than the model's own, named in the path of the results.
    """

    mteb_model_meta: Any

    def __init__(
        self, model: SentenceTransformer, name: str, revision: str | None, dtype: str | None = None
    ) -> None:
        super().__init__(model)
        update = {"name": name, "revision": revision or model_revision(model)}
        self.mteb_model_meta = self.mteb_model_meta.model_copy(
            update=update | {"experiment_kwargs": {"dtype": dtype} if dtype else None}
        )


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
