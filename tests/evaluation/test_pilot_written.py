"""A pilot's written queries: what they are written for, what prompts show, and the lines for the winner."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path

import pytest
from datasets import Dataset, load_dataset

from syneg.building import StageArguments, data_set_parser, stage_arguments
from syneg.cli import main
from syneg.config import ConfigParser
from syneg.errors import InputError
from syneg.evaluation.arguments import EncodingArguments
from syneg.evaluation.pilot import PilotArguments, arms_of, commands_of, plan_of, sample_of, training_of
from syneg.evaluation.written import WRITTEN, WRITTEN_AND_PAIRS, QueriesPlan
from syneg.sources import CORPUS_FEATURES, Source, load_source
from syneg.training.arguments import GuardedArguments
from syneg.training.run import TrainArguments
from tests.stand_in import tiny_encoder, tiny_source

ENGINE = r"""
import json, re
from syneg.llm.requests import Completion, Engine

class Writer(Engine):
    def __init__(self, llm, options):
        self.log = options["log"]

    def generate(self, requests):
        for request in requests:
            prompt = request.messages[-1]["content"]
            about = re.findall(r"item\d+", prompt.rpartition("<positive_document>")[2])
            text = json.dumps({"reasoning": "so", "query": "who would speak of " + " ".join(about)})
            with open(self.log, "a") as file:
                prompt = " ".join(message["content"] for message in request.messages)
                file.write(json.dumps([request.positive_id, prompt]) + "\n")
            yield Completion(request.key, text, "stop", 100, 20, 60, "writer")

    def close(self):
        pass
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source with 48 queries, an engine and an encoder."""
    folder = tmp_path_factory.mktemp("tiny")
    source = tiny_source(60, 48)
    source.save(folder / "beir")
    tiny_encoder(folder)
    (folder / "engine.py").write_text(ENGINE)
    return folder


class Planned:
    """What a pilot makes of a command line, without a run."""

    def __init__(self, tiny: Path, output: Path, *more: str) -> None:
        words = [
            *("--source", str(tiny / "beir"), "--engine", f"{tiny / 'engine.py'}:Writer", "--llm", "writer"),
            *("--engine_options", json.dumps({"log": str(output.parent / "log")})),
            *("--encoder", str(tiny / "encoder"), "--miners", "bm25,dense", "--relative_margin", "{}"),
            *("--mining_cache", str(tiny / "cache"), "--pairs", "40", "--output", str(output), *more),
        ]
        *data_set, self.args, self.encoding = data_set_parser(PilotArguments, EncodingArguments).parse(words)
        self.output, self.log = output, output.parent / "log"
        self.stages: StageArguments = stage_arguments(*data_set, seed=self.args.seed)
        self.stages.journal = f"{output}-journal"
        self.source = load_source(str(tiny / "beir"))

    def plan(self) -> QueriesPlan:
        sample = sample_of(self.source, self.args, "train")
        plan = plan_of(self.args, self.stages, self.source, sample, self.output)
        assert plan is not None
        return plan

    def asked(self) -> dict[str, str]:
        """Returns document -> prompt of what was asked since the last call."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return dict(map(json.loads, lines))


def relevant(source: Source, split: str) -> set[str]:
    return {name for scores in source.qrels[split].values() for name in scores}


def rows_of(output: Path, arm: str) -> Dataset:
    return load_dataset(str(output / f"rows-{arm}"), split="train")


def test_nothing_is_written_for_what_is_evaluated(tiny: Path, tmp_path: Path) -> None:
    planned = Planned(tiny, tmp_path / "out")
    plan = planned.plan()
    written, notes = plan.write(tmp_path / "out", 0.2)
    assert written is not None and not notes
    asked, sample = planned.asked(), plan.sample
    assert written.documents == len(asked) and 0 < written.queries <= written.documents
    closed = relevant(sample, "test") | relevant(planned.source, "test")
    assert not closed & asked.keys() and asked.keys() <= set(sample.document_ids)
    # The prompts show queries of the training half, and none of any other.
    texts = dict(zip(planned.source.queries["id"], planned.source.queries["text"], strict=True))
    shown = {name for name, text in texts.items() if any(text in prompt for prompt in asked.values())}
    assert shown <= sample.qrels["train"].keys() and len(shown) == written.examples == 12
    rows = {arm: rows_of(tmp_path / "out", arm) for arm in (WRITTEN, WRITTEN_AND_PAIRS)}
    assert set(rows[WRITTEN]["positive_id"]) <= asked.keys() and set(rows[WRITTEN]["origin"]) == {"written"}
    both = rows[WRITTEN_AND_PAIRS]
    real = {(row["query"], row["positive_id"]) for row in both if row["origin"] == "source"}
    assert real == {(pair.query, pair.positive_id) for pair in sample.pairs("train")}
    assert len(both) == len(real) + len(rows[WRITTEN])
    assert all(len(negatives) >= 3 for negatives in rows[WRITTEN]["negatives"])


