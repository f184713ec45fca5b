"""Rows that are held back to choose the best epoch by."""

import pytest
import torch
from datasets import Dataset

from syneg.errors import InputError
from syneg.rows import FEATURES, make_negative, make_row, mirror_ids, to_triplets
from syneg.training.arguments import ContrastiveArguments
from syneg.training.held_out import held_back_evaluator, hold_back_rows
from syneg.training.run import TrainArguments, make_trainer, measure, run

from .conftest import make_dataset


def family(i: int) -> list:
    """Three rows that belong together: two queries with one document, and one turned round."""
    negatives = [
        make_negative(f"synthetic {i}", "synthetic"),
        make_negative(f"mined {i}", "bm25", doc_id="x"),
    ]
    first = make_row(f"q{i}", f"query {i}", f"d{i}", f"document {i}", negatives)
    second = make_row(f"r{i}", f"other {i}", f"e{i}", f"DOCUMENT  {i}", negatives)
    query_id, document_id = mirror_ids(first, 1)
    back = [make_negative(f"document {i}", "mirror", doc_id=f"d{i}")]
    return [first, second, make_row(query_id, f"mirror {i}", document_id, f"synthetic {i}", back, "mirror")]


def test_no_query_and_no_document_is_on_both_sides_and_mirrored_rows_go_with_their_own():
    rows = Dataset.from_list([row for i in range(40) for row in family(i)], features=FEATURES)
    kept, held = hold_back_rows(rows, 0.3)
    sides = [{row["query"].split()[1] for row in part} for part in (kept, held)]
    assert not sides[0] & sides[1] and sides[0] | sides[1] == {str(i) for i in range(40)}
    assert 4 <= len(sides[1]) <= 20
    assert len(kept) == 3 * len(sides[0])
    # What an LLM wrote is not measured on.
    assert len(held) == 2 * len(sides[1]) and set(held["origin"]) == {"source"}
    again = hold_back_rows(rows.shuffle(1), 0.3)[1]
    assert sorted(again["query_id"]) == sorted(held["query_id"])
    evaluator = held_back_evaluator(kept, held)
    assert sorted(evaluator.queries) == sorted(held["query"])
    assert {len(documents) for documents in evaluator.relevant_docs.values()} == {1}
    assert set(evaluator.corpus) >= {f"mined {i}" for i in range(40)}
    assert not [text for text in evaluator.corpus if text.startswith("synthetic")]
    assert len(evaluator.corpus) == 80
    few = held_back_evaluator(kept, held, max_documents=len(sides[1]) + 5)
    assert len(few.corpus) == len(sides[1]) + 5 and set(few.corpus) <= set(evaluator.corpus)


def test_triplets_are_held_back_by_their_texts():
    rows = Dataset.from_list([row for i in range(40) for row in family(i)[:2]], features=FEATURES)
    kept, held = hold_back_rows(to_triplets(rows, 2), 0.3)
    assert len(held) and not {q.split()[1] for q in kept["anchor"]} & {q.split()[1] for q in held["anchor"]}


def arguments(tmp_path, **options):
    defaults = {"num_train_epochs": 8, "learning_rate": 1e-2, "save_strategy": "no", "disable_tqdm": True}
    return ContrastiveArguments(
        str(tmp_path / "out"), per_device_train_batch_size=8, **{**defaults, **options}
    )


def test_the_best_epoch_on_what_is_held_back_is_kept_by_one_flag(tiny_model_path, tmp_path, capsys):
    rows = make_dataset(60).map(lambda row: {"query": " ".join(row["positive"].split()[:2])})
    rows.to_parquet(tmp_path / "rows" / "train-00000-of-00001.parquet")
    script = TrainArguments(tiny_model_path, str(tmp_path / "rows"), save_best=0.3)
    training = arguments(tmp_path)
    trainer = make_trainer(script, training)
    held = set(trainer.evaluator.queries)
    assert held and held.isdisjoint(trainer.train_dataset["query"])
    assert len(held) + len(trainer.train_dataset) == 60
    measure(trainer, "before")
    trainer.train()
    metric = "eval_held_back_cosine_ndcg@10"
    measured = [entry[metric] for entry in trainer.state.log_history if metric in entry]
    assert len(measured) == 8 and trainer.state.best_metric == max(measured)
    measure(trainer, "after")
    assert trainer.report.metrics["after"]["nDCG@10"] == pytest.approx(max(measured))
    before = trainer.report.metrics["before"]["nDCG@10"]
    assert ("nDCG@10" in capsys.readouterr().out) == (max(measured) < before)


