"""A seeded stream of damaged inputs for every reader: right rows, or one line that says where.

Each reader is given a good file, damaged by chance. What it makes of it must agree with what a plain reading
of the file gives (where there is one), or it must raise an `InputError` of one line that names the file and,
in a file of lines, the line. A failure prints the reader, the seed and the input; `read(READER, SEED)` of a
Python prompt runs one input again.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from datasets import disable_progress_bars, enable_progress_bars

from syneg.config import ConfigParser, read_yaml
from syneg.errors import InputError
from syneg.gating.arguments import GatingArguments
from syneg.gating.verdicts import VERDICTS, RecordedVerdicts
from syneg.llm.compaction import compact_journal
from syneg.llm.journal import Entry, Journal
from syneg.llm.recordings import PairLines
from syneg.llm.requests import Completion, Request
from syneg.mining.arguments import MiningArguments
from syneg.mining.embeddings import read_embeddings
from syneg.reading import MAX_RELEVANCE, whole_text
from syneg.sources import Source, SourceArguments, load_source
from syneg.sources.loading import document_records, text_files
from syneg.sources.pairs import PairsReader
from syneg.sources.readers import jsonl_records, read_qrels
from syneg.sources.tables import read_table
from syneg.training.columns import read_row
from syneg.writing.arguments import GenerationArguments

SEED = 20_261_201
EACH = 130
"""Inputs for each reader. All readers together must get 2,000."""

# What is put in the place of a value, as JSON.
ODD_VALUES = [
    *("null", "true", "3", "-0.0", "1.5", "NaN", "Infinity", "-Infinity", "1e400", "9" * 400, "9" * 5000),
    *('""', '" "', '"\\u200b"', '"\\ud83d"', '"\\u0000"', '"a\\tb"', '"a\\nb"', '"\\udc00\\ud800"', '"%s"'),
    *("[]", "{}", '["a", "b"]', '{"en": "a"}', "[[[]]]", "[null]", "[" * 3000 + "]" * 3000, '{"text": 3}'),
]
ODD_LINES = [
    *(b"", b"   ", b"null", b"7", b'"text"', b"[]", b"[{}]", b"{}", b"{", b"}", b"NaN", b"\x00", b"\xff\xfe"),
    *(b"\xef\xbb\xbf", b"{}{}", b"'a': 1", b"[" * 100_000, b"\t\t\t", b'"', b",,,,,", b"\r", b"\xed\xa0\xbd"),
]

# ---------------------------------------------------------------------------------------- good inputs

DOCUMENTS = [
    {"_id": "d0", "title": "", "text": "Boil vinegar in the kettle."},
    {"_id": "d1", "title": "Zitrone", "text": "Ein Kessel wird mit Säure entkalkt. \U0001f600"},
    {"_id": 2, "text": "釜の水垢を取る。"},
    {"_id": "cafe\u0301", "title": "Café", "text": 'The "old" one,\nby the wood.', "metadata": {"a": [1]}},
    {"_id": "d4", "title": "Tab", "text": "One\tand; two, and three."},
]
QUERIES = [{"_id": f"q{i}", "text": f"what is it, number {i}? ü"} for i in range(5)]
QRELS = "query-id\tcorpus-id\tscore\nq0\td0\t1\nq0\td1\t0.5\nq1\t2\t0\nq2\tcafe\u0301\t3\nq3\td4\t1.0\n"
PAIRS = [
    {"query_id": f"q{i}", "question": f"what, {i} ü?", "title": "T", "answer": f'It is "{i}";\nü', "label": 1}
    for i in range(5)
]
RECORDED = [
    {"query_id": f"q{i}", "positive_id": f"d{i}", "text": f"text {i} ü", "reasoning": None, "domain": "D"}
    for i in range(5)
]
JUDGED = [{"query_id": f"q{i}", "doc_id": f"d{i}", "verdict": VERDICTS[i % 3]} for i in range(5)]
YAML = """\
# A configuration.
source: data/scifact
split: [train, test]
unknown_documents: skip
miners: bm25,dense
mined_per_miner: 3
relative_margin: {dense: 0.05}
test_share: 0.25
temperature: 0.8
top_p: 1.0
attributes:
  difficulty: [easy, "hard ü"]
