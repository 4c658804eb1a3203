"""Statistics of the comparison against hand values, scipy and simulation."""

import dataclasses
import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hngtv.errors import InputError
from hngtv.metrics.score import CaseScore
from hngtv.report import statistics
from hngtv.report.case_values import case_values
from hngtv.report.pooled import compare_pooled, summarise_pooled


def rows_of(arm, dice_by_case, seed=0, hd95_mm=5.0, class_name="GTVp"):
    """One row per case with the given Dice; every target is 10 ml and so is every prediction."""
    return [
        CaseScore(case_id, arm, "0", seed, class_name, dice, dice, dice, hd95_mm, hd95_mm, dice, 10.0, 10.0)
        for case_id, dice in dice_by_case.items()
    ]


def numbered(values):
    return {f"case{index:03d}": float(value) for index, value in enumerate(values)}


def only(results):
    (result,) = results
    return result


def summarise(rows, class_name, metric):
    return statistics.summarise_values(case_values(rows, class_name), metric)


def test_summary_by_hand():
    rows = rows_of("a", {"p": 0.9, "q": 0.6, "r": 0.0})
    summary = only(summarise(rows, "GTVp", "dice"))
    assert (summary.n_cases, summary.n_missing, summary.n_dice_zero) == (3, 0, 1)
    assert summary.mean == pytest.approx(0.5)
    assert summary.median == 0.6
    assert summary.low == pytest.approx(0.0)  # 1 of 27 resamples is the failure three times
    assert summary.high == pytest.approx(0.9)


def test_interval_is_that_of_scipy():
    values = np.random.default_rng(1).beta(8, 3, 60)
    summary = only(summarise(rows_of("a", numbered(values)), "GTVp", "dice"))
    expected = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=9_999, rng=7)
    assert summary.low == pytest.approx(expected.confidence_interval.low, abs=0.003)
    assert summary.high == pytest.approx(expected.confidence_interval.high, abs=0.003)


def test_seeds_of_a_case_are_averaged_before_anything_else():
    rows = rows_of("a", {"p": 1.0, "q": 0.4}, seed=0) + rows_of("a", {"p": 0.0}, seed=1)
    summary = only(summarise(rows, "GTVp", "dice"))
    assert (summary.n_cases, summary.n_dice_zero) == (2, 0)
    assert summary.mean == pytest.approx((0.5 + 0.4) / 2)


def test_a_case_of_dice_0_counts_once_for_all_its_seeds_and_a_missing_one_counts_too():
    seeds = [row for seed in range(3) for row in rows_of("a", {"p": 0.0, "q": 0.5}, seed=seed)]
    first, second = summarise(seeds + rows_of("b", {"p": 0.5}), "GTVp", "hd95_mm")
    assert (first.n_dice_zero, second.n_dice_zero) == (1, 1)


def test_copies_of_a_seed_do_not_narrow_the_interval():
    values = numbered(np.random.default_rng(2).random(12))
    once = summarise(rows_of("a", values), "GTVp", "dice")
    thrice = [row for seed in range(3) for row in rows_of("a", values, seed=seed)]
    assert only(summarise(thrice, "GTVp", "dice")).low == pytest.approx(only(once).low)


def test_missing_case_counts_as_the_worst_value():
    rows = rows_of("a", {"p": 0.8, "q": 0.8}) + rows_of("b", {"p": 0.8})
    _, second = summarise(rows, "GTVp", "dice")
    assert (second.n_cases, second.n_missing, second.mean) == (2, 1, 0.4)
    pair = only(statistics.compare_arms(rows, "GTVp", "dice", reference="a"))
    assert (pair.n_cases, pair.n_missing, pair.n_better, pair.n_worse) == (2, 1, 0, 1)
    assert pair.difference == pytest.approx(-0.4)


def test_missing_hd95_is_infinite_and_the_median_bears_it():
    cases = numbered([0.8] * 9)
    rows = rows_of("a", cases, hd95_mm=6.0) + rows_of("b", dict(list(cases.items())[1:]), hd95_mm=4.0)
    first, second = summarise(rows, "GTVp", "hd95_mm")
    assert (first.median, second.median) == (6.0, 4.0)
    assert second.statistic == "median"
    assert math.isinf(second.mean)
    pair = only(statistics.compare_arms(rows, "GTVp", "hd95_mm", reference="a"))
    assert (pair.difference, pair.low, pair.high) == (-2.0, -2.0, -2.0)
    assert (pair.n_better, pair.n_worse) == (8, 1)
    # the 8 gains tie at rank 4.5, the loss has rank 9: sums of at most 9 are none, one or two gains, or the loss
    assert pair.p_value == pytest.approx(2 * (1 + 8 + 28 + 1) / 2**9)


def test_hd95_missing_on_both_sides_leaves_no_interval_but_says_so():
    rows = rows_of("a", {"p": 0.8}) + rows_of("b", {"q": 0.8})
    pair = only(statistics.compare_arms(rows, "GTVp", "hd95_mm", reference="a"))
    assert math.isnan(pair.low)
    assert "undefined" in pair.note


