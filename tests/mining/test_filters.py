from __future__ import annotations

import numpy as np
import pytest

from syneg.mining.candidates import MISSING, Candidates, mix, order
from syneg.mining.filters import Known, Rules, Sieve
from syneg.mining.report import MinerReport
from syneg.text import text_keys


def sieve_of(rows: list[list[int]], scores: list[list[float]] | None = None) -> Sieve:
    array = np.array(rows)
    values = np.zeros(array.shape) if scores is None else np.array(scores)
    return Sieve(Candidates(array, values.astype(np.float32)), MinerReport())


def known(keys: list[int], query_keys: list[int], positives: list[list[int]]) -> Known:
    return Known(
        np.array(keys, dtype=np.uint64),
        np.array(query_keys, dtype=np.uint64),
        np.concatenate(positives),
        np.cumsum([0, *map(len, positives)])[:-1],
    )


def alive(sieve: Sieve) -> list[list[int]]:
    return [line[keep].tolist() for line, keep in zip(sieve.rows, sieve.alive, strict=True)]


def test_known_texts_are_dropped_each_under_its_rule() -> None:
    # Documents 0..6; 1 has the text of positive 0, 2 that of the query, 5 that of 4.
    keys = [10, 10, 99, 13, 14, 14, 16]
    sieve = sieve_of([[0, 1, 2, 3, 4, 5, 6]])
    sieve.drop_known(known(keys, [99], [[0]]), taken=np.array([[16]], dtype=np.uint64))
    assert alive(sieve) == [[3, 4]]
    counts = {rule: count for rule, count in sieve.report.dropped.items() if count}
    assert counts == {
        "positive": 1,
        "equal to positive": 1,
        "equal to query": 1,
        "repeated": 1,
        "earlier miner": 1,
    }


def test_positives_belong_to_their_own_pair() -> None:
    sieve = sieve_of([[0, 1, 2], [0, 1, 2]])
    sieve.drop_known(known([10, 11, 12], [90, 91], [[0, 1], [2]]), taken=np.zeros((2, 0), dtype=np.uint64))
    assert alive(sieve) == [[2], [0, 1]]


@pytest.mark.parametrize("positive, kept", [(0.8, [0.76, 0.5]), (-0.8, [-0.84, -0.9])])
def test_relative_margin_holds_for_negative_scores(positive: float, kept: list[float]) -> None:
    scores = [[0.9, 0.77, 0.76, 0.5] if positive > 0 else [-0.7, -0.83, -0.84, -0.9]]
    sieve = sieve_of([[0, 1, 2, 3]], scores)
    # A hair below 0.05: 0.76 is 0.95 of 0.8 up to rounding.
    sieve.drop_scores(Rules(4, relative_margin=0.0499), sieve.scores, np.array([positive]))
    assert sieve.scores[0][sieve.alive[0]].tolist() == pytest.approx(kept)
    assert sieve.report.dropped["relative_margin"] == 2


def test_ranks_bounds_and_absolute_margin() -> None:
    sieve = sieve_of([[0, 1, 2, 3, 4, 5]], [[0.9, 0.8, 0.7, 0.6, 0.5, 0.1]])
    sieve.drop_ranks(2)
    sieve.drop_scores(
        Rules(4, min_score=0.2, max_score=0.75, absolute_margin=0.25), sieve.scores, np.array([0.9])
    )
    assert alive(sieve) == [[3, 4]]
    counts = {rule: count for rule, count in sieve.report.dropped.items() if count}
    assert counts == {"rank": 1, "min_score": 1, "max_score": 1, "absolute_margin": 1}


def test_missing_candidates_are_never_counted() -> None:
    sieve = sieve_of([[3, MISSING, MISSING]])
    sieve.drop("rank", np.ones((1, 3), dtype=bool))
    assert (sieve.report.candidates, sieve.report.dropped["rank"]) == (1, 1)


def test_sample_is_of_the_best_and_the_same_in_any_block() -> None:
    rows = np.tile(np.arange(30), (500, 1))
    keys = mix(7, np.arange(500))
    rules = Rules(4, sampled=True, sample_from=10)

    def chosen(part: slice) -> np.ndarray:
        sieve = Sieve(Candidates(rows[part], np.zeros(rows[part].shape)), MinerReport())
        sieve.alive[:, 0] = False
        sieve.select(rules, 3, keys[part])
        return sieve.alive

    whole = chosen(slice(None))
    assert (whole.sum(axis=1) == 4).all()
    assert not whole[:, 0].any() and not whole[:, 11:].any()
    assert np.array_equal(whole[100:200], chosen(slice(100, 200)))
    # Each of the ten is chosen in 4 of 10 pairs: 200 of 500, give or take 5 standard deviations.
    assert (np.abs(whole[:, 1:11].sum(axis=0) - 200) < 55).all()


def test_equal_scores_are_ordered_by_row() -> None:
    ordered = order(np.array([[5, MISSING, 2, 9]]), np.array([[0.5, 3.0, 0.5, 0.7]]))
    assert ordered.rows.tolist() == [[9, 2, 5, MISSING]]


def test_what_has_no_text_is_dropped_and_told_of_only_then() -> None:
    keys = text_keys(["x", " \n", "\u200b", "y"]).tolist()
    sieve = sieve_of([[1, 2, 3]])
    assert "empty" not in sieve.report.dropped
    sieve.drop_known(known(keys, [99], [[0]]), taken=np.zeros((1, 0), dtype=np.uint64))
    assert alive(sieve) == [[3]] and sieve.report.dropped["empty"] == 2


def test_many_positives_are_looked_up_as_they_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    rows = np.where(rng.random((40, 30)) < 0.1, MISSING, rng.integers(0, 50, (40, 30)))
    positives = [rng.integers(0, 50, rng.integers(1, 20)).tolist() for _ in range(40)]
    keys = rng.integers(0, 2**63, 50, dtype=np.int64).tolist()
    found = []
    for most in (2**24, 0):
        monkeypatch.setattr("syneg.mining.filters._MOST_COMPARED", most)
        sieve = sieve_of(rows.tolist())
        sieve.drop_known(known(keys, [1] * 40, positives), taken=np.zeros((40, 0), dtype=np.uint64))
        found.append((alive(sieve), sieve.report.dropped))
    assert found[0] == found[1]
    for line, own, kept in zip(rows.tolist(), positives, found[0][0], strict=True):
        assert set(kept) == set(line) - set(own) - {MISSING}


def test_pairs_of_one_query_share_its_positives() -> None:
    one = known([10, 11, 12], [90, 91, 90], [[0, 1], [2]])
    shared = Known(
        one.document_keys, one.query_keys, one.positive_rows, one.positive_offsets, np.array([0, 1, 0])
    )
    sieve = sieve_of([[0, 1, 2], [0, 1, 2], [0, 1, 2]])
    sieve.drop_known(shared, taken=np.zeros((3, 0), dtype=np.uint64))
    assert alive(sieve) == [[2], [0, 1], [2]]