journal: null
mirror: true
"""


def lines_of(records: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def table(kind: str) -> bytes:
    frame = pd.DataFrame(PAIRS)
    if kind == "parquet":
        file = io.BytesIO()
        frame.to_parquet(file)
        return file.getvalue()
    if kind == "json":
        return json.dumps(PAIRS, ensure_ascii=False).encode()
    return frame.to_csv(index=False, sep="\t" if kind == "tsv" else ",").encode()


def journal_lines() -> bytes:
    from syneg.llm.journal import encode_line, entry_of

    lines = []
    for i in range(4):
        request = Request("llm", [{"role": "user", "content": str(i)}], {"seed": 1}, {}, "s/1", f"q{i}", "d")
        lines.append(
            encode_line(entry_of(request, Completion(request.key, f"text {i} ☃", "stop", 3, 2, 1, "m")))
        )
    return b"".join(lines)


# -------------------------------------------------------------------------------------------- damage


def damaged(rng: random.Random, good: bytes) -> bytes:
    """Returns a file with one to three damages."""
    data = good
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(DAMAGES)(rng, data)
    return data


def _at(rng: random.Random, data: bytes) -> int:
    return rng.randrange(len(data) + 1)


def cut_off(rng: random.Random, data: bytes) -> bytes:
    return data[: _at(rng, data)]


def without_a_part(rng: random.Random, data: bytes) -> bytes:
    start = _at(rng, data)
    return data[:start] + data[start + rng.randrange(1, 30) :]


def with_bytes(rng: random.Random, data: bytes) -> bytes:
    start = _at(rng, data)
    return data[:start] + rng.randbytes(rng.randrange(1, 8)) + data[start:]


def with_bits_turned(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 4) if data else 0):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def with_an_odd_line(rng: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    place = rng.randrange(len(lines))
    lines[place : place + rng.randrange(2)] = [rng.choice(ODD_LINES)]
    return b"\n".join(lines)


def with_a_line_twice(rng: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    return b"\n".join([*lines, rng.choice(lines), b""])


def with_an_odd_value(rng: random.Random, data: bytes) -> bytes:
    """Puts an odd value in the place of one of JSON's, of YAML's or of a cell's."""
    values = list(re.finditer(rb'(?<=[:\t,] )?("(?:[^"\\\n]|\\.)*"|(?<=[ \t:,])[\d.]+|null)', data))
    if not values:
        return data
    found = rng.choice(values)
    return data[: found.start()] + rng.choice(ODD_VALUES).encode() + data[found.end() :]


def with_a_key_twice(rng: random.Random, data: bytes) -> bytes:
    return data.replace(b"{", b'{"text": "other", "query_id": "q9", ', rng.randrange(1, 4))


def with_a_key_renamed(rng: random.Random, data: bytes) -> bytes:
    keys = re.findall(rb'"(\w+)":', data) or re.findall(rb"[\w-]+", data[:60]) or [b"x"]
    return data.replace(rng.choice(keys), rng.choice((b"", b"Text", b"x y", b"a\\nb")), rng.randrange(1, 3))


def in_another_encoding(rng: random.Random, data: bytes) -> bytes:
    text = data.decode("utf-8", "replace")
    return text.encode(
        rng.choice(("utf-16", "utf-16-le", "latin-1", "utf-8-sig", "cp1252", "utf-7")), "replace"
    )


def of_another_program(rng: random.Random, data: bytes) -> bytes:
    return rng.choice(
        (
            lambda: b"\xef\xbb\xbf" + data,
            lambda: data.replace(b"\n", b"\r\n"),
            lambda: data.replace(b"\n", b"\r"),
            lambda: data.replace(b"\t", b" "),
            lambda: data.replace(b",", b";"),
            lambda: gzip.compress(data),
            lambda: rng.randbytes(rng.randrange(200)),
            lambda: b"",
            lambda: data * 2,
        )
    )()


DAMAGES: list[Callable[[random.Random, bytes], bytes]] = [
    cut_off,
    without_a_part,
    with_bytes,
    with_bits_turned,
    with_an_odd_line,
    with_a_line_twice,
    with_an_odd_value,
    with_an_odd_value,
    with_an_odd_value,
    with_a_key_twice,
    with_a_key_renamed,
    in_another_encoding,
    of_another_program,
]

# ------------------------------------------------------------------------------------------- readers
# Each reads a file and asserts that what it gives is what stands there.


