from __future__ import annotations

import dataclasses
import importlib.util
import json
import shutil
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
import yaml
from datasets import Dataset
from filelock import FileLock

from syneg.commands.compare import main
from syneg.commands.report import main as report
from syneg.errors import InputError
from syneg.evaluation.compare import HELD_BACK_SPLIT, _without, hold_back
from syneg.evaluation.comparison import load_comparison
from syneg.evaluation.pilot import best_epoch
from syneg.evaluation.summary import summarise, summary_table, work_notes
from syneg.evaluation.verdict import judge
from syneg.rows import FEATURES, make_negative, make_row
from syneg.sources import CORPUS_FEATURES, QUERY_FEATURES, Source
from syneg.sources.cutting import hash_share
from syneg.stages import Draft
from syneg.writing.stage import Mirroring

from .conftest import WORDS, make_source

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory, encoder) -> Path:
    """A folder with a model, a source, rows and a comparison's configuration."""
    folder = tmp_path_factory.mktemp("kitchen")
    encoder.save(str(folder / "model"))
    make_source().save(folder / "food")
    rows = []
    for i, word in enumerate(WORDS):
        others = [w for w in WORDS if w != word]
        negatives = [make_negative(f"{w} {w}", "dense", score=0.5) for w in others[:3]]
        negatives += [make_negative(f"{w} {word}", "synthetic") for w in others[3:5]]
        rows.append(make_row(f"q{i}", word, f"d{i}", f"{word} {word} {word}", negatives))
    rows.append(make_row("q4~d4~1~query", "ham", "q4~d4~1~document", "apple kale", negatives[1:4], "mirror"))
    (folder / "rows").mkdir()
    Dataset.from_list(rows, features=FEATURES).to_parquet(folder / "rows/train-00000-of-00001.parquet")
    configuration = {
        "model": str(folder / "model"),
        "dataset": str(folder / "rows"),
        "source": str(folder / "food"),
        "seeds": [0, 1],
        "baseline": "dense",
        "training": {
            "max_steps": 3,
            "per_device_train_batch_size": 4,
            "learning_rate": 0.01,
            "logging_steps": 1,
            "disable_tqdm": True,
        },
        "arms": {
            "none": {"mixture": "none"},
            "dense": {"mixture": "dense=2"},
            "hybrid": {"mixture": "synthetic=1,dense=1"},
        },
    }
    (folder / "compare.yaml").write_text(yaml.safe_dump(configuration, sort_keys=False))
    return folder


@pytest.fixture(scope="module")
def finished(kitchen) -> Path:
    output = kitchen / "finished"
    main(["--config", str(kitchen / "compare.yaml"), "--output", str(output)])
    return output


def records(output: Path) -> dict[str, float]:
    return {str(p.relative_to(output)): p.stat().st_mtime_ns for p in sorted(output.rglob("run.json"))}


def test_every_arm_and_seed_is_trained_and_evaluated(finished):
    comparison = load_comparison(finished)
    assert {arm: [run.seed for run in runs] for arm, runs in comparison.arms.items()} == {
        "none": [0, 1],
        "dense": [0, 1],
        "hybrid": [0, 1],
    }
    assert comparison.unfinished == []
    for arm, runs in comparison.arms.items():
        assert len({run.metrics["ndcg_at_10"] for run in [comparison.zero_shot, *runs]}) > 1, arm
        for run in runs:
            assert run.work["steps"] == 3 and run.history[-1]["loss"] > 0
            assert fmean(q.ndcg_at_10 for q in run.queries) == pytest.approx(
                run.metrics["ndcg_at_10"], abs=1e-5
            )
    assert comparison.arms["hybrid"][0].work["negatives"] == {"dense": 12, "synthetic": 12}
    assert any("mass" in key for line in comparison.arms["hybrid"][0].history for key in line)
    # MTEB reads its files, and no weights are left.
    assert len(list((finished / "evaluation/results").glob("compare__*/*/food.json"))) == 7
    assert not list(finished.rglob("*.safetensors"))


