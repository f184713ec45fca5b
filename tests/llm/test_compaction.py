from __future__ import annotations

import random

import pytest

from syneg.cli import main
from syneg.errors import InputError
from syneg.llm.compaction import compact_journal
from syneg.llm.journal import Journal
from syneg.sources import Pair
from syneg.writing.arguments import GenerationArguments
from syneg.writing.negatives import negatives_of
from tests.llm.engines import ScriptedEngine, written_by
from tests.llm.test_journal import fill, make


def test_reading_gives_the_same_before_and_after(tmp_path):
    pairs = [Pair(f"q{i}", f"query {i}", f"d{i}", f"positive {i}") for i in range(700)]
    args = GenerationArguments(slots=2, max_attempts=2)
    shuffler = random.Random(0)

    def answer(request):
        from tests.llm.engines import good_text

        return "no" if shuffler.random() < 0.1 else good_text(request)

    for part in (pairs[:300], pairs[300:], pairs):
        negatives_of(part, args, tmp_path, 0, engine=ScriptedEngine(answer, window=50), progress=False).run()
    before = [(r.negatives, r.failures) for r in written_by(pairs, args, tmp_path, 0)]
    with Journal(tmp_path) as journal:
        at = journal.at("q7", "d7", 1)
        entries = len(journal)
    report = compact_journal(tmp_path)
    assert (report.files, report.busy, report.entries, report.duplicates) == (2, 0, entries, 0)
    assert report.bytes_after < report.bytes_before / 3
    assert [path.suffix for path in Journal.files(tmp_path)] == [".parquet"]
    assert before == [(r.negatives, r.failures) for r in written_by(pairs, args, tmp_path, 0)]
    with Journal(tmp_path) as journal:
        assert journal.at("q7", "d7", 1) == at
    again = negatives_of(pairs, args, tmp_path, 0, progress=False).run()
    assert again.run.asked == 0
    more = [*pairs, Pair("new", "q", "d", "p")]
    negatives_of(more, args, tmp_path, 0, engine=ScriptedEngine(), progress=False).run()
    assert compact_journal(tmp_path).entries == entries + 2
    assert len(list(written_by(more, args, tmp_path, 0))[-1].negatives) == 2


def test_duplicates_and_torn_lines_go(tmp_path):
    fill(tmp_path, 0, 10)
    fill(tmp_path, 5, 15)
    (path, _) = Journal.files(tmp_path)
    path.write_bytes(path.read_bytes() + b'{"key":"half')
    report = compact_journal(tmp_path)
    assert (report.entries, report.duplicates, report.torn) == (15, 5, 1)
    assert "5 duplicates, 1 torn lines" in report.lines()[1]
    with Journal(tmp_path) as journal:
        assert len(journal) == 15 and all(make(n)[0].key in journal for n in range(15))


def test_a_file_that_is_being_written_is_left_alone(tmp_path):
    fill(tmp_path, 0, 3)
    with Journal(tmp_path) as writer:
        writer.append(*make(7))
        report = compact_journal(tmp_path)
        assert (report.files, report.busy, report.entries) == (1, 1, 3)
        writer.append(*make(8))
        assert make(1)[0].key in writer, "a reader keeps what it has opened"
    with Journal(tmp_path) as journal:
        assert [n for n in range(10) if make(n)[0].key in journal] == [0, 1, 2, 7, 8]


def test_nothing_to_compact(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        compact_journal(tmp_path / "none")
    assert compact_journal(tmp_path).files == 0
    (tmp_path / "x.jsonl").write_text('{"key":"half')
    report = compact_journal(tmp_path)
    assert (report.files, report.entries, report.torn) == (1, 0, 1)
    assert Journal.files(tmp_path) == []


def test_from_the_command_line(tmp_path, capsys):
    fill(tmp_path / "journal", 0, 10)
    fill(tmp_path / "journal", 5, 15)
    assert main(["compact", "--journal", str(tmp_path / "journal")]) == 0
    assert "2 files with 15 completions made into one" in capsys.readouterr().out
    assert main(["compact", "--journal", str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err
