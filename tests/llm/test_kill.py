"""Runs that are killed with SIGKILL, again and again, come to what a run never killed comes to."""

from __future__ import annotations

import multiprocessing
import random
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
from datasets import Dataset

from syneg.llm.compaction import compact_journal
from syneg.llm.journal import Journal
from syneg.llm.requests import Request
from syneg.rows import FEATURES, make_row
from syneg.sources import Pair
from syneg.writing.arguments import GenerationArguments
from syneg.writing.negatives import negatives_of
from tests.llm.engines import ScriptedEngine, good_text, written_by

ARGS = GenerationArguments(slots=2, max_attempts=3)


def make_pairs(count: int) -> list[Pair]:
    return [Pair(f"q{i}", f"query {i}", f"d{i}", f"positive {i} " * 20) for i in range(count)]


def slow_answer(request: Request) -> str:
    """Takes a millisecond; one request in ten has to be made again, one in a thousand fails for good."""
    time.sleep(0.001)
    return "no" if request.sampling["seed"] % 10 == 0 else good_text(request)


def work(folder: Path, count: int, compact: bool, started: Event | None = None) -> None:
    if started is not None:
        started.set()
    if compact:
        compact_journal(folder)
    engine = ScriptedEngine(slow_answer, window=16)
    negatives_of(make_pairs(count), ARGS, folder, 0, engine=engine, progress=False).run()


def data_set(folder: Path, count: int, target: Path) -> bytes:
    rows = [
        make_row(r.pair.query_id, r.pair.query, r.pair.positive_id, r.pair.positive, r.negatives)
        for r in written_by(make_pairs(count), ARGS, folder, 0)
    ]
    Dataset.from_list(rows, features=FEATURES).to_parquet(target)
    return target.read_bytes()


def kill_and_compare(tmp_path: Path, count: int, kills: int) -> None:
    whole = ScriptedEngine(slow_answer, window=3)
    report = negatives_of(make_pairs(count), ARGS, tmp_path / "whole", 0, engine=whole, progress=False).run()
    chance = random.Random(0)
    folder = tmp_path / "killed"
    folder.mkdir()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.llm.test_kill"])
    killed = torn = 0
    while killed < kills:
        started, before = context.Event(), Journal.files(folder)
        process = context.Process(target=work, args=(folder, count, chance.random() < 0.2, started))
        process.start()
        assert started.wait(60)
        process.join(chance.uniform(0.0, 2.0 * len(whole.asked) * 0.001 / kills))
        if process.exitcode is not None:
            # It ended before it could be killed: take away part of what it did, and go on.
            assert process.exitcode == 0
            for path in Journal.files(folder)[1:]:
                path.unlink()
            continue
        process.kill()
        process.join()
        # A kill before it wrote anything is fine too, but does not count.
        killed += any(path not in before for path in Journal.files(folder) if path.stat().st_size)
        lines = [path for path in Journal.files(folder) if path.suffix == ".jsonl" and path.stat().st_size]
        if lines and chance.random() < 0.5:
            # As if the machine had lost power too: the end of a file never reached the disk.
            path = chance.choice(lines)
            path.write_bytes(path.read_bytes()[: -chance.randint(1, 300)])
            torn += 1
    work(folder, count, compact=False)
    assert torn, "some file must have been torn"
    assert data_set(folder, count, tmp_path / "a") == data_set(tmp_path / "whole", count, tmp_path / "b")
    again = negatives_of(make_pairs(count), ARGS, folder, 0, progress=False).run()
    assert again.run.asked == 0
    assert (again.kept, again.failed, again.failures) == (report.kept, report.failed, report.failures)
    compact_journal(folder)
    assert data_set(folder, count, tmp_path / "c") == (tmp_path / "b").read_bytes()


def test_killed_a_few_times(tmp_path):
    kill_and_compare(tmp_path, count=300, kills=6)


@pytest.mark.slow
def test_killed_fifty_times(tmp_path):
    kill_and_compare(tmp_path, count=3000, kills=50)
