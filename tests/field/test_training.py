"""What users bring as training rows: the right values, or one line that names the row or column."""

from __future__ import annotations

import json
import random

import pytest
import torch
from datasets import Dataset, Features, IterableDataset, List, Value
from torch.utils.data import DataLoader

from syneg.commands.train import main
from syneg.errors import InputError
from syneg.training.arguments import ContrastiveArguments
from syneg.training.collator import SyNegCollator
from syneg.training.columns import read_row
from syneg.training.sampling import EndlessSteps
from syneg.training.trainer import ContrastiveTrainer
from tests.training.conftest import build_model, make_dataset


@pytest.fixture(scope="session")
def model_path(tmp_path_factory):
    return build_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def model(model_path):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(model_path, device="cpu")


def make_trainer(model, folder, rows, eval_rows=None, empty_rows="error", mixture=None, **options):
    options = {"per_device_train_batch_size": 2, "save_strategy": "no", "disable_tqdm": True, **options}
    collator = SyNegCollator(model, mixture, empty_rows=empty_rows)
    args = ContrastiveArguments(str(folder), **options)
    return ContrastiveTrainer(model, args, rows, eval_rows, collator)


def train(model_path, rows, output, capfd, *words):
    """Runs `syneg train`; returns the exit code and the lines of error."""
    base = ["--model", model_path, "--dataset", str(rows), "--output", str(output), "--disable_tqdm", "true"]
    code = main([*base, "--mixture", "all", "--per_device_train_batch_size", "2", *words])
    said = capfd.readouterr().err
    assert "Traceback" not in said
    return code, [line for line in said.splitlines() if line.startswith("error: ")]


def write(folder, rows):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def drawn(collator, row):
    return sorted(n.text for n in collator.draw(collator.read(row)).negatives)


# One query under two ids -----------------------------------------------------------------------------------

KETTLE = "remove limescale from a kettle"
TWICE = [
    {
        "query_id": "q0",
        "query": KETTLE,
        "positive_id": "d0",
        "positive": "Boil vinegar in it.",
        "negatives": [
            {"text": "Descale with  LEMON juice.", "source": "dense", "doc_id": "x"},
            {"text": "A text of d1 that differs.", "source": "dense", "doc_id": "d1"},
            {"text": "Replace a frayed cord.", "source": "bm25", "doc_id": "d2"},
        ],
    },
    {
        "query_id": "q1",
        "query": "Remove  limescale from a kettle ",
        "positive_id": "d1",
        "positive": "Descale with lemon juice.",
        "negatives": [
            {"text": "Boil vinegar in it.", "source": "dense", "doc_id": "d0"},
            {"text": "Replace a frayed cord.", "source": "bm25", "doc_id": "d2"},
        ],
    },
]


@pytest.mark.parametrize("with_ids", [True, False])
def test_anothers_positive_for_the_same_query_text_is_no_negative(model, with_ids):
    rows = [dict(row) for row in TWICE]
    if not with_ids:
        for row in rows:
            del row["query_id"], row["positive_id"]
            row["negatives"] = [n["text"] for n in row["negatives"] if n["doc_id"] != "d1"]
    collator = SyNegCollator(model)
    collator.learn_positives(Dataset.from_list(rows))
    assert [drawn(collator, row) for row in rows] == [["Replace a frayed cord."]] * 2
    # In the batch: each row's known positives hold both, and so does one row alone.
    batch = collator(rows)["instances"]
    for row, other in ((0, 1), (1, 0)):
        assert int(batch["text_key"][batch["positive"][other]]) in batch["known"][row].tolist()
    alone = collator(rows[:1])["instances"]["known"][0].tolist()
    assert int(batch["text_key"][batch["positive"][1]]) in alone


def test_the_same_id_with_another_spelling_is_the_same_query(model):
    rows = [dict(TWICE[0]), TWICE[1] | {"query_id": "q0", "query": "descaling kettles"}]
    collator = SyNegCollator(model)
    collator.learn_positives(Dataset.from_list(rows))
    assert [drawn(collator, row) for row in rows] == [["Replace a frayed cord."]] * 2


def test_positives_are_learnt_from_data_set_after_data_set(model):
    collator = SyNegCollator(model)
    for row in TWICE:
        collator.learn_positives(Dataset.from_list([row]))
    assert [drawn(collator, row) for row in TWICE] == [["Replace a frayed cord."]] * 2


# Ids that are numbers --------------------------------------------------------------------------------------

