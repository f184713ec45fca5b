import json
import re
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer

from syneg.commands.train import main
from syneg.errors import InputError
from syneg.rows import FEATURES, make_negative, make_row
from syneg.training.arguments import ContrastiveArguments
from syneg.training.run import TrainArguments, load_model, make_trainer, measure, run
from syneg.training.saving import describe

from .conftest import make_dataset


@pytest.fixture
def rows(tmp_path):
    make_dataset(8).to_parquet(tmp_path / "rows" / "train-00000-of-00001.parquet")
    return str(tmp_path / "rows")


def arguments(tmp_path, **options):
    defaults = {"max_steps": 3, "learning_rate": 1e-2, "save_strategy": "no", "disable_tqdm": True}
    return ContrastiveArguments(
        str(tmp_path / "out"), per_device_train_batch_size=4, **{**defaults, **options}
    )


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("cache", ["never", "always"])
def test_lora_trains_saves_and_loads(tiny_model_path, rows, tmp_path, merge, cache):
    mixture = "synthetic=1,dense=2"
    what = TrainArguments(tiny_model_path, rows, mixture=mixture, lora_rank=4, lora_merge=merge)
    folder = run(what, arguments(tmp_path, gradient_cache=cache, chunk_tokens=64)).folder
    assert bool(list(folder.rglob("adapter_model.safetensors"))) is not merge
    loaded = SentenceTransformer(str(folder), device="cpu").encode(["ba be bi"])
    before = SentenceTransformer(tiny_model_path, device="cpu").encode(["ba be bi"])
    assert abs(loaded - before).max() > 1e-4
    assert "`synthetic=1,dense=2`" in (folder / "README.md").read_text()


def test_merged_weights_give_what_the_adapters_gave(tiny_model_path, rows, tmp_path):
    found = []
    for merge in (False, True):
        what = TrainArguments(tiny_model_path, rows, lora_rank=4, lora_merge=merge)
        folder = run(what, arguments(tmp_path / str(merge))).folder
        found.append(torch.tensor(SentenceTransformer(str(folder), device="cpu").encode(["ba be", "da"])))
    assert torch.allclose(found[0], found[1], atol=1e-5)


@pytest.fixture
def source(tmp_path):
    """A BEIR folder in which the rows' queries find their positives."""
    rows = make_dataset(8).to_list()
    folder = tmp_path / "source"
    (folder / "qrels").mkdir(parents=True)
    corpus = [{"_id": row["positive_id"], "text": row["positive"]} for row in rows]
    queries = [{"_id": row["query_id"], "text": row["query"]} for row in rows]
    for name, records in (("corpus", corpus), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, records)))
    lines = [f"{row['query_id']}\t{row['positive_id']}\t1" for row in rows]
    (folder / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines]))
    return str(folder)


def test_held_out_source_chooses_the_best_model_and_stands_in_the_card(
    tiny_model_path, rows, source, tmp_path
):
    what = TrainArguments(tiny_model_path, rows, held_out=source, patience=1)
    how = arguments(
        tmp_path,
        num_train_epochs=12,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        learning_rate=1e-2,
        max_steps=-1,
    )
    trainer = make_trainer(what, how)
    assert how.metric_for_best_model == "eval_held_out_cosine_ndcg@10"
    measure(trainer, "before")
    trainer.train()
    measured = [
        entry[how.metric_for_best_model]
        for entry in trainer.state.log_history
        if how.metric_for_best_model in entry
    ]
    assert trainer.state.best_metric == max(measured)
    # It stopped one evaluation after the best, or came to the end.
    assert len(measured) == 12 or measured.index(max(measured)) == len(measured) - 2
    measure(trainer, "after")
    assert trainer.report.metrics["after"]["nDCG@10"] == pytest.approx(max(measured))
    assert trainer.report.metrics["after"]["nDCG@10"] > trainer.report.metrics["before"]["nDCG@10"]
    assert trainer.report.measured_on == f"{Path(source).name}, test"