def test_the_summary_is_that_of_the_runs(finished):
    comparison = load_comparison(finished)
    lines = {line.arm: line for line in summarise(comparison)}
    assert list(lines) == ["zero-shot", "none", "dense", "hybrid"]
    values = [run.metrics["ndcg_at_10"] for run in comparison.arms["hybrid"]]
    assert lines["hybrid"].means["ndcg_at_10"] == fmean(values)
    assert lines["hybrid"].spreads["ndcg_at_10"] == stdev(values)
    base = fmean(run.metrics["ndcg_at_10"] for run in comparison.arms["dense"])
    difference = lines["hybrid"].difference
    assert difference.mean == pytest.approx(fmean(values) - base, abs=1e-5)
    assert difference.wins + difference.losses + difference.ties == 4
    assert lines["dense"].difference is None and lines["zero-shot"].spreads["ndcg_at_10"] is None
    assert lines["hybrid"].corrected_p >= difference.p_value
    table = summary_table(comparison)
    assert table == (finished / "table.md").read_text() and table.count("\n") == 6
    assert any(
        "number of negatives an instance: none 0, dense 2, hybrid 2" in n for n in work_notes(comparison)
    )


def test_the_report_of_a_finished_comparison(finished, tmp_path, capsys):
    report(["--comparison", str(finished), "--output", str(tmp_path)])
    html = (tmp_path / "report.html").read_text()
    assert (tmp_path / "table.md").read_text() in capsys.readouterr().out
    assert "Softmax mass of synthetic negatives" in html and "hybrid against dense" in html
    assert (tmp_path / "work.md").read_text().count("\n") == 5
    report(["--comparison", str(finished), "--output", str(tmp_path), "--baseline", "none"])
    assert "Δ vs none" in (tmp_path / "table.md").read_text()
    assert "hybrid against none" in (tmp_path / "report.html").read_text()
    assert "Δ vs dense" in (finished / "table.md").read_text()
    report(["--comparison", str(finished), "--output", str(tmp_path), "--overlap", "true"])
    halves = (tmp_path / "overlap.md").read_text()
    assert "1 of 5 judgements of split test" in halves and halves.count("| arm") == 2
    comparison = load_comparison(finished)
    one = comparison.select({"q1"})
    score = fmean(q.ndcg_at_10 for run in comparison.arms["none"] for q in run.queries if q.query_id == "q1")
    assert {line.arm: line.means["ndcg_at_10"] for line in summarise(one)}["none"] == pytest.approx(score)
    assert summary_table(one).rstrip() in halves
    assert summary_table(comparison.select({"q0", "q2", "q3"})).rstrip() in halves
    with pytest.raises(InputError, match="unknown arm 'nun'"):
        report(["--comparison", str(finished), "--output", str(tmp_path), "--baseline", "nun"])


def test_only_what_is_missing_or_changed_is_run(kitchen, finished, capsys):
    command = ["--config", str(kitchen / "compare.yaml"), "--output", str(finished)]
    before = records(finished)
    main(command)
    assert records(finished) == before
    (finished / "runs/none/seed-1/run.json").unlink()
    assert load_comparison(finished).unfinished == [("none", 1)]
    main([*command, "--only", "none"])
    after = records(finished)
    assert {name for name in before if before[name] != after[name]} == {"runs/none/seed-1/run.json"}
    arms = json.loads((finished / "comparison.json").read_text())["arms"]
    arms["hybrid"]["learning_rate"] = 0.02
    main([*command, "--arms", json.dumps(arms), "--only", "none"])
    assert load_comparison(finished).unfinished == [("hybrid", 0), ("hybrid", 1)]
    main([*command, "--arms", json.dumps(arms)])
    again = records(finished)
    assert {name for name in after if after[name] != again[name]} == {
        "runs/hybrid/seed-0/run.json",
        "runs/hybrid/seed-1/run.json",
    }


@pytest.mark.parametrize("more", [[], ["--split", "train", "--held_back", "0.3"]])
def test_a_data_set_that_no_chosen_arm_needs_may_be_missing(kitchen, tmp_path, more):
    arms = {"dense": {"mixture": "dense=1"}, "later": {"mixture": "dense=1", "dataset": "out/not-built"}}
    command = ["--config", str(kitchen / "compare.yaml"), "--output", str(tmp_path), "--seeds", "0", *more]
    command += ["--arms", json.dumps(arms)]
    main([*command, "--only", "dense"])
    assert load_comparison(tmp_path).unfinished == [("later", 0)]
    with pytest.raises(InputError, match="arm 'later': data set 'out/not-built'"):
        main([*command, "--only", "later"])


def test_what_another_process_is_at_is_left_to_it(kitchen, finished, capsys):
    output = kitchen / "shared"
    shutil.copytree(finished, output)
    for arm in ("dense", "hybrid"):
        (output / "runs" / arm / "seed-1" / "run.json").unlink()
    with FileLock(output / "runs/hybrid/seed-1/.lock"):
        main(["--config", str(kitchen / "compare.yaml"), "--output", str(output)])
    assert "hybrid, seed 1: another process is at it" in capsys.readouterr().out
    assert load_comparison(output).unfinished == [("hybrid", 1)]
    assert (output / "runs/dense/seed-1/run.json").is_file()
    main(["--config", str(kitchen / "compare.yaml"), "--output", str(output)])
    assert load_comparison(output).unfinished == []


