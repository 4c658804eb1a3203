"""The signed-rank test of large cohorts, and its effect size; small cohorts are in `test_statistics`."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hngtv.report import rank_test


@pytest.mark.parametrize("n_ties", [0, 300])
def test_a_large_cohort_is_taken_as_normal_like_scipy(n_ties):
    differences = np.concatenate([np.random.default_rng(1).normal(0.005, 0.1, 700).round(3), np.zeros(n_ties)])
    _, expected = stats.wilcoxon(differences, zero_method="pratt", correction=False, method="asymptotic")
    assert rank_test.signed_rank_p(differences) == pytest.approx(expected)


def test_at_the_limit_both_ways_agree(monkeypatch):
    for shift in (0.0, 0.1, 0.2, 0.3):
        differences = np.random.default_rng(2).normal(shift, 1, rank_test.MAX_EXACT)
        exact = rank_test.signed_rank_p(differences)
        monkeypatch.setattr(rank_test, "MAX_EXACT", 10)
        assert rank_test.signed_rank_p(differences) == pytest.approx(exact, abs=0.003)
        monkeypatch.undo()


def test_infinite_differences_are_the_last_ranks():
    differences = np.random.default_rng(3).normal(0.1, 1, 150)
    far = np.where(np.abs(differences) > 1.5, np.sign(differences) * np.inf, differences)
    assert rank_test.signed_rank_p(far) == pytest.approx(rank_test.signed_rank_p(differences), abs=0.02)


def test_a_thousand_patients_take_no_time():
    differences = np.random.default_rng(4).normal(0, 1, 1000)
    start = time.process_time()
    for _ in range(10):
        rank_test.signed_rank_p(differences)
    assert time.process_time() - start < 1.0


def test_effect_size_by_hand():
    assert rank_test.rank_biserial(np.array([0.1, 0.2, -0.3, 0.4])) == pytest.approx((1 + 2 + 4 - 3) / 10)
    assert rank_test.rank_biserial(np.array([0.0, 0.2, -0.2])) == 0.0
    assert rank_test.rank_biserial(np.array([0.0, 0.0])) == 0.0
    assert rank_test.rank_biserial(np.array([0.0, 0.1, 0.2])) == 1.0


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=12))
def test_effect_size_turns_with_the_sign(differences):
    gains = np.array(differences, float)
    assert rank_test.rank_biserial(-gains) == pytest.approx(-rank_test.rank_biserial(gains))
