from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from syneg.errors import InputError
from syneg.gating.arguments import GatingArguments
from syneg.gating.gate import Tolls
from syneg.gating.stage import Gating
from syneg.gating.teacher import SUSPECT, Teacher, bi_encoder_scorer
from syneg.rows import SYNTHETIC, make_negative, make_row
from syneg.stages import Draft, finished_rows
from tests.stand_in import tiny_encoder, tiny_source

SCORES = {"positive": 2.0, "near": 1.95, "far": 0.5, "worse": -3.0}


class Scorer:
    def __init__(self, scores: dict[str, float]) -> None:
        self.scores = scores
        self.calls: list[list[tuple[str, str]]] = []

    def __call__(self, pairs: list[tuple[str, str]]) -> np.ndarray:
        self.calls.append(list(pairs))
        return np.array([self.scores[document] for _, document in pairs])


def rows(source: str = "bm25"):
    negatives = [make_negative(text, source) for text in ("near", "far", "worse")]
    return [make_row("q", "query", "d", "positive", negatives)] * 2


def teach(source: str = "bm25", scores: dict[str, float] = SCORES, **options):
    scorer = Scorer(scores)
    tolls = Tolls()
    args = GatingArguments(gates="teacher,judge", teacher="some", **options)
    drafts = [Draft(row) for row in rows(source)]
    Teacher(args, scorer).apply(drafts, tolls)
    return drafts, tolls, scorer


def test_mined_ones_too_near_are_dropped_and_scores_kept() -> None:
    (gated, _), tolls, scorer = teach()
    assert [(n["text"], n["teacher_score"]) for n in gated.row["negatives"]] == [
        ("far", 0.5),
        ("worse", -3.0),
    ]
    assert {n["positive_teacher_score"] for n in gated.row["negatives"]} == {2.0}
    assert "scores it 1.9500, the positive 2.0000" in gated.dropped[0]["reason"]
    assert gated.dropped[0]["negative"]["teacher_score"] == 1.95
    assert tolls.dropped["teacher", "too near to the positive", "bm25"] == 2
    # One call for the whole group, and equal pairs once.
    assert [len(call) for call in scorer.calls] == [4]


def test_the_margin_holds_for_negative_scores() -> None:
    (gated, _), _, _ = teach(scores={"positive": -2.0, "near": -2.05, "far": -2.2, "worse": -9.0})
    assert [n["text"] for n in gated.row["negatives"]] == ["far", "worse"]


@pytest.mark.parametrize(
    "choice, left, verdict", [("judge", 3, SUSPECT), ("keep", 3, None), ("drop", 2, None)]
)
def test_a_score_alone_does_not_kill_a_synthetic_one(choice: str, left: int, verdict: str | None) -> None:
    (gated, _), tolls, _ = teach(SYNTHETIC, teacher_synthetic=choice)
    assert len(gated.row["negatives"]) == left
    assert gated.row["negatives"][0]["verdict"] == verdict
    assert sum(tolls.notes.values()) == (2 if choice == "judge" else 0)


@pytest.mark.parametrize("source", ["bm25", SYNTHETIC])
def test_a_teacher_that_only_grades_keeps_all(source: str) -> None:
    (gated, _), tolls, _ = teach(source, grade_only=True, teacher_max_margin=0.5)
    assert [(n["text"], n["teacher_score"], n["verdict"]) for n in gated.row["negatives"]] == [
        ("near", 1.95, None),
        ("far", 0.5, None),
        ("worse", -3.0, None),
    ]
    assert {n["positive_teacher_score"] for n in gated.row["negatives"]} == {2.0}
    assert not gated.dropped and not tolls.dropped
    assert tolls.notes["teacher", "negatives graded"] == 6


@pytest.mark.parametrize("source", ["bm25", SYNTHETIC])
def test_a_band_drops_what_is_too_easy(source: str) -> None:
    # The positive has 2, so the band is from -1 to 1.9.
    (gated, _), tolls, _ = teach(source, teacher_max_margin=1.5, teacher_synthetic="drop")
    assert [n["text"] for n in gated.row["negatives"]] == ["far"]
    assert "scores it -3.0000, the positive 2.0000" in gated.dropped[1]["reason"]
    assert tolls.dropped["teacher", "too far from the positive", source] == 2
    assert tolls.dropped["teacher", "too near to the positive", source] == 2


def test_an_empty_band_is_refused() -> None:
    with pytest.raises(InputError, match=r"teacher_max_margin 0\.05: must be above"):
        teach(teacher_max_margin=0.05)