NUMBERED = [
    {
        "query_id": 1,
        "positive_id": 10,
        "query": KETTLE,
        "positive": "Boil vinegar in it.",
        "negative": ["Descale with lemon juice.", "Bicycle chains stretch."],
    },
    {
        "query_id": 1,
        "positive_id": 11,
        "query": KETTLE,
        "positive": "Descale with lemon juice.",
        "negative": ["Hedgehogs sleep."],
    },
]


@pytest.mark.parametrize("kind", ["int64", "int32", "float64", "large_string"])
def test_ids_of_any_type_are_those_of_strings(model, kind):
    batches = []
    for value in (kind, "string"):
        rows = Dataset.from_list(NUMBERED)
        for name in ("query_id", "positive_id"):
            rows = rows.cast_column(name, Value("int64")).cast_column(name, Value(value))
        collator = SyNegCollator(model)
        collator.learn_positives(rows)
        assert drawn(collator, rows[0]) == ["Bicycle chains stretch."]
        batches.append(collator([rows[0], rows[1]]))
    first, second = (batch["instances"] for batch in batches)
    assert all(torch.equal(first[key].nan_to_num(), second[key].nan_to_num()) for key in first)
    assert batches[0]["row_ids"] == batches[1]["row_ids"] == ["1/10", "1/11"]


def test_number_of_a_negatives_document_is_that_of_a_positive(model):
    rows = [
        {"query_id": 1, "positive_id": i, "query": "q", "positive": f"p{i}", "negatives": []}
        for i in (10, 11)
    ]
    rows[0]["negatives"] = [
        {"text": "another text of 11", "source": "dense", "doc_id": 11},
        {"text": "another text of 10", "source": "dense", "doc_id": 10},
        {"text": "ok", "source": "dense", "doc_id": 12},
    ]
    collator = SyNegCollator(model)
    collator.learn_positives(Dataset.from_list(rows))
    assert drawn(collator, rows[0]) == ["ok"]


# Evaluation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_stream_gives_the_eval_loss_of_a_data_set(model, tmp_path, workers):
    rows = make_dataset(11)
    losses = []
    for evaluated in (rows, rows.to_iterable_dataset(num_shards=3)):
        trainer = make_trainer(
            model,
            tmp_path,
            rows,
            evaluated,
            per_device_eval_batch_size=4,
            dataloader_num_workers=workers,
            dataloader_drop_last=True,
        )
        losses.append(trainer.evaluate()["eval_loss"])
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    # The mean over rows, though the last batch is short; nothing is dropped from an evaluation.
    parts = [trainer.data_collator(rows.select(range(i, min(i + 4, 11))).to_list()) for i in (0, 4, 8)]
    each = [float(trainer.compute_loss(trainer.model, part)) for part in parts]
    assert losses[0] == pytest.approx((4 * each[0] + 4 * each[1] + 3 * each[2]) / 11, abs=1e-5)


def test_evaluation_sets_by_name_may_be_streams(model, tmp_path):
    rows = make_dataset(6)
    with pytest.raises(InputError, match=r"^other: .*row 1"):
        bad = rows.to_list()
        bad[1]["positive"] = " "
        make_trainer(model, tmp_path, rows, {"one": rows, "other": Dataset.from_list(bad)})
    found = make_trainer(model, tmp_path, rows, {"one": rows, "two": rows.to_iterable_dataset()}).evaluate()
    assert found["eval_one_loss"] == pytest.approx(found["eval_two_loss"])


# Texts that are none ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    "damage",
    [
        {"positive": ""},
        {"positive": "\u2003\n"},
        {"query": None},
        {"negative": ""},
        {"negative": None, "negatives": ["n", " "]},
        {"negative": None, "negatives": ["n", ""], "query_id": "q1", "positive_id": "d3"},
    ],
)
def test_row_without_text_is_named_before_anything_is_trained(model, tmp_path, streaming, damage):
    rows = [{"query": f"q {i}", "positive": f"p {i}", "negative": f"n {i}"} for i in range(4)]
    rows[1] |= damage
    names = sorted({name for row in rows for name in row})
    data = Dataset.from_dict({name: [row.get(name) for row in rows] for name in names})
    stream = data.to_iterable_dataset() if streaming else data
    with pytest.raises(InputError) as error:
        make_trainer(model, tmp_path, stream, max_steps=1)
    assert "row 1" in str(error.value) and "\n" not in str(error.value)
    assert "q1/d3" in str(error.value) or "query_id" not in damage


