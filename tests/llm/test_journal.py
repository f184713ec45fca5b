from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from syneg.errors import InputError
from syneg.llm.index import LocationIndex
from syneg.llm.journal import Journal
from syneg.llm.requests import Completion, Request


def make(number: int, text: str | None = None) -> tuple[Request, Completion]:
    request = Request(
        "llm", [{"role": "user", "content": f"{number}"}], {"seed": 1}, {}, "syneg/1", f"q{number}", "d"
    )
    return request, Completion(request.key, text or f"text {number}\n☃", "stop", 3, 2, 1, "llm")


def fill(folder: Path, start: int, stop: int) -> None:
    with Journal(folder) as journal:
        for number in range(start, stop):
            journal.append(*make(number))


def test_round_trip_and_reopening(tmp_path):
    request, completion = make(1)
    with Journal(tmp_path) as journal:
        assert request.key not in journal
        journal.append(request, completion)
        assert journal.get(request.key).completion == completion
    with Journal(tmp_path) as journal:
        entry = journal.get(request.key)
        assert entry.completion == completion
        assert (entry.query_id, entry.positive_id, entry.model) == ("q1", "d", "llm")
        assert journal.at("q1", "d", 0) == [entry]
        assert journal.at("q1", "d", 1) == []


@pytest.mark.parametrize("cut", [1, 2, 40, 150])
def test_a_torn_last_line_is_passed_over_and_nothing_else(tmp_path, cut):
    fill(tmp_path, 0, 5)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-cut])
    with Journal(tmp_path) as journal:
        assert [n for n in range(5) if make(n)[0].key in journal] == [0, 1, 2, 3]
        assert journal.torn == 1
        journal.append(*make(4))
    with Journal(tmp_path) as journal:
        assert all(make(n)[0].key in journal for n in range(5))


def test_a_line_of_something_else_is_passed_over(tmp_path):
    fill(tmp_path, 0, 1)
    (tmp_path / "strange.jsonl").write_bytes(b'{"a": 1}\n\xff\xff\n\n')
    with Journal(tmp_path) as journal:
        assert journal.torn == 3 and len(journal) == 1


def test_several_processes_fill_one_folder(tmp_path):
    with ProcessPoolExecutor(2) as pool:
        for future in [pool.submit(fill, tmp_path, n, n + 60) for n in (0, 50, 100)]:
            future.result()
    with Journal(tmp_path) as journal:
        assert len(journal) == 180
        assert all(make(n)[0].key in journal for n in range(160))


def test_it_is_readable_while_it_is_written(tmp_path):
    with Journal(tmp_path) as writer:
        writer.append(*make(0))
        with Journal(tmp_path) as reader:
            assert make(0)[0].key in reader


def test_texts_that_utf8_cannot_hold_survive(tmp_path):
    request, completion = make(0, "half a pair \ud800 \x00 \u2028")
    with Journal(tmp_path) as journal:
        journal.append(request, completion)
    with Journal(tmp_path) as journal:
        assert journal.get(request.key).completion == completion


def test_a_completion_for_another_request_is_refused(tmp_path):
    with Journal(tmp_path) as journal, pytest.raises(ValueError, match="another request"):
        journal.append(make(0)[0], make(1)[1])


def test_a_file_is_no_journal(tmp_path):
    (tmp_path / "journal").write_text("")
    with pytest.raises(InputError, match="the journal is a folder"):
        Journal(tmp_path / "journal")


def test_the_index_keeps_all_locations_in_order():
    index = LocationIndex()
    for i in range(150_000):
        index.add((i * 2654435761) % 50_000 << 40, i)
    assert len(index) == 150_000
    for i in (0, 1, 49_999):
        number = (i * 2654435761) % 50_000 << 40
        assert index.get(number) == [i, i + 50_000, i + 100_000]
    assert index.get(7) == []
    index.add(2**64 - 1, 5)
    assert index.get(2**64 - 1) == [5]