def plain_lines(path: Path) -> list[tuple[int, str]]:
    """Returns the lines that hold something, with their numbers, read in the plainest way."""
    text = path.read_bytes().decode("utf-8").removeprefix("\ufeff")
    return [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]


def is_text(text: Any) -> bool:
    return isinstance(text, str) and text.encode("utf-8") is not None


def read_documents(path: Path, names: tuple[str, ...] = ("id", "title", "text")) -> None:
    found = list(jsonl_records(path, names))
    expected = [json.loads(line) for _, line in plain_lines(path)]
    assert len(found) == len(expected)
    for record, there in zip(found, expected, strict=True):
        name = there["_id"] if "_id" in there else there["id"]
        assert record["id"] == whole_text(str(name)) and record["id"].strip()
        assert record["text"] == whole_text(there["text"] or "") and is_text(record["text"])
        assert record.get("title", "") == whole_text(there.get("title") or "") or names == ("id", "text")


def read_judgements(path: Path) -> None:
    found = list(read_qrels(path))
    (_, header), *lines = plain_lines(path)
    columns = header.rstrip("\r").split("\t")
    assert len(found) == len(lines)
    for judgement, (number, line) in zip(found, lines, strict=True):
        cells = line.rstrip("\r").split("\t")
        assert judgement.where.endswith(f", line {number}")
        assert judgement.query_id in cells and judgement.document_id in cells and len(columns) >= 3
        assert judgement.relevance in [
            float(cell) for cell in cells if re.fullmatch(r"\s*[-+.\deE]+\s*", cell)
        ]
        assert math.isfinite(judgement.relevance) and abs(judgement.relevance) <= MAX_RELEVANCE


def read_pairs(path: Path) -> None:
    reader = PairsReader("pairs")
    reader.read("train", read_table(path))
    source = reader.source()
    texts = {text for _, record in read_table(path) for text in _strings(record)}
    try:
        pairs = list(source.pairs("train"))
    except InputError as error:
        assert "no judgement above 0" in str(error)
        raise InputError(f"{path.name}, line 1: {error}") from None
    assert pairs
    for pair in pairs:
        assert pair.query.strip() and pair.positive.strip() and pair.query in texts
        assert any(pair.positive.endswith(text.rstrip()) for text in texts if text.strip())
    assert source.query_ids.is_unique and source.document_ids.is_unique


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield whole_text(value)
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


def read_documents_alone(path: Path) -> None:
    for record in document_records(path, ()):
        assert record["id"].strip() and all(map(is_text, record.values()))


def read_a_text(path: Path) -> None:
    (record,) = text_files(path.parent, ())
    assert record["id"] == path.name
    assert record["text"] == path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode()


def read_recordings(path: Path) -> None:
    optional = ("domain", "difficulty", "length", "query", "reasoning", "mirror_query", "generator")
    lines = PairLines(path, "--recordings", "positive_id", ("text",), optional, repeated=True)
    try:
        there = [json.loads(line) for _, line in plain_lines(path)]
        assert lines.lines == len(there)
        for record in there:
            ids = whole_text(record["query_id"]), whole_text(record["positive_id"])
            found = [lines.get(*ids, number) for number in range(lines.count(*ids))]
            assert whole_text(record["text"]) in [one["text"] for one in found if one]
            assert all(is_text(one[name]) for one in found if one for name in ("query_id", "text"))
    finally:
        lines.close()


def read_verdicts(path: Path) -> None:
    verdicts = RecordedVerdicts(path)
    try:
        for _, line in plain_lines(path):
            record = json.loads(line)
            ids = whole_text(record["query_id"]), whole_text(record["doc_id"])
            found = verdicts.find(Request("m", [], {}, {}, "judge/1", *ids))
            assert found is not None and json.loads(found.text)["verdict"] == record["verdict"]
    finally:
        verdicts.close()


def read_journal(path: Path) -> None:
    good = set(journal_lines().splitlines())
    whole = [line for line in path.read_bytes().split(b"\n")[:-1] if line in good]
    with Journal(path.parent) as journal:
        entries = [journal.read(location) for location in journal.locations()]
        found = [entry for entry in entries if entry is not None]
        # What stands there whole is found; of what does not, each line is counted.
        for line in set(whole):
            assert journal.get(json.loads(line)["key"]) is not None
        lines = len(path.read_bytes().splitlines(keepends=True)) if b"\r" not in path.read_bytes() else None
        if lines is not None and not re.search(rb"[\x0b\x0c\x1c-\x1e\x85]", path.read_bytes()):
            assert len(found) + journal.torn == lines
        check_entries(found)
        request = Request("llm", [], {}, {}, "s/1", "new", "d")
        journal.append(request, Completion(request.key, "x", "stop"))
    with Journal(path.parent) as journal:
        assert journal.get(request.key) is not None


