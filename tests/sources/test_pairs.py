"""Files and folders of pairs, documents alone, and the cut of a test split."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from syneg import Source, load_source
from syneg.cli import main
from syneg.errors import InputError

ROWS = [
    {"question": "who wrote it", "answer": "She did, in 1813."},
    {"question": "when was it", "answer": 'In 1813, "they say".\nOr later.'},
    {"question": "when was it", "answer": "Nobody knows."},
    {"question": "where", "answer": "In Bath, Straße 3."},
]
EXPECTED = [(row["question"], row["answer"]) for row in ROWS]


def texts(source: Source, split: str = "train") -> list[tuple[str, str]]:
    return [(pair.query, pair.positive) for pair in source.pairs(split)]


def write(path: Path, rows: list[dict], **how: object) -> Path:
    """Writes rows in the format that the path's ending names."""
    frame = pd.DataFrame(rows)
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    if name.endswith(".parquet"):
        frame.to_parquet(path)
        return path
    if name.endswith((".csv", ".tsv")):
        text = frame.to_csv(index=False, sep="\t" if name.endswith(".tsv") else ",", **how)
    elif name.endswith(".json"):
        text = json.dumps(rows, indent=1)
    else:
        text = "".join(json.dumps(row) + "\n" for row in rows)
    data = text.encode()
    if path.suffix == ".gz":
        data = gzip.compress(data)
    if path.suffix == ".zst":
        data = pa.Codec("zstd").compress(data, asbytes=True)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "name",
    ["a.csv", "a.tsv", "a.jsonl", "a.ndjson", "a.json", "a.parquet", "a.csv.gz", "a.tsv.zst", "a.jsonl.gz"],
)
def test_every_format_gives_the_same_source(tmp_path: Path, name: str) -> None:
    source = load_source(write(tmp_path / name, ROWS))
    assert source.name == "a" and not source.notes
    assert texts(source) == EXPECTED
    assert len(source.queries) == 3 and len(source.corpus) == 4
    again = Source.from_pairs(EXPECTED)
    assert (again.queries["id"][:], again.qrels) == (source.queries["id"][:], source.qrels)
    assert texts(Source.from_pairs(pd.DataFrame(ROWS))) == texts(Source.from_pairs(ROWS)) == EXPECTED
    # Saved, it is a source like any other.
    assert texts(load_source(source.save(tmp_path / "beir"))) == EXPECTED


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b""])
@pytest.mark.parametrize(("delimiter", "end"), [(",", "\r\n"), (";", "\n"), ("\t", "\n")])
def test_csv_as_programs_write_it(tmp_path: Path, mark: bytes, delimiter: str, end: str) -> None:
    path = tmp_path / "a.csv"
    text = pd.DataFrame(ROWS).to_csv(index=False, sep=delimiter, lineterminator=end)
    path.write_bytes(mark + text.encode())
    assert texts(load_source(path)) == EXPECTED


@pytest.mark.parametrize(
    "columns",
    [
        ("query", "positive"),
        ("Anchor", "Passage"),
        ("question", "context"),
        ("sentence1", "sentence2"),
        ("query", "text"),
        ("query", "Document"),
    ],
)
def test_names_in_use_are_recognised(tmp_path: Path, columns: tuple[str, str]) -> None:
    path = write(tmp_path / "a.jsonl", [dict(zip(columns, pair, strict=True)) for pair in EXPECTED])
    assert texts(load_source(path)) == EXPECTED


def test_other_names_are_given(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [{"frage": q, "antwort": a} for q, a in EXPECTED])
    with pytest.raises(InputError, match=r"a\.csv, line 2: neither pairs nor documents: .* frage, antwort"):
        load_source(path)
    assert texts(load_source(path, query_column="frage", positive_column="antwort")) == EXPECTED
    with pytest.raises(
        InputError, match=r"--positive_column is 'antwrt', but its columns are frage, antwort"
    ):
        load_source(path, query_column="frage", positive_column="antwrt")
    with pytest.raises(InputError, match="'frage' holds queries, but no column holds their positives"):
        load_source(path, query_column="frage")


def test_what_could_mean_several_things_is_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"question": "q", "answer": "short", "context": "a long passage"}])
    with pytest.raises(InputError, match=r"several columns could be meant \(answer, context\); say which by"):
        load_source(path)
    assert texts(load_source(path, positive_column="context")) == [("q", "a long passage")]


