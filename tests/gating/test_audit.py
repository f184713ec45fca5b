from __future__ import annotations

import numpy as np
import pytest

from syneg.errors import InputError
from syneg.gating.audit import AuditReport, audit
from syneg.gating.features import SURFACE_FEATURES, surface_features
from syneg.rows import SYNTHETIC, make_negative, make_row

WORDS = [f"word{i}" for i in range(300)]


def texts(number: int, seed: int, length: int = 60) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=rng.integers(length // 2, length))) + "." for _ in range(number)]


def rows(synthetic: list[str], mined: list[str], queries: int = 40):
    made = [make_row(f"q{i}", "q", "d", "p") for i in range(queries)]
    for source, group in ((SYNTHETIC, synthetic), ("bm25", mined)):
        for i, text in enumerate(group):
            made[i % queries]["negatives"].append(make_negative(text, source))
    return made


def embed(group: list[str]) -> np.ndarray:
    return np.array([[text.count(word) for word in WORDS] for text in group], dtype=float)


def test_sources_of_one_kind_cannot_be_told_apart() -> None:
    report = audit(rows(texts(200, 1), texts(200, 2)), embed)
    for found in report.by.values():
        assert 0.35 < found.auc < 0.65 and found.low < found.auc < found.high
    assert set(report.by) == {"surface", "words", "embeddings"}
    assert report.warnings() == [] and report.in_pure_clusters < 0.1


def test_a_style_is_found_named_and_warned_of() -> None:
    synthetic = [f"Notably, {text[:-1]}; in conclusion, delve!" for text in texts(200, 1)]
    report = audit(rows(synthetic, texts(200, 2)))
    assert report.by["surface"].auc > 0.95 and report.by["words"].auc > 0.95
    assert "delve" in report.synthetic_words
    assert "semicolons and colons per 100 characters" in [name for name, *_ in report.surface]
    (warning,) = report.warnings()
    assert "--source_entropy_weight" in warning and warning == report.lines()[-1]


def test_clusters_of_one_source_are_counted() -> None:
    def sides(group: list[str]) -> np.ndarray:
        rng = np.random.default_rng(0)
        side = np.array([text.startswith("x") for text in group])
        return rng.normal(size=(len(group), 8)) + 20 * side[:, None]

    report = audit(rows([f"x {text}" for text in texts(200, 1)], texts(200, 2)), sides, clusters=4)
    assert report.pure_clusters == report.clusters == 4
    assert report.in_pure_clusters == 1.0 and report.in_pure_by_chance < 0.2


def test_it_draws_as_many_of_each_and_the_same_again() -> None:
    data = rows(texts(300, 1), texts(100, 2) * 2)
    report = audit(data, seed=3)
    assert (report.synthetic, report.mined) == (100, 100)
    assert audit(data, seed=3) == report
    assert audit(data, at_most=50).synthetic == 50
    assert isinstance(report.to_dict()["by"]["words"]["auc"], float)


def test_one_query_is_never_on_both_sides() -> None:
    # All texts of a query share a word that tells the source: a split within queries would use it.
    synthetic = [f"{text} mark{i % 40}" for i, text in enumerate(texts(200, 1))]
    assert audit(rows(synthetic, texts(200, 2))).by["words"].auc < 0.65


def test_too_little_is_said() -> None:
    with pytest.raises(InputError, match="at least 10 synthetic"):
        audit(rows([], texts(50, 2)))
    with pytest.raises(InputError, match="at least 5 queries"):
        audit(rows(texts(50, 1), texts(50, 2), queries=3))


def test_surface_features() -> None:
    (values,) = surface_features(["One two, two. Three (3)!"])
    found = dict(zip(SURFACE_FEATURES, values, strict=True))
    assert found["words"] == 5 and found["words in a sentence"] == 2.5
    assert found["share of different words"] == 0.8
    assert found["brackets per 100 characters"] == pytest.approx(200 / 24)
    assert found["ends with punctuation"] == 1.0
    assert np.isfinite(surface_features([""])).all()
    assert isinstance(AuditReport(0, 0).warnings(), list)
