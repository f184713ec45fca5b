"""What a person gets from the command line for bad input: one line, and exit code 2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from syneg.cli import COMMANDS, main


def fails(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Returns the one line that a failing command prints."""
    capsys.readouterr()
    assert main(list(argv)) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert "--config" in capsys.readouterr().out


def test_unknown_command_key_engine_and_miner(
    beir: Path, encoder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "Did you mean 'build'?" in fails(capsys, "biuld")
    assert "Did you mean '--source'?" in fails(capsys, "mine", "--sorce", "x", "--output", "y")
    output = ["--source", str(beir), "--output", str(tmp_path / "out")]
    assert "Did you mean 'recorded'?" in fails(capsys, "generate", *output, "--engine", "recordd")
    assert "Did you mean 'dense'?" in fails(capsys, "mine", *output, "--miners", "bm25,dens")
    assert "Did you mean 'checks'?" in fails(capsys, "build", *output, "--gates", "check")
    assert "--output" in fails(capsys, "mine", "--source", str(beir))


def test_missing_and_malformed_input(beir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = ["--output", str(tmp_path / "out"), "--miners", "bm25"]
    assert "no such folder" in fails(capsys, "mine", "--source", str(tmp_path / "nowhere"), *output)
    with open(beir / "qrels" / "train.tsv", "a") as file:
        file.write("q0\tnowhere\t1\n")
    assert "'nowhere' is not in the corpus" in fails(capsys, "mine", "--source", str(beir), *output)
    (beir / "corpus.jsonl").write_text("")
    assert "the corpus is empty" in fails(capsys, "mine", "--source", str(beir), *output)
    (beir / "queries.jsonl").unlink()
    assert "no such file" in fails(capsys, "mine", "--source", str(beir), *output)
    assert "neither a folder here" in fails(
        capsys, "gate", "--dataset", str(tmp_path / "no/where/x"), *output[:2]
    )
    assert not (tmp_path / "out").exists()


def test_recordings_that_cannot_be_read(
    beir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["generate", "--source", str(beir), "--output", str(tmp_path / "out"), "--engine", "recorded"]
    assert "needs --recordings" in fails(capsys, *words)
    path = tmp_path / "recordings.jsonl"
    path.write_text('{"query_id": "q0", "positive_id": "d0", "text": "fine"}\n{"query_id": \n')
    assert "line 2" in fails(capsys, *words, "--recordings", str(path))
    path.write_text('{"query_id": "q0", "positive_id": "d0", "text": "fine"}\n')
    line = fails(capsys, *words, "--recordings", str(path))
    assert "q1" in line or "q0" in line  # the request that was not recorded is named
    assert main([*words, "--recordings", str(path), "--on_miss", "skip"]) == 0


def test_help_is_light() -> None:
    """`syneg --help` imports neither torch nor datasets nor transformers."""
    code = (
        "import sys; from syneg.cli import main; main(['--help']); "
        "heavy = {'torch', 'datasets', 'transformers', 'pandas'} & set(sys.modules); "
        "sys.exit(', '.join(heavy) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "usage: syneg" in result.stdout
