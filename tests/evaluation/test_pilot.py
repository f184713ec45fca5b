"""A pilot, run whole on tiny sources; and its verdict on scores whose truth is known."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, load_dataset

from syneg.building import data_set_parser, stage_arguments
from syneg.cli import main
from syneg.config import ConfigParser
from syneg.errors import InputError
from syneg.evaluation.arguments import ZERO_SHOT, EncodingArguments
from syneg.evaluation.comparison import Comparison, Run
from syneg.evaluation.metrics import QueryScores, mean_scores
from syneg.evaluation.pilot import (
    AS_WRITTEN,
    DENSE,
    HYBRID,
    PilotArguments,
    arms_of,
    commands_of,
    training_of,
)
from syneg.evaluation.verdict import best_arm, judge
from syneg.evaluation.written import WRITTEN, WRITTEN_AND_PAIRS
from syneg.llm.journal import Journal
from syneg.sources import CORPUS_FEATURES, QUERY_FEATURES, Source, load_source
from syneg.sources.cutting import sample_pairs
from syneg.training.arguments import GuardedArguments
from syneg.training.run import TrainArguments
from tests.stand_in import tiny_encoder, tiny_source

ASKED = ("winter", "load", "coast", "night")
SAID = ("bends", "carries", "freezes", "signals")


def record(pair, text: str) -> dict[str, str]:
    return {"query_id": pair.query_id, "positive_id": pair.positive_id, "query": pair.query, "text": text}


def words_of(folder: Path, source: str, model: str, recordings: Path, *more: str) -> list[str]:
    return [
        *("pilot", "--source", source, "--engine", "recorded", "--recordings", str(recordings)),
        *("--model", model, "--encoder", model, "--gates", "checks", "--language", "any"),
        *("--output", str(folder), *more),
    ]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source with 48 queries, its recordings and an encoder."""
    folder = tmp_path_factory.mktemp("tiny")
    source = tiny_source(60, 48)
    source.save(folder / "beir")
    tiny_encoder(folder)
    records = [
        record(
            pair, f"The engine carries item{i} at night, and this is in no note that {pair.query_id} names."
        )
        for i, pair in enumerate(source.pairs("train"))
    ]
    (folder / "recordings.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    (folder / "queries.jsonl").write_text(written_lines(60))
    return folder


def written_lines(documents: int) -> str:
    """Recordings of a query for each of the first documents, which BM25 finds it again by."""
    records = [{"doc_id": f"d{i}", "query": f"who would speak of item{i} here"} for i in range(documents)]
    return "".join(json.dumps(record) + "\n" for record in records)


def tiny_words(tiny: Path, output: Path, *more: str) -> list[str]:
    training = (
        "num_train_epochs=2,learning_rate=0.01,bf16=false,disable_tqdm=true,per_device_train_batch_size=4"
    )
    return [
        *words_of(output, str(tiny / "beir"), str(tiny / "encoder"), tiny / "recordings.jsonl"),
        *("--pairs", "40", "--relative_margin", "{}", "--seeds", "0,1", "--training", training, *more),
    ]


@pytest.fixture(scope="module")
def piloted(tiny: Path) -> Path:
    words = tiny_words(tiny, tiny / "out", "--query_recordings", str(tiny / "queries.jsonl"))
    assert main(words) == 0
    return tiny / "out"


def test_one_half_is_written_for_and_the_other_evaluated(tiny: Path, piloted: Path) -> None:
    sample = load_source(str(piloted / "source"))
    train, test = ({d for docs in sample.qrels[s].values() for d in docs} for s in ("train", "test"))
    assert not train & test and not sample.qrels["train"].keys() & sample.qrels["test"].keys()
    found = json.loads((piloted / "pilot.json").read_text())
    assert found["pairs"] == len(sample.pairs("train")) + len(sample.pairs("test")) == 40
    assert len(sample.corpus) == 60 and found["queries"] == len(sample.qrels["test"])
    with Journal(tiny / "out-journal") as journal:
        asked = {pair.query_id for pair in sample.pairs("train")}
        assert len(journal) == len(sample.pairs("train"))
        assert all(journal.at(p.query_id, p.positive_id, 0) for p in sample.pairs("train"))
        assert not any(journal.at(p.query_id, p.positive_id, 0) for p in sample.pairs("test")) and asked
    # Of the whole source's 43 pairs what the pilot has had written is not paid twice.
    assert found["cost"]["pairs"] == 43
    assert found["cost"]["open_requests"] == 43 - len(sample.pairs("train"))


def test_the_record_has_every_arm_and_a_verdict(piloted: Path) -> None:
    found = json.loads((piloted / "pilot.json").read_text())
    assert found["verdict"] in ("pays", "costs", "undecided")
    trained = ["in-batch", DENSE, HYBRID, "hybrid-as-written", WRITTEN, WRITTEN_AND_PAIRS]
    assert list(found["arms"]) == [ZERO_SHOT, *trained]
    assert found["best_arm"] in found["arms"] and HYBRID in found["sentence"]
    assert (found["arm"], found["baseline"]) == (HYBRID, DENSE)
    written = found["written"]
    assert (written["arm"], written["baseline"]) == (WRITTEN_AND_PAIRS, DENSE)
    assert (written["alone"]["arm"], written["alone"]["baseline"]) == (WRITTEN, ZERO_SHOT)
    assert {written["verdict"], written["alone"]["verdict"]} <= {"pays", "costs", "undecided"}
    assert written["difference"] == found["arms"][WRITTEN_AND_PAIRS]["difference"]
    alone = found["arms"][WRITTEN]["mean"] - found["arms"][ZERO_SHOT]["mean"]
    assert written["alone"]["difference"] == pytest.approx(alone, abs=1e-4)
    for name, arm in found["arms"].items():
        assert 0 <= arm["mean"] <= 1
        assert (arm["p"] is None) == (arm["interval"] is None) == (name == DENSE)
        assert len(arm["epochs"]) == (0 if name == ZERO_SHOT else 2)
        assert set(arm["epochs"]) <= {1.0, 2.0}


def test_what_is_finished_is_not_done_again_and_a_journal_replays(
    tiny: Path, piloted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (piloted / "compare").rglob("run.json")}
    record_before = (piloted / "pilot.json").read_bytes()
    words = tiny_words(tiny, piloted, "--query_recordings", str(tiny / "queries.jsonl"))
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "WRITTEN QUERIES, " in printed and "without labels: written " in printed
    assert len(before) == 13 and before == {path: path.stat().st_mtime_ns for path in before}
    assert (piloted / "pilot.json").read_bytes() == record_before
    assert "0 new" in printed and "VERDICT: " in printed and "| hybrid-as-written |" in printed
    (piloted / "compare/runs/dense/seed-1/run.json").unlink()
    assert main(words) == 0
    assert (piloted / "pilot.json").read_bytes() == record_before
    capsys.readouterr()
    # The journal is a recording of another pilot, of the same sample.
    again = [*tiny_words(tiny, tmp_path / "again"), "--recordings", f"{piloted}-journal"]
    assert main([*again, "--seeds", "0", "--on_miss", "skip"]) == 0
    # Without recordings of queries, one line says what is left out.
    printed = capsys.readouterr().out
    assert "--query_recordings FILE" in printed and "WRITTEN QUERIES" not in printed
    left_out = json.loads((tmp_path / "again/pilot.json").read_text())
    assert left_out["written"] is None and WRITTEN not in left_out["arms"]
    rows = [load_dataset(str(folder / "rows"), split="train") for folder in (piloted, tmp_path / "again")]
    assert rows[0]["negatives"][:] == rows[1]["negatives"][:]


def test_the_lines_for_the_whole_source_do_what_the_pilot_did(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    *data_set, args, encoding = data_set_parser(PilotArguments, EncodingArguments).parse(
        tiny_words(tiny, output)[1:]
    )
    stages = stage_arguments(*data_set, seed=args.seed)
    stages.journal = f"{output}-journal"
    training = training_of(args, encoding)
    for name, arm in arms_of(args, stages).items():
        make, train = (shlex.split(line) for line in commands_of(args, arm, training))
        assert make[:2] == ["syneg", "build" if "hybrid" in name else "mine"]
        assert main(make[1:]) == 0
        rows = load_dataset(f"{output}-dataset", split="train")
        sources = {one["source"] for negatives in rows["negatives"] for one in negatives}
        assert len(rows) == 43 and sources == {"bm25", "dense"} | (
            {"synthetic"} if "hybrid" in name else set()
        )
        what, how = ConfigParser((TrainArguments, GuardedArguments)).parse(train[5:])
        assert train[:5] == ["accelerate", "launch", "-m", "syneg", "train"]
        assert what.dataset == f"{output}-dataset" and what.mixture == arm.changes["mixture"]
        assert (what.save_best, what.patience, what.empty_rows) == (0.2, 2, "in_batch")
        assert how.learning_rate == 0.01 and how.guard == ("off" if name == AS_WRITTEN else "error")
        shutil.rmtree(f"{output}-dataset")
    # The last two builds: what the journal has is not asked again.
    assert "43 new" in (printed := capsys.readouterr().out) and "0 new" in printed


def test_a_dry_run_says_what_the_pilot_costs_and_writes_nothing(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = tiny_words(tiny, tmp_path / "dry", "--dry_run", "true", "--tokens_per_second", "100")
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "requests to make for" in printed and "GPU hours" in printed
    assert "queries:" not in printed and "--query_recordings FILE" in printed
    assert main([*words, "--query_recordings", str(tiny / "queries.jsonl")]) == 0
    assert "queries:" in (printed := capsys.readouterr().out) and printed.count("GPU hours") == 2
    assert main([*words, "--written_documents", "0"]) == 0
    assert "queries:" not in (printed := capsys.readouterr().out) and "--query_recordings" not in printed
    assert not list(tmp_path.iterdir())


def test_gates_that_leave_nothing_written_make_hybrid_dense(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A random encoder, which scores all texts nearly alike, so that none is far enough below the positive.
    words = tiny_words(
        tiny, tmp_path / "out", "--gates", "teacher", "--teacher_margin", "0.9", "--seeds", "0"
    )
    assert main(words) == 0
    found = json.loads((tmp_path / "out/pilot.json").read_text())
    assert found["verdict"] == "undecided" and found["pairs_to_tell"] is None
    assert found["arms"][HYBRID]["mean"] == found["arms"][DENSE]["mean"]
    assert "No synthetic negative is left for hybrid to train on" in capsys.readouterr().out
    assert found["best_arm"] != HYBRID


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--pairs", "3"], "--pairs is 3"),
        (["--written_documents", "-1"], "--written_documents is -1"),
        (["--query_recordings", "/no/such.jsonl"], "written queries: --recordings /no/such.jsonl: no such"),
        (["--pairs", "4", "--seed", "1"], "--pairs"),
        (["--split", "train,test"], "from one split"),
        (["--split", "tran"], "no split 'tran'"),
        (["--shard", "0/2"], "Leave it out"),
        (["--training", "save_best=0"], "save_best 0"),
        (["--training", "mixture=none"], "'mixture' is set for each arm"),
        (["--training", "learning_rat=1"], "unknown key"),
        (["--mixture", "synthetic=one"], "mixture"),
        (["--model", "/no/such/model"], "no such folder"),
    ],
)
def test_what_cannot_be_used_is_told_before_anything_is_asked(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert main(tiny_words(tiny, tmp_path / "out", *more)) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert message in line
    assert not (tmp_path / "out-journal").exists() and not (tmp_path / "out/rows").exists()


def test_a_sample_is_whole_queries_and_keeps_what_is_judged() -> None:
    source = tiny_source(60, 48)
    sample = sample_pairs(source, "train", 20, seed=3, documents=30)
    assert len(sample.pairs("train")) == 20 and list(sample.qrels) == ["train"]
    for query, documents in sample.qrels["train"].items():
        assert source.qrels["train"][query] == documents
        assert not (sample.document_ids.get_indexer(list(documents)) < 0).any()
    assert len(sample.corpus) == 30 and "30 of 60 documents" in sample.notes[-1]
    assert sample_pairs(source, "train", 20, seed=3).qrels == sample.qrels
    assert sample_pairs(source, "train", 20, seed=4).qrels != sample.qrels
    assert sample_pairs(source, "train", 1000).qrels["train"] == source.qrels["train"]


def comparison(**arms: list[list[float]]) -> Comparison:
    """Arms with given scores, a list a seed."""

    def run(arm: str, seed: int | None, scores: list[float]) -> Run:
        queries = [QueryScores(f"q{i}", s, s, s, []) for i, s in enumerate(scores)]
        return Run(arm, seed, mean_scores(queries), queries, [], {})

    runs = {arm: [run(arm, i, scores) for i, scores in enumerate(seeds)] for arm, seeds in arms.items()}
    zero_shot = run(ZERO_SHOT, None, [0.2] * len(next(iter(arms.values()))[0]))
    settings = {"metric": "ndcg_at_10", "baseline": DENSE, "arms": dict.fromkeys(arms), "seeds": [0, 1]}
    return Comparison(settings, zero_shot, runs, [])


def drawn(base: np.ndarray, by: float, seed: int) -> list[list[float]]:
    """Scores of two seeds that lie about so much beside others, query by query."""
    rng = np.random.default_rng(seed)
    return [(base + by + rng.normal(0, 0.1, len(base))).clip(0, 1).tolist() for _ in range(2)]


@pytest.mark.parametrize(("by", "word"), [(0.1, "pays"), (-0.1, "costs"), (0.003, "undecided")])
def test_the_verdict_on_scores_of_known_truth(by: float, word: str) -> None:
    base = np.random.default_rng(0).uniform(0.3, 0.7, 150)
    found = comparison(
        dense=drawn(base, 0, 1), hybrid=drawn(base, by, 2), **{"as-written": drawn(base, -0.2, 3)}
    )
    verdict = judge(found, HYBRID)
    assert verdict.word == word and verdict.queries == 150
    assert best_arm(found) == (HYBRID if word == "pays" else DENSE)
    sentence = verdict.sentence(300)
    assert "\n" not in sentence and "nDCG@10" in sentence and "95% interval" in sentence
    needed = verdict.pairs_to_tell(300)
    assert needed is not None and (needed > 300) == (word == "undecided") and f"{needed:,} pairs" in sentence
    assert ("cannot be told" in sentence) == (word == "undecided")


def test_one_seed_and_seeds_that_differ_decide_nothing() -> None:
    base = np.random.default_rng(0).uniform(0.3, 0.7, 150)
    dense, hybrid = drawn(base, 0, 1), drawn(base, 0.1, 2)
    both = comparison(dense=dense, hybrid=hybrid)
    assert judge(both, HYBRID).word == "pays" and best_arm(both) == HYBRID
    one = comparison(dense=dense[:1], hybrid=hybrid[:1])
    # Far above in one seed, a little below in the other.
    apart = comparison(
        dense=[*dense[:1], dense[0]], hybrid=[*drawn(base, 0.3, 2)[:1], *drawn(base, -0.02, 3)[:1]]
    )
    for found in (one, apart):
        verdict = judge(found, HYBRID)
        assert verdict.p_value < 0.05 and verdict.word == "undecided" and best_arm(found) == DENSE
        assert "give more --seeds" in verdict.sentence(300) and "its seeds do not" in verdict.sentence(300)


def test_of_written_queries_only_what_is_better_is_advised() -> None:
    base = np.random.default_rng(0).uniform(0.3, 0.7, 150)

    def found(**by: float) -> Comparison:
        return comparison(
            dense=drawn(base, 0, 1),
            hybrid=drawn(base, 0, 2),
            **{arm.replace("_", "-"): drawn(base, step, 3 + i) for i, (arm, step) in enumerate(by.items())},
        )

    better = found(written=0.05, written_and_pairs=0.1)
    assert best_arm(better) == WRITTEN_AND_PAIRS and judge(better, WRITTEN_AND_PAIRS).word == "pays"
    # Far above the model before training, and yet no better than labels: nobody is told to drop these.
    alone = found(written=-0.015, written_and_pairs=-0.005)
    verdict = judge(alone, WRITTEN, ZERO_SHOT)
    assert (verdict.word, verdict.baseline, verdict.better_seeds) == ("pays", ZERO_SHOT, (2, 2))
    assert "against zero-shot" in verdict.sentence(300) and "2 of 2 seeds" in verdict.sentence(300)
    assert judge(alone, WRITTEN).word == "undecided" and best_arm(alone) == DENSE
    # What passed no gate is never advised, however high it comes out.
    ungated = found(hybrid_as_written=0.2, written=0.05)
    assert best_arm(ungated) == AS_WRITTEN and best_arm(ungated, never=[AS_WRITTEN]) == WRITTEN


def test_noise_recommends_nobody_and_a_spoilt_model_is_not_used() -> None:
    base = np.random.default_rng(0).uniform(0.3, 0.7, 40)
    highest = comparison(dense=drawn(base, 0, 1), hybrid=drawn(base, 0.01, 2))
    assert highest.arms[HYBRID][0].metrics["ndcg_at_10"] and best_arm(highest) == DENSE
    spoilt = comparison(dense=[[0.01] * 40] * 2, hybrid=[[0.02] * 40] * 2)
    assert best_arm(spoilt) == ZERO_SHOT


def test_the_number_of_pairs_is_one_that_tells() -> None:
    """In so many queries of the same kind the difference is told about four times of five."""
    rng = np.random.default_rng(5)

    def world(queries: int) -> Comparison:
        base = rng.uniform(0.3, 0.6, queries)
        other = base + 0.02 + rng.normal(0, 0.1, queries)
        return comparison(dense=[base.tolist()] * 2, hybrid=[other.clip(0, 1).tolist()] * 2)

    needed = judge(world(4000), HYBRID).queries_to_tell
    assert needed is not None
    rounds = [judge(world(needed), HYBRID).word == "pays" for _ in range(20)]
    few = [judge(world(needed // 8), HYBRID).word == "pays" for _ in range(20)]
    assert sum(few) < 10 < sum(rounds)


def test_no_difference_is_no_number_of_pairs_and_an_unfinished_arm_no_verdict() -> None:
    same = comparison(dense=[[0.5] * 30] * 2, hybrid=[[0.5] * 30] * 2)
    verdict = judge(same, HYBRID)
    assert (verdict.word, verdict.pairs_to_tell(60)) == ("undecided", None)
    assert "no number of pairs" in verdict.sentence(60)
    with pytest.raises(InputError, match="no finished run"):
        judge(same, "another")


def twins() -> Source:
    """A source where what is mined at random teaches nothing of what is asked.

    An item's query names it and one of four words; relevant is the document that has the item and another
    word for the same, and not the one that has the item and the very word. That the word must not be taken as
    it stands is what only documents of the latter kind can teach, and they are one in fifty.
    """
    items = [(item, item * 7 % 4) for item in range(60)]
    subjects = ("copper", "river", "lattice", "protein", "engine", "harbour", "violin", "glacier", "market")
    others = [
        f"the {one} {two} {three} {action}"
        for one in subjects
        for two in subjects
        for three in subjects
        for action in ("erodes", "repairs", "measures", "splits")
    ]
    texts = {
        f"{kind[0]}{i}": f"the item{i} {kind[1][k]}" for i, k in items for kind in (("d", SAID), ("t", ASKED))
    }
    texts |= {f"o{i}": text for i, text in enumerate(others)}
    documents = {"id": list(texts), "title": [""] * len(texts), "text": list(texts.values())}
    queries = {
        "id": [f"q{item}" for item, _ in items],
        "text": [f"what item{item} {ASKED[k]}" for item, k in items],
    }
    return Source(
        "twins",
        Dataset.from_dict(documents, features=CORPUS_FEATURES),
        Dataset.from_dict(queries, features=QUERY_FEATURES),
        {"train": {f"q{item}": {f"d{item}": 1} for item, _ in items}},
    )


@pytest.mark.slow
def test_a_source_where_written_negatives_pay(tmp_path: Path) -> None:
    source = twins()
    source.save(tmp_path / "twins")
    model = tiny_encoder(tmp_path)
    records = []
    for pair in source.pairs("train"):
        item, said = pair.positive.split()[1:]
        records.append(record(pair, f"the {item} {ASKED[SAID.index(said)]}"))
    recordings = tmp_path / "recordings.jsonl"
    recordings.write_text("".join(json.dumps(r) + "\n" for r in records))
    training = (
        "num_train_epochs=12,eval_strategy=steps,eval_steps=18,learning_rate=0.005,bf16=false,disable_tqdm=true,"
        "per_device_train_batch_size=8"
    )
    words = words_of(tmp_path / "out", str(tmp_path / "twins"), model, recordings)
    words += [
        "--miners",
        "random",
        "--mined_per_miner",
        "3",
        "--pairs",
        "60",
        "--training",
        training,
        "--seeds",
        "0,1",
    ]
    # The documents are three words long, so that the checks would take one for a copy of the other.
    assert main([*words, "--gates", "", "--mixture", "synthetic=1,random=2"]) == 0
    found = json.loads((tmp_path / "out/pilot.json").read_text())
    assert found["verdict"] == "pays" and found["best_arm"] == HYBRID
    assert found["arms"][HYBRID]["interval"][0] > 0 and found["commands"][0].startswith("syneg build")
