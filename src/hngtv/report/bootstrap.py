"""Bootstrap intervals with patients resampled: one draw for all arms, metrics and classes of a cohort.

A resample of n patients is kept twice. As counts, how often each patient was picked, so that sums over all resamples
are one matrix product. And as the two middle ranks among its picks: patients are drawn alike whatever their order,
so a pick may as well be read as the rank of a patient by any one column, and the median of the resample is then the
value at those ranks. Each median is so drawn from the very distribution of the bootstrap, at the cost of a look-up.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

N_RESAMPLES = 9_999
"""Bootstrap resamples; 2.5 % of one more is a whole number. Source: our choice."""

CONFIDENCE = 0.95
BOOTSTRAP_SEED = 20_201
"""Every interval is drawn from this seed, so a report can be made again to the digit. Source: our choice."""

CHUNK_ELEMENTS = 2**20
"""Picks held at a time, 8 MiB. What is kept of a draw is 10 kB per patient. Source: our choice."""

N_DRAWS_KEPT = 4
"""Cohorts (whole, thirds, centres) whose draws are kept. Source: our choice."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % percentile interval over patients, NaN where `note` says why there is none."""

    value: float
    low: float
    high: float
    note: str = ""


UNKNOWN = Estimate(np.nan, np.nan, np.nan, "no interval: not computed")


def estimate_means(values: Values) -> list[Estimate]:
    """Mean over patients of each row of (column, case); a row that holds an infinity has no interval."""
    is_finite: npt.NDArray[np.bool_] = np.all(np.isfinite(values), axis=1)
    resampled = resample_sums(np.where(is_finite[:, None], values, 0.0)) / max(values.shape[1], 1)
    resampled[:, ~is_finite] = np.nan
    with np.errstate(invalid="ignore"):
        means = values.mean(axis=1)
    return estimates(means, resampled, values.shape[1])


def estimate_medians(values: Values) -> list[Estimate]:
    """Median over patients of each row of (column, case)."""
    n_cases = values.shape[1]
    middle = _draw(n_cases)[1]
    ordered = np.sort(values, axis=1)
    with np.errstate(invalid="ignore"):
        medians = np.median(values, axis=1)
        resampled = ordered[:, middle].mean(axis=-1).T
    return estimates(medians, resampled, n_cases)


def resample_sums(values: Values) -> Values:
    """Sum over the patients of every resample, (resample, column), of finite values (column, case)."""
    counts, _ = _draw(values.shape[1])
    sums = np.empty((N_RESAMPLES, len(values)))
    columns = np.ascontiguousarray(values.T)
    for rows in _chunks(values.shape[1]):
        sums[rows] = counts[rows].astype(np.float64) @ columns
    return sums


def estimates(values: Values, resampled: Values, n_cases: int) -> list[Estimate]:
    """Values (column,) with the percentile intervals of their resamples (resample, column)."""
    if n_cases < 2:
        return [Estimate(float(value), np.nan, np.nan, "no interval: one case only") for value in values]
    tail = (1 - CONFIDENCE) / 2
    # no interpolation between order statistics: one of them may be infinite
    low, high = np.quantile(resampled, [tail, 1 - tail], axis=0, method="inverted_cdf")
    undefined: npt.NDArray[np.bool_] = np.any(np.isnan(resampled), axis=0)
    return [
        Estimate(float(value), np.nan, np.nan, "no interval: undefined in some resamples")
        if undefined[column]
        else Estimate(float(value), float(low[column]), float(high[column]))
        for column, value in enumerate(values)
    ]


@lru_cache(maxsize=N_DRAWS_KEPT)
def _draw(n_cases: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.intp]]:
    """How often each case is in each resample (resample, case), and the middle ranks (resample, 2) of its picks."""
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    # a patient comes once in a resample on average: 256 times does not happen
    counts = np.empty((N_RESAMPLES, n_cases), np.uint8)
    middle = np.empty((N_RESAMPLES, 2), np.intp)
    places = [(n_cases - 1) // 2, n_cases // 2]
    for rows in _chunks(n_cases):
        n_rows = rows.stop - rows.start
        picks = rng.integers(n_cases, size=(n_rows, n_cases))
        of_row = picks + n_cases * np.arange(n_rows)[:, None]
        counts[rows] = np.bincount(of_row.ravel(), minlength=n_rows * n_cases).reshape(n_rows, n_cases)
        picks.partition(sorted(set(places)), axis=1)
        middle[rows] = picks[:, places]
    return counts, middle


def _chunks(n_cases: int) -> list[slice]:
    step = max(1, CHUNK_ELEMENTS // max(n_cases, 1))
    return [slice(start, min(start + step, N_RESAMPLES)) for start in range(0, N_RESAMPLES, step)]
