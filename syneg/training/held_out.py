"""Retrieval metrics on what is not trained on: during training, and for the card before and after.

That is a held-out source, or a part of the training rows that is held back to choose the best epoch by.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import Dataset
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from syneg.errors import InputError
from syneg.evaluation.metrics import METRICS
from syneg.rows import MIRROR, SYNTHETIC, WRITTEN_ORIGIN, written_kind
from syneg.sources import Source, load_source
from syneg.sources.cutting import held_back, joined_names
from syneg.text import text_keys
from syneg.training.columns import TrainingRow, read_row

if TYPE_CHECKING:
    from syneg.training.arguments import ContrastiveArguments

NAME = "held_out"
HELD_BACK = "held_back"


def retrieval_evaluator(
    source: str | Source,
    split: str,
    max_documents: int | None = None,
    seed: int = 0,
    batch_size: int = 32,
    precision: torch.dtype | None = None,
) -> Any:
    """Returns an evaluator that ranks a source's corpus for a split's queries.

    Any score above 0 is relevant, and all alike: sentence-transformers' evaluator knows no grades, so its
    nDCG is another than `syneg evaluate`'s where a source has them.

    Give it to the trainer as ``evaluator=``; the trainer then logs ``eval_held_out_cosine_ndcg@10`` and
    others at every evaluation, by which `load_best_model_at_end` and transformers'
    `EarlyStoppingCallback` can go.

    Args:
        source: A source, or what `load_source` takes.
        split: The split whose queries are asked; not the one that is trained on.
        max_documents: Rank this many documents only: all judged ones, and others drawn at random. Figures
            are then higher than on the whole corpus. None: all.
        seed: Seed of that draw.
        batch_size: Texts encoded at a time.
        precision: What texts are encoded in by autocast, as training does; None for the weights' own.

    Raises:
        InputError: Where the source or the split is missing, or has no judgement above 0.
    """
    loaded = load_source(source) if isinstance(source, str) else source
    judged = {
        query: {document for document, relevance in documents.items() if relevance > 0}
        for query, documents in loaded.judgements(split).items()
    }
    relevant = {query: documents for query, documents in judged.items() if documents}
    if not relevant:
        raise InputError(f"{loaded.name}: split {split!r} has no judgement above 0, so nothing to measure.")
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
    corpus = {ids[i]: text for i, text in zip(places, texts, strict=True)}
    return _evaluator(queries, corpus, relevant, batch_size, NAME, precision)


def hold_back_rows(rows: Any, share: float) -> tuple[Dataset, Dataset]:
    """Parts rows into those to train on and those to measure on; no query and no document is on both sides.

    Equal texts (Unicode form, case and blanks aside) are one query or document; a mirrored row goes with the
    row that it was made of, and is not measured on. See `syneg.sources.cutting.held_back`.

    Args:
        rows: Rows of any origin that training takes.
        share: The share of the queries to hold back, above 0 and below 1.

    Returns:
        Rows to train on, rows to measure on.

    Raises:
        InputError: For a share out of range, streamed rows, or where either side would be empty.
    """
    if not 0 < share < 1:
        raise InputError(f"--save_best is {share}; it must be at least 0 and below 1.")
    if not isinstance(rows, Dataset):
        raise InputError("--save_best parts the rows, which cannot be streamed: leave out --streaming.")
    read = [(row.query, row.positive) for row in map(_without_negatives, rows)]
    queries, positives = (text_keys(side).tolist() for side in zip(*read, strict=True)) if read else ([], [])
    names = [str(key) for key in queries]
    judged = list(zip(names, queries, positives, strict=True))
    mirrored = [origin == MIRROR for origin in rows["origin"]] if "origin" in rows.column_names else []
    for i in np.flatnonzero(mirrored).tolist():
        made_of = [one["text"] for one in rows[i]["negatives"] or [] if one["source"] == MIRROR]
        judged += [(names[i], queries[i], key) for key in text_keys(made_of).tolist()]
    held = held_back(joined_names(judged), share)
    is_held = np.array([name in held for name in names], dtype=bool)
    measured = is_held & ~np.array(mirrored, dtype=bool) if mirrored else is_held
    if is_held.all() or not measured.any():
        raise InputError(
            f"--save_best {share} holds back {len(held):,} of {len(set(names)):,} queries, those that share "
            "documents together; take another share."
        )
    return rows.select(np.flatnonzero(~is_held)), rows.select(np.flatnonzero(measured))


def held_back_evaluator(
    kept: Dataset,
    held: Dataset,
    max_documents: int | None = None,
    seed: int = 0,
    batch_size: int = 32,
    precision: torch.dtype | None = None,
) -> Any:
    """Returns an evaluator that ranks the documents of all rows for the queries of those that are held back.

    Documents are the rows' positives and their negatives, without what an LLM wrote where rows tell.

    Args:
        kept: Rows that are trained on.
        held: Rows that are not.
        max_documents: Rank this many documents only: the held-back positives, and others drawn at random.
        seed: Seed of that draw.
        batch_size: Texts encoded at a time.
        precision: What texts are encoded in by autocast, as training does; None for the weights' own.
    """
    corpus: dict[str, str] = {}
    queries: dict[str, str] = {}
    relevant: dict[str, set[str]] = {}
    for row in map(read_row, held):
        (query,), (positive,) = text_keys([row.query]).tolist(), text_keys([row.positive]).tolist()
        queries.setdefault(str(query), row.query)
        relevant.setdefault(str(query), set()).add(str(positive))
        corpus.setdefault(str(positive), row.positive)
    others: dict[str, str] = {}
    for row in itertools.chain(kept, held):
        read = read_row(row)
        texts = [one.text for one in read.candidates if one.source not in (SYNTHETIC, MIRROR)]
        if row.get("origin") != MIRROR:
            texts.append(read.positive)
        others |= {str(k): text for k, text in zip(text_keys(texts).tolist(), texts, strict=True)}
    names = [name for name in others if name not in corpus]
    if max_documents is not None:
        names = random.Random(seed).sample(names, min(max(max_documents - len(corpus), 0), len(names)))
    documents = corpus | {name: others[name] for name in names}
    return _evaluator(queries, documents, relevant, batch_size, HELD_BACK, precision)


def _without_negatives(row: Mapping[str, Any]) -> TrainingRow:
    return read_row(row, with_negatives=False)


def _evaluator(
    queries: dict[str, str],
    corpus: dict[str, str],
    relevant: dict[str, set[str]],
    batch_size: int,
    name: str,
    precision: torch.dtype | None,
) -> Any:
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    class Evaluator(InformationRetrievalEvaluator):
        """Encodes in the precision of the training; scores in float32."""

        def embed_inputs(self, model: Any, *args: Any, **kwargs: Any) -> Any:
            with torch.autocast(model.device.type, dtype=precision, enabled=precision is not None):
                return super().embed_inputs(model, *args, **kwargs).float()

    return Evaluator(
        queries=queries,
        corpus=corpus,
        relevant_docs=relevant,
        accuracy_at_k=[1],
        precision_recall_at_k=[10],
        mrr_at_k=[10],
        ndcg_at_k=[10],
        map_at_k=[10],
        batch_size=batch_size,
        name=name,
        write_csv=False,
    )


def keep_best(args: ContrastiveArguments) -> None:
    """Has training measure and save after each epoch, or when it evaluates anyway, and keep the best."""
    if args.eval_strategy == IntervalStrategy.NO:
        args.eval_strategy = IntervalStrategy.EPOCH
    args.do_eval = True
    args.save_strategy = SaveStrategy(args.eval_strategy.value)
    args.save_steps = args.eval_steps or args.save_steps
    # Of the checkpoints the best one is kept whatever the limit.
    args.save_total_limit = args.save_total_limit or 1
    args.load_best_model_at_end = True


def choose_metric(args: ContrastiveArguments, evaluator: Any, name: str = NAME) -> None:
    """Makes nDCG@10 the metric of the best model, where none is named.

    Raises:
        InputError: Where the best model is asked for, but nothing is evaluated on the way.
    """
    if not args.load_best_model_at_end or evaluator is None:
        return
    if args.eval_strategy == "no":
        raise InputError("--load_best_model_at_end needs evaluations: set --eval_strategy epoch (or steps).")
    if args.metric_for_best_model in (None, "loss"):
        args.metric_for_best_model = f"eval_{name}_cosine_ndcg@10"
        args.greater_is_better = True


def held_back_name(rows: Dataset) -> str:
    """Returns what rows that are held back are called, with "(written)" where an LLM wrote the queries."""
    origins = rows["origin"][:] if "origin" in rows.column_names else []
    kind = written_kind(origins.count(WRITTEN_ORIGIN), len(origins))
    return f"queries held back ({kind})" if kind else "queries held back"


def figures(metrics: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Returns the card's metrics of each evaluator that training has, the held-out source's first.

    Args:
        metrics: What the trainer measured, as in ``eval_held_out_cosine_ndcg@10``.

    Returns:
        The evaluator's name -> metric -> value, of those that have measured; of an evaluator of any other
        name under "evaluated".
    """
    found = {name: _scores(metrics, name) for name in (NAME, HELD_BACK)}
    found = {name: scores for name, scores in found.items() if scores}
    return found or {"evaluated": _scores(metrics)}


def _scores(metrics: Mapping[str, float], name: str = "") -> dict[str, float]:
    of_name = {key: value for key, value in metrics.items() if name in key}
    found = {
        shown: next((value for key, value in of_name.items() if key.endswith(shown.lower())), None)
        for shown in METRICS.values()
    }
    return {shown: float(value) for shown, value in found.items() if value is not None}