def test_a_repetition_of_an_evaluated_document_is_not_written_for(tiny: Path, tmp_path: Path) -> None:
    planned = Planned(tiny, tmp_path / "out")
    held = next(iter(relevant(planned.plan().sample, "test")))
    corpus = planned.source.corpus.to_list()
    text = next(one["text"] for one in corpus if one["id"] == held)
    title = next(one["title"] for one in corpus if one["id"] == held)
    corpus.append({"id": "twin", "title": title.upper(), "text": f" {text}"})
    planned.source = dataclasses.replace(
        planned.source, corpus=Dataset.from_list(corpus, features=CORPUS_FEATURES)
    )
    assert planned.plan().closed["twin"] == "of the evaluation half"


def test_what_was_written_is_not_asked_again_and_replays(tiny: Path, tmp_path: Path) -> None:
    planned = Planned(tiny, tmp_path / "out", "--written_documents", "9")
    planned.plan().write(tmp_path / "out", 0.2)
    assert len(planned.asked()) == 9
    before = rows_of(tmp_path / "out", WRITTEN_AND_PAIRS)[:]
    planned.plan().write(tmp_path / "out", 0.2)
    assert not planned.asked() and rows_of(tmp_path / "out", WRITTEN_AND_PAIRS)[:] == before
    more = ("--engine", "recorded", "--query_recordings", f"{tmp_path / 'out'}-journal-queries")
    again = Planned(tiny, tmp_path / "again", "--written_documents", "9", *more)
    again.plan().write(tmp_path / "again", 0.2)
    assert not planned.asked() and rows_of(tmp_path / "again", WRITTEN_AND_PAIRS)[:] == before


def test_the_lines_of_a_written_arm_do_the_whole_source(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = Planned(tiny, tmp_path / "out", "--written_documents", "6")
    plan = planned.plan()
    plan.write(tmp_path / "out", 0.2)
    piloted = planned.asked().keys()
    cost = plan.whole_estimate(None)
    pairs = len(planned.source.pairs("train")), len(plan.sample.pairs("train"))
    assert cost.pairs == round(6 * pairs[0] / pairs[1]) and cost.done_requests == 6
    training = training_of(planned.args, planned.encoding)
    arms = arms_of(planned.args, planned.stages, plan)
    for name in (WRITTEN, WRITTEN_AND_PAIRS):
        ask, mine, train = (shlex.split(line) for line in commands_of(planned.args, arms[name], training))
        assert (ask[:2], mine[:2]) == (["syneg", "ask"], ["syneg", "mine"])
        assert main([*ask[1:], "--overwrite", "true"]) == 0
        assert main([*mine[1:], "--overwrite", "true"]) == 0
        rows = load_dataset(f"{tmp_path / 'out'}-dataset", split="train")
        written = {row["positive_id"] for row in rows if row["origin"] == "written"}
        assert written and not written & relevant(planned.source, "test")
        real = len(rows) - sum(origin == "written" for origin in rows["origin"])
        assert real == (pairs[0] if name == WRITTEN_AND_PAIRS else 0)
        what, _ = ConfigParser((TrainArguments, GuardedArguments)).parse(train[5:])
        assert what.dataset == f"{tmp_path / 'out'}-dataset" and what.mixture == "dense=3"
    # The whole source's prompts show what the pilot's did, so that nothing is paid twice.
    assert not piloted & planned.asked().keys()


@pytest.mark.parametrize(
    ("query", "why"),
    [("nothing that anything would come back for", "no query passed the gates"), ("item{}", "too few")],
)
def test_too_little_that_was_written_is_said_and_no_error(
    tiny: Path, tmp_path: Path, query: str, why: str
) -> None:
    planned = Planned(tiny, tmp_path / "out")
    free = next(i for i in range(60) if f"d{i}" not in planned.plan().closed)
    record = {"doc_id": f"d{free}", "query": query.format(free)}
    (tmp_path / "queries.jsonl").write_text(json.dumps(record) + "\n")
    more = ("--engine", "recorded", "--query_recordings", str(tmp_path / "queries.jsonl"))
    plan = Planned(tiny, tmp_path / "out", *more).plan()
    # By BM25 alone: by chance a random encoder finds anything.
    plan = dataclasses.replace(plan, gates=dataclasses.replace(plan.gates, round_trip=["bm25"]))
    written, notes = plan.write(tmp_path / "out", 0.2)
    assert written is None and why in notes[0] and notes[0].startswith("Written queries are not tried")


def test_recordings_of_other_documents_are_told_before_anything_is_asked(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "queries.jsonl").write_text(json.dumps({"doc_id": "elsewhere", "query": "what"}) + "\n")
    more = ("--engine", "recorded", "--query_recordings", str(tmp_path / "queries.jsonl"))
    plan = Planned(tiny, tmp_path / "out", *more).plan()
    with pytest.raises(InputError, match=r"does not have, as 'elsewhere'.*--written_documents 0"):
        plan.check()
    assert not Path(f"{tmp_path / 'out'}-journal-queries").exists()
