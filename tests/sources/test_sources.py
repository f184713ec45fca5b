from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from datasets import Dataset

from syneg import Source, load_source
from syneg.cli import main
from syneg.errors import InputError
from syneg.sources import CORPUS_FEATURES, QUERY_FEATURES
from syneg.sources.readers import hub_judgements, text_record
from tests.stand_in import tiny_source


def test_a_saved_source_is_read_back(beir: Path) -> None:
    source, made = load_source(str(beir)), tiny_source()
    assert source.qrels == made.qrels
    assert source.documents() == made.documents()
    pairs = list(source.pairs("train"))
    assert len(pairs) == len(source.pairs("train")) == 11
    assert (pairs[0].query_id, pairs[0].positive_id) == ("q0", "d0")
    assert pairs[0].positive == source.documents([0])[0]


def test_titles_are_optional_and_metadata_of_any_shape_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_text(
        '{"_id": "1", "text": "plain", "metadata": {}}\n\n'
        '{"_id": 2, "title": "T", "text": "x", "metadata": {"a": [1, {"b": 2}]}}\n'
    )
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "which?", "metadata": {"2": ["odd"]}}\n')
    (tmp_path / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\nq\t2\t1\nq\t1\t0\n")
    source = load_source(tmp_path)
    assert source.documents() == ["plain", "T x"]
    assert [(p.query, p.positive) for p in source.pairs("dev")] == [("which?", "T x")]


def test_a_changed_file_is_read_anew(beir: Path) -> None:
    before = len(load_source(beir).corpus)
    with open(beir / "corpus.jsonl", "a") as file:
        file.write('{"_id": "new", "title": "", "text": "more"}\n')
    assert len(load_source(beir).corpus) == before + 1


def append(path: Path, line: str) -> None:
    with open(path, "a") as file:
        file.write(line + "\n")


def test_a_judgement_of_an_unknown_document(beir: Path) -> None:
    append(beir / "qrels" / "train.tsv", "q0\tnowhere\t1")
    with pytest.raises(InputError, match=r"train\.tsv, line 13: document 'nowhere' is not in the corpus"):
        load_source(beir)
    source = load_source(beir, unknown_documents="skip")
    assert source.skipped == {"test": 0, "train": 1}
    assert len(source.pairs("train")) == 11


def test_a_judgement_of_an_unknown_query(beir: Path) -> None:
    append(beir / "qrels" / "test.tsv", "nobody\td1\t1")
    with pytest.raises(InputError, match=r"test\.tsv, line \d+: query 'nobody' is not in the queries"):
        load_source(beir)


def test_broken_lines(beir: Path) -> None:
    append(beir / "corpus.jsonl", '{"_id": "x"')
    with pytest.raises(InputError, match=r"corpus\.jsonl, line 61: not JSON"):
        load_source(beir)


def test_a_missing_column(beir: Path) -> None:
    append(beir / "queries.jsonl", json.dumps({"_id": "x", "body": "text"}))
    with pytest.raises(InputError, match=r"queries\.jsonl, line 13: column 'text' is missing \(found: _id"):
        load_source(beir)


@pytest.mark.parametrize(
    ("line", "message"),
    [("q1 d1 1", "expected query id, document id and a number"), ("q1\td1\tyes", "line 13: expected")],
)
def test_broken_qrels(beir: Path, line: str, message: str) -> None:
    append(beir / "qrels" / "train.tsv", line)
    with pytest.raises(InputError, match=message):
        load_source(beir)


def test_qrels_without_a_header(beir: Path) -> None:
    (beir / "qrels" / "train.tsv").write_text("q0\td0\t1\n")
    with pytest.raises(InputError, match=r"train\.tsv, line 1: column 'query-id' is missing"):
        load_source(beir)


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl"])
def test_a_missing_and_an_empty_file(beir: Path, name: str) -> None:
    (beir / name).write_text("")
    with pytest.raises(InputError, match=f"the {name.split('.')[0]} is empty"):
        load_source(beir)
    (beir / name).unlink()
    with pytest.raises(InputError, match=rf"{name}: no such file\. A BEIR folder holds"):
        load_source(beir)


def test_an_id_twice(beir: Path) -> None:
    append(beir / "corpus.jsonl", '{"_id": "d3", "title": "", "text": "again"}')
    with pytest.raises(InputError, match="id 'd3' stands twice in the corpus"):
        load_source(beir)


def test_a_split_that_is_not_there(beir: Path) -> None:
    with pytest.raises(InputError, match=r"no split 'trian'\. Did you mean 'train'\?"):
        load_source(beir).pairs("trian")


def test_no_such_source(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        load_source(tmp_path / "nowhere")
    with pytest.raises(InputError, match="neither a folder here nor a data set that the Hub gives"):
        load_source("nobody/nothing")
    with pytest.raises(InputError, match=r"no such MTEB task\. Did you mean 'SciFact'\?"):
        load_source("mteb:SciFcat")


def test_no_judgement_above_zero(beir: Path) -> None:
    (beir / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq0\td0\t0\n")
    with pytest.raises(InputError, match="no judgement above 0"):
        load_source(beir).pairs("train")


def hub_layout(folder: Path, names: tuple[str, str, str]) -> str:
    """Writes a local repository in the layout that mteb/... data sets have on the Hub."""
    source = tiny_source()
    corpus, queries, qrels = names
    judged = [(q, d, s) for q, docs in source.qrels["train"].items() for d, s in docs.items()]
    tables = {
        (corpus, "corpus"): source.corpus.rename_column("id", "_id"),
        (queries, "queries"): source.queries.rename_column("id", "_id"),
        (qrels, "train"): Dataset.from_dict(
            dict(zip(("query-id", "corpus-id", "score"), map(list, zip(*judged, strict=True)), strict=True))
        ),
    }
    configs = []
    for (config, split), table in tables.items():
        table.to_parquet(str(folder / f"{config}-{split}.parquet"))
        configs.append(
            f"- config_name: {config}\n  data_files:\n"
            f"  - split: {split}\n    path: {config}-{split}.parquet\n"
        )
    (folder / "README.md").write_text("---\nconfigs:\n" + "".join(configs) + "---\n")
    return str(folder)


@pytest.mark.parametrize("qrels", ["default", "qrels"])
def test_the_layout_of_mteb_on_the_hub(tmp_path: Path, qrels: str) -> None:
    from syneg.sources.loading import _checked
    from syneg.sources.readers import read_hub

    source = _checked(read_hub(hub_layout(tmp_path, ("corpus", "queries", qrels))), skip=False)
    assert source.qrels["train"] == tiny_source().qrels["train"]
    assert source.documents() == tiny_source().documents()


def rewrite(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="")


def test_judgements_that_stand_twice(beir: Path) -> None:
    append(beir / "qrels" / "train.tsv", "q0\td0\t1.0")
    source = load_source(beir)
    assert source.notes == ["beir, split train: 1 judgements stand there twice and count once."]
    assert source.qrels == tiny_source().qrels
    append(beir / "qrels" / "train.tsv", "q0\td0\t0")
    with pytest.raises(
        InputError, match=r"train\.tsv, line 14: query 'q0' and document 'd0' have relevance 1"
    ):
        load_source(beir)


def test_what_is_skipped_is_told_by_every_command(
    beir: Path, tmp_path: Path, encoder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "test"):
        append(beir / "qrels" / f"{split}.tsv", "q0\tnowhere\t1")
    where = ["--source", str(beir), "--unknown_documents", "skip"]
    told = "beir, split train: 1 judgements of unknown documents or queries are left out."
    out = tmp_path / "rows"
    assert main(["mine", *where, "--miners", "bm25", "--output", str(out)]) == 0
    assert told in capsys.readouterr().out and told in (out / "README.md").read_text()
    assert main(["evaluate", *where, "--model", encoder, "--output", str(tmp_path / "results")]) == 0
    assert told in capsys.readouterr().out
    dry = ["--dry_run", "--engine", "openai", "--llm", "x", "--output", str(tmp_path / "dry")]
    assert main(["generate", *where, *dry]) == 0
    assert told in capsys.readouterr().out
    record = {"query_id": "q0", "positive_id": "d0", "text": "The copper is bent by hand, item by item."}
    (tmp_path / "r.jsonl").write_text(json.dumps(record) + "\n")
    replay = ["--engine", "recorded", "--recordings", str(tmp_path / "r.jsonl"), "--on_miss", "skip"]
    assert main(["generate", *where, *replay, "--output", str(tmp_path / "written")]) == 0
    assert told in capsys.readouterr().out and told in (tmp_path / "written" / "README.md").read_text()
    build = ["build", *where, *replay, "--miners", "bm25", "--output", str(tmp_path / "built")]
    build += ["--pairs_without_negatives", "drop", "--gates", "checks"]
    assert main(build) == 0
    assert told in capsys.readouterr().out and told in (tmp_path / "built" / "README.md").read_text()


@pytest.mark.parametrize(
    "header",
    [
        "query-id\tcorpus-id\tscore",
        "query_id\tdoc_id\trelevance",
        "Query-ID\tCorpus-ID\tScore",
        "qid\tpid\trel",
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_headers_and_line_ends_of_qrels(beir: Path, header: str, end: str) -> None:
    path = beir / "qrels" / "train.tsv"
    rewrite(path, end.join([header, *path.read_text().splitlines()[1:], ""]))
    assert load_source(beir).qrels == tiny_source().qrels


@pytest.mark.parametrize("score", ["nan", "-inf", "1_0", "1e7", "0x1", "\u0661", "", "1,5"])
def test_a_score_that_is_no_number(beir: Path, score: str) -> None:
    append(beir / "qrels" / "train.tsv", f"q1\td2\t{score}")
    with pytest.raises(InputError, match=r"train\.tsv, line 13: expected"):
        load_source(beir)


def test_scores_of_zero_and_below_are_not_relevant(beir: Path) -> None:
    rewrite(
        beir / "qrels" / "train.tsv", "query-id\tcorpus-id\tscore\nq0\td0\t-0.5\nq0\td1\t0.0\nq0\td2\t1e-3\n"
    )
    source = load_source(beir)
    assert source.qrels["train"] == {"q0": {"d0": -0.5, "d1": 0, "d2": 0.001}}
    assert [pair.positive_id for pair in source.pairs("train")] == ["d2"]


def test_compressed_files(beir: Path) -> None:
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/train.tsv"):
        (beir / f"{name}.gz").write_bytes(gzip.compress((beir / name).read_bytes()))
        (beir / name).unlink()
    source = load_source(beir)
    assert source.qrels == tiny_source().qrels and source.documents() == tiny_source().documents()
    whole = (beir / "corpus.jsonl.gz").read_bytes()
    (beir / "corpus.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"corpus\.jsonl\.gz, line \d+: cannot be read \(Truncated"):
        load_source(beir)
    (beir / "corpus.jsonl").write_text("")
    with pytest.raises(InputError, match=r"corpus\.jsonl: corpus\.jsonl\.gz lies beside it"):
        load_source(beir)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ('{"_id": null, "text": "x"}', "'_id' must be a string or a whole number, found nothing"),
        ('{"_id": "", "text": "x"}', "'_id' must be a string or a whole number"),
        ('{"_id": true, "text": "x"}', "'_id' must be a string or a whole number"),
        ('{"_id": 1.0, "text": "x"}', "'_id' must be a string or a whole number"),
        ('{"_id": ["a"], "text": "x"}', "'_id' must be a string or a whole number"),
        ('{"_id": "x", "text": 3}', "'text' must be a text, found 3"),
        ('{"_id": "x", "text": NaN}', "'text' must be a text, found nan"),
        ('{"_id": "x", "title": {}, "text": "x"}', "'title' must be a text"),
        ('{"_id": "x", "text": "x", "text": "y"}', "the key 'text' stands twice"),
        ("[" * 100_000, "nested too deeply"),
        ('{"_id": "x", "a\\nb": 1}', r"column 'text' is missing \(found: _id, a\\nb\)"),
    ],
)
def test_records_that_are_none(beir: Path, record: str, message: str) -> None:
    append(beir / "corpus.jsonl", record)
    with pytest.raises(InputError, match=rf"corpus\.jsonl, line 61: .*{message}") as caught:
        load_source(beir)
    assert "\n" not in str(caught.value)


def test_wrong_encodings(beir: Path) -> None:
    text = (beir / "queries.jsonl").read_text()
    (beir / "queries.jsonl").write_bytes(text.replace("What", "Où").encode("latin-1"))
    with pytest.raises(InputError, match=r"queries\.jsonl, line 1: not UTF-8 \(byte 0xf9 at place 25\)"):
        load_source(beir)
    (beir / "queries.jsonl").write_bytes(text.encode("utf-16"))
    with pytest.raises(InputError, match=r"queries\.jsonl, line 1: not UTF-8"):
        load_source(beir)


def test_half_surrogate_pairs_in_ids_titles_and_queries(beir: Path) -> None:
    append(beir / "corpus.jsonl", '{"_id": "d\\ud83d", "title": "\\ude00", "text": "\\ud83d\\ude00"}')
    append(beir / "queries.jsonl", '{"_id": "q\\ud83d", "text": "?\\ud83d"}')
    append(beir / "qrels" / "train.tsv", "q\ufffd\td\ufffd\t1")
    *_, pair = load_source(beir).pairs("train")
    assert (pair.query, pair.positive) == ("?\ufffd", "\ufffd \U0001f600")


def test_ids_keep_their_quotation_marks(tmp_path: Path) -> None:
    source = Source(
        "odd",
        Dataset.from_dict({"id": ['"a"', " b"], "title": ["", ""], "text": ["x", "y"]}, CORPUS_FEATURES),
        Dataset.from_dict({"id": ['q "1"'], "text": ["z"]}, QUERY_FEATURES),
        {"train": {'q "1"': {'"a"': 1, " b": 0.25}}},
    )
    assert load_source(source.save(tmp_path / "odd")).qrels == source.qrels
    for broken in ("a\tb", "a\nb", "a\rb"):
        source = Source.from_pairs([{"query_id": broken, "query": "x", "positive": "y"}])
        with pytest.raises(InputError, match="holds a tab or a line break"):
            source.save(tmp_path / "broken")
    assert not (tmp_path / "broken").exists()


def test_two_ids_that_differ_in_form_only_stay_two(beir: Path) -> None:
    composed, taken_apart = "d\u00e9", "de\u0301"
    for name in (composed, taken_apart):
        append(beir / "corpus.jsonl", json.dumps({"_id": name, "text": f"about {len(name)}"}))
        append(beir / "qrels" / "train.tsv", f"q0\t{name}\t1")
    source = load_source(beir)
    assert not source.notes and {composed, taken_apart} <= source.qrels["train"]["q0"].keys()
    append(beir / "queries.jsonl", json.dumps({"_id": taken_apart, "text": "which"}))
    append(beir / "qrels" / "train.tsv", f"{composed}\td1\t1")
    source = load_source(beir)
    assert source.qrels["train"][taken_apart] == {"d1": 1}
    assert "1 ids are written in another Unicode form" in source.notes[0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("q", "d", 0.9), None),
        ((1, 2, "1"), None),
        (("q", "d", None), "row 1: expected a finite number"),
        (("q", "d", float("nan")), "row 1: expected a finite number"),
        (("q", "d", True), "row 1: expected a finite number"),
        ((None, "d", 1), "row 1: 'query-id' must be a string or a whole number"),
        (("q", ["d"], 1), "row 1: 'corpus-id' must be a string or a whole number"),
        (("q", 1.5, 1), "row 1: 'corpus-id' must be a string or a whole number"),
    ],
)
def test_judgements_of_the_hub(row: tuple, message: str | None) -> None:
    names = ["query-id", "corpus-id", "score"]
    rows = [dict(zip(names, values, strict=True)) for values in (("q0", "d0", 1), row)]
    if message is None:
        *_, read = hub_judgements(rows, names, "a/b test")
        assert (read.query_id, read.document_id, read.relevance) == (str(row[0]), str(row[1]), float(row[2]))
        return
    with pytest.raises(InputError, match=f"a/b test, {message}"):
        list(hub_judgements(rows, names, "a/b test"))


def test_records_of_the_hub() -> None:
    row = {"_id": 5, "title": None, "text": "x", "other": [1]}
    assert text_record(row, CORPUS_FEATURES, "a/b, row 0") == {"id": "5", "title": "", "text": "x"}
    with pytest.raises(InputError, match="a/b, row 0: '_id' must be a string"):
        text_record({**row, "_id": None}, CORPUS_FEATURES, "a/b, row 0")
    with pytest.raises(InputError, match="a/b, row 0: 'text' must be a text"):
        text_record({**row, "text": {"en": "x"}}, CORPUS_FEATURES, "a/b, row 0")


def test_choices_of_unknown_documents(beir: Path) -> None:
    with pytest.raises(InputError, match="unknown choice for unknown_documents 'skpi'"):
        load_source(beir, unknown_documents="skpi")


def test_a_saved_source_keeps_which_queries_were_written(tmp_path):
    source = tiny_source()
    source.save(tmp_path / "real")
    assert not load_source(tmp_path / "real").written and not (tmp_path / "real" / "written.json").exists()
    for name, written in (("some", {"q0", "q3"}), ("all", set(source.query_ids))):
        source.written = frozenset(written)
        source.save(tmp_path / name)
        read = load_source(tmp_path / name)
        assert read.written == written and any("written by an LLM" in note for note in read.notes)
        assert read.origin_of("q3") == "written" and (read.origin_of("q1") == "source") == (name == "some")
