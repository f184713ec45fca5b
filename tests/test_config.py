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


@pytest.mark.parametrize("key", ["count", "loud"])
def test_a_whole_number_and_a_truth_value_are_never_null(tmp_path: Path, key: str) -> None:
    with pytest.raises(InputError, match=f"--{key} must not be null; give a value, or leave it out"):
        parse("--config", write(tmp_path, f"name: x\n{key}: null\n"))


def test_negative_numbers_and_words_with_dashes(tmp_path: Path) -> None:
    path = write(tmp_path, "name: -x- y\nrate: -1.5\n")
    some = parse("--config", path)
    assert (some.name, some.rate) == ("-x- y", -1.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "line 1: not valid YAML"),
        ("- a\n- b\n", "found a list"),
        ("name: a\ncount: 1\nname: b\n", "line 3: .*key 'name' stands twice"),
        ("name: a\nsizes: {x: 1, x: 2}\n", "line 2: .*key 'x' stands twice"),
        ("name: " + "[" * 5000, "not valid YAML"),
        ("count: " + "9" * 5000, "not valid YAML"),
        ("name: a\0b\n", "not valid YAML"),
        ("name: !!python/name:os.system\n", "line 1: not valid YAML"),
        ("name: a\ncount: [1, 2]\n", "--count"),
        ("name: a\nsizes: [1]\n", "--sizes.*neither JSON"),
        ("name: a\nsizes: 'x=[1'\n", "--sizes.*neither JSON"),
    ],
)
def test_broken_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse("--config", write(tmp_path, text))


@pytest.mark.parametrize("word", ["2024-13-45", "2024-01-05", "2024-01-05T10:00:00"])
def test_a_date_is_text_as_it_was_written(tmp_path: Path, word: str) -> None:
    assert parse("--config", write(tmp_path, f"name: {word}\n")).name == word


def test_a_file_in_another_encoding_and_one_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes("name: é\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"config\.yaml: not valid YAML: .*utf-8"):
        parse("--config", str(path))
    path.write_bytes("\ufeffname: é\n".encode())
    assert parse("--config", str(path)).name == "é"


def test_of_several_files_a_later_one_wins(tmp_path: Path) -> None:
    base, mine = tmp_path / "base.yaml", tmp_path / "mine.yaml"
    base.write_text("name: 'out/{config}'\ncount: 1\nrate: null\nwords: [b, c]\nsizes: {x: 1}\n")
    mine.write_text("count: 2\nrate: 0.25\nwords: []\nsizes: {y: 2024-01-02}\n")
    some = parse("--config", str(base), "--rate", "0.75", f"--config={mine}")
    assert some == Some("out/base-mine", 2, 0.75, False, [], {"y": "2024-01-02"})
    assert parse("--config", str(mine), "--config", str(base)) == Some(
        "out/mine-base", 1, None, False, ["b", "c"], {"x": 1}
    )
    mine.write_text("cuont: 2\n")
    with pytest.raises(InputError, match=r"mine\.yaml: unknown key 'cuont'. Did you mean 'count'\?"):
        parse("--config", str(base), "--config", str(mine))
    with pytest.raises(InputError, match="--config needs the name"):
        parse("--config", str(base), "--config")


def test_a_recipe_is_a_data_set_and_a_backbone(tmp_path: Path) -> None:
    for name, text in {
        "data/food": "name: out/{config}\ncount: 5\n",
        "backbones/tiny": "rate: 2\n",
        "other/own": "name: own\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.yaml").write_text(text)
    assert parse("--config", str(tmp_path / "food/tiny.yaml")) == Some("out/food-tiny", 5, 2.0)
    # A file that is there is that file.
    assert parse("--config", str(tmp_path / "other/own.yaml")) == Some("own")
    with pytest.raises(InputError, match=r"no such configuration file. Did you mean 'food/tiny\.yaml'\?"):
        parse("--config", str(tmp_path / "food/tinny.yaml"))


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
