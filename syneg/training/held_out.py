"""Retrieval metrics on a held-out source: during training, and for the card before and after."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from syneg.errors import InputError
from syneg.evaluation.metrics import METRICS
from syneg.sources import load_source

if TYPE_CHECKING:
    from syneg.training.arguments import ContrastiveArguments

NAME = "held_out"


def retrieval_evaluator(
    source: str, split: str, max_documents: int | None = None, seed: int = 0, batch_size: int = 32
) -> Any:
    """Returns an evaluator that ranks a source's corpus for a split's queries.

    Any score above 0 is relevant, and all alike: sentence-transformers' evaluator knows no grades, so its
    nDCG is another than `syneg evaluate`'s where a source has them.

    Give it to the trainer as ``evaluator=``; the trainer then logs ``eval_held_out_cosine_ndcg@10`` and
    others at every evaluation, by which `load_best_model_at_end` and transformers'
    `EarlyStoppingCallback` can go.

    Args:
        source: What `load_source` takes.
        split: The split whose queries are asked; not the one that is trained on.
        max_documents: Rank this many documents only: all judged ones, and others drawn at random. Figures
            are then higher than on the whole corpus. None: all.
        seed: Seed of that draw.
        batch_size: Texts encoded at a time.

    Raises:
        InputError: Where the source or the split is missing, or has no judgement above 0.
    """
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    loaded = load_source(source)
    judged = {
        query: {document for document, relevance in documents.items() if relevance > 0}
        for query, documents in loaded.judgements(split).items()
    }
    relevant = {query: documents for query, documents in judged.items() if documents}
    if not relevant:
        raise InputError(f"{source}: split {split!r} has no judgement above 0, so nothing to measure.")
    ids = loaded.document_ids
    places = list(range(len(ids)))
    if max_documents is not None and max_documents < len(ids):
        needed = set(
            ids.get_indexer(sorted({d for documents in judged.values() for d in documents})).tolist()
        )
        others = [i for i in places if i not in needed]
        more = random.Random(seed).sample(others, max(max_documents - len(needed), 0))
        places = sorted(needed | set(more))
    texts = loaded.documents(places)
    queries = {row["id"]: row["text"] for row in loaded.queries if row["id"] in relevant}
    return InformationRetrievalEvaluator(
        queries=queries,
        corpus={ids[i]: text for i, text in zip(places, texts, strict=True)},
        relevant_docs=relevant,
        accuracy_at_k=[1],
        precision_recall_at_k=[10],
        mrr_at_k=[10],
        ndcg_at_k=[10],
        map_at_k=[10],
        batch_size=batch_size,
        name=NAME,
        write_csv=False,
    )


def choose_metric(args: ContrastiveArguments, evaluator: Any) -> None:
    """Makes nDCG@10 the metric of the best model, where none is named.

    Raises:
        InputError: Where the best model is asked for, but nothing is evaluated on the way.
    """
    if not args.load_best_model_at_end or evaluator is None:
        return
    if args.eval_strategy == "no":
        raise InputError("--load_best_model_at_end needs evaluations: set --eval_strategy epoch (or steps).")
    if args.metric_for_best_model in (None, "loss"):
        args.metric_for_best_model = f"eval_{NAME}_cosine_ndcg@10"
        args.greater_is_better = True


def summary(metrics: dict[str, float]) -> dict[str, float]:
    """Returns the card's metrics from what the evaluator measured."""
    found = {
        name: next((v for k, v in metrics.items() if k.endswith(name.lower())), None)
        for name in METRICS.values()
    }
    return {name: float(value) for name, value in found.items() if value is not None}
