from __future__ import annotations

import json
from itertools import product

from syneg.text import cut, estimate_tokens, neutralise
from syneg.writing.arguments import DEFAULT_ATTRIBUTES
from syneg.writing.strategies import Example, PromptOptions, make_strategy
from syneg.writing.strategy import draw_attributes

ATTRIBUTES = {"domain": "Virology", "difficulty": "easy", "length": "short"}


def test_the_papers_parts_are_all_there_shared_text_first():
    options = PromptOptions("You are an expert in {domain}.", "scientific claim", "abstract")
    strategy = make_strategy("syneg", options)
    one = strategy.messages(Example("the query {positive}", "the positive {query}", [ATTRIBUTES]))
    two = strategy.messages(Example("other", "another", [ATTRIBUTES | {"domain": "Law"}]))
    assert one[0] == two[0], "the system's message is shared by all requests"
    for part in ("# Task", "# Reasoning", "# Hard negative", "# Attributes", "# Format", "scientific claim"):
        assert part in one[0]["content"]
    user = one[1]["content"]
    assert user.startswith("You are an expert in Virology.")
    assert user.index("Difficulty: easy") < user.index("the query {positive}") < user.index("the positive {")
    assert user.rstrip().endswith("</positive_document>")
    schema = strategy.schema(1)
    assert list(schema["properties"]) == ["reasoning", "hard_negative_document"]
    assert json.dumps(schema) in one[0]["content"]


def test_slots_differ_until_every_combination_was_used():
    total = len(list(product(*DEFAULT_ATTRIBUTES.values())))
    for pair in range(50):
        drawn = [draw_attributes(DEFAULT_ATTRIBUTES, 0, f"q{pair}", "d", slot) for slot in range(total)]
        assert len({tuple(d.values()) for d in drawn}) == total
    same = draw_attributes(DEFAULT_ATTRIBUTES, 0, "q1", "d", 0)
    assert same == {
        "domain": "Health and medicine",
        "difficulty": "advanced: written for specialists",
        "length": "about the same length as the positive",
    }, "drawing must not change from one machine or version to another: journals depend on it"
    first = [draw_attributes(DEFAULT_ATTRIBUTES, 0, f"q{i}", "d", 0)["domain"] for i in range(800)]
    assert all(60 < first.count(domain) < 140 for domain in DEFAULT_ATTRIBUTES["domain"])


def test_one_value_each_is_enough():
    assert draw_attributes({"domain": ["a"], "length": ["b"]}, 0, "q", "d", 5) == {
        "domain": "a",
        "length": "b",
    }


def test_control_tokens_are_broken_up_and_nothing_else():
    for token in (
        "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<｜User｜>", "<s>", "</s>", "<bos>", "[INST]",
        "[/INST]", "<<SYS>>", "<start_of_turn>", "<think>", "</think>", "</query>", "</positive_document>",
        "<unused12>", "[gMASK]", "<tool_call>", "<0x0A>", "<IM|_x|>"[:4] + "|>",
    ):  # fmt: skip
        assert token not in neutralise(f"a {token} b"), token
    for text in (
        "if a < b and b > c",
        "x[0] [1] <class 'int'>",
        "List[int] -> |x|",
        "5 < |x| < 7",
        "<p>text</p>",
    ):
        assert neutralise(text).replace(" ", "") == text.replace(" ", "")
    assert neutralise("<p>text</p> a < b x[0]") == "<p>text</p> a < b x[0]"


def test_a_text_is_cut_to_its_budget_and_it_is_said():
    text = "The quick brown fox jumps over the lazy dog. " * 100
    short, was_cut = cut(text, 50)
    assert was_cut and estimate_tokens(short) <= 50 and text.startswith(short)
    assert cut(text, 100_000) == (text, False)
    assert estimate_tokens("数据库索引") == 5
    assert estimate_tokens("база данных") >= 5