def check_entries(entries: list[Entry]) -> None:
    for entry in entries:
        completion = entry.completion
        assert isinstance(completion.text, str) and isinstance(entry.query_id, str)
        assert isinstance(entry.attributes, list) and isinstance(entry.sampling, dict)
        assert isinstance(completion.prompt_tokens + completion.completion_tokens, int)


def read_compacted_journal(path: Path) -> None:
    with Journal(path.parent) as journal:
        check_entries([entry for entry in map(journal.read, journal.locations()) if entry is not None])


def read_configuration(path: Path) -> None:
    config = read_yaml(path)
    assert isinstance(config, dict)
    parser = ConfigParser([SourceArguments, MiningArguments, GenerationArguments, GatingArguments])
    where, mining, generation, _ = parser.parse(["--config", str(path)])
    assert 0 <= where.test_share < 1 and mining.mined_per_miner >= 1 and generation.slots >= 1


def read_matrix(path: Path) -> None:
    embeddings = read_embeddings(str(path), 5, "documents", normalize=True)
    rows = embeddings.take(np.arange(5))
    assert rows.shape == (5, embeddings.dimension) and np.isfinite(rows).all()
    (block,) = [values for _, values in embeddings.blocks(8)]
    assert np.array_equal(block, rows)


def read_training_rows(path: Path) -> None:
    """Rows come out of `datasets`, so that only what is a JSON object still is given to the reader."""
    for i, line in enumerate(path.read_bytes().decode("utf-8", "replace").split("\n")):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            try:
                example = read_row(row)
            except InputError as error:
                raise InputError(f"{path.name}, row {i}: {error}") from None
            assert example.query.strip() and example.positive.strip()
            assert all(isinstance(candidate.text, str) for candidate in example.candidates)


TRAINING = [
    {"query_id": i, "query": f"q {i}", "positive_id": f"d{i}", "positive": f"p {i}", "negatives": ["a", "b"]}
    for i in range(3)
]
TRAINING += [{"anchor": "q", "positive": "p", "negative_1": "a", "neg": [{"text": "b", "source": "bm25"}]}]


def matrix() -> bytes:
    file = io.BytesIO()
    np.save(file, np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32))
    return file.getvalue()


READERS: dict[str, tuple[str, Callable[[], bytes], Callable[[Path], None]]] = {
    "corpus": ("corpus.jsonl", lambda: lines_of(DOCUMENTS), read_documents),
    "queries": (
        "queries.jsonl",
        lambda: lines_of(QUERIES),
        lambda path: read_documents(path, ("id", "text")),
    ),
    "qrels": ("test.tsv", QRELS.encode, read_judgements),
    "pairs, CSV": ("pairs.csv", lambda: table("csv"), read_pairs),
    "pairs, TSV": ("pairs.tsv", lambda: table("tsv"), read_pairs),
    "pairs, JSON Lines": ("pairs.jsonl", lambda: lines_of(PAIRS), read_pairs),
    "pairs, JSON": ("pairs.json", lambda: table("json"), read_pairs),
    "pairs, Parquet": ("pairs.parquet", lambda: table("parquet"), read_pairs),
    "pairs, compressed": ("pairs.csv.gz", lambda: gzip.compress(table("csv")), read_pairs),
    "documents alone": ("articles.jsonl", lambda: lines_of(DOCUMENTS), read_documents_alone),
    "texts": ("a.txt", lambda: "One.\r\nÜ 釜\n".encode() * 20, read_a_text),
    "recordings": ("recordings.jsonl", lambda: lines_of(RECORDED), read_recordings),
    "verdicts": ("verdicts.jsonl", lambda: lines_of(JUDGED), read_verdicts),
    "journal": ("a.jsonl", journal_lines, read_journal),
    "journal, compacted": ("a.parquet", lambda: b"", read_compacted_journal),
    "configuration": ("config.yaml", YAML.encode, read_configuration),
    "embeddings": ("documents.npy", matrix, read_matrix),
    "training rows": ("rows.jsonl", lambda: lines_of(TRAINING), read_training_rows),
}
BY_LINE = (
    "corpus",
    "queries",
    "qrels",
    "pairs, CSV",
    "pairs, TSV",
    "pairs, JSON Lines",
    "recordings",
    "verdicts",
)
OF_A_KEY = re.compile(r"(argument )?--\w+|unknown [\w ]+ (in --\w+ )?'")
"""What a configuration's value is told by, whether it came from the file or the command line."""
OF_THE_WHOLE = re.compile(
    "there is no row in it|holds no recorded completion|no pair in|holds no completion|no split"
)