def test_a_run_is_the_same_when_it_is_done_again(kitchen, finished):
    path = finished / "runs/dense/seed-0/run.json"
    before = json.loads(path.read_text())
    path.unlink()
    main(["--config", str(kitchen / "compare.yaml"), "--output", str(finished), "--only", "dense"])
    after = json.loads(path.read_text())
    assert (before["metrics"], before["work"]["negatives"]) == (after["metrics"], after["work"]["negatives"])


def test_held_back_queries_are_evaluated_on_and_not_trained_on(kitchen):
    output = kitchen / "held"
    words = ["--config", str(kitchen / "compare.yaml"), "--output", str(output), "--split", "train"]
    main([*words, "--held_back", "0.3", "--seeds", "0", "--only", "dense"])
    comparison = load_comparison(output)
    # q4's hash is below 0.3, and q5's is not; q4's mirrored row goes with it.
    _, held = hold_back(make_source(), "train", 0.3)
    assert held == {q.query_id for q in comparison.zero_shot.queries} == {"q4"}
    values = yaml.safe_load((output / "runs/dense/seed-0/config.yaml").read_text())
    kept = Dataset.from_parquet(str(Path(values["dataset"]) / "train-00000-of-00001.parquet"))
    assert set(kept["query_id"]) == {f"q{i}" for i in range(len(WORDS))} - held
    assert comparison.unfinished == [("none", 0), ("hybrid", 0)]


@pytest.mark.parametrize(
    ("written", "kind"), [(set(), None), ({"q0"}, "partly written"), ({f"q{i}" for i in range(4)}, "written")]
)
def test_figures_on_written_queries_are_named_for_what_they_are(kitchen, tmp_path, capsys, written, kind):
    dataclasses.replace(make_source(), written=frozenset(written)).save(tmp_path / "food")
    words = ["--config", str(kitchen / "compare.yaml"), "--output", str(tmp_path / "out"), "--seeds", "0"]
    main([*words, "--only", "none", "--baseline", "none", "--source", str(tmp_path / "food")])
    printed = capsys.readouterr().out
    comparison = load_comparison(tmp_path / "out")
    assert comparison.settings["written"] == kind
    named, table = f"({kind})", (tmp_path / "out" / "table.md").read_text()
    tasks = {json.loads(p.read_text())["task_name"] for p in (tmp_path / "out").rglob("food*.json")}
    assert tasks == {f"food {named}" if kind else "food"}
    report(["--comparison", str(tmp_path / "out")])
    page = (tmp_path / "out" / "report.html").read_text()
    for text in (table, printed, page):
        assert (f"nDCG@10 {named}" in text) == bool(kind) and ("written)" in text) == bool(kind)
    assert ("favour what resembles the writer" in printed) == bool(kind)
    judged = judge(
        dataclasses.replace(comparison, arms={**comparison.arms, "x": comparison.arms["none"]}), "x"
    )
    assert (f"nDCG@10 {named}" in judged.sentence(10)) == bool(kind)


def test_no_document_is_relevant_to_held_back_queries_and_to_the_others():
    # Pairs of queries share a document by its id, by its text, or have one text; one has nothing relevant.
    numbers = range(0, 80, 2)
    corpus = [{"id": f"d{i}", "title": "", "text": f"text {i}"} for i in range(80)]
    corpus += [{"id": f"e{i}", "title": " ", "text": f"TEXT  {i}"} for i in numbers]
    queries = [{"id": f"q{i}", "text": f"query {i - i % 2 if i >= 60 else i}"} for i in range(80)]
    qrels: dict = {"none": {"d0": 0}}
    for i in numbers:
        shared = f"d{i}" if i < 30 else f"e{i}" if i < 60 else f"d{i + 1}"
        qrels |= {f"q{i}": {f"d{i}": 1}, f"q{i + 1}": {shared: 2}}
    source = Source(
        "pairs",
        Dataset.from_list(corpus, features=CORPUS_FEATURES),
        Dataset.from_list([*queries, {"id": "none", "text": "nothing"}], features=QUERY_FEATURES),
        {"train": qrels},
    )
    found, held = hold_back(source, "train", 0.4)
    assert set(found.qrels[HELD_BACK_SPLIT]) == held and 16 <= len(held - {"none"}) <= 48
    assert all((f"q{i}" in held) == (f"q{i + 1}" in held) for i in numbers)
    assert ("none" in held) == (hash_share("none") < 0.4)
    # Nothing hangs together: every query by its own hash, in any order.
    alone = {f"q{i}": {f"d{i}": 1} for i in reversed(range(60))}
    _, held = hold_back(dataclasses.replace(source, qrels={"train": alone}), "train", 0.4)
    assert held == {query for query in alone if hash_share(query) < 0.4}
    # All hang together: none can be held back.
    joined = {f"q{i}": {"d0": 1} for i in range(60)}
    with pytest.raises(InputError, match="holds back 0 of the 60 queries"):
        hold_back(dataclasses.replace(source, qrels={"train": joined}), "train", 0.4)


