"""What recordings and verdicts may come as: with a byte order mark, compressed, in another Unicode form."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from syneg.errors import InputError
from syneg.gating.verdicts import RecordedVerdicts
from syneg.llm.journal import Journal, encode_line, entry_of
from syneg.llm.recordings import PairLines
from syneg.llm.requests import Completion, Request

COMPOSED, TAKEN_APART = "caf\u00e9", "cafe\u0301"


def lines(path: Path, *records: dict | str) -> PairLines:
    text = "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records)
    if not path.exists():
        path.write_text(text)
    return PairLines(path, "--recordings", "positive_id", ("text",), ("query",), repeated=True)


def record(query_id: str = "q", text: str = "a text") -> dict:
    return {"query_id": query_id, "positive_id": "d", "text": text}


def test_a_byte_order_mark_and_compression(tmp_path: Path) -> None:
    content = (json.dumps(record("q0")) + "\r\n\r\n" + json.dumps(record("q1", "other")) + "\n").encode()
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + content)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(content))
    for name in ("a.jsonl", "b.jsonl.gz"):
        found = lines(tmp_path / name)
        assert found.lines == 2
        assert [found.get(q, "d")["text"] for q in ("q0", "q1", "q0")] == ["a text", "other", "a text"]
        found.close()
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(content)[:30])
    with pytest.raises(InputError, match=r"c\.jsonl\.gz: cannot be unpacked \(Truncated"):
        lines(tmp_path / "c.jsonl.gz")


def test_half_a_surrogate_pair(tmp_path: Path) -> None:
    found = lines(tmp_path / "a.jsonl", '{"query_id": "q\\ud83d", "positive_id": "d", "text": "cut \\ud83d"}')
    assert found.get("q\ufffd", "d") == {"query_id": "q\ufffd", "positive_id": "d", "text": "cut \ufffd"}


def test_an_id_in_another_unicode_form(tmp_path: Path) -> None:
    found = lines(tmp_path / "a.jsonl", record(COMPOSED, "first"), record(COMPOSED, "second"))
    for name in (COMPOSED, TAKEN_APART):
        assert [found.get(name, "d", n)["text"] for n in (0, 1)] == ["first", "second"]
        assert found.get(name, "d", 2) is None and found.count(name, "d") == 2
    # Two ids that differ in form only are two.
    both = lines(tmp_path / "b.jsonl", record(COMPOSED, "1"), record(TAKEN_APART, "2"), record(COMPOSED, "3"))
    assert [both.get(name, "d")["text"] for name in (COMPOSED, TAKEN_APART)] == ["1", "2"]
    assert (both.count(COMPOSED, "d"), both.count(TAKEN_APART, "d")) == (2, 1)
    assert lines(tmp_path / "c.jsonl", record("ﬁ")).get("fi", "d") is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            '{"query_id": "q", "query_id": "r", "positive_id": "d", "text": "x"}',
            "the key 'query_id' stands twic",
        ),
        ("[" * 100_000, "nested too deeply"),
        ("null", "expected a JSON object, found a null"),
        ('{"query_id": NaN, "positive_id": "d", "text": "x"}', "'query_id' must be a string"),
        ('{"query_id": "q", "positive_id": "d", "text": ["x"]}', "'text' must be a string"),
    ],
)
def test_a_line_that_is_none(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(InputError, match=rf"a\.jsonl, line 2: .*{message}"):
        lines(tmp_path / "a.jsonl", record(), line)


def test_a_verdict_that_is_none_is_named_with_its_line(tmp_path: Path) -> None:
    good = {"query_id": "q", "doc_id": "d", "verdict": "no"}
    path = tmp_path / "v.jsonl"
    path.write_text(
        "".join(json.dumps(good | more) + "\n" for more in ({}, {"doc_id": "e", "verdict": "No"}))
    )
    with pytest.raises(InputError, match=r"v\.jsonl, line 2: the verdict is 'No', none of yes, partly, no"):
        RecordedVerdicts(path)


def test_damage_behind_the_key_of_a_journal_s_line_is_counted(tmp_path: Path) -> None:
    requests = [Request("m", [], {"seed": i}, {}, "s/1", f"q{i}", "d") for i in range(4)]
    content = [encode_line(entry_of(r, Completion(r.key, "text", "stop"))) for r in requests]
    content[1] = content[1].replace(b'"text":"text"', b'"text":["text"]')
    content[2] = content[2].replace(b'"slot":0', b'"slot":0,,')
    content[3] = b'{"key":"' + b"-" + content[3][9:]
    (tmp_path / "a.jsonl").write_bytes(b"".join(content))
    with Journal(tmp_path) as journal:
        assert journal.torn == 1
        assert [request.key in journal for request in requests] == [True, False, False, False]
        assert [request.key in journal for request in requests] == [True, False, False, False]
        assert journal.torn == 3
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    with pytest.raises(
        InputError, match=r"b\.parquet: this file of the journal is damaged \(.*\)\. Bring back"
    ):
        Journal(tmp_path)