def test_texts_are_encoded_in_the_precision_of_the_training(tiny_model_path, tmp_path):
    rows = make_dataset(60).map(lambda row: {"query": " ".join(row["positive"].split()[:2])})
    rows.to_parquet(tmp_path / "rows" / "train-00000-of-00001.parquet")
    script = TrainArguments(tiny_model_path, str(tmp_path / "rows"), save_best=0.3)
    embeddings = []
    for bf16 in (False, True):
        trainer = make_trainer(script, arguments(tmp_path, bf16=bf16))
        model = trainer.model.eval()
        exact = model.encode(rows["query"], convert_to_tensor=True)
        embeddings.append(trainer.evaluator.embed_inputs(model, rows["query"]))
        assert embeddings[-1].dtype == exact.dtype and torch.allclose(embeddings[-1], exact, atol=0.05)
        assert torch.equal(embeddings[-1], exact) == (not bf16)


def test_a_model_that_became_worse_is_told_in_a_line(tiny_model_path, tmp_path, capsys):
    rows = make_dataset(60).map(lambda row: {"query": " ".join(row["positive"].split()[:2])})
    rows.to_parquet(tmp_path / "rows" / "train-00000-of-00001.parquet")
    script = TrainArguments(tiny_model_path, str(tmp_path / "rows"), save_best=0.3)
    # So large a step that nothing is left of what the model could.
    run(script, arguments(tmp_path, num_train_epochs=1, learning_rate=10.0))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("WORSE")]
    assert len(lines) == 1 and "nDCG@10" in lines[0] and "(before: " in lines[0]


@pytest.mark.parametrize(("written", "kind"), [(0, ""), (20, " (partly written)"), (60, " (written)")])
def test_what_was_measured_on_is_named_for_what_it_is(tiny_model_path, tmp_path, capsys, written, kind):
    rows = make_dataset(60).map(
        lambda row, i: {
            "query": " ".join(row["positive"].split()[:2]),
            "origin": "written" if i < written else "source",
        },
        with_indices=True,
    )
    rows.to_parquet(tmp_path / "rows" / "train-00000-of-00001.parquet")
    script = TrainArguments(tiny_model_path, str(tmp_path / "rows"), save_best=0.3)
    run(script, arguments(tmp_path, num_train_epochs=1, learning_rate=10.0))
    assert f"| queries held back{kind} | nDCG@10" in (tmp_path / "out" / "README.md").read_text()
    assert f"Measured on: queries held back{kind}." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("share", "message"),
    [(1.5, "below 1"), (-0.1, "at least 0"), (1e-9, "holds back 0 of 8 queries")],
)
def test_unusable_shares(tiny_model_path, tmp_path, share, message):
    make_dataset(8).to_parquet(tmp_path / "rows" / "train-00000-of-00001.parquet")
    script = TrainArguments(tiny_model_path, str(tmp_path / "rows"), save_best=share)
    with pytest.raises(InputError, match=message):
        make_trainer(script, arguments(tmp_path))


def test_streamed_rows_cannot_be_parted(tiny_model_path, tmp_path):
    make_dataset(8).to_parquet(tmp_path / "rows" / "train-00000-of-00001.parquet")
    script = TrainArguments(tiny_model_path, str(tmp_path / "rows"), save_best=0.3, streaming=True)
    with pytest.raises(InputError, match="leave out --streaming"):
        make_trainer(script, arguments(tmp_path))