def test_a_held_back_query_whose_id_holds_the_separator_is_not_trained_on(tmp_path):
    # Both ids begin alike, and so do those of their mirrored rows; hashes hold back the first only.
    names = ["a~1", "a~2", "a", "b~1~query", "b"]
    texts = {name: f"{name} asks" for name in names}
    corpus = [{"id": f"d~{name}", "title": "", "text": name} for name in names]
    source = Source(
        "tilde",
        Dataset.from_list(corpus, features=CORPUS_FEATURES),
        Dataset.from_list([{"id": k, "text": v} for k, v in texts.items()], features=QUERY_FEATURES),
        {"train": {name: {f"d~{name}": 1} for name in names}},
    )
    held_source, held = hold_back(source, "train", 0.5)
    assert 0 < len(held) < len(names)
    rows = []
    for name, query in texts.items():
        row = make_row(name, query, f"d~{name}", name, [make_negative("x", "synthetic")])
        (draft,) = Mirroring().apply([Draft(row, mirror_queries={"x": f"{name} asked again"})])
        rows += [row, *draft.made]
    # A judge found that a held-back query's document answers another query too.
    kept_name = next(name for name in names if name not in held)
    rows.append(make_row(kept_name, "asks", f"d~{min(held)}", min(held), [], "relabelled"))
    path = tmp_path / "rows"
    path.mkdir()
    Dataset.from_list(rows, features=FEATURES).to_parquet(path / "train-00000-of-00001.parquet")
    kept = Dataset.from_parquet(
        str(
            Path(_without(str(path), None, "train", held_source.qrels[HELD_BACK_SPLIT], tmp_path))
            / "train-00000-of-00001.parquet"
        )
    )
    kept_names = set(names) - held
    assert set(kept["query"]) == {f"{name} {verb}" for name in kept_names for verb in ("asks", "asked again")}
    assert len(kept) == 2 * len(kept_names)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--arms", '{"a": {"mixtur": "none"}}'], "arm 'a': .*unknown key 'mixtur'. Did you mean 'mixture'"),
        (["--arms", '{"a": {"mixture": "synthetic"}}'], "arm 'a': mixture"),
        (["--arms", '{"a": {"seed": 1}}'], "arm 'a': 'seed' is set for each run"),
        (["--arms", '{"z": {}, "a": {"dataset": "./none"}}'], "arm 'a': data set './none': no such folder"),
        (["--arms", '{"a/b": {}}'], "arm 'a/b': a name is made of"),
        (["--arms", '{"zero-shot": {}}'], "and is not 'zero-shot'"),
        (["--arms", "{}"], "--arms is missing"),
        (["--baseline", "desne"], "unknown arm 'desne'. Did you mean 'dense'"),
        (["--only", "nune"], "unknown arm 'nune'. Did you mean 'none'"),
        (["--seeds", "0,0"], "different whole numbers"),
        (["--seeds", "x"], "different whole numbers"),
        (["--held_back", "0.0001"], "holds back 0 of the 4"),
        (["--held_back", "2"], "below 1"),
        (["--split", "tst"], "no split 'tst'"),
        (["--metric", "ndcg"], "invalid choice: 'ndcg'"),
    ],
)
def test_unusable_words(kitchen, tmp_path, words, message):
    command = ["--config", str(kitchen / "compare.yaml"), "--output", str(tmp_path / "out"), "--seeds", "0"]
    if "--arms" in words:
        words = [*words, "--baseline", next(iter(json.loads(words[1])), "x")]
    with pytest.raises(InputError, match=message):
        main([*command, *words])


def test_a_launch_of_several_processes_is_refused(kitchen, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="runs in one process"):
        main(["--config", str(kitchen / "compare.yaml"), "--output", str(tmp_path)])