def test_known_difference():
    base = np.random.default_rng(3).uniform(0.3, 0.8, 20)
    gain = np.linspace(0.01, 0.1, 20)
    rows = rows_of("ref", numbered(base)) + rows_of("new", numbered(base + gain))
    pair = only(statistics.compare_arms(rows, "GTVp", "dice", reference="ref"))
    assert (pair.arm, pair.reference) == ("new", "ref")
    assert pair.difference == pytest.approx(0.055)
    assert 0.03 < pair.low < 0.055 < pair.high < 0.08
    assert pair.p_value == pytest.approx(2 / 2**20)  # all 20 signs alike, exact test
    assert pair.p_holm == pair.p_value  # one pair only
    assert (pair.n_better, pair.n_worse) == (20, 0)


def p_of(differences):
    rows = rows_of("ref", numbered([0.5] * len(differences))) + rows_of("new", numbered(0.5 + np.array(differences)))
    return only(statistics.compare_arms(rows, "GTVp", "dice", reference="ref")).p_value


def test_p_value_is_that_of_all_flips_of_the_signs():
    differences = np.array([0.1, -0.05, 0.0, 0.2, 0.15, 0.0, 0.3, -0.1, 0.2, 0.02])
    ranks = stats.rankdata(np.abs(differences))[differences != 0]
    sums = np.array([np.dot(ranks, signs) for signs in itertools.product((-1, 1), repeat=len(ranks))])
    found = np.dot(ranks, np.sign(differences[differences != 0]))
    assert p_of(differences) == pytest.approx(np.mean(np.abs(sums) >= abs(found)))


def test_p_value_of_many_cases_is_that_of_scipy():
    differences = np.random.default_rng(9).normal(0.02, 0.1, 45)
    assert p_of(differences) == pytest.approx(stats.wilcoxon(differences)[1])


@pytest.mark.parametrize(("n_gains", "p"), [(4, 0.125), (5, 0.0625), (6, 0.03125)])
def test_ties_between_the_arms_do_not_make_a_few_gains_significant(n_gains, p):
    assert p_of([0.0] * 20 + [0.1, 0.2, 0.3, 0.15, 0.25, 0.35][:n_gains]) == pytest.approx(p)
    assert p_of([0.1] * n_gains + [0.0] * 20) == pytest.approx(p)


def test_rounding_noise_does_not_break_a_tie():
    reference, new = numbered([0.7, 0.8, 0.1, 0.2]), numbered([0.8, 0.9, 0.2, 0.3])
    assert len({new[case_id] - reference[case_id] for case_id in new}) > 1
    pair = only(statistics.compare_arms(rows_of("r", reference) + rows_of("n", new), "GTVp", "dice", reference="r"))
    assert pair.p_value == 2 / 2**4


@pytest.mark.parametrize("metric", sorted(statistics.METRICS))
def test_identical_arms_do_not_differ(metric):
    values = numbered(np.random.default_rng(4).random(8))
    rows = rows_of("a", values) + rows_of("b", values)
    pair = only(statistics.compare_arms(rows, "GTVp", metric, reference="a"))
    assert (pair.difference, pair.low, pair.high, pair.p_value, pair.p_holm) == (0.0, 0.0, 0.0, 1.0, 1.0)
    assert (pair.n_better, pair.n_worse, pair.note) == (0, 0, "")


def test_one_case_has_no_interval_and_says_why():
    rows = rows_of("a", {"p": 0.5}) + rows_of("b", {"p": 0.7})
    pair = only(statistics.compare_arms(rows, "GTVp", "dice", reference="a"))
    summary, _ = summarise(rows, "GTVp", "dice")
    for result in (pair, summary):
        assert math.isnan(result.low)
        assert math.isnan(result.high)
    assert "one case" in pair.note
    assert pair.difference == pytest.approx(0.2)
    assert pair.p_value == 1.0


def test_hd95_improves_downwards():
    cases = numbered([0.8] * 6)
    rows = rows_of("ref", cases, hd95_mm=9.0) + rows_of("new", cases, hd95_mm=7.0)
    pair = only(statistics.compare_arms(rows, "GTVp", "hd95_mm", reference="ref"))
    assert (pair.difference, pair.n_better, pair.n_worse) == (-2.0, 6, 0)


