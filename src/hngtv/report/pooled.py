"""Measures of a cohort as a whole, aggregated Dice and aggregated F1, with intervals over resampled patients."""

from dataclasses import dataclass

import numpy as np

from hngtv.report.bootstrap import Estimate, Values, estimates, resample_sums
from hngtv.report.case_values import CaseValues
from hngtv.report.statistics import TIE_DECIMALS, place_of

POOLED = ("dice_aggregated", "f1_aggregated")
"""Measures over all voxels or all lesions of a cohort together: no patient has a value of its own."""


@dataclass(frozen=True)
class PooledSummary:
    """A pooled measure of one arm, or of one arm minus the reference where there is one; patients are resampled.

    Attributes:
        measure: One of `POOLED`; higher is better.
        n_cases: Patients of the cohort.
        n_missing: Patients without a row in the arm (or the reference), counted as an empty prediction.
        estimate: NaN where no patient has any volume or lesion, or a file does not know them.
    """

    arm: str
    reference: str
    class_name: str
    measure: str
    n_cases: int
    n_missing: int
    estimate: Estimate


def summarise_pooled(values: CaseValues, measure: str) -> list[PooledSummary]:
    """A measure of `POOLED` of every arm, with its interval."""
    n_cases = len(values.case_ids)
    found = estimates(*_ratios(*pooled_parts(values, measure)), n_cases)
    n_missing = values.is_missing.sum(axis=1)
    return [
        PooledSummary(arm, "", values.class_name, measure, n_cases, int(n), estimate)
        for arm, n, estimate in zip(values.arms, n_missing, found, strict=True)
    ]


def compare_pooled(values: CaseValues, measure: str, reference: str) -> list[PooledSummary]:
    """A measure of `POOLED`, every other arm minus the reference, with its interval over the same resamples.

    Raises:
        InputError: The reference is not an arm.
    """
    base = place_of(reference, values)
    others = [place for place in range(len(values.arms)) if place != base]
    n_cases = len(values.case_ids)
    found, resampled = _ratios(*pooled_parts(values, measure))
    differences = (found[others] - found[base]).round(TIE_DECIMALS)
    of_resamples = (resampled[:, others] - resampled[:, [base]]).round(TIE_DECIMALS)
    n_missing = (values.is_missing[others] | values.is_missing[base]).sum(axis=1)
    return [
        PooledSummary(values.arms[place], reference, values.class_name, measure, n_cases, int(n), estimate)
        for place, n, estimate in zip(others, n_missing, estimates(differences, of_resamples, n_cases), strict=True)
    ]


def pooled_parts(values: CaseValues, measure: str) -> tuple[Values, Values]:
    """What a pooled measure sums over patients, above and below its line, arrays (arm, case)."""
    if measure == "dice_aggregated":
        target_ml = values.of_target("target_volume_ml")
        return values.filled("overlap_twice_ml", 0.0), np.where(values.is_missing, target_ml, values.columns["both_ml"])
    n_lesions = values.of_target("n_lesions")
    n_found = values.filled("n_lesions_found", 0.0)
    return 2 * n_found, n_lesions + n_found + values.filled("n_lesions_false", 0.0)


def _ratios(above: Values, below: Values) -> tuple[Values, Values]:
    """Sum over sum of (arm, case): over the cohort (arm,), and over each resample (resample, arm)."""
    is_known = np.all(np.isfinite(above + below), axis=1, keepdims=True)
    above, below = np.where(is_known, above, 0.0), np.where(is_known, below, 0.0)
    sums = resample_sums(np.concatenate([above, below]))
    return _divide(above.sum(axis=1), below.sum(axis=1)), _divide(sums[:, : len(above)], sums[:, len(above) :])


def _divide(above: Values, below: Values) -> Values:
    """NaN where there is nothing below the line."""
    return np.divide(above, below, out=np.full_like(below, np.nan), where=below > 0)
