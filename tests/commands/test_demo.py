"""The demo on a part of the embedded source."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from datasets import load_dataset
from sentence_transformers import SentenceTransformer

from syneg.cli import main
from syneg.sources import Source, pydocs


def part_of(source: Source) -> Source:
    sizes = {"train": 32, "test": 12}
    qrels = {split: dict(list(source.qrels[split].items())[:size]) for split, size in sizes.items()}
    needed = {q for judged in qrels.values() for q in judged}
    kept = [i for i, name in enumerate(source.document_ids) if name in needed or i % 40 == 0]
    return Source(source.name, source.corpus.select(kept), source.queries.select(kept), qrels)


def test_the_demo_from_source_to_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = part_of(pydocs.pydocs_source())
    monkeypatch.setattr(pydocs, "pydocs_source", lambda: small)
    output = tmp_path / "demo"
    assert main(["demo", "--output", str(output), "--max_length", "32"]) == 0
    table = (output / "table.md").read_text()
    names = [line.split("|")[1].strip() for line in table.splitlines()[2:]]
    assert names == ["zero-shot", "in-batch only", "mined only", "hybrid"]
    printed = capsys.readouterr().out
    assert table in printed and str(output / "dataset") in printed
    rows = load_dataset(str(output / "dataset"), split="train")
    assert len(rows) == 32
    assert {n["source"] for row in rows for n in row["negatives"]} == {"synthetic", "bm25", "dense"}
    # The figures in the table are those of MTEB's own result files.
    scores = [float(line.split("|")[2]) for line in table.splitlines()[2:]]
    results = [json.loads(p.read_text()) for p in (output / "results").rglob("pydocs*.json")]
    found = {round(part["ndcg_at_10"], 4) for r in results for part in r["scores"]["test"]}
    assert set(scores) == found
    weights = [SentenceTransformer(str(output / name))[0].model for name in ("mined-only", "hybrid")]
    different = [not a.equal(b) for a, b in zip(*(m.parameters() for m in weights), strict=True)]
    assert any(different)