def test_a_held_out_split_that_was_written_is_named_so(tiny_model_path, rows, source, tmp_path):
    (Path(source) / "written.json").write_text('{"origin": "written"}')
    trainer = make_trainer(TrainArguments(tiny_model_path, rows, held_out=source), arguments(tmp_path))
    measure(trainer, "before")
    card = describe(trainer.report, trainer.args)
    assert f"| {Path(source).name}, test (written) | nDCG@10" in card


def test_best_model_without_evaluations_is_an_input_error(tiny_model_path, rows, source, tmp_path):
    how = arguments(tmp_path)
    how.load_best_model_at_end = True
    with pytest.raises(InputError, match="--eval_strategy"):
        make_trainer(TrainArguments(tiny_model_path, rows, held_out=source), how)


@pytest.mark.parametrize("workers", [0, 1])
def test_error_in_a_worker_is_one_line(tiny_model_path, tmp_path, capfd, workers):
    rows = make_dataset(4).to_list()
    rows[2]["positive"] = ""
    Dataset.from_list(rows, features=FEATURES).to_parquet(tmp_path / "rows" / "train-00000-of-00001.parquet")
    words = {
        "model": tiny_model_path,
        "dataset": tmp_path / "rows",
        "output": tmp_path / "out",
        "dataloader_num_workers": workers,
        "disable_tqdm": True,
    }
    assert main([word for key, value in words.items() for word in (f"--{key}", str(value))]) == 2
    assert "error: column 'positive' of a row holds ''" in capfd.readouterr().err


def test_prompts_are_saved_with_the_model(tiny_model_path, rows, tmp_path):
    """A model that was trained with a prompt is evaluated with it."""
    what = TrainArguments(tiny_model_path, rows, query_prompt="da de: ", document_prompt="")
    loaded = SentenceTransformer(str(run(what, arguments(tmp_path)).folder), device="cpu")
    assert loaded.prompts == {"query": "da de: ", "document": ""}
    prompted, plain = loaded.encode_query("ba be bi"), loaded.encode_document("da de: ba be bi")
    assert abs(prompted - plain).max() < 1e-6
    assert abs(loaded.encode_document("ba be bi") - plain).max() > 1e-4


def test_pooling_is_replaced(tiny_model_path):
    model = load_model(TrainArguments(tiny_model_path, "", pooling="cls"))
    assert model[1].pooling_mode == "cls" or model[1].pooling_mode == ("cls",)
    with pytest.raises(InputError, match="--pooling"):
        load_model(TrainArguments(tiny_model_path, "", pooling="median"))


def test_four_bit_says_what_it_needs(tiny_model_path):
    with pytest.raises(InputError, match="lora_rank"):
        load_model(TrainArguments(tiny_model_path, "", quantize="4bit"))


def test_synthetic_negatives_are_trained_on_where_they_are_named(tiny_model_path, tmp_path, caplog):
    texts = {"dense": ("ba be", "ba bi"), "synthetic": ("be bi", "bi be")}
    negatives = [make_negative(text, source) for source, two in texts.items() for text in two]
    both = [make_row(f"q{i}", f"ba {i}", f"d{i}", f"bo {i}", negatives) for i in range(4)]
    Dataset.from_list(both, features=FEATURES).to_parquet(tmp_path / "rows/train-00000-of-00001.parquet")
    for mixture, drawn in (
        (None, {"dense": 8}),
        ("dense=3", {"dense": 8}),
        ("synthetic=1,dense=2", {"dense": 8, "synthetic": 4}),
    ):
        caplog.clear()
        given = {} if mixture is None else {"mixture": mixture}
        trainer = make_trainer(
            TrainArguments(tiny_model_path, str(tmp_path / "rows"), **given),
            arguments(tmp_path, max_steps=1, guard="off"),
        )
        told = [record.getMessage() for record in caplog.records if "leaves out" in record.getMessage()]
        assert len(told) == (mixture is None)
        trainer.train()
        # Two dense ones a row, and what is short does not come of what an LLM wrote.
        assert trainer.report.drawn == drawn
    only = [dict(row, negatives=[one for one in negatives if one["source"] == "synthetic"]) for row in both]
    Dataset.from_list(only, features=FEATURES).to_parquet(tmp_path / "only/train-00000-of-00001.parquet")
    with pytest.raises(
        InputError, match=r"'dense=3': no row .* \(found: synthetic\). .*--mixture synthetic=1"
    ):
        make_trainer(TrainArguments(tiny_model_path, str(tmp_path / "only")), arguments(tmp_path))