def test_ids_titles_and_lists(tmp_path: Path) -> None:
    rows = [
        {"query_id": 7, "query": "a", "doc_id": "x", "title": "T", "positive": "one"},
        {"query_id": 8, "query": "b", "doc_id": "y", "title": None, "positive": "two"},
    ]
    source = load_source(write(tmp_path / "a.jsonl", rows))
    assert source.qrels["train"] == {"7": {"x": 1}, "8": {"y": 1}}
    assert texts(source) == [("a", "T one"), ("b", "two")]
    flag = [{"query": "a", "pos": ["one", "two"], "neg": ["three"]}]
    assert texts(load_source(write(tmp_path / "b.jsonl", flag))) == [("a", "one"), ("a", "two")]


def test_an_id_with_two_texts(tmp_path: Path) -> None:
    rows = [{"query": "a", "positive_id": 1, "positive": t} for t in ("one", "ONE", "two")]
    with pytest.raises(
        InputError, match=r"a\.jsonl, line 3: id '1' stood with another text before \('one'\)"
    ):
        load_source(write(tmp_path / "a.jsonl", rows))


def test_negatives_are_documents_and_no_judgements(tmp_path: Path) -> None:
    rows = [
        {"anchor": "a", "positive": "one", "negative_1": "two", "negative_2": "far"},
        {"anchor": "b", "positive": "two", "negative_1": "far", "negative_2": None},
    ]
    source = load_source(write(tmp_path / "a.jsonl", rows))
    assert sorted(source.documents()) == ["far", "one", "two"]
    assert texts(source) == [("a", "one"), ("b", "two")]
    (note,) = source.notes
    assert "3 given negatives are in the corpus, to be mined (1 documents more)" in note
    ours = [{"query": "a", "positive": "one", "negatives": [{"text": "two", "source": "bm25"}]}]
    assert sorted(Source.from_pairs(ours).documents()) == ["one", "two"]


def test_repetitions_are_dropped_and_counted() -> None:
    rows = [("a  b", "one"), ("A b", "ONE"), ("a b", "two"), ("cafe\u0301", "x"), ("caf\u00e9", "y")]
    source = Source.from_pairs(rows)
    assert texts(source) == [("a  b", "one"), ("a  b", "two"), ("cafe\u0301", "x"), ("cafe\u0301", "y")]
    assert [note.partition(": ")[2] for note in source.notes] == [
        "1 pairs stand there before and are left out.",
        "4 queries or positives are equal to others but for case, blanks or Unicode form; the first way of "
        "writing stands.",
    ]


def test_rows_without_a_text_are_left_out_and_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [*ROWS, {"question": "what", "answer": ""}, {"question": "\u200b"}])
    source = load_source(path)
    assert texts(source) == EXPECTED
    (note,) = source.notes
    assert "2 rows without a text for the query or the positive are left out (the first: " in note
    assert "a.csv, line 7)" in note
    with pytest.raises(InputError, match="no pair in 1 rows; 1 rows lack a query or a positive"):
        Source.from_pairs([("a", None)])


def test_a_label_is_the_relevance(tmp_path: Path) -> None:
    rows = [
        {"query": "a", "passage": "one", "label": 1.0},
        {"query": "a", "passage": "two", "label": 0},
        {"query": "b", "passage": "two", "label": 0.5},
    ]
    source = load_source(write(tmp_path / "a.jsonl", rows))
    assert texts(source) == [("a", "one"), ("b", "two")]
    assert sorted(r for docs in source.qrels["train"].values() for r in docs.values()) == [0, 0.5, 1]
    rows[1]["label"] = "contradiction"
    with pytest.raises(InputError, match=r"line 2, column 'label': expected a finite number"):
        load_source(write(tmp_path / "b.jsonl", rows))
    rows[1] |= {"passage": "one", "label": 0}
    with pytest.raises(InputError, match=r"line 2: query .* have relevance 1 before and 0 here; leave one"):
        load_source(write(tmp_path / "c.jsonl", rows))


