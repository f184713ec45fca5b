"""Help that can be read: groups, one spelling, what is required, the needed few by default."""

from __future__ import annotations

import re

import pytest

from syneg.cli import COMMANDS, main


def help_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    assert stop.value.code == 0
    return capsys.readouterr().out


def keys(text: str) -> list[str]:
    return re.findall(r"^  --(\S+)", text, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_key_once_and_spelled_one_way(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    few, every = (help_of(capsys, command, "--help", *more) for more in ([], ["all"]))
    assert len(set(keys(every))) == len(keys(every)) and set(keys(few)) <= set(keys(every))
    assert not any("-" in key for key in keys(every)), "one spelling"
    assert "default: None" not in every and "default: []" not in every and "--no_" not in every
    assert len(keys(few)) <= 24
    assert f"usage: syneg {command}" in few
    assert ("--help all lists all" in few) == (len(keys(few)) < len(keys(every)))


def test_groups_and_what_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    build = help_of(capsys, "build", "--help", "all")
    titles = [line[:-1] for line in build.splitlines() if re.fullmatch(r"[A-Z][A-Za-z ,-]*:", line)]
    assert titles == [
        *("Data set", "Source", "Mining", "LLM", "Writing", "Gates", "Output", "Configuration"),
    ]
    assert re.search(r"--output FOLDER +The folder to write\. \(required\)", build)
    assert build.startswith("usage: syneg build --output FOLDER")
    assert re.search(r"--overwrite true\|false", build)
    assert re.search(r"--language TEXT[^(]*\(default:\s+positive\)", build)
    train = help_of(capsys, "train", "--help", "all")
    for title, key in {"Loss": "temperature", "Step": "gradient_cache", "Training": "learning_rate"}.items():
        assert f"  --{key} " in train.split(f"\n{title}:\n")[1].split("\n\n")[0], key
    assert "  --guard " not in train or "Guarded" not in train
    assert len(keys(train)) > 150 and len(keys(help_of(capsys, "train", "--help"))) < 20


def test_both_spellings_are_still_read(beir, tmp_path) -> None:
    words = ["mine", "--source", str(beir), "--miners", "bm25", "--mined-per-miner", "2"]
    assert main([*words, "--output", str(tmp_path / "out")]) == 0
