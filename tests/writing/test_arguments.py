from __future__ import annotations

import pytest

from syneg.config import ConfigParser
from syneg.errors import InputError
from syneg.writing.arguments import DEFAULT_ATTRIBUTES, GenerationArguments


def parse(*argv: str) -> GenerationArguments:
    (args,) = ConfigParser([GenerationArguments]).parse(list(argv))
    return args


def test_every_kind_of_value_comes_through_the_command_line_and_a_file(tmp_path):
    args = parse(
        *("--engine", "openai", "--base_urls", "http://a/v1,http://b/v1", "--concurrency", "7"),
        *("--engine_options", "timeout=3", "--with_attributes", "false", "--tokens_per_second", "99.5"),
        *("--attributes", '{"domain": ["x"]}', "--mirror", "true", "--shard", "1/2", "--dry_run"),
    )
    assert args.base_urls == ["http://a/v1", "http://b/v1"] and args.concurrency == 7
    assert args.engine_options == {"timeout": 3} and args.tokens_per_second == 99.5
    assert args.attributes == DEFAULT_ATTRIBUTES | {"domain": ["x"]}
    assert (args.mirror, args.with_attributes, args.dry_run) == (True, False, True)
    assert args.chat_template_options == {"enable_thinking": False}
    path = tmp_path / "c.yaml"
    path.write_text(
        "attributes:\n  length: [short, long]\nengine_options: {dtype: float32, enforce_eager: true}\n"
        "chat_template_options: {}\ndry_run_prompts: 5\n"
    )
    args = parse("--config", str(path), "--slots", "2")
    assert args.attributes["length"] == ["short", "long"] and args.slots == 2
    assert args.engine_options == {"dtype": "float32", "enforce_eager": True}
    assert args.chat_template_options == {} and args.dry_run_prompts == 5


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--slots", "0"], "--slots must be at least 1"),
        (["--concurrency", "0"], "--concurrency must be at least 1"),
        (["--dry_run_prompts", "0"], "--dry_run_prompts must be at least 1"),
        (["--top_p", "0"], "--top_p above 0"),
        (["--temperature", "-1"], "--temperature must be at least 0"),
        (["--tokens_per_second", "0"], "--tokens_per_second must be above 0"),
        (["--stratgy", "syneg"], "Did you mean '--strategy'"),
        (["--on_miss", "ignore"], "ignore"),
        (["--engine_options", "nonsense"], "--engine_options: 'nonsense' is neither JSON"),
    ],
)
def test_bad_values_are_named(argv, message):
    with pytest.raises(InputError, match=message):
        parse(*argv)
