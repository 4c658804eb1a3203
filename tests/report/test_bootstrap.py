"""Intervals against a plain bootstrap that draws every patient, and by their properties."""

import numpy as np
import pytest

from hngtv.report import bootstrap


@pytest.mark.parametrize("n_cases", [2, 7, 40, 301])
def test_every_resample_has_as_many_patients_as_the_cohort(n_cases):
    counts, middle = bootstrap._draw(n_cases)
    assert counts.shape == (bootstrap.N_RESAMPLES, n_cases)
    assert (counts.sum(axis=1, dtype=int) == n_cases).all()
    assert (middle[:, 0] <= middle[:, 1]).all()
    # what was kept of the picks as ranks is what was kept of them as counts
    picks = np.repeat(np.arange(n_cases), counts[0])
    assert middle[0].tolist() == [picks[(n_cases - 1) // 2], picks[n_cases // 2]]


def test_a_draw_is_the_same_in_chunks_of_any_size(monkeypatch):
    whole = bootstrap._draw.__wrapped__(13)
    monkeypatch.setattr(bootstrap, "CHUNK_ELEMENTS", 13 * 17)
    for kept, again in zip(whole, bootstrap._draw.__wrapped__(13), strict=True):
        assert np.array_equal(kept, again)


@pytest.mark.parametrize("n_cases", [24, 25])
def test_intervals_are_those_of_drawing_every_patient(n_cases):
    rng = np.random.default_rng(3)
    values = np.stack([rng.gamma(2.0, 1.0, n_cases), rng.normal(0, 1, n_cases)])
    picks = rng.integers(n_cases, size=(40_000, n_cases))
    for estimate, statistic in ((bootstrap.estimate_means, np.mean), (bootstrap.estimate_medians, np.median)):
        for found, row in zip(estimate(values), values, strict=True):
            low, high = np.quantile(statistic(row[picks], axis=1), [0.025, 0.975])
            assert found.value == pytest.approx(statistic(row))
            assert (found.low, found.high) == pytest.approx((low, high), abs=0.03)
            assert found.note == ""


def test_an_infinity_leaves_the_median_its_interval_and_takes_it_from_the_mean():
    values = np.array([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, np.inf], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]])
    first, second = bootstrap.estimate_means(values)
    assert np.isinf(first.value)
    assert np.isnan(first.low)
    assert "undefined" in first.note
    assert 2 < second.low < 4 < second.high < 6
    lost, kept = bootstrap.estimate_medians(values)
    assert (lost.value, lost.low) == (kept.value, kept.low)
    assert lost.note == kept.note == ""


def test_a_constant_has_an_interval_of_no_width():
    (found,) = bootstrap.estimate_medians(np.full((1, 9), 0.3))
    assert (found.low, found.high) == (0.3, 0.3)
    (found,) = bootstrap.estimate_means(np.zeros((1, 9)))
    assert (found.low, found.high) == (0.0, 0.0)
