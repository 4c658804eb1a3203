"""Pooled measures by hand and against pooling of resampled patients."""

import dataclasses
import math

import numpy as np
import pytest

from hngtv.errors import InputError
from hngtv.metrics.score import CaseScore
from hngtv.report.case_values import case_values
from hngtv.report.pooled import compare_pooled, summarise_pooled
from tests.report.test_statistics import only, rows_of


def aggregated_dice(rows):
    summaries = summarise_pooled(case_values(rows, "GTVp"), "dice_aggregated")
    return {summary.arm: summary.estimate.value for summary in summaries}


def with_lesions(row, n_lesions, n_found, n_false):
    return dataclasses.replace(row, n_lesions=n_lesions, n_lesions_found=n_found, n_lesions_false=n_false)


def test_pooled_measures_by_hand_with_a_missing_case():
    first = [with_lesions(row, 2, 1, 1) for row in rows_of("a", {"p": 0.8, "q": 0.4})]
    second = [with_lesions(row, 2, 2, 0) for row in rows_of("b", {"p": 0.6})]
    values = case_values(first + second, "GTVp")
    a, b = summarise_pooled(values, "f1_aggregated")
    assert (a.n_cases, a.n_missing, b.n_missing) == (2, 0, 1)
    assert a.estimate.value == pytest.approx(2 * 2 / (2 * 2 + 2 + 2))
    assert b.estimate.value == pytest.approx(2 * 2 / (2 * 2 + 0 + 2))  # the lesions of q are missed
    pair = only(compare_pooled(values, "dice_aggregated", "a"))
    assert (pair.arm, pair.reference, pair.n_missing) == ("b", "a", 1)
    assert pair.estimate.value == pytest.approx(0.6 * 20 / 30 - 1.2 * 20 / 40)


def test_pooled_intervals_are_those_of_pooling_resampled_patients():
    rng = np.random.default_rng(11)
    volumes, dices = rng.gamma(1, 10, 30), rng.beta(6, 3, (2, 30))
    rows = [
        CaseScore(f"c{i:02d}", arm, "0", 0, "GTVp", dices[a, i], 0.5, 0.5, 1.0, 1.0, 0.5, volumes[i], volumes[i])
        for a, arm in enumerate("ab")
        for i in range(30)
    ]
    pair = only(compare_pooled(case_values(rows, "GTVp"), "dice_aggregated", "a"))
    picks = rng.integers(30, size=(20_000, 30))
    pooled = [(d * volumes)[picks].sum(axis=1) / volumes[picks].sum(axis=1) for d in dices]
    low, high = np.quantile(pooled[1] - pooled[0], [0.025, 0.975])
    assert (pair.estimate.low, pair.estimate.high) == pytest.approx((low, high), abs=0.005)


def test_lesions_that_a_file_does_not_know_have_no_f1():
    values = case_values(rows_of("a", {"p": 0.8, "q": 0.4}), "GTVp")
    (found,) = summarise_pooled(values, "f1_aggregated")
    assert math.isnan(found.estimate.value)
    assert math.isnan(found.estimate.low)


def test_aggregated_dice_weighs_by_volume_and_averages_seeds():
    large = CaseScore("p", "a", "0", 0, "GTVp", 0.8, 0.8, 0.8, 3.0, 1.0, 0.8, 30.0, 30.0)
    small = CaseScore("q", "a", "0", 0, "GTVp", 0.2, 0.2, 0.2, 3.0, 1.0, 0.2, 5.0, 5.0)
    absent = CaseScore("r", "a", "0", 0, "GTVp", 1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0)
    expected = (0.8 * 60 + 0.2 * 10) / 70
    assert aggregated_dice([large, small, absent]) == pytest.approx({"a": expected})
    again = [large, *(dataclasses.replace(small, seed=seed) for seed in (0, 1))]
    assert aggregated_dice(again) == pytest.approx({"a": expected})
    assert math.isnan(aggregated_dice([absent])["a"])


def test_aggregated_dice_counts_a_missing_case_as_an_empty_prediction():
    rows = rows_of("a", {"p": 0.8, "q": 0.8}) + rows_of("b", {"p": 0.8})
    found = aggregated_dice(rows)
    assert found == pytest.approx({"a": 0.8, "b": 0.8 * 20 / (20 + 10)})


def test_an_unknown_reference_is_refused():
    with pytest.raises(InputError, match="reference arm is 'z', expected one of a"):
        compare_pooled(case_values(rows_of("a", {"p": 0.5}), "GTVp"), "dice_aggregated", "z")
