"""`syneg init`, and what becomes of a shipped configuration on another source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import syneg
from syneg import load_source
from syneg.building import ShippedConfigParser, data_set_parser, stage_arguments
from syneg.cli import main
from syneg.llm.requests import Completion
from syneg.writing.arguments import DEFAULT_ATTRIBUTES
from tests.commands.test_cli import fails
from tests.stand_in import tiny_source

GERMAN = [
    ("Wie hoch ist der Berg?", "Der Berg ist zweitausend Meter hoch und liegt im Süden des Landes."),
    ("Wo fließt der Fluss?", "Der Fluss fließt von den Alpen durch die Stadt bis zum Meer."),
    ("Wann fährt der Zug?", "Der Zug fährt jeden Morgen um sieben Uhr vom Bahnhof ab."),
]


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tiny_source().save(tmp_path / "data" / "mine")
    return Path("data/mine")


def test_a_file_for_a_source_parses_and_builds(
    mine: Path, encoder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", str(mine)]) == 0
    printed = capsys.readouterr().out
    assert "mine.yaml: mine has 60 documents, 12 queries, language 'en', query kind 'question'" in printed
    assert printed.splitlines()[-1] == "Next: syneg build --config mine.yaml --output out/mine --dry_run"
    written = yaml.safe_load(Path("mine.yaml").read_text())
    assert (written["name"], written["source"], written["languages"]) == ("mine", "data/mine", ["en"])
    assert written["attributes"] == DEFAULT_ATTRIBUTES and written["bm25_language"] == "english"
    assert written["document_kind"] == "short text, its title first"
    keys = [line for line in Path("mine.yaml").read_text().splitlines() if line[:1].isalpha()]
    assert len(keys) == len(written)
    # It is a whole configuration: only what is not to be had here is given beside it.
    pairs = list(load_source(mine).pairs("train"))
    Path("lines.jsonl").write_text(
        "".join(
            json.dumps({"query_id": p.query_id, "positive_id": p.positive_id, "text": f"Text of {i}, other."})
            + "\n"
            for i, p in enumerate(pairs)
        )
    )
    words = ["--config", "mine.yaml", "--encoder", encoder, "--engine", "recorded"]
    words += ["--recordings", "lines.jsonl", "--gates", "checks", "--with_reflection", "false"]
    words += ["--relative_margin", "{}", "--language", "any", "--min_length_ratio", "0"]
    assert main(["build", *words, "--output", "out/mine"]) == 0
    card = Path("out/mine/README.md").read_text()
    assert "pretty_name: mine" in card and "license" not in card.split("---")[1]
    assert "out/mine: train has 11 rows with" in (printed := capsys.readouterr().out)
    assert "Next: syneg inspect out/mine\n  or: syneg train" in printed


def test_a_file_without_a_test_split_is_told_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [json.dumps({"question": q, "answer": a}, ensure_ascii=False) for q, a in GERMAN]
    Path("bahn.jsonl").write_text("\n".join(lines))
    assert main(["init", "bahn.jsonl"]) == 0
    text = Path("bahn.yaml").read_text()
    Path("parted.yaml").write_text(text.replace("# test_share: 0.2", "test_share: 0.2"))
    shares = [
        data_set_parser().parse(["--config", name])[1].test_share for name in ("bahn.yaml", "parted.yaml")
    ]
    assert shares == [0.0, 0.2]
    # Where there is one, or one is cut off, there is nothing to tell.
    assert main(["init", "bahn.jsonl", "--test_share", "0.4", "--overwrite", "true"]) == 0
    assert Path("bahn.yaml").read_text().count("test_share") == 1


def test_another_language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [json.dumps({"question": q, "answer": a}, ensure_ascii=False) for q, a in GERMAN]
    Path("bahn: 1.jsonl").write_text("\n".join(lines))
    assert main(["init", "bahn: 1.jsonl", "--output", "sub/b.yaml", "--test_share", "0.4"]) == 0
    (build, where, mining, *_) = data_set_parser().parse(["--config", "sub/b.yaml"])
    assert (build.name, build.languages) == ("bahn- 1", ["de"])
    assert (where.source, where.test_share) == ("bahn: 1.jsonl", 0.4)
    assert (mining.bm25_language, mining.encoder) == ("german", "intfloat/multilingual-e5-small")
    assert mining.query_prompt == "query: " and mining.document_prompt == "passage: "


def test_documents_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes").mkdir()
    for i, (_, answer) in enumerate(GERMAN):
        Path(f"notes/{i}.txt").write_text(answer)
    assert main(["init", "notes"]) == 0
    *_, question, asking, building = capsys.readouterr().out.splitlines()
    assert "an LLM writes queries" in question
    assert asking == "Next: syneg ask --source notes --output out/notes-asked --dry_run"
    assert building == " then: syneg build --config notes.yaml --source out/notes-asked --output out/notes"
    (_, _, _, generation, _) = data_set_parser().parse(["--config", "notes.yaml"])
    assert generation.query_kind == "search query"


class Says:
    def __init__(self, *texts: str) -> None:
        self.texts, self.requests = list(texts), []  # type: ignore[var-annotated]

    def generate(self, requests: Any) -> Any:
        for request in requests:
            self.requests.append(request)
            text = self.texts[min(len(self.requests), len(self.texts)) - 1]
            yield Completion(request.key, text, "stop", 5, 5, 0, "says")

    def close(self) -> None:
        pass


def test_an_llm_proposes_kinds_and_domains(
    mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = {
        "query_kind": "question on metals: which",
        "document_kind": "note",
        "domains": ["Metals", "# A"],
    }
    engine = Says("no JSON", json.dumps(answer))
    monkeypatch.setattr("syneg.llm.generation.make_engine", lambda *_: engine)
    words = [
        "init",
        str(mine),
        "--engine",
        "openai",
        "--llm",
        "me/llm",
        "--base_urls",
        "http://127.0.0.1:9/v1",
    ]
    assert main(words) == 0
    assert [request.attempt for request in engine.requests] == [0, 1], "what cannot be read is asked again"
    assert "<document>" in engine.requests[0].messages[1]["content"]
    *_, generation, _ = data_set_parser().parse(["--config", "mine.yaml"])
    assert generation.query_kind == "question on metals: which" and generation.document_kind == "note"
    assert generation.attributes["domain"] == ["Metals", "# A"]
    assert (generation.engine, generation.llm) == ("openai", "me/llm")
    assert generation.base_urls == ["http://127.0.0.1:9/v1"]
    assert "proposed by me/llm" in Path("mine.yaml").read_text()
    # The journal answers: the engine says nothing more.
    assert main([*words, "--overwrite"]) == 0 and len(engine.requests) == 2
    engine = Says("no JSON")
    assert main([*words[:5], "other/llm", *words[6:], "--output", "other.yaml"]) == 0
    assert "other/llm gave no answer that can be read" in capsys.readouterr().out
    *_, generation, _ = data_set_parser().parse(["--config", "other.yaml"])
    assert generation.attributes["domain"] == DEFAULT_ATTRIBUTES["domain"]


def test_what_init_refuses(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "name what a configuration is written for" in fails(capsys, "init")
    assert "data/mien" in fails(capsys, "init", "data/mien")
    assert "YAML file" in fails(capsys, "init", str(mine), "--output", "mine.txt")
    Path("mine.yaml").write_text("mine: 1\n")
    assert "--overwrite" in fails(capsys, "init", str(mine))
    lacks = fails(capsys, "init", str(mine), "--overwrite", "--engine", "ray", "--llm", "me/nowhere")
    assert "Ray is not installed" in lacks or "neither a model's folder here nor" in lacks
    assert "recorded has nothing" in fails(capsys, "init", str(mine), "--engine", "recorded")
    assert Path("mine.yaml").read_text() == "mine: 1\n"


@pytest.mark.parametrize("by", ["command line", "later file"])
def test_a_shipped_configuration_gives_another_source_nothing_of_its_own(mine: Path, by: str) -> None:
    parser = data_set_parser(kind=ShippedConfigParser)
    shipped = str(syneg.building.config_file("scifact"))
    Path("later.yaml").write_text("source: data/mine\nquery_kind: my kind\n")
    words = ["--source", "data/mine"] if by == "command line" else ["--config", "later.yaml"]
    args = stage_arguments(*parser.parse(["--config", shipped, *words]))
    plain = stage_arguments(*data_set_parser().parse(["--source", "data/mine"]))
    assert args.name == "mine" and args.licence is None and args.source_datasets == []
    assert args.attributes == plain.attributes and args.document_kind == plain.document_kind
    assert args.query_kind == (plain.query_kind if by == "command line" else "my kind")
    assert args.miners == ["bm25", "dense"] and args.mined_per_miner == 8, "what is no one's own stays"
    (note,) = parser.notes
    assert "scifact is a configuration of mteb:SciFact" in note and "`syneg init data/mine`" in note
    named = stage_arguments(
        *parser.parse(["--config", shipped, *words, "--name", "given", "--licence", "mit"])
    )
    assert (named.name, named.licence) == ("given", "mit")


def test_a_source_without_a_value_is_one_line(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--source" in fails(capsys, "build", "--output", "out", "--config", "scifact", "--source")


@pytest.mark.parametrize("source", ["mteb:SciFact", "data/scifact", "data/SciFact/", "mteb/scifact"])
def test_its_own_source_keeps_all(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    parser = data_set_parser(kind=ShippedConfigParser)
    shipped = str(syneg.building.config_file("scifact"))
    args = stage_arguments(*parser.parse(["--config", shipped, "--source", source]))
    assert args.licence == "cc-by-nc-2.0" and args.name == "scifact" and not parser.notes


def test_the_recordings_of_the_embedded_source_are_not_replayed_for_another(
    mine: Path, encoder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--source", "data/mine", "--encoder", encoder, "--output", "out/mine", "--dry_run"]
    assert main(["build", "--config", "pydocs", *words]) == 0
    printed = capsys.readouterr().out
    assert "pydocs is a configuration of pydocs: its" in printed and "recordings" in printed.splitlines()[0]
    assert "11 requests to make for 11 pairs" in printed
    # In Python as well.
    lines = Path("lines.jsonl")
    lines.write_text('{"query_id": "q0", "positive_id": "d0", "text": "Another text."}\n')
    syneg.build(
        "out/py",
        config="scifact",
        source="data/mine",
        encoder=encoder,
        engine="recorded",
        recordings=str(lines),
        on_miss="skip",
        gates=["checks"],
        relative_margin={},
        with_reflection=False,
    )
    assert "scifact is a configuration of" in capsys.readouterr().out
    card = Path("out/py/README.md").read_text()
    assert "pretty_name: mine" in card and "cc-by-nc" not in card and "mteb/scifact" not in card
