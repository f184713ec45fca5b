from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from syneg.config import ConfigParser, parse_mapping, split_commas
from syneg.errors import InputError


@dataclass
class Some:
    name: str
    count: int = 3
    rate: float = 0.5
    loud: bool = False
    words: list[str] = field(default_factory=lambda: ["a"])
    sizes: dict[str, Any] | str | None = None

    def __post_init__(self) -> None:
        self.words = split_commas(self.words)
        self.sizes = parse_mapping(self.sizes, "sizes")


def parse(*argv: str) -> Some:
    (some,) = ConfigParser(Some).parse(argv)
    return some


def write(folder: Path, text: str) -> str:
    path = folder / "config.yaml"
    path.write_text(text)
    return str(path)


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "name: file\ncount: 7\nloud: true\nwords: [b, c]\nsizes: {x: 1, y: [2]}\n")
    some = parse("--config", path, "--count", "8")
    assert some == Some("file", 8, 0.5, True, ["b", "c"], {"x": 1, "y": [2]})
    assert parse(f"--config={path}", "--words", "d,e").words == ["d", "e"]


def test_values_of_a_file_are_checked_like_those_of_the_command_line(tmp_path: Path) -> None:
    path = write(tmp_path, "name: file\ncount: many\n")
    with pytest.raises(InputError, match=r"--count.*'many'"):
        parse("--config", path)
    with pytest.raises(InputError, match=r"--count.*'many'"):
        parse("--name", "x", "--count", "many")


def test_unknown_keys_name_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path, "name: file\ncuont: 1\n")
    with pytest.raises(InputError, match=r"config\.yaml: unknown key 'cuont'. Did you mean 'count'\?"):
        parse("--config", path)
    with pytest.raises(InputError, match=r"unknown key '--naem'.* Did you mean '--name'\?"):
        parse("--naem", "x", "--name", "y")


def test_a_null_in_the_file_counts_as_given(tmp_path: Path) -> None:
    path = write(tmp_path, "name: null\nsizes: null\n")
    assert parse("--config", path).name is None


def test_negative_numbers_and_words_with_dashes(tmp_path: Path) -> None:
    path = write(tmp_path, "name: -x- y\nrate: -1.5\n")
    some = parse("--config", path)
    assert (some.name, some.rate) == ("-x- y", -1.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "line 1: not valid YAML"),
        ("- a\n- b\n", "found a list"),
    ],
)
def test_broken_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse("--config", write(tmp_path, text))


def test_missing_file_and_missing_key() -> None:
    with pytest.raises(InputError, match="no such configuration file"):
        parse("--config", "nowhere.yaml")
    with pytest.raises(InputError, match="--name"):
        parse()


def test_mappings() -> None:
    assert parse_mapping("a=1,b=x", "m") == {"a": 1, "b": "x"}
    assert parse_mapping('{"a": [1]}', "m") == {"a": [1]}
    with pytest.raises(InputError, match="--m"):
        parse_mapping("{a", "m")
