from __future__ import annotations

import json

import pytest

from syneg.llm.parsing import ParseFailure, strip_thinking
from syneg.writing.strategies import make_strategy
from syneg.writing.strategy import Written

GOOD = '{"reasoning": "r", "hard_negative_document": "d"}'


def parse(text: str, finish_reason: str = "stop") -> list[Written]:
    return make_strategy("syneg").parse(text, finish_reason, 1)


@pytest.mark.parametrize(
    ("text", "finish_reason", "kind"),
    [
        ("", "stop", "empty"),
        ("  \n", "stop", "empty"),
        ("", "length", "truncated"),
        (GOOD[:-5], "length", "truncated"),
        (GOOD[:-5], "stop", "not_json"),
        ("I cannot help with that.", "stop", "not_json"),
        ("__import__('os').system('true')", "stop", "not_json"),
        ("[" * 100_000, "stop", "not_json"),
        ("1" * 10_000, "stop", "not_json"),
        ('["a"]', "stop", "wrong_shape"),
        ("null", "stop", "wrong_shape"),
        ("{}", "stop", "wrong_shape"),
        ('{"reasoning": "r", "hard_negative_document": 3}', "stop", "wrong_shape"),
        ('{"reasoning": ["r"], "hard_negative_document": "d"}', "stop", "wrong_shape"),
        ('{"reasoning": "r", "hard_negative_document": "\\ud800"}', "stop", "wrong_shape"),
        ('{"reasoning": "r", "hard_negative_document": " \\n "}', "stop", "empty"),
        ("", "prompt_too_long", "prompt_too_long"),
    ],
)
def test_each_failure_has_its_kind(text, finish_reason, kind):
    with pytest.raises(ParseFailure) as failure:
        parse(text, finish_reason)
    assert failure.value.kind == kind


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"  {GOOD}\n",
        f"```json\n{GOOD}\n```",
        f"<think>\nhm {{}} \n</think>\n\n{GOOD}",
        f"hm, so the answer is\n</think>{GOOD}",
    ],
)
def test_what_can_be_read_is_read(text):
    assert parse(text) == [Written("d", "r", None)]


def test_a_whole_object_counts_even_at_the_limit():
    assert parse(GOOD, "length") == [Written("d", "r")]


def test_thinking_inside_the_document_is_left_alone():
    text = json.dumps({"reasoning": "r", "hard_negative_document": "the </think> tag"})
    assert strip_thinking(text) == (text, False)
    assert parse(text)[0].text == "the </think> tag"


def test_raw_control_characters_and_nul():
    assert parse('{"reasoning": "r", "hard_negative_document": "a\nb\\u0000c"}')[0].text == "a\nbc"


def test_a_recorded_completion_is_the_parsers_inverse():
    strategy = make_strategy("syneg")
    written = Written('a "document"\n{x}', "why", "a query")
    assert strategy.parse(strategy.completion_text([written]), "stop", 1) == [written]