def test_a_folder_of_files_by_split(tmp_path: Path) -> None:
    for name, rows in (("train-00", ROWS[:1]), ("train-01", ROWS[1:3]), ("test", ROWS[3:])):
        write(tmp_path / f"{name}.parquet", rows)
    (tmp_path / "README.md").write_text("A card.")
    source = load_source(tmp_path)
    assert not source.notes
    (tmp_path / "notes.txt").write_text("A text.")
    assert load_source(tmp_path).notes == [f"{tmp_path.name}: 1 other files are not read (.txt)."]
    assert texts(source, "train") == EXPECTED[:3] and texts(source, "test") == EXPECTED[3:]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "question,answer\nq,a,b\n", r"a\.csv, line 2: 3 cells for 2 columns"),
        ("a.csv", 'question,answer\nq,"a" b\n', r"a\.csv, line 2: not CSV"),
        ("a.csv", 'question,answer\nq,a\nq,"a\n', r"a\.csv, line 3: not CSV \(unexpected end of data\)"),
        ("a.csv", "question,question\nq,a\n", r"a\.csv, line 1: the column 'question' stands twice"),
        ("a.csv", "Query,query,positive\nq,q,a\n", "two columns have the same name but for case"),
        ("a.csv", "", "there is no row in it"),
        ("a.csv", "question,answer\n", "there is no row in it"),
        ("a.jsonl", '[{"question": "q"}]', r"a\.jsonl, line 1: expected a JSON object, found a list"),
        ("a.jsonl", '{"question": "q", "answer": ["a", 3]}', r"line 1: 'answer' must be a text, found \['a'"),
        ("a.jsonl", '{"question": "q", "answer": {"text": "a"}}', "line 1: 'answer' must be a text"),
        (
            "a.jsonl",
            '{"question": "q", "answer": "a"}\n{"question": "q"}',
            "line 2: column 'answer' is missi",
        ),
        ("a.json", '[{"question": "q", "answer": "a"}, 3]', r"a\.json, row 1: expected a JSON object"),
        ("a.parquet", "PAR1 and no more", r"a\.parquet, row 0: not Parquet that can be read"),
        ("a.xlsx", "PK", r"a\.xlsx: a file '\.xlsx' is no source\. Taken are \.csv, \.tsv"),
        ("a.txt", "a text", r"a file '\.txt' is no source"),
    ],
)
def test_what_is_no_table_of_pairs(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        load_source(tmp_path / name)


def test_what_exists_is_not_sent_to_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("syneg.sources.loading.read_hub", lambda name: pytest.fail(f"asked for {name}"))
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "articles.csv", ROWS)
    assert texts(load_source("data/articles.csv")) == EXPECTED
    for absent in ("data/articels.csv", "articles.csv", "data/notes.txt", "~/data"):
        with pytest.raises(InputError, match=r"no such folder or file\. Taken are \.csv"):
            load_source(absent)
    (tmp_path / "data" / "nothing").mkdir()
    with pytest.raises(InputError, match="no source: it is empty"):
        load_source("data/nothing")
    (tmp_path / "data" / "nothing" / "a.pdf").write_text("")
    with pytest.raises(InputError, match=r"no source: it holds \.pdf"):
        load_source("data/nothing")


def test_rows_of_ours_are_no_source(tmp_path: Path, beir: Path) -> None:
    out = tmp_path / "rows"
    assert main(["mine", "--source", str(beir), "--miners", "bm25", "--output", str(out)]) == 0
    with pytest.raises(InputError, match="give them as --dataset"):
        load_source(out)


def test_documents_alone(tmp_path: Path) -> None:
    table = write(tmp_path / "a.csv", [{"id": "x", "title": "T", "text": "one"}, {"id": "y", "text": "two"}])
    assert load_source(table).documents() == ["T one", "two"]
    assert load_source(table).document_ids.tolist() == ["x", "y"]
    plain = write(tmp_path / "b.jsonl", [{"body": "one"}, {"body": "two"}])
    assert load_source(plain).document_ids.tolist() == ["b-0", "b-1"]
    other = write(tmp_path / "c.csv", [{"inhalt": "one"}, {"inhalt": "two"}])
    assert load_source(other, positive_column="inhalt").documents() == ["one", "two"]
    (tmp_path / "beir").mkdir()
    write(tmp_path / "beir" / "corpus.jsonl.gz", [{"_id": "1", "text": "one"}])
    assert load_source(tmp_path / "beir").documents() == ["one"]
    with pytest.raises(
        InputError, match="documents alone, without queries and judgements, so there is no spl"
    ):
        load_source(table).pairs("train")
    twice = write(tmp_path / "d.csv", [{"id": "x", "text": "one"}, {"id": "x", "text": "two"}])
    with pytest.raises(InputError, match="id 'x' stands twice"):
        load_source(twice)


def test_a_folder_of_texts(tmp_path: Path) -> None:
    (tmp_path / "guide").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.md").write_text("hidden")
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfOne.\r\nTwo.\n")
    (tmp_path / "guide" / "b.md").write_text("# Title\n\nText.")
    source = load_source(tmp_path)
    assert source.document_ids.tolist() == ["a.txt", "guide/b.md"]
    assert source.corpus["text"][:] == ["One.\r\nTwo.\n", "# Title\n\nText."]
    (tmp_path / "empty.txt").write_text(" \n")
    assert load_source(tmp_path).notes == [f"{tmp_path.name}: 1 documents without text are left out."]
    (tmp_path / "guide" / "c.txt").write_bytes(b"One.\nCaf\xe9.\n")
    with pytest.raises(InputError, match=r"guide/c\.txt, line 2: not UTF-8 \(byte 0xe9 at place 4\)"):
        load_source(tmp_path)


