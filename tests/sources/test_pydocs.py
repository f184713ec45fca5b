from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from syneg import load_source
from syneg.sources import pydocs


@pytest.fixture(scope="module")
def source() -> pydocs.Source:
    return load_source("pydocs")


def test_the_recorded_pairs_are_the_training_split(source: pydocs.Source) -> None:
    recorded = [json.loads(line) for line in pydocs.RECORDINGS.read_text(encoding="utf-8").splitlines()]
    # Other releases of the documented packages have changed some docstrings.
    assert len(source.qrels["train"]) > 0.8 * len(recorded)
    texts = dict(zip(source.queries["id"][:], source.queries["text"][:], strict=True))
    assert all(texts[r["query_id"]] == r["query"] for r in recorded if r["query_id"] in source.qrels["train"])


def test_no_document_differs_between_processes(source: pydocs.Source) -> None:
    """pybind's signatures show default objects with their addresses in memory."""
    assert any(" object at 0x>" in text for text in source.corpus["text"])
    assert not any(re.search(r" at 0x[0-9a-f]+>", text) for text in source.corpus["text"])


def test_the_test_split_is_apart_and_every_query_is_one(source: pydocs.Source) -> None:
    assert len(source.qrels["test"]) == pydocs.TEST_SIZE
    assert not source.qrels["test"].keys() & source.qrels["train"].keys()
    assert source.query_ids.is_unique and len(set(source.queries["text"][:])) == len(source.queries)
    assert len(source.corpus) > 2500


def test_the_document_is_the_name_and_what_follows_the_query(source: pydocs.Source) -> None:
    row = source.document_ids.get_loc("os.symlink")
    assert source.queries[row]["text"] == "Create a symbolic link pointing to src named dst."
    document = source.documents([row])[0]
    assert document.startswith("os.symlink target_is_directory")
    assert source.queries[row]["text"] not in document


def test_a_changed_docstring_is_left_out_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = pydocs.RECORDINGS.read_text(encoding="utf-8").splitlines()[:6]
    records = [json.loads(line) for line in lines]
    records[0]["query"] = "What it said in an older release."
    records[1]["query_id"] = "json.no_such_function"
    changed = tmp_path / "recordings.jsonl"
    changed.write_text("".join(json.dumps(record) + "\n" for record in records))
    monkeypatch.setattr(pydocs, "RECORDINGS", changed)
    source = pydocs.pydocs_source()
    assert len(source.qrels["train"]) == 4
    assert any("2 of 6 recorded completions" in note for note in source.notes)
