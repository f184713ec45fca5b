from __future__ import annotations

from pathlib import Path

import pytest
from datasets import load_dataset

from syneg.commands.gate import main as gate
from syneg.commands.mine import main as mine
from syneg.errors import InputError
from tests.gating.test_judge import Answers, answer
from tests.stand_in import tiny_source


@pytest.fixture()
def mined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SYNEG_CACHE", str(tmp_path / "cache"))
    tiny_source().save(tmp_path / "source")
    mine(["--source", str(tmp_path / "source"), "--miners", "bm25", "--output", str(tmp_path / "mined")])
    return tmp_path / "mined"


def test_the_judge_relabels_on_a_finished_data_set(
    mined: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def say(document: str, attempt: int) -> str:
        return answer("yes", "item30") if "item30" in document else answer("no")

    engine = Answers(say)
    monkeypatch.setattr("syneg.llm.generation.make_engine", lambda *_: engine)
    monkeypatch.setattr("syneg.gating.stage.check_ready", lambda args: None)  # The engine is the one above.
    output = tmp_path / "judged"
    gate(["--dataset", str(mined), "--output", str(output), "--gates", "judge"])
    rows = load_dataset(str(output), split="train")
    added = [row for row in rows if row["origin"] == "relabelled"]
    assert added and all(row["positive_id"] == "d30" for row in added)
    assert engine.closed and (tmp_path / "judged-journal" / "judge").is_dir()
    assert all(n["verdict"] == "no" for row in rows for n in row["negatives"])
    dropped = load_dataset(str(output), "dropped", split="train")
    assert set(dropped["gate"]) == {"judge"}
    assert "relabelled as a positive" in capsys.readouterr().out


def test_an_audit_needs_both_kinds(mined: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 10 synthetic"):
        gate(["--dataset", str(mined), "--output", str(tmp_path / "audited"), "--audit", "true"])
