from __future__ import annotations

import json

import pytest

from syneg.errors import InputError
from syneg.llm import estimate as estimates
from syneg.llm.engines.vllm_engine import chat_token_ids
from syneg.writing.arguments import GenerationArguments
from syneg.writing.negatives import negatives_of
from tests.llm.engines import ScriptedEngine


def test_tokens_are_counted_with_the_models_own_tokenizer(pairs, tiny_llama, tmp_path):
    from transformers import AutoTokenizer

    args = GenerationArguments(llm=str(tiny_llama), slots=2, tokens_per_second=100.0)
    engine = ScriptedEngine()
    estimate = estimates.estimate(negatives_of(pairs, args, tmp_path / "none", 0))
    assert not (tmp_path / "none").exists()
    negatives_of(pairs, args, tmp_path / "j", 0, engine=engine, progress=False).run()
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    counted = [
        chat_token_ids(tokenizer, r.messages, r.sampling["chat_template_options"]) for r in engine.asked
    ]
    assert estimate.prompt_tokens == sum(map(len, counted))
    system = len(tokenizer(estimate.example[0]["content"])["input_ids"])
    assert system < estimate.shared_tokens < min(map(len, counted))
    assert (estimate.open_requests, estimate.done_requests, estimate.rendered) == (12, 0, 12)
    assert estimate.gpu_hours == pytest.approx(estimate.completion_tokens / 100 / 3600)
    assert "as stated" in estimate.lines()[-1]
    json.dumps(estimate.to_dict())


def test_what_is_in_the_journal_is_not_counted_and_is_gone_by(pairs, tiny_llama, tmp_path):
    args = GenerationArguments(llm=str(tiny_llama))
    negatives_of(pairs[:4], args, tmp_path, 0, engine=ScriptedEngine(), progress=False).run()
    estimate = estimates.estimate(negatives_of(pairs, args, tmp_path, 0))
    assert (estimate.open_requests, estimate.done_requests) == (2, 4)
    assert estimate.completion_tokens == 2 * 20 and "4 completions" in estimate.completions_from
    assert estimate.gpu_hours is not None and "summary.json" in estimate.rate_from
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["kept"] == 4 and summary["run"]["asked"] == 4


def test_without_a_tokenizer_tokens_are_estimated(pairs, tmp_path):
    args = GenerationArguments(llm=str(tmp_path / "nowhere"), engine_options={"tensor_parallel_size": 2})
    estimate = estimates.estimate(negatives_of(pairs, args, tmp_path / "j", 0))
    assert "built-in estimate" in estimate.tokens_from and estimate.prompt_tokens > 6 * 300
    assert estimate.gpu_hours is None and "--tokens_per_second" in estimate.lines()[-1]
    assert estimate.gpus == 2 and estimate.shared_tokens > 300


def test_shards_are_disjoint_and_complete(pairs, tmp_path):
    args = [GenerationArguments(shard=f"{i}/3") for i in range(3)]
    for one in args:
        report = negatives_of(pairs, one, tmp_path, 0, engine=ScriptedEngine(), progress=False).run()
        assert (report.pairs, report.run.asked) == (2, 2)
    report = negatives_of(pairs, GenerationArguments(), tmp_path, 0, progress=False).run()
    assert (report.run.from_journal, report.run.asked) == (6, 0)
    for shard in ("3/3", "1", "-1/2", "a/b"):
        with pytest.raises(InputError, match="as in 0/4"):
            GenerationArguments(shard=shard)
