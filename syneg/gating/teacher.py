"""The gate `teacher`: a model's relevance scores, relative to the positive's."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from syneg.encoders import encoder_path, load_encoder
from syneg.errors import InputError
from syneg.gating.arguments import GatingArguments
from syneg.gating.gate import Tolls
from syneg.llm.requests import digest
from syneg.mining.dense import DenseMiner
from syneg.mining.embeddings import choose_device, choose_dtype
from syneg.rows import SYNTHETIC, Negative, make_dropped
from syneg.stages import Draft

SUSPECT = "suspect"
"""Verdict of a synthetic negative that the teacher would drop, until a judge has read it."""

QueryDocument = tuple[str, str]

REMEMBERED_BYTES = 1 << 29
"""What the embeddings take that a bi-encoder remembers: 349,525 documents of 384 dimensions."""


class Teacher:
    """Scores every negative and its positive, writes the scores into the row, and drops by margin.

    A negative must satisfy ``score <= positive - |positive| * margin``. A mined one that does not is
    dropped. A synthetic one may differ from the positive in the one fact that matters, which a score
    does not see: by default it is only marked for the judge. With `teacher_max_margin` a negative of any
    source must also satisfy ``score >= positive - |positive| * max_margin``. With `grade_only` all stay.

    Args:
        args: The model and its margin.
        score: Scores (query, document) pairs; the model that `args` names where it is None.

    Raises:
        InputError: For a model that cannot be loaded, or a cross-encoder with several outputs.
    """

    name = "teacher"
    group = 256
    _holds_mined = True

    def __init__(self, args: GatingArguments, score: Any = None) -> None:
        self.args = args
        if score is None:
            assert args.teacher is not None
            make = cross_encoder_scorer if args.teacher_kind == "cross-encoder" else bi_encoder_scorer
            score = make(args.teacher, args.teacher_batch_size, args.teacher_device, args.teacher_max_length)
        self._score = score

    def apply(self, drafts: list[Draft], tolls: Tolls) -> None:
        """Scores the group's pairs in one go, each once, then applies the margin."""
        scores = self._scores(drafts)
        for draft in drafts:
            self._apply(draft, scores, tolls)

    def _scores(self, drafts: list[Draft]) -> dict[QueryDocument, float]:
        wanted: dict[QueryDocument, float] = {}
        for row in (draft.row for draft in drafts):
            if row["negatives"]:
                wanted[row["query"], row["positive"]] = 0.0
                wanted.update(((row["query"], negative["text"]), 0.0) for negative in row["negatives"])
        return dict(zip(wanted, map(float, self._score(list(wanted))), strict=True)) if wanted else {}

    def close(self) -> None:
        """Frees the model."""
        self._score = None

    def _apply(self, draft: Draft, scores: dict[QueryDocument, float], tolls: Tolls) -> None:
        row = draft.row
        kept: list[Negative] = []
        for negative in row["negatives"]:
            score = scores[row["query"], negative["text"]]
            positive = scores[row["query"], row["positive"]]
            scored: Negative = {**negative, "teacher_score": score, "positive_teacher_score": positive}
            if self.args.grade_only:
                tolls.notes[self.name, "negatives graded"] += 1
                kept.append(scored)
                continue
            synthetic = negative["source"] == SYNTHETIC
            if not (synthetic or self._holds_mined):
                kept.append(scored)
                continue
            if self._easy(score, positive):
                self._drop(draft, scored, "too far from the positive", tolls)
                continue
            if score <= positive - abs(positive) * self.args.teacher_margin:
                kept.append(scored)
                continue
            if synthetic and self.args.teacher_synthetic != "drop":
                if self.args.teacher_synthetic == "judge":
                    scored["verdict"] = SUSPECT
                    tolls.notes[
                        self.name, "synthetic negatives too near to the positive, marked for the judge"
                    ] += 1
                kept.append(scored)
                continue
            self._drop(draft, scored, "too near to the positive", tolls)
        draft.row = {**row, "negatives": kept}

    def _easy(self, score: float, positive: float) -> bool:
        widest = self.args.teacher_max_margin
        return widest is not None and score < positive - abs(positive) * widest

    def _drop(self, draft: Draft, scored: Negative, kind: str, tolls: Tolls) -> None:
        score, positive = scored["teacher_score"], scored["positive_teacher_score"]
        reason = f"The teacher scores it {score:.4f}, the positive {positive:.4f}."
        draft.dropped.append(make_dropped(draft.row, scored, self.name, reason))
        tolls.dropped[self.name, kind, scored["source"]] += 1


