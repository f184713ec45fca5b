import pytest
import torch
from torch.utils.data import DataLoader

from syneg.errors import InputError
from syneg.training.collator import SyNegCollator
from syneg.training.mixing import Mixture

from .conftest import make_dataset, make_rows


def texts_of(model, batch):
    ids = batch["texts"]["tokens"]["input_ids"].split(batch["texts"]["lengths"].tolist())
    return [model.tokenizer.decode(i, skip_special_tokens=True) for i in ids]


def negatives_of(model, batch):
    texts = texts_of(model, batch)
    table = batch["instances"]["negatives"].tolist()
    return {
        row: [texts[i] for i in line if i >= 0] for row, line in zip(batch["row_ids"], table, strict=True)
    }


def test_equal_texts_once_and_instances_point_to_them(tiny_model):
    rows = make_rows(6)
    batch = SyNegCollator(tiny_model, Mixture({"synthetic": 1, "dense": 2}))(rows)
    texts = texts_of(tiny_model, batch)
    assert len(texts) == len(set(texts))
    instances = batch["instances"]
    assert [texts[i] for i in instances["query"]] == [row["query"] for row in rows]
    assert [texts[i] for i in instances["positive"]] == [row["positive"] for row in rows]
    for row, line in zip(rows, instances["negatives"].tolist(), strict=True):
        assert len(line) == 3 and {texts[i] for i in line} <= {n["text"] for n in row["negatives"]}


def test_draws_do_not_depend_on_order_batches_or_workers(tiny_model):
    dataset = make_dataset(16)
    collator = SyNegCollator(tiny_model, {"synthetic": 1, "dense": 2}, seed=3)

    def draws(batch_size, workers, order):
        collator.set_epoch(0)
        loader = DataLoader(
            dataset.select(order),
            batch_size=batch_size,
            num_workers=workers,
            collate_fn=collator,
            persistent_workers=workers > 0,
        )
        found = []
        for epoch in range(2):
            collator.set_epoch(epoch)
            epoch_draws = {}
            for batch in loader:
                epoch_draws |= negatives_of(tiny_model, batch)
            found.append(epoch_draws)
        return found

    first = draws(4, 0, range(16))
    assert first == draws(5, 2, list(reversed(range(16))))
    assert first[0] != first[1]


def test_rows_of_any_origin(tiny_model):
    collator = SyNegCollator(tiny_model)
    triplet = collator([{"anchor": "ba be", "positive": "da di", "negative": "fa fe"}])
    assert list(negatives_of(tiny_model, triplet).values()) == [["fa fe"]]
    tuples = collator([{"anchor": "ba be", "positive": "da", "negative_1": "fa", "negative_2": "ga"}])
    assert list(negatives_of(tiny_model, tuples).values()) == [["fa", "ga"]]
    lists = collator([{"query": "ba", "positive": "da", "negative": ["fa", "ga", "ha"]}])
    assert list(negatives_of(tiny_model, lists).values()) == [["fa", "ga", "ha"]]


def test_missing_column_and_empty_text_are_input_errors(tiny_model):
    collator = SyNegCollator(tiny_model)
    with pytest.raises(InputError, match="no positive"):
        collator([{"query": "ba", "negative": "da"}])
    with pytest.raises(InputError, match="no text"):
        collator([{"query": "ba", "positive": ""}])


def test_row_without_negatives_is_named_or_counted(tiny_model):
    row = make_rows(6)[0] | {"negatives": []}
    with pytest.raises(InputError, match="q0/d0"):
        SyNegCollator(tiny_model, {"dense": 1})([row])
    batch = SyNegCollator(tiny_model, {"dense": 1}, empty_rows="in_batch")([row])
    assert batch["counts"]["without_negatives"] == 1


def test_known_positives_of_the_query_are_not_drawn(tiny_model):
    dataset = make_dataset(8, shared_queries=True)
    rows = dataset.to_list()
    # The sibling's positive stands among the negatives, once by id and once by text.
    rows[0]["negatives"] = [
        {**rows[0]["negatives"][0], "text": "other words", "doc_id": "d1"},
        {**rows[0]["negatives"][0], "text": rows[1]["positive"].upper()},
        {**rows[0]["negatives"][0], "text": "ba be bi", "doc_id": "x"},
    ]
    collator = SyNegCollator(tiny_model)
    collator.learn_positives(dataset)
    assert list(negatives_of(tiny_model, collator(rows[:1])).values()) == [["ba be bi"]]


def test_prompts_a_side(tiny_model):
    tiny_model.prompts = {"query": "ba ", "document": "da "}
    row = {"query": "same", "positive": "be", "negative": "same"}
    row = {"query": "fe", "positive": "be", "negative": "fo"}
    assert texts_of(tiny_model, SyNegCollator(tiny_model)([row])) == ["ba fe", "da be", "da fo"]
    given = SyNegCollator(tiny_model, query_prompt="", document_prompt="ga ")([row])
    assert texts_of(tiny_model, given) == ["fe", "ga be", "ga fo"]


def test_equal_texts_with_different_prompts_stay_apart(tiny_model):
    tiny_model.prompts = {"query": "ba ", "document": ""}
    rows = [
        {"query": "fe", "positive": "be", "negative": "fo"},
        {"query": "be", "positive": "ga", "negative": "fo"},
    ]
    assert texts_of(tiny_model, SyNegCollator(tiny_model)(rows)) == ["ba fe", "ba be", "be", "ga", "fo"]


def test_empty_share_of_a_batch(tiny_model):
    batch = SyNegCollator(tiny_model, {"dense": 1})([])
    assert len(batch["texts"]["lengths"]) == 1
    assert batch["instances"]["query"].shape == (0,)
    assert batch["instances"]["negatives"].shape == (0, 0)


def test_unpadded_tokens_are_those_of_the_tokenizer(tiny_model):
    rows = make_rows(10)
    batch = SyNegCollator(tiny_model)(rows)
    ids = batch["texts"]["tokens"]["input_ids"].split(batch["texts"]["lengths"].tolist())
    for text, found in zip(texts_of(tiny_model, batch), ids, strict=True):
        assert torch.equal(found, torch.tensor(tiny_model.tokenizer(text, truncation=True)["input_ids"]))
