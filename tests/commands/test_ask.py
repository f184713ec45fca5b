from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from datasets import Dataset, load_dataset

import syneg
from syneg.asking import AskFolderArguments
from syneg.asking import ask_queries as ask
from syneg.cli import main as cli
from syneg.commands.ask import main
from syneg.commands.mine import main as mine
from syneg.errors import InputError
from syneg.gating.queries import QueryGateArguments
from syneg.llm.requests import Completion, Request
from syneg.sources import CORPUS_FEATURES, QUERY_FEATURES, Source, SourceArguments, load_source
from syneg.sources.cutting import sample_pairs
from syneg.writing.query_arguments import QueryArguments
from tests.llm.engines import ScriptedEngine
from tests.stand_in import tiny_source


def words_of(request: Request) -> str:
    """Returns what in the prompt tells its document from all others."""
    document = request.messages[1]["content"].rpartition("<positive_document>")[2]
    return " ".join(re.findall(r"item\d+|The \w+ \w+", document))


def good(request: Request) -> str:
    texts = [
        {"reasoning": "so", "query": f"who says that {words_of(request)} {request.slot + i}"}
        for i in range(len(request.attributes))
    ]
    return json.dumps(texts[0] if len(texts) == 1 else {"queries": texts})


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SYNEG_CACHE", str(tmp_path / "cache"))
    return tiny_source().save(tmp_path / "source")


def run(source: Path, output: Path, script: ScriptedEngine | None = None, **options: object) -> list[str]:
    """Runs `ask` with BM25 alone."""
    gates = {"round_trip": ["bm25"]} | {
        name: options.pop(name) for name in list(options) if name in QueryGateArguments.__dataclass_fields__
    }
    folder = {name: options.pop(name) for name in ("overwrite", "seed") if name in options}
    return ask(
        SourceArguments(source=str(source)),
        QueryArguments(**options),
        QueryGateArguments(**gates),
        AskFolderArguments(output=str(output), **folder),
        script,
    )


def texts(folder: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]


def test_documents_become_a_source_that_other_commands_take(source, tmp_path, capsys):
    engine = ScriptedEngine(good)
    output = tmp_path / "asked"
    lines = run(source, output, engine, documents=20, num_examples=3)
    written = load_source(output)
    assert written.corpus[:] == load_source(source).corpus[:], "the corpus is the source's, byte for byte"
    assert len(engine.asked) == 20 and list(written.qrels) == ["train"]
    kept = {query["id"]: query["text"] for query in written.queries}
    assert written.qrels["train"].keys() == kept.keys()
    for query, documents in written.qrels["train"].items():
        ((document, relevance),) = documents.items()
        item = document.replace("d", "item")
        assert relevance == 1 and re.search(rf"\b{item}\b", kept[query])
    assert any("examples: 3 of 11 real queries, from split train of the source" in line for line in lines)
    note = json.loads((output / "written.json").read_text())
    assert note["origin"] == "written" and note["source"] == "source" and note["prompt_version"] == "ask/1"
    assert note["queries"] == {"train": len(kept)} and str(tmp_path) not in (output / "README.md").read_text()
    mine(["--source", str(output), "--miners", "bm25", "--output", str(tmp_path / "mined")])
    rows = load_dataset(str(tmp_path / "mined"), split="train")
    assert {row["query"] for row in rows} == set(kept.values()) and all(row["negatives"] for row in rows)
    assert set(rows["origin"]) == {"written"}