def test_three_of_another_miner_where_there_is_no_dense_one(tiny_model_path, tmp_path):
    negatives = [make_negative(text, "bm25") for text in ("ba be", "ba bi", "be bi", "bi be")]
    rows = [make_row(f"q{i}", f"ba {i}", f"d{i}", f"bo {i}", negatives) for i in range(4)]
    Dataset.from_list(rows, features=FEATURES).to_parquet(tmp_path / "rows/train-00000-of-00001.parquet")
    trainer = make_trainer(TrainArguments(tiny_model_path, str(tmp_path / "rows")), arguments(tmp_path))
    assert str(trainer.data_collator.mixture) == "bm25=3"


def test_training_ends_with_what_came_of_it_and_what_to_run_next(
    tiny_model_path, rows, source, tmp_path, capsys
):
    output = tmp_path / "a model"
    words = {
        "model": tiny_model_path,
        "dataset": rows,
        "output": output,
        "held_out": source,
        "save_best": 0.3,
        "max_length": 32,
        "num_train_epochs": 2,
        "per_device_train_batch_size": 4,
        "logging_steps": 1,
        "learning_rate": 1e-2,
        "report_to": "none",
        "disable_tqdm": True,
    }
    assert main([word for key, value in words.items() for word in (f"--{key}", str(value))]) == 0
    *_, ended, held_out, held_back, evaluate, push = capsys.readouterr().out.splitlines()
    state = json.loads((output / "trainer_state.json").read_text())
    losses = [
        f"{entry['loss']:.4f} at step {entry['step']}" for entry in state["log_history"] if "loss" in entry
    ]
    found = re.fullmatch(r"(.+): trained on (\d) rows, (\d) steps, 2 epochs; loss (.+), (.+); (.+)", ended)
    assert found is not None
    assert found[1] == str(output) and 0 < int(found[2]) < 8
    assert [found[4], found[5]] == [losses[0], losses[-1]] and found[5].endswith(f"at step {found[3]}")
    assert found[6] == f"the model is that of step {state['best_global_step']}, the best"
    after = make_trainer(TrainArguments(str(output), rows, held_out=source), arguments(tmp_path)).evaluate()
    assert held_out.startswith("held out, before -> after: nDCG@10 ")
    assert f"-> {after['eval_held_out_cosine_ndcg@10']:.4f}, recall@10" in held_out
    assert re.fullmatch(r"held back, before -> after: (\S+ [01]\.\d{4} -> [01]\.\d{4}(, |$)){3}", held_back)
    quoted = f"'{output}'"
    assert evaluate == (
        f"Next: syneg evaluate --model {quoted} --baseline {tiny_model_path} --source {source} "
        f"--max_length 32 --output '{output}-results'"
    )
    assert push == (
        f" then: syneg push --folder {quoted} --model_results '{output}-results' "
        "--repo_id 'YOU/a model' --dry_run"
    )


def test_without_anything_held_out_the_loss_is_told(tiny_model_path, rows, tmp_path, capsys):
    words = ["--model", tiny_model_path, "--dataset", rows, "--output", str(tmp_path / "out")]
    words += [
        "--max_steps",
        "2",
        "--save_strategy",
        "no",
        "--disable_tqdm",
        "true",
        "--logging_strategy",
        "no",
    ]
    assert main([*words, "--per_device_train_batch_size", "4"]) == 0
    *_, ended, evaluate, _ = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\S+/out: trained on 8 rows, 2 steps, 1 epoch; loss \d+\.\d{4}", ended)
    assert evaluate.endswith(f"--source SOURCE --output {tmp_path}/out-results")