def test_no_comparison(tmp_path):
    with pytest.raises(InputError, match=r"comparison.json: no such file"):
        load_comparison(tmp_path)


@pytest.fixture(scope="module")
def best_and_last(kitchen) -> Path:
    """A comparison whose runs are kept at the best epoch, and evaluated after the last step too."""
    output = kitchen / "best-and-last"
    configuration = yaml.safe_load((kitchen / "compare.yaml").read_text())
    training = {"max_steps": -1, "num_train_epochs": 3, "save_best": 0.3, "learning_rate": 0.1}
    configuration |= {"training": {**configuration["training"], **training}, "evaluate_last": True}
    configuration |= {"seeds": [0, 1, 2], "arms": {k: configuration["arms"][k] for k in ("none", "dense")}}
    (kitchen / "last.yaml").write_text(yaml.safe_dump(configuration, sort_keys=False))
    main(["--config", str(kitchen / "last.yaml"), "--output", str(output)])
    return output


def test_runs_are_compared_at_their_best_and_at_equal_steps(best_and_last, tmp_path):
    best, last = load_comparison(best_and_last), load_comparison(best_and_last, last=True)
    assert best.zero_shot == last.zero_shot
    same = differs = 0
    for arm, runs in best.arms.items():
        for one, other in zip(runs, last.arms[arm], strict=True):
            assert (one.arm, one.seed, one.work) == (other.arm, other.seed, other.work)
            ends = max(line["epoch"] for line in one.history)
            if best_epoch(one.history) == ends:
                assert one.queries == other.queries
                same += 1
            else:
                differs += one.queries != other.queries
    assert differs, "no run's last model ranks otherwise than its best one: choose other runs"
    assert not list(best_and_last.rglob("*.safetensors"))
    report(["--comparison", str(best_and_last), "--last", "true"])
    assert (best_and_last / "last/table.md").read_text() == summary_table(last)
    assert (best_and_last / "table.md").read_text() == summary_table(best) != summary_table(last)
    assert "Δ vs" in (best_and_last / "last/report.html").read_text()


def test_a_last_model_that_was_not_evaluated_is_an_error(best_and_last, finished, tmp_path):
    # Without save_best the last model is the run's.
    assert summary_table(load_comparison(finished, last=True)) == summary_table(load_comparison(finished))
    copy = tmp_path / "copy"
    shutil.copytree(best_and_last, copy)
    (copy / "runs/dense/seed-1/last.json").unlink()
    with pytest.raises(InputError, match=r"arm 'dense', seed 1: its model .* --evaluate_last true"):
        load_comparison(copy, last=True)


@pytest.fixture
def results(monkeypatch) -> Any:
    spec = importlib.util.spec_from_file_location("results", ROOT / "benchmarks/results.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_kept_of_a_comparison_makes_its_tables(results, best_and_last, tmp_path, monkeypatch):
    results.keep(str(best_and_last), tmp_path / "food.parquet")
    monkeypatch.setattr(results, "KEPT", tmp_path)
    monkeypatch.setattr(results, "SOURCES", ("food",))
    every = {"q0", "q1", "q2", "q3"}
    # MTEB rounds its means; those of the kept scores are not rounded.
    best = load_comparison(best_and_last).select(every)
    last = load_comparison(best_and_last, last=True).select(every)
    assert summary_table(results.kept("food", "last")) == summary_table(last)
    table = results.made("arms food")
    assert [row.split("|")[1:-2] for row in table.splitlines() if "---" not in row] == [
        row.split("|")[1:-1] for row in summary_table(best).splitlines() if "---" not in row
    ]
    epochs = "/".join(f"{best_epoch(run.history):g}" for run in best.arms["dense"])
    assert table.splitlines()[-1].split("|")[-2].strip() == epochs
    # One of the five judgements has a document of split train: query q1's.
    assert results.shared("food") == {"q1"}
    assert results.made("half food seen") == summary_table(best.select({"q1"}))
    page = "# Food\n\n<!-- table: overview none -->\nold\n<!-- end -->\nafter\n"
    made = results.renewed(page)
    assert "old" not in made and made.endswith("<!-- end -->\nafter\n") and results.renewed(made) == made
    with pytest.raises(InputError, match="no such kind"):
        results.made("all food")


def test_the_tables_of_the_pages_are_those_of_the_kept_runs(results):
    for path in results.pages():
        text = path.read_text(encoding="utf-8")
        assert results.renewed(text) == text, f"{path}: run `python benchmarks/results.py tables`"
