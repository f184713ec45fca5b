from __future__ import annotations

import itertools

import numpy as np
import pytest

from syneg.evaluation.significance import holm, paired_difference


def test_a_small_case_is_exact():
    # With 5 pairs scipy takes all 2^5 permutations: the p-value can be counted by hand.
    delta = np.array([0.4, 0.3, 0.2, 0.1, -0.05])
    found = paired_difference(0.5 + delta, np.full(5, 0.5))
    signs = np.array(list(itertools.product([1, -1], repeat=5)))
    expected = (np.abs((signs * delta).mean(axis=1)) >= abs(delta.mean()) - 1e-12).mean()
    assert found.p_value == pytest.approx(expected)
    assert (found.wins, found.losses, found.ties) == (4, 1, 0)
    assert found.mean == pytest.approx(delta.mean())
    assert found.low < found.mean < found.high


def test_noise_is_seldom_called_a_difference_and_an_effect_is_found():
    generator = np.random.default_rng(0)
    noise = [paired_difference(*generator.random((2, 60))).p_value < 0.05 for _ in range(20)]
    assert sum(noise) <= 4
    base = generator.random(300)
    effect = paired_difference(base + 0.05 + 0.1 * generator.standard_normal(300), base)
    assert effect.p_value < 0.001 and effect.low > 0


def test_equal_scores_and_a_single_query():
    same = paired_difference(np.full(4, 0.3), np.full(4, 0.1 + 0.2))
    assert (same.mean, same.p_value, same.ties) == (0.0, 1.0, 4)
    one = paired_difference(np.array([1.0]), np.array([0.0]))
    assert one.p_value == 1.0 and np.isnan(one.low)
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_difference(np.ones(3), np.ones(2))


def test_holm_by_hand():
    # Sorted .005 .01 .03 .04 times 4 3 2 1, and never below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