def test_a_bi_encoder_scores_as_the_model_does(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    path = tiny_encoder(tmp_path, {"query": "what ", "document": "the "})
    source = tiny_source()
    pairs = [(source.queries["text"][i], text) for i in (0, 1) for text in source.documents([0, 1, 0])]
    model = SentenceTransformer(path, device="cpu")
    expected = model.similarity_pairwise(
        model.encode_query([q for q, _ in pairs]), model.encode_document([d for _, d in pairs])
    )
    assert np.allclose(bi_encoder_scorer(path, 4, "cpu")(pairs), expected, atol=0.03)


def test_a_bi_encoder_embeds_a_document_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sentence_transformers import SentenceTransformer

    seen: list[list[str]] = []
    encode = SentenceTransformer.encode_document

    def counted(self, texts, **kwargs):
        seen.append(list(texts))
        return encode(self, texts, **kwargs)

    monkeypatch.setattr(SentenceTransformer, "encode_document", counted)
    path = tiny_encoder(tmp_path)
    score = bi_encoder_scorer(path, 4, "cpu")
    first = score([("one", "item1 item2"), ("one", "item3 item4"), ("two", "item1 item2")])
    again = score([("one", "item3 item4"), ("one", "item5 item6"), ("one", "item1 item2")])
    assert seen == [["item1 item2", "item3 item4"], ["item5 item6"]]
    assert np.allclose(again[[2, 0]], first[:2], atol=0.01)
    # Room for two: of those used last, the two that were asked for last stay.
    seen.clear()
    size = SentenceTransformer(path, device="cpu").get_embedding_dimension()
    score = bi_encoder_scorer(path, 4, "cpu", remembered_bytes=2 * 4 * size)
    for documents in (
        ["item1 item2", "item3 item4", "item5 item6"],
        ["item5 item6", "item1 item2"],
        ["item5 item6"],
    ):
        score([("one", document) for document in documents])
    assert seen == [["item1 item2", "item3 item4", "item5 item6"], ["item1 item2"]]


@pytest.mark.parametrize("kind", ["bi-encoder", "cross-encoder"])
def test_the_teacher_reads_no_more_than_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    from sentence_transformers import CrossEncoder
    from transformers import BertModel

    read: list[int] = []
    forward = BertModel.forward

    def measured(self, input_ids, **kwargs):
        read.append(input_ids.shape[1])
        return forward(self, input_ids, **kwargs)

    path = tiny_encoder(tmp_path)
    if kind == "cross-encoder":
        path = str(tmp_path / "cross")
        CrossEncoder(str(tmp_path / "bert"), num_labels=1, device="cpu").save_pretrained(path)
    monkeypatch.setattr(BertModel, "forward", measured)
    longest = []
    for length in (None, 7):
        args = GatingArguments(
            gates="teacher",
            teacher=path,
            teacher_kind=kind,
            teacher_device="cpu",
            teacher_max_length=length,
        )
        read.clear()
        row = make_row("q", "a b", "d", "c " * 9, [make_negative("d " * 8, "bm25")])
        Teacher(args).apply([Draft(row)], Tolls())
        longest.append(max(read))
    assert longest[0] > 9 and longest[1] == 7


def test_a_length_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="teacher_max_length 0: must be at least 1"):
        teach(teacher_max_length=0)


def test_a_cross_encoder_end_to_end(tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    bert = Path(tiny_encoder(tmp_path)).parent / "bert"
    CrossEncoder(str(bert), num_labels=1, device="cpu").save_pretrained(str(tmp_path / "cross"))
    args = GatingArguments(
        gates="teacher", teacher=str(tmp_path / "cross"), teacher_device="cpu", teacher_synthetic="keep"
    )
    out = list(finished_rows([Gating(args)], map(Draft, rows(SYNTHETIC))))
    negatives = out[0][0]["negatives"]
    assert len(negatives) == 3 and all(0 < n["teacher_score"] < 1 for n in negatives)
    CrossEncoder(str(bert), num_labels=3, device="cpu").save_pretrained(str(tmp_path / "three"))
    with pytest.raises(InputError, match="3 outputs"):
        Teacher(GatingArguments(gates="teacher", teacher=str(tmp_path / "three"), teacher_device="cpu"))
    with pytest.raises(InputError, match="no such folder"):
        Teacher(GatingArguments(gates="teacher", teacher=str(tmp_path / "none"), teacher_device="cpu"))