class MinerTeacher(Teacher):
    """The teacher that is there already: the encoder that mined, with the embeddings that it made.

    Synthetic negatives alone are held to the margin, and encoded: the miner's own rules have filtered what it
    found. All negatives get their scores.

    Args:
        args: The margin.
        dense: The dense miner.
    """

    _holds_mined = False

    def __init__(self, args: GatingArguments, dense: DenseMiner) -> None:
        super().__init__(args, dense)
        self._dense = dense

    def close(self) -> None:
        """Frees the model."""
        self._dense.rest()

    def _scores(self, drafts: list[Draft]) -> dict[QueryDocument, float]:
        """Returns the similarities of each query with its documents, as the miner has them."""
        dense, rows = self._dense, [draft.row for draft in drafts]
        ids: dict[str, str] = {}
        for row in rows:
            ids[row["positive"]] = row["positive_id"]
            ids.update((n["text"], n["doc_id"]) for n in row["negatives"] if n["doc_id"] is not None)
        # In their order: what is encoded together shares its padding, and equal builds are equal to the byte.
        written = list(
            dict.fromkeys(n["text"] for row in rows for n in row["negatives"] if n["text"] not in ids)
        )
        mined = dense.corpus.take(dense.source.document_ids.get_indexer(list(ids.values())))
        documents = dict(zip([*ids, *written], [*mined, *dense.encode_documents(written)], strict=True))
        places = dense.source.query_ids.get_indexer([row["query_id"] for row in rows])
        queries = dense.query_embeddings(places)
        return {
            (row["query"], text): float(query @ documents[text])
            for row, query in zip(rows, queries, strict=True)
            for text in (row["positive"], *(negative["text"] for negative in row["negatives"]))
        }


def cross_encoder_scorer(
    spec: str, batch_size: int, device: str | None, max_length: int | None = None
) -> Any:
    """Loads a cross-encoder; returns what scores a list of (query, document) pairs with it.

    Args:
        spec: The model, see `encoder_path`.
        batch_size: Pairs at once.
        device: Where it computes; the first accelerator there is where None.
        max_length: Tokens of query and document together; the model's own limit where None.

    Raises:
        InputError: Where it cannot be loaded or has several outputs.
    """
    from sentence_transformers import CrossEncoder

    place = choose_device(device)
    try:
        model = CrossEncoder(
            encoder_path(spec),
            device=place,
            max_length=max_length,
            model_kwargs={"dtype": choose_dtype("auto", place)},
        )
    except (OSError, ValueError) as error:
        raise InputError(
            f"teacher {spec!r} cannot be loaded: {str(error).strip().splitlines()[0]}"
        ) from error
    if model.num_labels != 1:
        raise InputError(
            f"teacher {spec!r}: it has {model.num_labels} outputs; a teacher gives one relevance score."
        )

    def score(pairs: Sequence[QueryDocument]) -> np.ndarray:
        return model.predict(list(pairs), batch_size=batch_size, show_progress_bar=False)

    return score


def bi_encoder_scorer(
    spec: str,
    batch_size: int,
    device: str | None,
    max_length: int | None = None,
    remembered_bytes: int = REMEMBERED_BYTES,
) -> Any:
    """Loads a bi-encoder; returns what gives a list of (query, document) pairs their cosines.

    A document is often the negative of many queries, so the embeddings last used are remembered from one
    call to the next.

    Args:
        spec: The model, see `encoder_path`.
        batch_size: Texts at once.
        device: Where it computes; the first accelerator there is where None.
        max_length: Tokens of a text; the model's own limit where None.
        remembered_bytes: How much memory the embeddings of documents may take.

    Raises:
        InputError: Where it cannot be loaded.
    """
    place = choose_device(device)
    model = load_encoder(spec, max_length=max_length, device=place)
    model.to(choose_dtype("auto", place))
    memory: OrderedDict[int, np.ndarray] = OrderedDict()

    def embed(encode: Any, texts: Sequence[str]) -> np.ndarray:
        found = encode(texts, batch_size=batch_size, convert_to_tensor=True, show_progress_bar=False)
        found = found.float().cpu().numpy()
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)

    def embed_documents(texts: Sequence[str]) -> np.ndarray:
        keys = [digest(text, size=16) for text in texts]
        new = [i for i, key in enumerate(keys) if key not in memory]
        if new:
            rows = embed(model.encode_document, [texts[i] for i in new])
            # Copies, so that one row does not keep a whole batch alive.
            memory.update((keys[i], row.copy()) for i, row in zip(new, rows, strict=True))
        for key in keys:
            memory.move_to_end(key)
        found = np.stack([memory[key] for key in keys])
        while len(memory) > remembered_bytes // (found.itemsize * found.shape[1]):
            memory.popitem(last=False)
        return found

    def score(pairs: Sequence[QueryDocument]) -> np.ndarray:
        queries = {query: i for i, query in enumerate(dict.fromkeys(query for query, _ in pairs))}
        documents = {document: i for i, document in enumerate(dict.fromkeys(d for _, d in pairs))}
        left = embed(model.encode_query, list(queries))[[queries[query] for query, _ in pairs]]
        right = embed_documents(list(documents))[[documents[document] for _, document in pairs]]
        return np.einsum("nd,nd->n", left, right)

    return score
