from __future__ import annotations

import json
from pathlib import Path

import pytest
from datasets import Dataset

from syneg import load_source
from syneg.errors import InputError
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