def test_the_draw_is_the_seeds_and_nothing_else_is_asked(source, tmp_path):
    engine = ScriptedEngine(good)
    run(source, tmp_path / "a", engine, documents=10)
    more = ScriptedEngine(good)
    run(source, tmp_path / "b", more, documents=20, journal=str(tmp_path / "a-journal"))
    first, then = ({r.positive_id for r in one.asked} for one in (engine, more))
    assert len(first) == len(then) == 10 and not first & then, (
        "twice as many hold the first, from the journal"
    )
    other = ScriptedEngine(good)
    run(source, tmp_path / "c", other, documents=10, seed=1)
    assert {r.positive_id for r in other.asked} != first
    again = ScriptedEngine(good)
    run(source, tmp_path / "d", again, documents=10, journal=str(tmp_path / "a-journal"))
    assert not again.asked
    for name in ("queries.jsonl", "qrels/train.tsv", "written.jsonl", "written.json", "dropped.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "d" / name).read_bytes(), name


def test_a_killed_run_goes_on(source, tmp_path):
    def answer(request: Request) -> str:
        if len(engine.asked) == 7:
            raise KeyboardInterrupt
        return good(request)

    engine = ScriptedEngine(answer, window=1)
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "out", engine, documents=20)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))
    engine = ScriptedEngine(good)
    run(source, tmp_path / "out", engine, documents=20)
    assert len(engine.asked) == 14
    run(source, tmp_path / "whole", ScriptedEngine(good), documents=20)
    for name in ("queries.jsonl", "qrels/train.tsv", "written.jsonl"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_gates_drop_with_reasons_and_are_counted(source, tmp_path):
    tests = {d: q for q, docs in tiny_source().qrels["test"].items() for d in docs}
    held_out = tiny_source().queries[int(tests["d10"][1:])]["text"]
    said = {
        "d10": held_out.upper(),
        "d11": held_out.replace("?", " now?"),
        "d12": "I'm sorry, but I cannot do that.",
        "d13": "What is said in this document",
        "d14": "the same for two",
        "d15": "The same, for two!",
        "d16": "nothing of the kind zebra",
        "d17": None,
        "d18": tiny_source().documents([18])[0],
    }

    def answer(request: Request) -> str:
        text = said.get(request.positive_id, "") if request.positive_id in said else None
        if request.positive_id == "d17":
            return "no JSON"
        return good(request) if text is None else json.dumps({"reasoning": "", "query": text})

    lines = run(source, tmp_path / "out", ScriptedEngine(answer), num_examples=0, round_trip_k=5)
    dropped = {one["doc_id"]: one for one in texts(tmp_path / "out", "dropped.jsonl")}
    found = {name: (one["gate"], one["cause"]) for name, one in dropped.items()}
    assert found["d10"] == ("leaks", "equal to a held-out query")
    assert found["d11"] == ("leaks", "near to a held-out query")
    assert found["d12"] == ("checks", "refusal")
    assert found["d13"] == ("checks", "speaks of the document")
    assert found["d14"] == found["d15"] == ("duplicates", "written for several documents")
    assert found["d16"] == ("round_trip", "not among the first 5")
    assert found["d17"] == ("parse", "not_json") and dropped["d17"]["query"] == "no JSON"
    assert found["d18"] == ("checks", "copy of the text")
    assert all(one["reason"] for one in dropped.values())
    note = json.loads((tmp_path / "out" / "written.json").read_text())
    assert note["gates"]["checks"]["dropped"] == {
        "copy of the text": 1,
        "refusal": 1,
        "speaks of the document": 1,
    }
    assert note["gates"]["duplicates"] == {"dropped": {"written for several documents": 2}, "read": 54}
    assert (
        "gate leaks: 2 of 56 queries dropped (equal to a held-out query 1, near to a held-out query 1)"
        in lines
    )
    assert any("no real queries were shown as examples" in line for line in lines)
    # Reversible: without gates all are there that could be read, and nothing is asked for again.
    engine = ScriptedEngine(good)
    options = {"num_examples": 0, "journal": str(tmp_path / "out-journal"), "gates": ["none"]}
    run(source, tmp_path / "all", engine, **options)
    assert not engine.asked and len(load_source(tmp_path / "all").queries) == 59
    # What was dropped can be replayed as it is.
    lines = run(
        source,
        tmp_path / "back",
        engine="recorded",
        recordings=str(tmp_path / "out" / "dropped.jsonl"),
        gates=["none"],
    )
    assert len(load_source(tmp_path / "back").queries) == len(dropped)


def test_too_general_a_query_is_dropped(source, tmp_path, encoder):
    def answer(request: Request) -> str:
        general = request.positive_id in ("d20", "d21")
        return json.dumps({"reasoning": "", "query": "copper note down"}) if general else good(request)

    options = {"documents": 60, "num_examples": 0, "gates": ["general"], "general_documents": 5}
    run(source, tmp_path / "out", ScriptedEngine(answer), **options)
    dropped = {one["doc_id"]: one["reason"] for one in texts(tmp_path / "out", "dropped.jsonl")}
    assert "d20" in dropped and "At least 5 other documents" in dropped["d20"] and len(dropped) < 10
    # Both miners of the round trip, the dense one with a model made on the spot.
    counts = {}
    for by in ("any", "all"):
        lines = run(
            source,
            tmp_path / by,
            ScriptedEngine(answer),
            num_examples=0,
            gates=["round_trip"],
            round_trip=["bm25", "dense"],
            encoder=encoder,
            round_trip_k=3,
            round_trip_by=by,
        )
        (line,) = [line for line in lines if line.startswith("gate round_trip")]
        counts[by] = int(line.split()[2])
    assert counts["any"] < counts["all"]


def test_the_judge_drops_what_its_passage_does_not_answer(source, tmp_path):
    def answer(request: Request) -> Completion | str:
        if request.prompt.startswith("judge"):
            passage = request.messages[1]["content"].rpartition("The document:\n")[2]
            item = re.search(r"item(\d+)", passage)
            verdict = ("yes", "partly", "no")[int(item[1]) % 3]
            evidence = "" if verdict == "no" else item[0]
            return json.dumps({"reasoning": "r", "evidence": evidence, "verdict": verdict})
        return good(request)

    for keep, expected in (("partly", 40), ("yes", 20)):
        engine = ScriptedEngine(answer)
        options = {"num_examples": 0, "gates": ["judge"], "judge_keep": keep, "journal": str(tmp_path / "j")}
        run(source, tmp_path / keep, engine, **options)
        assert len(load_source(tmp_path / keep).queries) == expected
        assert len(engine.asked) == (120 if keep == "partly" else 0), "verdicts are journalled"
    dropped = texts(tmp_path / "partly", "dropped.jsonl")
    assert {one["cause"] for one in dropped} == {"verdict 'no'"}


def test_a_written_test_split_is_of_documents_of_its_own_and_named_for_what_it_is(source, tmp_path):
    lines = run(
        source,
        tmp_path / "out",
        ScriptedEngine(good),
        num_examples=0,
        test_documents=0.3,
        queries_per_document=2,
    )
    written = load_source(tmp_path / "out")
    documents = {s: {d for docs in q.values() for d in docs} for s, q in written.qrels.items()}
    assert not documents["train"] & documents["test"] and 8 <= len(documents["test"]) <= 28
    assert json.loads((tmp_path / "out" / "written.json").read_text())["test"] == "written"
    assert any(line.startswith("split test is written, and not judged") for line in lines)
    with pytest.raises(InputError, match="fell into the test split; lower --test_documents"):
        run(source, tmp_path / "x", ScriptedEngine(good), documents=1, test_documents=0.99)


def test_documents_of_held_out_queries_and_of_examples_are_left_out(source, tmp_path):
    engine = ScriptedEngine(good)
    lines = run(source, tmp_path / "out", engine, without_test_documents=True, num_examples=2)
    relevant = {d for docs in tiny_source().qrels["test"].values() for d in docs}
    asked = {request.positive_id for request in engine.asked}
    assert relevant and not asked & relevant and len(asked) == 60 - len(relevant) - 2
    assert f"  not written for, relevant to a held-out query: {len(relevant)}" in lines
    assert "  not written for, shown as an example: 2" in lines
    shown = {r.messages[0]["content"] for r in engine.asked}
    (system,) = shown
    held_out = [tiny_source().queries[int(q[1:])]["text"] for q in tiny_source().qrels["test"]]
    assert system.count("<query>\n") == 2 and not any(query in system for query in held_out)


def test_queries_beside_a_pair_are_of_its_mined_negatives(source, tmp_path):
    mined = tmp_path / "mined"
    mine(["--source", str(source), "--miners", "bm25", "--mined_per_miner", "2", "--output", str(mined)])
    rows = load_dataset(str(mined), split="train")
    pairs: dict[tuple[str, str], list[dict]] = {}
    for row in rows:
        for negative in row["negatives"]:
            pairs.setdefault((row["query_id"], negative["doc_id"]), []).append(row)
    engine = ScriptedEngine(good)
    lines = run(source, tmp_path / "out", engine, beside=str(mined), num_examples=0, gates=["none"])
    assert {request.positive_id for request in engine.asked} == {name for _, name in pairs}
    for request in engine.asked:
        found = pairs[request.query_id, request.positive_id]
        content = request.messages[1]["content"]
        assert f"<query>\n{found[0]['query']}\n</query>" in content
        shown = content.partition("<mined_negative>\n")[2].partition("\n</mined_negative>")[0]
        assert shown in {row["positive"] for row in found}
        assert content.endswith("</positive_document>") and "# Neighbour" in request.messages[0]["content"]
    assert any(line.startswith("  not written for, not a mined negative of --beside: ") for line in lines)
    written = texts(tmp_path / "out", "written.jsonl")
    assert {(one["beside_query_id"], one["doc_id"]) for one in written} <= pairs.keys()
    # Its journal is a recording, too.
    options = {"engine": "recorded", "recordings": str(tmp_path / "out-journal"), "beside": str(mined)}
    run(source, tmp_path / "again", num_examples=0, gates=["none"], **options)
    assert texts(tmp_path / "again", "written.jsonl") == written


def corpus(*documents: str, title: str = "", ids: str = "c") -> Source:
    names = [f"{ids}{i}" for i in range(len(documents))]
    return Source(
        "c",
        Dataset.from_dict(
            {"id": names, "title": [title] * len(names), "text": list(documents)}, features=CORPUS_FEATURES
        ),
        Dataset.from_dict({"id": [], "text": []}, features=QUERY_FEATURES),
        {},
    )


LONG = "\n\n".join(
    f"The part number {i} tells of item{i} and of little else in the world." for i in range(30)
)


def test_long_documents_are_cut_and_the_document_or_the_passage_is_the_positive(tmp_path, monkeypatch):
    alone = corpus(LONG, "The short one tells of item77 and of nothing else.", title="Guide")
    monkeypatch.setattr("syneg.asking.run.source_of", lambda *_: alone)
    engine = ScriptedEngine(good)
    options = {"max_positive_tokens": 100, "queries_per_document": 3, "gates": ["none"]}
    lines = run(Path("x"), tmp_path / "whole", engine, **options)
    written = load_source(tmp_path / "whole")
    assert len(written.corpus) == 2 and {d for q in written.qrels["train"].values() for d in q} == {
        "c0",
        "c1",
    }
    passages = {r.messages[1]["content"] for r in engine.asked if r.positive_id == "c0"}
    assert len(passages) == 3 and all("Guide The part" in one and one.count("item") < 10 for one in passages)
    assert any("1 documents are longer than --max_positive_tokens (100)" in line for line in lines)
    engine = ScriptedEngine(good)
    lines = run(Path("x"), tmp_path / "parts", engine, **options, positive="passage")
    written = load_source(tmp_path / "parts")
    parts = [name for name in written.document_ids if name.startswith("c0#")]
    assert len(parts) > 3 and written.document_ids.tolist() == [*parts, "c1"]
    assert "".join(written.documents(range(len(parts)))).replace("Guide ", "").split() != []
    assert " ".join(LONG.split()) == " ".join(" ".join(written.corpus[: len(parts)]["text"]).split())
    for query, docs in written.qrels["train"].items():
        (name,) = docs
        (text,) = [one["text"] for one in written.queries if one["id"] == query]
        assert re.search(r"item\d+", text)[0] in written.documents([written.document_ids.get_loc(name)])[0]
    assert any("(1 long ones were cut into passages)" in line for line in lines)


def test_passages_of_a_document_that_is_left_out_are_left_out(tmp_path, monkeypatch):
    given = corpus(LONG, LONG.replace("tells", "speaks of ports and"), LONG.replace("part", "fair wind"))
    given.queries = Dataset.from_dict(
        {"id": ["a", "b"], "text": ["real one", "held out"]}, features=QUERY_FEATURES
    )
    given.qrels = {"train": {"a": {"c0": 1}}, "test": {"b": {"c1": 1}}}
    monkeypatch.setattr("syneg.asking.run.source_of", lambda *_: given)
    engine = ScriptedEngine(good)
    options = {"max_positive_tokens": 100, "positive": "passage", "gates": ["none"], "near_duplicate": 0.0}
    run(Path("x"), tmp_path / "out", engine, without_test_documents=True, **options)
    asked = {request.positive_id for request in engine.asked}
    assert len(asked) > 3 and all(name.startswith("c2#") for name in asked)
    assert len(load_source(tmp_path / "out").corpus) == 3 * len(asked), "the corpus keeps them all"


def test_what_is_not_fit_to_be_written_for_is_counted(tmp_path, monkeypatch):
    text = "The river carries the boats of the merchants from the mountains down to the wide sea in spring"
    alone = corpus(text, f"{text}", f"{text} again", "word", "  ", "東京は日本の首都であり最大の都市です。")
    monkeypatch.setattr("syneg.asking.run.source_of", lambda *_: alone)
    engine = ScriptedEngine(lambda r: json.dumps({"reasoning": "", "query": f"q {r.positive_id}"}))
    lines = run(Path("x"), tmp_path / "out", engine, gates=["none"])
    assert len(engine.asked) == 2 and "c5" in {request.positive_id for request in engine.asked}
    assert "  not written for, repeats another: 2" in lines
    assert "  not written for, shorter than --min_document_words (2): 2" in lines


def test_bad_input_is_one_clear_line_and_nothing_is_written(source, tmp_path, monkeypatch):
    asked: list[Request] = []

    def refuse(message: str, *documents: str, answer: object = good, **options: object) -> None:
        given = corpus(*documents, ids=str(options.pop("ids", "c")))
        monkeypatch.setattr("syneg.asking.run.source_of", lambda *_: given)
        engine = ScriptedEngine(answer)
        with pytest.raises(InputError, match=message) as caught:
            run(Path("x"), tmp_path / "out", engine, **options)
        asked.extend(engine.asked)
        assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()

    text = "The river carries the boats of item7 from the mountains down to the sea"
    refuse("one document is no corpus", text)
    refuse(r"no document is left to write for \(shorter than --min_document_words \(2\): 2\)", "one", "two")
    too_long = lambda request: Completion(request.key, "", "prompt_too_long")  # noqa: E731
    refuse(
        r"no query could be read \(prompt_too_long 2\). Lower --max_positive_tokens",
        text,
        text.upper() + " and back in winter when all is frozen over",
        answer=too_long,
    )
    asked.clear()
    refuse(r"document id 'c\\t0' holds a tab or a line break", text, f"{text} again", ids="c\t")
    refuse("--bm25_language 'klingon'", text, f"{text} again", bm25_language="klingon")
    refuse(r"model './none'.* no such folder", text, f"{text} then", round_trip=["dense"], encoder="./none")
    refuse("unknown engine 'vlm'", text, f"{text} now", gates=["judge"], judge_engine="vlm")
    assert not asked, "what is wrong is said before an LLM is asked"
    blind = lambda request: '{"reasoning": "", "query": "zebra"}'  # noqa: E731
    refuse(
        "no query passed the gates .*written for several documents 2",
        "A text that tells of what nobody has yet asked about the sea",
        "Another text about a very different matter than the first",
        answer=blind,
    )


def test_a_folder_is_replaced_only_if_it_is_ours_and_asked_for(source, tmp_path):
    output = tmp_path / "out"
    run(source, output, ScriptedEngine(good), documents=10)
    engine = ScriptedEngine(good)
    with pytest.raises(InputError, match="replace it with --overwrite"):
        run(source, output, engine, documents=12)
    (output / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds 'notes.txt', which syneg did not write"):
        run(source, output, engine, documents=12, overwrite=True)
    (output / "notes.txt").unlink()
    assert not engine.asked
    run(source, output, engine, documents=12, overwrite=True)
    assert len(engine.asked) == 2 and not list(tmp_path.glob(".out*"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.md").write_text("mine")
    with pytest.raises(InputError, match="left alone"):
        run(source, tmp_path / "other", engine, overwrite=True)


def test_a_dry_run_and_shards_write_no_folder(source, tmp_path, monkeypatch):
    lines = run(source, tmp_path / "out", documents=20, dry_run=True, llm="none/such")
    assert any(line.startswith("20 requests to make for 20 passages; 0 settled") for line in lines)
    assert not (tmp_path / "out").exists()
    for i in range(2):
        lines = run(source, tmp_path / "out", ScriptedEngine(good), documents=20, shard=f"{i}/2")
        assert lines[-1].startswith(f"shard {i}/2 is in ") and not (tmp_path / "out").exists()
    engine = ScriptedEngine(good)
    run(source, tmp_path / "out", engine, documents=20)
    assert not engine.asked and (tmp_path / "out").exists()


def test_recorded_queries_are_replayed_from_the_command_line(source, tmp_path, capsys):
    path = tmp_path / "lines.jsonl"
    lines = [{"doc_id": f"d{i}", "query": f"which one has item{i}"} for i in range(8)]
    lines += [{"doc_id": "d3", "query": "and what has item3 besides"}, {"doc_id": "z", "query": "gone"}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ["--source", str(source), "--engine", "recorded", "--recordings", str(path)]
    words += ["--round_trip", "bm25", "--output", str(tmp_path / "out")]
    assert cli(["ask", *words]) == 0
    printed = capsys.readouterr().out
    written = load_source(tmp_path / "out")
    assert sorted(written.queries["text"]) == sorted(line["query"] for line in lines[:-1])
    assert "recordings of passages that are not in the source: 1" in printed
    assert "examples" not in printed, "with which examples they were written is not known"
    capsys.readouterr()
    assert cli(["ask", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("syneg: error: ") and error.count("\n") == 1 and "--overwrite" in error
    main([*words[:-1], str(tmp_path / "fewer"), "--documents", "3", "--queries_per_document", "1"])
    assert len(load_source(tmp_path / "fewer").queries) == 3


def test_from_python(source, tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text("".join(f'{{"doc_id": "d{i}", "query": "where is item{i}"}}\n' for i in range(5)))
    options = {"engine": "recorded", "recordings": str(path), "round_trip": ["bm25"]}
    folder = syneg.ask(source, tmp_path / "out", **options)
    assert len(load_source(folder).queries) == 5
    with pytest.raises(InputError, match=r"unknown argument 'documnts'. Did you mean 'documents'"):
        syneg.ask(source, tmp_path / "out", documnts=3)
    with pytest.raises(InputError, match="unknown gate 'roundtrip'"):
        syneg.ask(source, tmp_path / "other", gates=["roundtrip"], **options)


def test_from_a_folder_of_texts_to_pairs(tmp_path, monkeypatch):
    monkeypatch.setenv("SYNEG_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "manuals"
    (folder / "deep").mkdir(parents=True)
    for i in range(6):
        name = f"deep/{i}.txt" if i % 2 else f"{i}.md"
        (folder / name).write_text(f"# Part {i}\n\nThe engine {i} repairs item{i} under load, it is said.\n")
    run(folder, tmp_path / "out", ScriptedEngine(good))
    written = load_source(tmp_path / "out")
    assert len(written.queries) == 6 and written.qrels["train"]["written:deep/1.txt:1"] == {"deep/1.txt": 1}
    assert written.documents([0])[0].startswith("# Part 0\n\nThe engine")
    (folder / "0.md").write_bytes(b"\x89PNG\x00\xff")
    with pytest.raises(InputError, match=r"0\.md, line 1: not UTF-8"):
        run(folder, tmp_path / "binary", ScriptedEngine(good))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no source: it is empty"):
        run(tmp_path / "empty", tmp_path / "none", ScriptedEngine(good))
    assert not (tmp_path / "binary").exists() and not (tmp_path / "none").exists()


def test_gate_arguments_out_of_range():
    for options, message in [
        ({"round_trip": ["random"]}, "unknown miner in --round_trip 'random'"),
        ({"round_trip": []}, "--round_trip names no miner"),
        ({"round_trip_k": 0}, "--round_trip_k 0: must be at least 1"),
        ({"leak_similarity": 0.0}, "--leak_similarity"),
        ({"max_copied": 2.0}, "--max_copied"),
        ({"round_trip_by": "both"}, "unknown value of --round_trip_by"),
        ({"judge_keep": "no"}, "unknown value of --judge_keep"),
    ]:
        with pytest.raises(InputError, match=message):
            QueryGateArguments(**options)


def test_real_pairs_stand_beside_what_is_written(source, tmp_path):
    real = load_source(source)
    questions = dict(zip(real.queries["id"], real.queries["text"], strict=True))
    same = {
        "d0": questions["q0"].upper(),
        "d1": questions["q1"].replace("?", " please?"),
        "d2": questions["q3"],
    }

    def answer(request: Request) -> str:
        text = same.get(request.positive_id)
        return json.dumps({"reasoning": "", "query": text}) if text else good(request)

    engine = ScriptedEngine(answer)
    output = tmp_path / "out"
    options = {"with_pairs": True, "num_examples": 0, "test_documents": 0.5, "gates": ["duplicates"]}
    lines = run(source, output, engine, **options)
    written = load_source(output)
    kept = {one["query_id"] for one in texts(output, "written.jsonl")}
    real_queries = set(real.qrels["train"])
    assert set(written.query_ids) == kept | real_queries and kept == written.written
    assert {query: written.qrels["train"][query] for query in real_queries} == real.qrels["train"]
    assert {q["id"]: q["text"] for q in written.queries if q["id"] in real_queries} == {
        query: questions[query] for query in real_queries
    }
    dropped = {one["doc_id"]: one["cause"] for one in texts(output, "dropped.jsonl")}
    assert dropped == {
        "d0": "a real query of its document",
        "d1": "a real query of its document",
        "d2": "a real query of another document",
    }
    # The test split is written, and of no document that a real pair has.
    assert set(written.qrels["test"]) <= kept and len(written.qrels["test"]) > 10
    tested = {name for docs in written.qrels["test"].values() for name in docs}
    trained = {name for docs in written.qrels["train"].values() for name in docs}
    positives = {name for docs in real.qrels["train"].values() for name in docs}
    assert not tested & trained and positives <= trained
    assert written.written_of("test") == "written" and written.written_of("train") == "partly written"
    # Without real pairs some of these documents are tested on, so that it is the pairs that keep them out.
    run(source, tmp_path / "without", engine, **{**options, "with_pairs": False})
    alone = load_source(tmp_path / "without")
    assert positives & {name for docs in alone.qrels["test"].values() for name in docs}
    assert alone.written == set(alone.query_ids)
    # Both are counted.
    note = json.loads((output / "written.json").read_text())
    assert note["real_pairs"] == {"queries": 8, "pairs": 11, "splits": ["train"]}
    assert sum(note["queries"].values()) == len(kept)
    assert "real pairs: 11 of 8 queries, from split train" in lines
    assert "8 real queries beside them in split train" in lines
    assert "beside them stand its 8 real training queries" in (output / "README.md").read_text()
    (told,) = [note for note in written.notes if "written by an LLM" in note]
    assert (
        told
        == f"out: {len(kept)} of its {len(kept) + 8} queries were written by an LLM, those of split test too."
    )


def test_mined_rows_say_of_each_query_where_it_comes_from(source, tmp_path):
    run(source, tmp_path / "out", ScriptedEngine(good), with_pairs=True, documents=20, num_examples=2)
    mined = str(tmp_path / "mined")
    mine(["--source", str(tmp_path / "out"), "--miners", "bm25", "--output", mined])
    rows = load_dataset(mined, split="train")
    kept = {one["query_id"] for one in texts(tmp_path / "out", "written.jsonl")}
    assert len(kept) > 10 and {(r["query_id"] in kept, r["origin"]) for r in rows} == {
        (True, "written"),
        (False, "source"),
    }
    real = load_source(source)
    assert {(r["query_id"], r["positive_id"]) for r in rows if r["origin"] == "source"} == {
        (query, name) for query, docs in real.qrels["train"].items() for name in docs
    }
    # A sample, as of a pilot, knows it still; what is asked of the folder again has the real ones alone.
    part = sample_pairs(load_source(tmp_path / "out"), "train", 20)
    assert 0 < len(part.written) < len(part.queries) and part.written <= set(part.query_ids)
    again = run(tmp_path / "out", tmp_path / "again", ScriptedEngine(good), with_pairs=True, documents=5)
    assert f"  left out, since they were written themselves: {len(kept)}" in again
    assert set(load_source(tmp_path / "again").query_ids) - load_source(tmp_path / "again").written == set(
        real.qrels["train"]
    )


def test_a_document_that_repeats_a_real_positive_is_not_tested_on(tmp_path, monkeypatch):
    given = corpus(
        "The river carries the boats of the merchants", *(f"Note {i} on item{i}" for i in range(30))
    )
    given.corpus = given.corpus.add_item({"id": "twin", "title": "", "text": given.corpus[0]["text"].upper()})
    given.queries = Dataset.from_dict({"id": ["a"], "text": ["who carries boats"]}, features=QUERY_FEATURES)
    given.qrels = {"train": {"a": {"twin": 1}}}
    monkeypatch.setattr("syneg.asking.run.source_of", lambda *_: given)
    options = {"num_examples": 0, "gates": ["none"], "test_documents": 0.9, "documents": 31}
    answer = lambda r: json.dumps({"reasoning": "", "query": f"what of {r.positive_id}"})  # noqa: E731
    tested = {}
    for real in (False, True):
        run(Path("x"), tmp_path / str(real), ScriptedEngine(answer), with_pairs=real, seed=1, **options)
        qrels = load_source(tmp_path / str(real)).qrels
        tested[real] = {name for docs in qrels["test"].values() for name in docs}
    assert tested[False] - tested[True] == {"c0"}, "the positive itself was not drawn, its twin was"


def test_real_pairs_that_are_not_to_be_had_are_told_before_anything_is_asked(source, tmp_path, monkeypatch):
    engine = ScriptedEngine(good)
    run(source, tmp_path / "written", engine, documents=5, num_examples=0)
    asked = len(engine.asked)
    with pytest.raises(InputError, match="all queries of split train were written themselves"):
        run(tmp_path / "written", tmp_path / "x", engine, with_pairs=True)
    alone = corpus("The river carries the boats of item1", "The market signals under load at item2")
    monkeypatch.setattr("syneg.asking.run.source_of", lambda *_: alone)
    with pytest.raises(InputError, match="these are documents alone"):
        run(Path("x"), tmp_path / "x", engine, with_pairs=True)
    named = corpus("The river carries the boats of item1", "The market signals under load at item2")
    monkeypatch.setattr("syneg.asking.run.source_of", lambda *_: named)
    named.queries = Dataset.from_dict({"id": ["written:c0:1"], "text": ["boats"]}, features=QUERY_FEATURES)
    named.qrels = {"train": {"written:c0:1": {"c0": 1}}}
    with pytest.raises(InputError, match="'written:c0:1' has an id such as written queries have"):
        run(Path("x"), tmp_path / "x", engine, with_pairs=True)
    with pytest.raises(InputError, match="Take --positive document"):
        QueryArguments(with_pairs=True, positive="passage")
    assert len(engine.asked) == asked and not (tmp_path / "x").exists()


def test_a_mixed_source_whose_list_of_written_queries_is_lost_is_refused(source, tmp_path):
    output = tmp_path / "out"
    run(source, output, ScriptedEngine(good), with_pairs=True, documents=10)
    (output / "written.jsonl").unlink()
    with pytest.raises(InputError, match=r"written\.jsonl"):
        load_source(output)
