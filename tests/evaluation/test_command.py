from __future__ import annotations

from statistics import fmean

import pytest

from syneg.commands.evaluate import main
from syneg.errors import InputError
from syneg.evaluation.before_after import before_after_table
from syneg.evaluation.metrics import QueryScores, read_queries

from .conftest import make_encoder


def test_the_command(encoder, source, tmp_path, capsys):
    encoder.save(str(tmp_path / "tiny"))
    source.save(tmp_path / "food")
    model, where = str(tmp_path / "tiny"), str(tmp_path / "food")
    main(["--model", model, "--source", where, "--output", str(tmp_path / "out")])
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split("|")[1].strip() == "task" and printed[2].startswith("| food, test |")
    assert (tmp_path / "out/table.md").read_text().splitlines() == printed[:3]
    assert len(list((tmp_path / "out/results/local__tiny").glob("*/food.json"))) == 1


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_both_halves_of_a_split_that_shares_documents_with_training(encoder, source, tmp_path, capsys):
    encoder.save(str(tmp_path / "tiny"))
    source.save(tmp_path / "food")
    words = ["--model", str(tmp_path / "tiny"), "--source", str(tmp_path / "food"), "--output", str(tmp_path)]
    main(words)
    printed = capsys.readouterr().out
    # q1 has d5, which is relevant to q5 of train.
    assert "1 of 5 judgements of split test are of a document that is relevant in split train too" in printed
    (queries,) = tmp_path.glob("queries/*/*/food.test.jsonl")
    scores = {query.query_id: query for query in read_queries(queries)}
    lines = (tmp_path / "overlap.md").read_text().splitlines()
    assert cells(lines[2])[:2] == ["with a document of train (1)", f"{scores['q1'].ndcg_at_10:.4f}"]
    others = fmean(scores[name].ndcg_at_10 for name in ("q0", "q2", "q3"))
    assert cells(lines[3])[:2] == ["without a document of train (3)", f"{others:.4f}"]
    main([*words, "--split", "train"])
    assert "judgements of split" not in capsys.readouterr().out


def test_a_baseline_is_a_model_or_what_was_written_of_one(encoder, source, tmp_path, capsys):
    source.save(tmp_path / "food")
    for name, seed in (("before", 0), ("after", 1)):
        make_encoder(tmp_path / f"{name}-parts", seed).save(str(tmp_path / name))

    def run(model: str, *more: str) -> str:
        words = ["--model", str(tmp_path / model), "--source", str(tmp_path / "food"), *more]
        main(words)
        return capsys.readouterr().out

    run("before", "--output", str(tmp_path / "earlier"))
    of_folder = run("after", "--output", str(tmp_path / "now"), "--baseline", str(tmp_path / "earlier"))
    of_model = run("after", "--output", str(tmp_path / "both"), "--baseline", str(tmp_path / "before"))
    table = of_folder[of_folder.index("| metric") :]
    assert of_model[of_model.index("| metric") :] == table
    before, after = (
        read_queries(next((tmp_path / folder).glob(f"queries/local__{name}/*/food.test.jsonl")))
        for folder, name in (("both", "before"), ("both", "after"))
    )
    means = [fmean(query.ndcg_at_10 for query in part) for part in (before, after)]
    row = cells(table.splitlines()[2])
    assert row[:4] == ["nDCG@10", f"{means[0]:.4f}", f"{means[1]:.4f}", f"{means[1] - means[0]:+.4f}"]
    assert means[0] != means[1] and " to " in row[4] and 0 <= float(row[5]) <= 1
    # The other way round, what was better is worse.
    back = run("before", "--output", str(tmp_path / "both"), "--baseline", str(tmp_path / "after"))
    assert ("WORSE" in back) != ("WORSE" in of_model)
    worse = back if means[0] < means[1] else of_model
    assert f"nDCG@10 {min(means):.4f} (before: {max(means):.4f})" in worse
    # A folder that holds the model itself and one other is told apart; its own result alone is none.
    assert table in run("after", "--output", str(tmp_path / "both"), "--baseline", str(tmp_path / "both"))
    with pytest.raises(InputError, match="is the model's own result"):
        run("before", "--output", str(tmp_path / "earlier"), "--baseline", str(tmp_path / "earlier"))
    with pytest.raises(InputError, match=r"there is no food\.train\.jsonl"):
        run("after", "--split", "train", "--baseline", str(tmp_path / "earlier"))
    with pytest.raises(InputError, match="no such folder"):
        run("after", "--output", str(tmp_path / "never"), "--baseline", "./nowhere")
    assert not (tmp_path / "never").exists()


def test_a_baseline_on_other_queries_is_refused():
    before = [QueryScores("q1", 1.0, 1.0, 1.0, [])]
    with pytest.raises(InputError, match="evaluated on other queries"):
        before_after_table(before, [QueryScores("q2", 1.0, 1.0, 1.0, [])])
    assert cells(before_after_table(before, before).splitlines()[2])[3] == "+0.0000"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "nowhere/a/b"], "no such folder"),
        ([], "required: --model"),
        (["--model", "m", "--splt", "test"], "Did you mean '--split'"),
        (["--model", "m", "--eval_batch_size", "0"], "must be 1 or more"),
        (["--model", "m", "--source", "./nowhere"], "source './nowhere': no such folder"),
        (["--model", "m", "--tasks", "SciFacts,STS12"], "Did you mean 'SciFact'"),
    ],
)
def test_unusable_words(words, message, tmp_path, source):
    source.save(tmp_path / "food")
    defaults = [] if "--source" in words else ["--source", str(tmp_path / "food")]
    with pytest.raises(InputError, match=message):
        main([*words, *defaults, "--output", str(tmp_path / "out")])
