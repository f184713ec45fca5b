"""Listwise training, whole: a source, its mined lists, a teacher's scores or a judge's grades, a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from datasets import Dataset, load_dataset
from sentence_transformers import CrossEncoder, SentenceTransformer

from syneg.cli import main
from syneg.training.losses import kl_distillation, to_unit_range
from tests.stand_in import tiny_cross_encoder, tiny_source

LISTED = 12


@pytest.fixture(scope="module")
def mined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows with a list of mined candidates each, near ones and all."""
    folder = tmp_path_factory.mktemp("listwise")
    tiny_source(60, 48).save(folder / "source")
    words = ["--source", str(folder / "source"), "--miners", "bm25", "--mined_per_miner", str(LISTED)]
    assert main(["mine", *words, "--relative_margin", "{}", "--output", str(folder / "mined")]) == 0
    return folder / "mined"


def train(rows: Path, encoder: str, output: Path, *more: str) -> int:
    words = ["--config", "pydocs/minilm", "--config", "listwise", "--dataset", str(rows), "--model", encoder]
    words += [
        "--output",
        str(output),
        "--bf16",
        "false",
        "--learning_rate",
        "0.003",
        "--disable_tqdm",
        "true",
    ]
    return main(["train", *words, "--num_train_epochs", "24", "--max_length", "32", "--guard", "off", *more])


def divergence(model: str, rows: Dataset) -> float:
    """Returns the mean KL of a model's lists from the teacher's, as the recipe has it."""
    encoder = SentenceTransformer(model, device="cpu")
    found = []
    for row in rows:
        documents = [row["positive"], *(one["text"] for one in row["negatives"])]
        vectors = encoder.encode(
            [row["query"], *documents], convert_to_tensor=True, normalize_embeddings=True
        )
        scores = [row["negatives"][0]["positive_teacher_score"]]
        scores += [one["teacher_score"] for one in row["negatives"]]
        teacher = torch.tensor([[float("nan") if score is None else score for score in scores]])
        own = vectors[:1] @ vectors[1:].T
        mask = torch.ones(1, len(documents) - 1, dtype=torch.bool)
        found.append(kl_distillation(own, mask, to_unit_range(teacher), 0.05, 0.3).item())
    return sum(found) / len(found)


def test_a_cross_encoder_scores_whole_lists_and_is_distilled(mined, encoder, tmp_path):
    teacher = tiny_cross_encoder(tmp_path)
    graded = tmp_path / "graded"
    words = ["--dataset", str(mined), "--gates", "teacher", "--teacher", teacher, "--grade_only", "true"]
    assert main(["gate", *words, "--output", str(graded)]) == 0
    before, rows = (load_dataset(str(folder), split="train") for folder in (mined, graded))
    texts = [[[one["text"] for one in row["negatives"]] for row in part] for part in (before, rows)]
    assert texts[0] == texts[1] and all(len(one) == LISTED for one in texts[0])
    # They are the CrossEncoder's own.
    row = rows[3]
    pairs = [(row["query"], text) for text in (row["positive"], *texts[1][3])]
    expected = CrossEncoder(teacher, device="cpu").predict(pairs, show_progress_bar=False)
    found = [
        row["negatives"][0]["positive_teacher_score"],
        *(one["teacher_score"] for one in row["negatives"]),
    ]
    assert found == pytest.approx(expected.tolist(), abs=3e-2) and max(found) - min(found) > 0.05
    # A model that has learned from them orders lists more as the teacher does. Of a random teacher the
    # contrastive loss takes another view.
    assert train(graded, encoder, tmp_path / "model", "--contrastive_weight", "0") == 0
    assert divergence(str(tmp_path / "model"), rows) < 0.9 * divergence(encoder, rows)
    card = (tmp_path / "model" / "README.md").read_text()
    assert "- **Distillation:** kl, student at 0.05, teacher at 0.3 (scores from 0 to 1), weight 1" in card
    assert "- **Contrastive loss:** weight 0\n" in card


def test_a_judges_verdicts_are_grades_and_are_distilled(mined, encoder, tmp_path):
    rows = load_dataset(str(mined), split="train")
    recorded = tmp_path / "verdicts.jsonl"
    # By the document, whose name is a word that the model knows, so that it can be learned.
    verdicts = {
        (row["query_id"], one["doc_id"]): ("yes", "partly", "no", "no")[int(one["doc_id"][1:]) % 4]
        for row in rows
        for one in row["negatives"]
    }
    with open(recorded, "w") as file:
        for (query, document), verdict in verdicts.items():
            record = {"query_id": query, "doc_id": document, "verdict": verdict}
            file.write(json.dumps(record) + "\n")
    graded = tmp_path / "graded"
    words = ["--dataset", str(mined), "--gates", "judge", "--engine", "recorded", "--grade_only", "true"]
    assert main(["gate", *words, "--judge_recordings", str(recorded), "--output", str(graded)]) == 0
    judged = load_dataset(str(graded), split="train")
    assert len(judged) == len(rows) and set(judged["origin"]) == {"source"}, "nothing is relabelled"
    for row in judged:
        assert len(row["negatives"]) == LISTED
        for one in row["negatives"]:
            assert one["teacher_score"] == (2.0, 1.0, 0.0, 0.0)[int(one["doc_id"][1:]) % 4]
        assert {one["positive_teacher_score"] for one in row["negatives"]} == {2.0}
    assert train(graded, encoder, tmp_path / "model") == 0
    assert divergence(str(tmp_path / "model"), judged) < 0.9 * divergence(encoder, judged)


def test_rows_that_no_teacher_scored_are_refused(mined, encoder, tmp_path, capsys):
    assert train(mined, encoder, tmp_path / "model") == 2
    error = capsys.readouterr().err
    assert "none of the first 43 rows has any. Score them: syneg gate --grade_only true" in error
    # Beside the progress of the loading.
    (told,) = [line for line in error.splitlines() if "Score them" in line]
    assert told.endswith("or with --gates judge.") and not (tmp_path / "model").exists()
