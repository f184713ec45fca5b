from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from datasets import load_dataset

from syneg.cli import main
from syneg.hub.model_cards import ModelCardInfo, model_card, read_mteb_results
from syneg.sources import load_source
from tests.stand_in import tiny_source


@pytest.fixture
def words(tmp_path: Path, encoder: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command line on a folder of texts, with recorded queries and a random encoder."""
    monkeypatch.setenv("SYNEG_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "manuals"
    folder.mkdir()
    source = tiny_source()
    recordings = tmp_path / "lines.jsonl"
    with open(recordings, "w") as file:
        for i, text in enumerate(source.documents()):
            (folder / f"{i}.md").write_text(text)
            record = {"doc_id": f"{i}.md", "query": f"what is it that {text.split(',')[0].lower()}"}
            file.write(json.dumps(record) + "\n")
    options = ["--engine", "recorded", "--recordings", str(recordings), "--gates", "leaks,duplicates"]
    options += ["--round_trip", "bm25", "--per_device_train_batch_size", "8", "--max_length", "32"]
    return ["tune", "--source", str(folder), "--model", encoder, *options]


def test_from_a_folder_of_texts_to_a_model_and_its_figure_before_and_after(words, tmp_path, capsys):
    output = tmp_path / "out"
    assert main([*words, "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    assert (output / "model" / "modules.json").is_file()
    asked = load_source(output / "asked")
    assert set(asked.qrels) == {"train", "test"} and len(asked.queries) == 60
    assert "split test is written" in printed and "favour what resembles the writer" in printed
    assert (
        "asked (written), test, against" in printed
        and "| asked (written), test |" in printed
        and "nDCG@10" in printed
    )
    # What is stored says so, too: MTEB's file, the table, the model's card.
    (mine,) = (output / "results" / "results").glob("local__model/*/asked (written).json")
    assert json.loads(mine.read_text())["task_name"] == "asked (written)"
    assert "asked (written), test" in (output / "results" / "table.md").read_text()
    card = (output / "model" / "README.md").read_text()
    assert "| queries held back (written) | nDCG@10" in card
    results = read_mteb_results(mine.parent)
    text = model_card(ModelCardInfo("m", results=results), output / "model")
    assert "<td>asked (written)</td><td>test</td>" in text and "name: asked (written)" in text
    card = (output / "mined" / "README.md").read_text()
    assert "<td>train (written)</td>" in card and "figures on them favour" in card
    assert main([*words, "--output", str(output)]) == 2
    assert "model: exists" in capsys.readouterr().err


def test_a_real_test_split_is_what_counts_where_there_is_one(words, tmp_path, encoder, capsys):
    source = tiny_source().save(tmp_path / "source")
    at = words.index("--source") + 1
    recordings = Path(words[words.index("--recordings") + 1])
    recordings.write_text(recordings.read_text().replace(".md", "").replace('"doc_id": "', '"doc_id": "d'))
    words[at] = str(source)
    assert main([*words, "--output", str(tmp_path / "out"), "--save_best", "0"]) == 0
    printed = capsys.readouterr().out
    assert "source, test, against" in printed and "favour what resembles" not in printed
    assert set(load_source(tmp_path / "out" / "asked").qrels) == {"train"}


def test_a_model_that_is_none_is_told_before_anything_is_asked(words, tmp_path, capsys):
    words[words.index("--model") + 1] = "./none"
    assert main([*words, "--output", str(tmp_path / "out")]) == 2
    assert "no such folder" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_real_pairs_are_trained_on_too_where_they_are_asked_for(words, tmp_path, capsys):
    source = tiny_source().save(tmp_path / "source")
    recordings = Path(words[words.index("--recordings") + 1])
    recordings.write_text(recordings.read_text().replace(".md", "").replace('"doc_id": "', '"doc_id": "d'))
    words[words.index("--source") + 1] = str(source)
    assert main([*words, "--output", str(tmp_path / "out"), "--with_pairs", "true"]) == 0
    printed = capsys.readouterr().out
    assert "8 real queries beside them in split train" in printed and "source, test, against" in printed
    origins = Counter(load_dataset(str(tmp_path / "out" / "mined"), split="train")["origin"])
    assert origins["source"] == 11 and origins["written"] > 30
    # Two epochs, since some are real; `save_best` measures after each.
    card = (tmp_path / "out" / "mined" / "README.md").read_text()
    assert "<td>train (partly written)</td>" in card and "Pairs by origin" in card
    state = json.loads((tmp_path / "out" / "model" / "trainer_state.json").read_text())
    assert state["epoch"] == 2.0