def test_row_without_text_ends_with_code_2(model_path, tmp_path, capfd):
    rows = [
        {"query_id": "q0", "query": "a", "positive_id": "d0", "positive": "b", "negatives": ["c"]},
        {"query_id": "q1", "query": "d", "positive_id": "d3", "positive": "", "negatives": ["e"]},
    ]
    code, errors = train(model_path, write(tmp_path / "rows", rows), tmp_path / "out", capfd)
    assert code == 2 and len(errors) == 1 and "row 1, q1/d3" in errors[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["large_string", "string"])
def test_text_of_any_string_type_is_read(model, tmp_path, kind):
    rows = Dataset.from_dict(
        {"query": ["q 0", "q 1"], "positive": ["p 0", "p 1"], "negatives": [["n 0"], ["n 1", None]]},
        features=Features({"query": Value(kind), "positive": Value(kind), "negatives": List(Value(kind))}),
    )
    trainer = make_trainer(model, tmp_path, rows, max_steps=1)
    trainer.train()
    assert trainer.report.drawn == {"negative": 2}


def test_format_of_a_data_set_does_not_matter(model, tmp_path):
    rows = make_dataset(4)
    for given in (rows.with_format("numpy"), rows.to_iterable_dataset().with_format("torch")):
        trainer = make_trainer(model, tmp_path, given, rows.with_format("torch"), max_steps=1)
        trainer.train()
        assert trainer.report.drawn.total() == 10 and trainer.evaluate()["eval_loss"] > 0


@pytest.mark.parametrize("value", [3, ["a"], {"text": "a"}])
def test_column_that_holds_no_text_is_named(model, tmp_path, value):
    rows = Dataset.from_dict({"query": ["a"], "positive": [value], "negative": ["n"]})
    with pytest.raises(InputError, match=r"column 'positive' of a row holds .*row 0"):
        make_trainer(model, tmp_path, rows)


# Columns ---------------------------------------------------------------------------------------------------

READ = [
    *("negative", "negatives", "negative_1", "negative-1", "negative1", "Negative 1", "neg", "negs", "neg_1"),
    *("hard_negative", "hard_negatives", "hard_negative_2", "hard-negatives", "hardNegatives", "hard_neg"),
    *("hard_negs", "neg_docs", "negative_passages", "hard_negative_ctxs", "NEG", "negTexts"),
]
NOT_READ = ["bm25_negatives", "negatives_bm25", "mined_neg", "other-negative", "negative_ids", "negTop"]


@pytest.mark.parametrize("name", READ)
def test_names_in_use_are_read(model, tmp_path, name):
    base = {"query": ["q 0", "q 1"], "positive": ["p 0", "p 1"]}
    for values in (["n 0", "n 1"], [["n 0"], ["n 1"]], [[{"text": "n 0", "source": "x"}], [{"text": "n 1"}]]):
        rows = Dataset.from_dict(base | {name: values})
        trainer = make_trainer(model, tmp_path, rows, max_steps=1)
        trainer.train()
        assert trainer.report.drawn.total() == 2 and trainer.report.without_negatives == 0


@pytest.mark.parametrize("name", NOT_READ)
@pytest.mark.parametrize("empty_rows", ["error", "in_batch"])
@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("streaming", [False, True])
def test_column_like_negatives_is_used_or_named(model, tmp_path, name, empty_rows, beside, streaming):
    rows = Dataset.from_dict({"query": ["q 0"], "positive": ["p 0"], name: [["n"]]})
    if beside and name != "negative_ids":
        rows = rows.add_column("negative", ["m"])
    given = rows.to_iterable_dataset() if streaming else rows
    with pytest.raises(InputError, match=f"column '{name}' looks like negatives"):
        make_trainer(model, tmp_path, given, empty_rows=empty_rows, max_steps=1)
    with pytest.raises(InputError, match=name):
        SyNegCollator(model, empty_rows=empty_rows)(rows.to_list())


def test_what_tells_about_negatives_and_what_is_not_wanted_is_left_alone(model, tmp_path):
    about = {"negative_ids": [["d"]], "neg_scores": [[0.5]], "num_negatives": [1], "negotiable": ["x"]}
    rows = Dataset.from_dict({"query": ["q"], "positive": ["p"], "negatives": [["n"]], **about})
    make_trainer(model, tmp_path, rows)
    other = Dataset.from_dict({"query": ["q"], "positive": ["p"], "bm25_negatives": [["n"]]})
    make_trainer(model, tmp_path, other, mixture="none", empty_rows="in_batch")


