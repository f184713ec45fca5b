"""By default the encoder that mined holds synthetic negatives to the positive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from syneg.errors import InputError
from syneg.gating.arguments import GatingArguments
from syneg.gating.stage import Gating
from syneg.mining.arguments import MiningArguments
from syneg.mining.stage import Mining
from syneg.rows import SYNTHETIC, make_negative
from syneg.stages import Draft, finished_rows, pair_drafts
from tests.stand_in import tiny_encoder, tiny_source


def mining(tmp_path: Path, **options: object) -> Mining:
    args = {
        "encoder": tiny_encoder(tmp_path),
        "mining_cache": str(tmp_path / "cache"),
        "mining_device": "cpu",
    }
    return Mining(MiningArguments(relative_margin="{}", **{**args, **options}), 0)


def test_the_encoder_that_mined_scores_all_and_drops_synthetic_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = mining(tmp_path)
    pairs = tiny_source().pairs("train")
    stage.prepare(pairs)
    encoded: list[str] = []
    original = SentenceTransformer.encode_document

    def counted(self, texts, **kwargs):
        encoded.extend(texts)
        return original(self, texts, **kwargs)

    monkeypatch.setattr(SentenceTransformer, "encode_document", counted)
    gating = Gating(GatingArguments(gates="teacher", teacher_margin=0.05), mining=stage)
    drafts: list[Draft] = list(pair_drafts(pairs))
    for i, draft in enumerate(drafts):
        # The positive in other words scores as high as the positive; a text of nothing does not.
        draft.row["negatives"] = [
            make_negative(draft.row["positive"] + " .", SYNTHETIC),
            make_negative(f"zzz {i}", SYNTHETIC),
        ]
    rows = list(finished_rows([stage, gating], drafts))
    assert sorted(encoded) == sorted(
        {d.row["positive"] + " ." for d in drafts} | {f"zzz {i}" for i in range(len(drafts))}
    ), "nothing that the miner has embedded is encoded again, and each text once"
    model = SentenceTransformer(tiny_encoder(tmp_path / "again"), device="cpu")
    bound = 0
    for row, dropped in rows:
        for negative in [*row["negatives"], *(one["negative"] for one in dropped)]:
            query, document = model.encode_query([row["query"]]), model.encode_document([negative["text"]])
            expected = float(model.similarity(query, document))
            assert negative["teacher_score"] == pytest.approx(expected, abs=0.03)
            if negative["source"] == "dense":
                assert negative["teacher_score"] == pytest.approx(negative["score"], abs=1e-5)
        positive = {n["positive_teacher_score"] for n in row["negatives"]}
        assert len(positive) == 1
        for one in dropped:
            assert one["gate"] == "teacher" and one["negative"]["source"] == SYNTHETIC
            bound += 1
        for negative in row["negatives"]:
            if negative["source"] == SYNTHETIC:
                limit = negative["positive_teacher_score"]
                assert negative["teacher_score"] <= limit - abs(limit) * 0.05
    assert bound and gating.tolls.dropped["teacher", "too near to the positive", SYNTHETIC] == bound
    assert not any(source != SYNTHETIC for _, _, source in gating.tolls.dropped)


def test_without_an_encoder_it_is_said_what_is_not_checked(tmp_path: Path) -> None:
    for stage in (None, mining(tmp_path, miners="bm25")):
        gating = Gating(GatingArguments(), mining=stage)
        assert len(gating.tolls.not_checked) == 1 and "dense" in gating.tolls.lines()[-1]
        assert gating.tolls.to_dict()["not_checked"] == gating.tolls.not_checked
        with pytest.raises(InputError, match="needs --teacher"):
            Gating(GatingArguments(gates="checks,teacher"), mining=stage)
    brought = tmp_path / "brought.npy"
    np.save(brought, np.ones((1, 1), dtype=np.float32))
    stage = mining(tmp_path, query_embeddings=str(brought), corpus_embeddings=str(brought))
    assert Gating(GatingArguments(), mining=stage).tolls.not_checked, "brought embeddings encode nothing else"


def test_nothing_is_marked_for_a_judge_that_is_not_there() -> None:
    assert GatingArguments(gates="teacher").teacher_synthetic == "drop"
    assert GatingArguments(gates="teacher,judge").teacher_synthetic == "judge"
    with pytest.raises(InputError, match="add the gate judge, or take --teacher_synthetic drop"):
        GatingArguments(gates="checks,teacher", teacher_synthetic="judge")