def test_holm_by_hand():
    assert statistics.holm_adjust([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm_adjust([0.6, 0.5]) == [1.0, 1.0]
    assert statistics.holm_adjust([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_only_raises_p_values_and_keeps_their_order(p_values):
    adjusted = statistics.holm_adjust(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    order = np.argsort(p_values)
    assert np.all(np.diff(np.array(adjusted)[order]) >= 0)


def test_pairs_are_adjusted_together():
    base = np.random.default_rng(5).uniform(0.3, 0.6, 10)
    rows = [
        *rows_of("ref", numbered(base)),
        *rows_of("better", numbered(base + np.linspace(0.1, 0.2, 10))),
        *rows_of("same", numbered(base)),
    ]
    better, same = statistics.compare_arms(rows, "GTVp", "dice", reference="ref")
    assert (better.arm, same.arm) == ("better", "same")
    assert better.p_holm == pytest.approx(2 * better.p_value)
    assert same.p_holm == 1.0


def test_the_same_rows_in_any_order_give_the_same_numbers():
    rng = np.random.default_rng(6)
    rows = rows_of("a", numbered(rng.random(9))) + rows_of("b", numbered(rng.random(9)))
    shuffled = sorted(rows, key=lambda row: (row.arm, row.dice))
    for compute in (
        lambda scores: summarise(scores, "GTVp", "dice"),
        lambda scores: statistics.compare_arms(scores, "GTVp", "dice", reference="a"),
        lambda scores: summarise_pooled(case_values(scores, "GTVp"), "dice_aggregated"),
    ):
        assert compute(rows) == compute(shuffled)


def test_only_the_asked_class_counts():
    rows = rows_of("a", {"p": 0.9}) + rows_of("a", {"p": 0.1}, class_name="GTVn")
    assert only(summarise(rows, "GTVn", "dice")).mean == 0.1


def test_bad_rows_are_refused():
    rows = rows_of("a", {"p": 0.5})
    with pytest.raises(InputError, match="case p of arm a has two rows"):
        summarise(rows + rows, "GTVp", "dice")
    with pytest.raises(InputError, match=r"case p of arm a .* NaN"):
        summarise(rows_of("a", {"p": math.nan}), "GTVp", "dice")
    with pytest.raises(InputError, match="no row of class 'GTVp' in b"):
        summarise(rows + rows_of("b", {"p": 0.5}, class_name="GTVn"), "GTVp", "dice")
    with pytest.raises(InputError, match="empty list"):
        summarise([], "GTVp", "dice")
    with pytest.raises(InputError, match=r"metric is 'dise'.*dice"):
        summarise(rows, "GTVp", "dise")
    with pytest.raises(InputError, match="reference arm is 'z', expected one of a"):
        statistics.compare_arms(rows, "GTVp", "dice", reference="z")


def test_mean_and_median_of_the_differences_are_both_there():
    rows = rows_of("ref", numbered([0.5] * 9)) + rows_of("new", numbered([0.5, 0.5, 0.5, 0.5, 0.6, 0.6, 0.6, 0.6, 0.9]))
    pair = only(statistics.compare_arms(rows, "GTVp", "dice", reference="ref"))
    assert pair.mean.value == pair.difference == pytest.approx(0.8 / 9)
    assert pair.median.value == pytest.approx(0.1)
    assert (pair.median.low, pair.median.high) == pytest.approx((0.0, 0.1))
    assert pair.effect_size == 1.0
    far = rows_of("ref", numbered([0.5] * 9), hd95_mm=9.0) + rows_of("new", numbered([0.5] * 9), hd95_mm=4.0)
    assert only(statistics.compare_arms(far, "GTVp", "hd95_mm", reference="ref")).effect_size == 1.0


@pytest.mark.parametrize(
    ("metric", "low", "high", "verdict"),
    [
        ("dice", -0.01, 0.05, "non-inferior"),
        ("dice", -0.02, 0.05, "undecided"),
        ("dice", -0.03, 0.01, "undecided"),
        ("dice", -0.05, -0.03, "inferior"),
        ("dice", -0.015, -0.005, "non-inferior"),
        ("dice", math.nan, math.nan, "undecided"),
        ("hd95_mm", -3.0, 0.01, "non-inferior"),
        ("hd95_mm", 0.03, 0.5, "inferior"),
    ],
)
def test_margin_is_judged_by_the_end_of_the_interval_that_is_worse(metric, low, high, verdict):
    pair = only(statistics.compare_arms(rows_of("a", {"p": 0.5}) + rows_of("b", {"p": 0.5}), "GTVp", metric, "a"))
    assert statistics.judge_margin(dataclasses.replace(pair, low=low, high=high), 0.02) == verdict


def test_ten_arms_of_a_thousand_patients_take_little_time():
    """A class of the largest cohort promised, without strata: a sixth of the work of a comparison, in CPU seconds."""
    rng = np.random.default_rng(12)
    rows = [row for i in range(10) for row in rows_of(f"arm{i}", numbered(rng.random(1000)))]
    start = time.process_time()
    values = case_values(rows, "GTVp")
    for metric in statistics.METRICS:
        statistics.summarise_values(values, metric)
    assert len(statistics.compare_metrics(values, list(statistics.METRICS), "arm0")) == 6 * 9
    compare_pooled(values, "dice_aggregated", "arm0")
    assert time.process_time() - start < 6.0


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(8)
    truth, n_trials, n_covered = 0.03, 60, 0
    for _ in range(n_trials):
        base = rng.uniform(0.3, 0.7, 40)
        rows = rows_of("ref", numbered(base)) + rows_of("new", numbered(base + rng.normal(truth, 0.1, 40)))
        pair = only(statistics.compare_arms(rows, "GTVp", "dice", reference="ref"))
        n_covered += pair.low <= truth <= pair.high
    assert 0.85 <= n_covered / n_trials <= 1.0
