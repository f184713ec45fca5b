"""What a build does once: scan, render, read; and what it leaves open."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset

import syneg
from dataset_builders import hardneg
from dataset_builders.hardneg import HardNegatives
from syneg.cli import main
from syneg.errors import InputError
from syneg.llm.journal import Journal
from syneg.sources import load_source
from syneg.writing.strategy import Strategy
from tests.test_build import options, record, recordings  # noqa: F401

OLD_JOURNAL = Path(__file__).parent / "llm" / "data" / "journal-0.1.0"


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the journal's scans, and for each strategy what it renders and parses."""
    found: Counter[str] = Counter()

    def counting(owner: Any, name: str, label: str) -> None:
        original = getattr(owner, name)

        def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
            found[label] += 1
            return original(self, *args, **kwargs)

        monkeypatch.setattr(owner, name, counted)

    from syneg.writing.self_reflection import SynegStrategy

    counting(Journal, "_scan", "scans")
    counting(SynegStrategy, "messages", "rendered")
    counting(Strategy, "parse", "parsed")
    return found


def test_a_build_scans_renders_and_parses_once(
    beir: Path,
    recordings: Path,  # noqa: F811
    encoder: str,
    tmp_path: Path,
    counts: Counter[str],
) -> None:
    words = ["build", *options(beir, recordings, encoder, tmp_path / "out")]
    assert main(words) == 0
    pairs = len(load_source(beir).pairs("train"))
    assert counts == {"rendered": pairs, "parsed": pairs}, "the first build has no journal to scan"
    counts.clear()
    assert main([*words, "--overwrite"]) == 0
    assert counts == {"scans": 1, "rendered": pairs, "parsed": pairs}
    counts.clear()
    shutil.copy(beir / "qrels" / "train.tsv", beir / "qrels" / "dev.tsv")
    assert main([*words, "--overwrite", "--split", "train,dev"]) == 0
    assert counts == {"scans": 1, "rendered": 2 * pairs, "parsed": 2 * pairs}, "one scan for all splits"


def test_a_journal_of_the_version_before_answers(beir: Path, tmp_path: Path) -> None:
    """It was written before the house was redrawn: keys and contents are those of then."""
    shutil.copytree(OLD_JOURNAL, tmp_path / "journal")
    before = {path.name: path.read_bytes() for path in (tmp_path / "journal").glob("*.jsonl")}
    # No such engine is to be had here: were anything asked for, this would fail.
    words = ["--source", str(beir), "--llm", "tests/an-llm", "--slots", "2", "--mirror", "true"]
    words += ["--journal", str(tmp_path / "journal"), "--output", str(tmp_path / "out")]
    assert main(["generate", *words, "--engine", "openai", "--base_urls", "http://127.0.0.1:9/v1"]) == 0
    rows = load_dataset(str(tmp_path / "out"), split="train")
    written = [n for row in rows if row["origin"] == "source" for n in row["negatives"]]
    assert len(written) == 20 and {n["generator"] for n in written} == {"then"}
    assert len(load_dataset(str(tmp_path / "out"), "dropped", split="train")) == 2
    assert {path.name: path.read_bytes() for path in (tmp_path / "journal").glob("*.jsonl")} == before


