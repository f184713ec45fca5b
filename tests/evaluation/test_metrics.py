from __future__ import annotations

from pathlib import Path

from syneg.evaluation.metrics import QueryScores, Scores, markdown_table, mean_scores, worse_line


def test_a_table_of_scores_and_mappings(tmp_path):
    scores = Scores("t", "test", 0.5, 0.25, 1.0, Path("a"), Path("b"))
    rows = {"zero-shot": scores, "hybrid | x": {"ndcg_at_10": 0.61239, "recall_at_10": 1, "mrr_at_10": 0.7}}
    table = markdown_table(rows, path=tmp_path / "deep/table.md")
    assert table == (
        "| model       | nDCG@10 | recall@10 | MRR@10 |\n"
        "| ----------- | ------: | --------: | -----: |\n"
        "| zero-shot   |  0.5000 |    0.2500 | 1.0000 |\n"
        "| hybrid \\| x |  0.6124 |         1 | 0.7000 |\n"
    )
    assert (tmp_path / "deep/table.md").read_text() == table


def test_a_model_that_became_worse_is_told_on_which_metric():
    before = {"ndcg_at_10": 0.4305, "recall_at_10": 0.5, "mrr_at_10": 0.4}
    assert worse_line(before, before) is None
    assert worse_line(before, {**before, "ndcg_at_10": 0.384}) == (
        "WORSE than the model that training began with: nDCG@10 0.3840 (before: 0.4305)."
    )
    assert "recall@10 0.4000 (before: 0.5000), MRR@10 0.1000" in worse_line(
        before, {"recall_at_10": 0.4, "mrr_at_10": 0.1}
    )


def test_means_over_queries():
    queries = [QueryScores("a", 1.0, 0.5, 0.25, []), QueryScores("b", 0.0, 1.0, 0.75, [])]
    assert mean_scores(queries) == {"ndcg_at_10": 0.5, "recall_at_10": 0.75, "mrr_at_10": 0.5}