def joined(n_groups: int, per_group: int) -> list[tuple[str, str]]:
    """Pairs in groups: the queries of a group share documents, in a chain."""
    return [
        (f"query {g} {i}", f"document {g} {j}")
        for g in range(n_groups)
        for i in range(per_group)
        for j in (i, i + 1)
    ]


def documents_of(source: Source, split: str) -> set[str]:
    return {pair.positive for pair in source.pairs(split)}


def test_the_test_split_shares_no_document_with_the_training_split() -> None:
    pairs = joined(30, 3)
    source = Source.from_pairs(pairs, test_share=0.2, seed=1)
    assert len(source.qrels["test"]) == 18 and len(source.qrels["train"]) == 72
    assert not documents_of(source, "train") & documents_of(source, "test")
    assert sorted(texts(source) + texts(source, "test")) == sorted(pairs)
    # The order of the pairs does not matter, the seed does.
    assert Source.from_pairs(pairs[::-1], test_share=0.2, seed=1).qrels == source.qrels
    assert (
        Source.from_pairs(pairs, test_share=0.2, seed=2).qrels["test"].keys() != source.qrels["test"].keys()
    )
    assert "split test is cut from train: 18 of 90 queries." in source.notes[-1]


def test_equal_texts_hold_queries_together() -> None:
    rows = [
        {"query_id": f"q{i}", "query": f"query {i}", "positive_id": f"d{i}", "positive": f"Text {i // 2}"}
        for i in range(20)
    ]
    rows[0]["query"] = rows[18]["query"].upper()
    source = Source.from_pairs(rows, test_share=0.3)
    sides = [
        {text.casefold() for pair in texts(source, split) for text in pair} for split in ("train", "test")
    ]
    assert len(source.qrels["test"]) == 6 and not sides[0] & sides[1]


def test_no_test_split_can_be_cut(tmp_path: Path, beir: Path) -> None:
    with pytest.raises(InputError, match="its 5 queries share documents in 1 groups that cannot be parted"):
        Source.from_pairs(joined(1, 5), test_share=0.2)
    with pytest.raises(InputError, match="it has a split 'test'; leave out --test_share"):
        load_source(beir, test_share=0.2)
    (beir / "qrels" / "test.tsv").unlink()
    source = load_source(beir, test_share=0.25)
    assert (len(source.qrels["train"]), len(source.qrels["test"])) == (6, 2)


def test_from_a_csv_to_rows_and_a_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], encoder: str
) -> None:
    pairs = [(f"what of item{i}", f"The engine repairs item{i} in winter. {i}") for i in range(20)]
    path = write(tmp_path / "faq.csv", [{"frage": q, "antwort": a} for q, a in [*pairs, pairs[0]]])
    where = ["--source", str(path), "--query_column", "frage", "--positive_column", "antwort"]
    where += ["--test_share", "0.2"]
    out = tmp_path / "rows"
    assert main(["mine", *where, "--miners", "bm25", "--output", str(out), "--seed", "5"]) == 0
    said = capsys.readouterr().out
    assert "faq: 1 pairs stand there before and are left out." in said
    card = (out / "README.md").read_text()
    assert "1 pairs stand there before" in card and "4 of 20 queries" in card
    assert main(["evaluate", *where, "--model", encoder, "--output", str(tmp_path / "results")]) == 0
    trained = set(pd.read_parquet(next((out / "default").glob("*.parquet")))["query"])
    queries = next((tmp_path / "results" / "queries").rglob("*.jsonl")).read_text().splitlines()
    source = load_source(path, "error", "frage", "antwort", 0.2)
    asked = {row["id"]: row["text"] for row in source.queries}
    tested = {asked[json.loads(line)["query_id"]] for line in queries}
    assert len(trained) == 16 and len(tested) == 4 and not trained & tested


@pytest.mark.parametrize("share", [-0.1, 1, 1.5])
def test_a_share_that_is_none(tmp_path: Path, share: float, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["mine", "--source", "pydocs", "--output", str(tmp_path / "o"), f"--test_share={share}"]
    assert main(words) == 2
    assert "it must be at least 0 and below 1" in capsys.readouterr().err
    with pytest.raises(InputError, match="it must be at least 0 and below 1"):
        Source.from_pairs(EXPECTED, test_share=share)
