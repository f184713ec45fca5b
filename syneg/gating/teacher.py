"""The gate `teacher`: a model's relevance scores, relative to the positive's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from syneg.encoders import encoder_path, load_encoder
from syneg.errors import InputError
from syneg.gating.arguments import GatingArguments
from syneg.gating.gate import Gated, Tolls
from syneg.mining.embeddings import choose_device, choose_dtype
from syneg.rows import SYNTHETIC, Negative, Row, make_dropped

SUSPECT = "suspect"
"""Verdict of a synthetic negative that the teacher would drop, until a judge has read it."""

QueryDocument = tuple[str, str]


class Teacher:
    """Scores every negative and its positive, writes the scores into the row, and drops by margin.

    A negative must satisfy ``score <= positive - |positive| * margin``. A mined one that does not is
    dropped. A synthetic one may differ from the positive in the one fact that matters, which a score
    does not see: by default it is only marked for the judge. With `teacher_max_margin` a negative of any
    source must also satisfy ``score >= positive - |positive| * max_margin``.

    Args:
        args: The model and its margin.
        score: Scores (query, document) pairs; the model that `args` names where it is None.

    Raises:
        InputError: For a model that cannot be loaded, or a cross-encoder with several outputs.
    """

    name = "teacher"
    group = 256

    def __init__(self, args: GatingArguments, score: Any = None) -> None:
        self.args = args
        if score is None:
            assert args.teacher is not None
            make = cross_encoder_scorer if args.teacher_kind == "cross-encoder" else bi_encoder_scorer
            score = make(args.teacher, args.teacher_batch_size, args.teacher_device)
        self._score = score

    def apply(self, rows: list[Row], tolls: Tolls) -> list[Gated]:
        """Scores the group's pairs in one go, each once, then applies the margin."""
        wanted: dict[QueryDocument, float] = {}
        for row in rows:
            if row["negatives"]:
                wanted[row["query"], row["positive"]] = 0.0
                wanted.update(((row["query"], negative["text"]), 0.0) for negative in row["negatives"])
        scores = dict(zip(wanted, map(float, self._score(list(wanted))), strict=True)) if wanted else {}
        return [self._row(row, scores, tolls) for row in rows]

    def close(self) -> None:
        """Frees the model."""
        self._score = None

    def _row(self, row: Row, scores: dict[QueryDocument, float], tolls: Tolls) -> Gated:
        gated = Gated(row)
        kept: list[Negative] = []
        for negative in row["negatives"]:
            score = scores[row["query"], negative["text"]]
            positive = scores[row["query"], row["positive"]]
            scored: Negative = {**negative, "teacher_score": score, "positive_teacher_score": positive}
            if self._easy(score, positive):
                self._drop(gated, scored, "too far from the positive", tolls)
                continue
            if score <= positive - abs(positive) * self.args.teacher_margin:
                kept.append(scored)
                continue
            synthetic = negative["source"] == SYNTHETIC
            if synthetic and self.args.teacher_synthetic != "drop":
                if self.args.teacher_synthetic == "judge":
                    scored["verdict"] = SUSPECT
                    tolls.notes[
                        self.name, "synthetic negatives too near to the positive, marked for the judge"
                    ] += 1
                kept.append(scored)
                continue
            self._drop(gated, scored, "too near to the positive", tolls)
        gated.row = {**row, "negatives": kept}
        return gated

    def _easy(self, score: float, positive: float) -> bool:
        widest = self.args.teacher_max_margin
        return widest is not None and score < positive - abs(positive) * widest

    def _drop(self, gated: Gated, scored: Negative, kind: str, tolls: Tolls) -> None:
        score, positive = scored["teacher_score"], scored["positive_teacher_score"]
        reason = f"The teacher scores it {score:.4f}, the positive {positive:.4f}."
        gated.dropped.append(make_dropped(gated.row, scored, self.name, reason))
        tolls.dropped[self.name, kind, scored["source"]] += 1


def cross_encoder_scorer(spec: str, batch_size: int, device: str | None) -> Any:
    """Loads a cross-encoder; returns what scores a list of (query, document) pairs with it.

    Raises:
        InputError: Where it cannot be loaded or has several outputs.
    """
    from sentence_transformers import CrossEncoder

    place = choose_device(device)
    try:
        model = CrossEncoder(
            encoder_path(spec), device=place, model_kwargs={"dtype": choose_dtype("auto", place)}
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


def bi_encoder_scorer(spec: str, batch_size: int, device: str | None) -> Any:
    """Loads a bi-encoder; returns what gives a list of (query, document) pairs their cosines."""
    place = choose_device(device)
    model = load_encoder(spec, device=place)
    model.to(choose_dtype("auto", place))

    def embed(encode: Any, texts: Sequence[str]) -> tuple[dict[str, int], np.ndarray]:
        unique = list(dict.fromkeys(texts))
        found = encode(unique, batch_size=batch_size, convert_to_tensor=True, show_progress_bar=False)
        found = found.float().cpu().numpy()
        found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return {text: i for i, text in enumerate(unique)}, found

    def score(pairs: Sequence[QueryDocument]) -> np.ndarray:
        query_at, queries = embed(model.encode_query, [query for query, _ in pairs])
        document_at, documents = embed(model.encode_document, [document for _, document in pairs])
        left = queries[[query_at[query] for query, _ in pairs]]
        right = documents[[document_at[document] for _, document in pairs]]
        return np.einsum("nd,nd->n", left, right)

    return score
