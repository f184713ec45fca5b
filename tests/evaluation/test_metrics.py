from __future__ import annotations

from pathlib import Path

from syneg.evaluation.metrics import Scores, markdown_table


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