def compacted(folder: Path) -> bytes:
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(journal_lines())
    compact_journal(folder)
    (path,) = folder.glob("*.parquet")
    return path.read_bytes()


def check_error(reader: str, path: Path, error: InputError) -> None:
    """Asserts that an error is one line that names the file, and the line where there are lines."""
    message = str(error)
    assert message and "\n" not in message and len(message) < 1500, message
    if reader in BY_LINE and not OF_THE_WHOLE.search(message):
        named = re.search(rf"{re.escape(path.name)}, (?:line|row) (\d+)", message)
        assert named, message
        assert 1 <= int(named[1]) <= path.read_bytes().count(b"\n") + 1, message
    elif reader not in BY_LINE:
        assert path.name in message or OF_A_KEY.match(message) or OF_THE_WHOLE.search(message), message


def read(reader: str, seed: int, good: bytes, folder: Path) -> str:
    """Gives one damaged input to a reader; returns "rows" or "error"."""
    name, _, call = READERS[reader]
    data = damaged(random.Random(f"{reader}/{seed}"), good)
    folder.mkdir()
    path = folder / name
    path.write_bytes(data)
    try:
        call(path)
    except InputError as error:
        assert isinstance(error, InputError)
        try:
            check_error(reader, path, error)
        except AssertionError as wrong:
            pytest.fail(f"{reader}, seed {seed}: {wrong}\nthe input: {data[:3000]!r}")
        return "error"
    except Exception as error:
        pytest.fail(f"{reader}, seed {seed}: {type(error).__name__}: {error}\nthe input: {data[:3000]!r}")
    return "rows"


@pytest.mark.parametrize("reader", READERS)
def test_damaged_inputs(reader: str, tmp_path: Path) -> None:
    _, make, call = READERS[reader]
    good = compacted(tmp_path / "journal") if reader == "journal, compacted" else make()
    (tmp_path / "good").mkdir()
    path = tmp_path / "good" / READERS[reader][0]
    path.write_bytes(good)
    call(path)  # The good input is read.
    came = [read(reader, SEED + i, good, tmp_path / str(i)) for i in range(EACH)]
    # Damage is met, and what is right in spite of it is read.
    assert came.count("error") >= (0 if reader == "journal" else EACH // 10)
    assert came.count("rows") >= EACH // 50


def test_there_are_enough_inputs() -> None:
    assert EACH * len(READERS) >= 2000


@pytest.fixture
def _without_bars() -> Iterator[None]:
    disable_progress_bars()
    yield
    enable_progress_bars()


@pytest.mark.usefixtures("_without_bars")
@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl", "qrels/train.tsv", "pairs.csv"])
def test_damaged_sources(name: str, tmp_path: Path) -> None:
    """The same through `load_source`, and nothing is left behind half."""
    good = Source.from_pairs([("what is it", "It is this."), ("and that", "That as well.")])
    for i in range(12):
        folder = tmp_path / f"{i}"
        if name == "pairs.csv":
            folder.mkdir()
            (folder / name).write_bytes(table("csv"))
        else:
            good.save(folder)
        path = folder / name
        path.write_bytes(damaged(random.Random(f"{name}/{SEED + i}"), path.read_bytes()))
        before = sorted(folder.rglob("*"))
        try:
            source = load_source(folder)
            assert source.name == folder.name and len(source.corpus)
            assert all(is_text(text) for text in source.documents())
        except InputError as error:
            assert "\n" not in str(error), (SEED + i, path.read_bytes())
        except Exception as error:
            pytest.fail(f"{name}, seed {SEED + i}: {error!r}\nthe input: {path.read_bytes()!r}")
        assert sorted(folder.rglob("*")) == before