def test_columns_of_negatives_are_taken_together(model):
    row = {
        "query": "q",
        "positive": "p",
        "negatives": ["a", "b"],
        "negative_1": "c",
        "neg": None,
        "negs": "B",
    }
    assert drawn(SyNegCollator(model), row) == ["a", "b", "c"]


def test_list_in_json_is_a_list_and_in_pythons_notation_an_error():
    row = {"query": "q", "positive": "p"}

    def texts(**columns):
        return [(c.text, c.source) for c in read_row(row | columns).candidates]

    assert texts(negatives='["a", "b"]') == [("a", "negative"), ("b", "negative")]
    assert texts(hard_negs='[{"text": "a", "source": "dense"}]') == [("a", "dense")]
    # A text that begins with a bracket stays a text; so does one of a column for one negative.
    assert texts(negatives="[sic] a") == [("[sic] a", "negative")]
    assert texts(negative_1='["a", "b"]') == [('["a", "b"]', "negative")]
    with pytest.raises(InputError, match="Python's notation"):
        texts(negatives="['a', 'b']")
    with pytest.raises(InputError, match="no text"):
        texts(negatives='["a", ""]')


# Nothing to train on, and resuming -------------------------------------------------------------------------

SIX = [{"anchor": f"a {i}", "positive": f"p {i}", "negative": f"n {i}"} for i in range(6)]


@pytest.mark.parametrize("more", [[], ["--streaming", "true", "--max_steps", "2"]])
def test_fewer_rows_than_a_batch(model_path, tmp_path, capfd, more):
    words = ["--per_device_train_batch_size", "8", "--dataloader_drop_last", "true", *more]
    code, errors = train(model_path, write(tmp_path / "rows", SIX), tmp_path / "out", capfd, *words)
    assert code == 2 and len(errors) == 1
    assert all(word in errors[0] for word in ("dataloader_drop_last", "batch of 8", "6 rows"))


def test_stream_without_a_number_of_steps(model_path, tmp_path, capfd):
    code, errors = train(
        model_path, write(tmp_path / "rows", SIX), tmp_path / "out", capfd, "--streaming", "true"
    )
    assert code == 2 and len(errors) == 1 and "--max_steps" in errors[0]


def test_resuming_where_there_is_nothing(model_path, tmp_path, capfd):
    rows, out = write(tmp_path / "rows", SIX), tmp_path / "out"
    (tmp_path / "bare").mkdir()
    for value, told in (
        ("true", "has no checkpoint"),
        (str(tmp_path / "nowhere"), "nowhere"),
        (str(tmp_path / "bare"), "is no checkpoint"),
    ):
        words = ["--max_steps", "1", "--resume_from_checkpoint", value]
        code, errors = train(model_path, rows, out, capfd, *words)
        assert code == 2 and len(errors) == 1 and told in errors[0]


@pytest.mark.parametrize("word", ["true", "True"])
def test_resuming_from_the_last_checkpoint(model_path, tmp_path, capfd, word):
    rows, out = write(tmp_path / "rows", SIX), tmp_path / "out"
    words = ["--save_steps", "1", "--logging_steps", "1"]
    assert train(model_path, rows, out, capfd, "--max_steps", "1", *words)[0] == 0
    before = (out / "checkpoint-1" / "trainer_state.json").stat().st_mtime_ns
    words = ["--max_steps", "3", "--resume_from_checkpoint", word, *words]
    assert train(model_path, rows, out, capfd, *words)[0] == 0
    assert (out / "checkpoint-1" / "trainer_state.json").stat().st_mtime_ns == before
    state = json.loads((out / "checkpoint-3" / "trainer_state.json").read_text())
    assert [line["step"] for line in state["log_history"] if "loss" in line] == [1, 2, 3]


# Streams ---------------------------------------------------------------------------------------------------


def shuffled(rows):
    return rows.to_iterable_dataset(num_shards=2).shuffle(seed=3, buffer_size=100)


@pytest.mark.parametrize("workers", [0, 2])
def test_every_pass_over_a_stream_has_its_epoch(workers):
    rows = make_dataset(10)
    loader = DataLoader(
        EndlessSteps(shuffled(rows), 4), batch_size=None, num_workers=workers, collate_fn=list
    )
    found = []
    for step in loader:
        found.append(step)
        if len(found) == 9:
            break
    expected = []
    for epoch in range(3):
        stream = shuffled(rows)
        stream.set_epoch(epoch)
        expected.append([row["query_id"] for row in stream])
    assert expected[0] != expected[1] != expected[2]
    for epoch in range(3):
        steps = found[3 * epoch : 3 * epoch + 3]
        assert [row["query_id"] for rows, _, _ in steps for row in rows] == expected[epoch]
        assert [(number, last) for _, number, last in steps] == [
            (epoch, False),
            (epoch, False),
            (epoch, True),
        ]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("accumulated", [1, 2])