def test_the_builders_cache_changes_with_the_code(
    beir: Path,
    recordings: Path,  # noqa: F811
    encoder: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = options(beir, recordings, encoder, tmp_path / "out")[:-2]

    def identity() -> str:
        return HardNegatives.from_arguments(words, str(tmp_path / "cache")).config_id

    before = identity()
    assert identity() == before
    package = tmp_path / "copy" / "syneg"
    shutil.copytree(Path(syneg.__file__).parent, package)
    monkeypatch.setattr(syneg, "__file__", str(package / "__init__.py"))
    hardneg.code_digest.cache_clear()
    assert identity() == before, "where the code lies does not matter"
    for name in ("gating/checks.py", "rows.py", "llm/parsing.py"):
        (package / name).write_text((package / name).read_text() + "# changed\n")
        hardneg.code_digest.cache_clear()
        assert identity() != before, name
        before = identity()
    (package / "training" / "losses.py").write_text("# training makes no rows\n")
    hardneg.code_digest.cache_clear()
    assert identity() == before
    recordings.write_text(recordings.read_text() + "\n")
    assert identity() != before, "what an argument names is part of it"
    hardneg.code_digest.cache_clear()


def test_the_stages_from_python(
    beir: Path,
    recordings: Path,  # noqa: F811
    encoder: str,
    tmp_path: Path,
) -> None:
    mined = syneg.mine(beir, tmp_path / "mined", miners="bm25,dense", encoder=encoder, relative_margin="{}")
    replay = {"engine": "recorded", "recordings": str(recordings)}
    written = syneg.write_negatives(tmp_path / "written", dataset=mined, **replay)
    gated = syneg.gate(written, tmp_path / "gated")
    rows = load_dataset(str(gated), split="train")
    assert {n["source"] for row in rows for n in row["negatives"]} == {"synthetic", "bm25", "dense"}
    assert len(load_dataset(str(gated), "dropped", split="train")) == 1
    again = syneg.gate(gated, tmp_path / "again")
    assert len(load_dataset(str(again), "dropped", split="train")) == 1, "what was dropped before stays known"
    report = syneg.build(
        tmp_path / "built", source=str(beir), encoder=encoder, relative_margin={"dense": None}, **replay
    )
    assert report["train"]["rows"]["rows"] == len(rows) == 11
    card = (gated / "README.md").read_text()
    assert "syneg prompt" in card and "bm25" in card, "the card of gated rows says how they were made before"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda b, o: syneg.mine(b, o, minres="bm25"), "unknown argument 'minres'. Did you mean 'miners'?"),
        (lambda b, o: syneg.mine(b, b), "choose another output"),
        (lambda b, o: syneg.write_negatives(o), "either source or dataset"),
        (lambda b, o: syneg.gate(b / "none", o), "neither a folder here"),
        (lambda b, o: syneg.build(o, config="scifcat"), "Did you mean 'scifact'?"),
        (lambda b, o: syneg.mine(b, o, mining_depth=0), "mining_depth 0: must be at least 1"),
    ],
)
def test_errors_in_python_speak_of_arguments(beir: Path, tmp_path: Path, call: Any, message: str) -> None:
    with pytest.raises(InputError) as raised:
        call(beir, tmp_path / "out")
    assert message.lower() in str(raised.value).lower() and "--" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_shards_of_a_build_ask_side_by_side_and_the_build_without_asks_for_nothing(
    beir: Path,
    recordings: Path,  # noqa: F811
    encoder: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A shard mines nothing and writes no folder; the folder is that of a build in one go."""
    from syneg.mining.stage import Mining

    def build(output: Path, *words: str) -> str:
        assert main(["build", *options(beir, recordings, encoder, output), *words]) == 0
        return capsys.readouterr().out

    journal = str(tmp_path / "journal")
    shards = ["--journal", journal, "--shard"]
    with monkeypatch.context() as patch:
        patch.setattr(Mining, "prepare", lambda *_: pytest.fail("a shard mines"))
        told = [build(tmp_path / "out", *shards, shard) for shard in ("0/2", "1/2")]
    assert not (tmp_path / "out").exists()
    for i, text in enumerate(told):
        assert text.splitlines()[-2].startswith(f"shard {i}/2 is in {journal}")
        assert text.splitlines()[-1] == f"Next: the same command without --shard, with --journal {journal}"
    with Journal(journal) as filled:
        asked = len(filled)
    assert asked == len(load_source(beir).pairs("train"))
    build(tmp_path / "out", "--journal", journal)
    with Journal(journal) as filled:
        assert len(filled) == asked
    build(tmp_path / "whole")
    rows = [load_dataset(str(tmp_path / name), split="train").to_list() for name in ("out", "whole")]
    assert rows[0] == rows[1]