def test_resuming_in_the_middle_of_a_shuffled_stream(model_path, tmp_path, workers, accumulated):
    """Of three steps a pass the second pass is resumed after its second: order and draws are the same."""
    from sentence_transformers import SentenceTransformer

    runs = []
    for resume in (None, "run/checkpoint-5"):
        torch.manual_seed(0 if resume is None else 9)
        random.seed(9)
        seen = []
        trainer = make_trainer(
            SentenceTransformer(model_path, device="cpu"),
            tmp_path / ("run" if resume is None else "resumed"),
            shuffled(make_dataset(10)),
            mixture="synthetic=1,dense=1",
            per_device_train_batch_size=4 // accumulated,
            gradient_accumulation_steps=accumulated,
            max_steps=8,
            save_strategy="steps",
            save_steps=5,
            logging_steps=1,
            dataloader_num_workers=workers,
        )
        step = trainer.training_step

        def watched(model, batch, *rest, seen=seen, step=step):
            seen.append(batch)
            return step(model, batch, *rest)

        trainer.training_step = watched
        trainer.train(str(tmp_path / resume) if resume else None)
        logs = [line for line in trainer.state.log_history if "loss" in line]
        runs.append((seen, [line["loss"] for line in logs], [line["epoch"] for line in logs]))
    (whole, losses, epochs), (rest, again, _) = runs
    assert len(whole) == 8 * accumulated and len(rest) == 3 * accumulated
    assert [batch["row_ids"] for batch in rest] == [batch["row_ids"] for batch in whole[5 * accumulated :]]
    assert again == pytest.approx(losses, abs=1e-6)
    if accumulated == 1:
        assert epochs == [0, 0, 1, 1, 1, 2, 2, 2]
        orders = [[row for batch in whole[i : i + 3] for row in batch["row_ids"]] for i in (0, 3)]
        assert sorted(orders[0]) == sorted(orders[1]) and orders[0] != orders[1]


def test_end_of_a_streams_pass_is_the_end_of_an_epoch(model, tmp_path):
    rows = make_dataset(10)
    trainer = make_trainer(
        model,
        tmp_path,
        rows.to_iterable_dataset(),
        rows,
        per_device_train_batch_size=4,
        max_steps=7,
        eval_strategy="epoch",
    )
    trainer.train()
    steps = [line["step"] for line in trainer.state.log_history if "eval_loss" in line]
    assert steps == [3, 6, 7]


def test_stream_that_does_not_know_its_columns(model, tmp_path):
    def rows():
        yield from SIX

    stream = IterableDataset.from_generator(rows)
    assert stream.column_names is None
    trainer = make_trainer(model, tmp_path, stream, stream, max_steps=2)
    trainer.train()
    assert trainer.state.global_step == 2 and trainer.evaluate()["eval_loss"] > 0


# Arguments that would do nothing ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompts", {"query": "a: "}),
        ("prompts", "a: "),
        ("batch_sampler", "no_duplicates"),
        ("multi_dataset_batch_sampler", "round_robin"),
        ("router_mapping", {"query": "query"}),
        ("train_sampling_strategy", "group_by_length"),
        ("label_smoothing_factor", 0.1),
        ("auto_find_batch_size", True),
        ("neftune_noise_alpha", 5.0),
        ("torch_empty_cache_steps", 10),
        ("use_liger_kernel", True),
    ],
)
def test_inherited_argument_that_has_no_effect_is_an_error(tmp_path, name, value):
    with pytest.raises(InputError, match=f"--{name} has no effect here"):
        ContrastiveArguments(str(tmp_path), **{name: value})


def test_learning_rate_of_a_part_is_honoured(model, tmp_path):
    rate = {r"embeddings": 1e-3}
    trainer = make_trainer(model, tmp_path, make_dataset(4), learning_rate_mapping=rate, learning_rate=1e-5)
    rates = {id(p): group["lr"] for group in trainer.create_optimizer().param_groups for p in group["params"]}
    named = dict(model.named_parameters())
    assert all(rates[id(p)] == (1e-3 if "embeddings" in name else 1e-5) for name, p in named.items())
