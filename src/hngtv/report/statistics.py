"""Statistics of the comparison of arms: paired by patient, seeds averaged first, nothing dropped.

The patient is the unit. A case scored by an arm in several rows (seeds, folds of an ensemble) first becomes
one value, the mean of its rows, so more seeds do not pretend to be more patients. A case that an arm lacks
while another arm has it counts as the worst value (0 for the overlap metrics, infinity for HD95) and is
counted in ``n_missing``.

HD95 is summarised and compared by its median: a miss is a whole image diagonal, or infinite, and would rule
the mean.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from hngtv.errors import InputError
from hngtv.metrics.score import CaseScore
from hngtv.report.bootstrap import UNKNOWN, Estimate, estimate_means, estimate_medians, estimates, resample_sums
from hngtv.report.case_values import CaseValues, ScoreRow, case_values
from hngtv.report.rank_test import holm_adjust, rank_biserial, signed_rank_p

Values = npt.NDArray[np.float64]

TIE_DECIMALS = 12
"""Differences are rounded to this before ranking: 0.8 - 0.7 and 0.9 - 0.8 differ by 1e-16 and are a tie."""


@dataclass(frozen=True)
class Metric:
    """How a metric is compared: direction, summary statistic, and the value of a case that an arm lacks."""

    name: str
    higher_is_better: bool
    statistic: Literal["mean", "median"]
    worst: float


METRICS: dict[str, Metric] = {
    **{
        name: Metric(name, higher_is_better=True, statistic="mean", worst=0.0)
        for name in ("dice", "precision", "recall", "surface_dice_2mm")
    },
    **{name: Metric(name, higher_is_better=False, statistic="median", worst=np.inf) for name in ("hd95_mm", "msd_mm")},
}

POOLED = ("dice_aggregated", "f1_aggregated")
"""Measures over all voxels or all lesions of a cohort together: no patient has a value of its own."""

Verdict = Literal["non-inferior", "inferior", "undecided"]


@dataclass(frozen=True)
class ArmSummary:
    """One arm on one class and metric.

    Attributes:
        n_cases: Patients of the cohort, missing ones included.
        n_missing: Patients without a row in this arm, counted as the worst value.
        n_dice_zero: Patients whose Dice is 0, missing ones included, whatever the metric.
        mean: Over patients; infinite for HD95 where a patient is missing.
        median: Over patients.
        statistic: Which of the two the interval is for.
        low, high: 95 % bootstrap interval over patients; NaN for a single one.
    """

    arm: str
    class_name: str
    metric: str
    n_cases: int
    n_missing: int
    n_dice_zero: int
    mean: float
    median: float
    statistic: str
    low: float
    high: float


@dataclass(frozen=True)
class PairedDifference:
    """One arm minus the reference arm on one class and metric, patient by patient.

    Attributes:
        n_cases: Patients compared.
        n_missing: Patients without a row in one of the two arms, counted there as the worst value.
        n_better: Patients on whom the arm beats the reference, in the metric's own direction.
        n_worse: Patients on whom the reference beats the arm; the rest are ties.
        statistic: ``mean`` or ``median``, of the differences.
        difference: Arm minus reference; positive is better except for HD95.
        low, high: 95 % paired bootstrap interval over patients; NaN where ``note`` says why.
        p_value: Wilcoxon signed-rank test, two-sided, as `rank_test.signed_rank_p`; 1 where no patient differs.
        p_holm: The same, adjusted by Holm over all arms compared with this reference.
        note: Why there is no interval, or empty.
        effect_size: Matched-pairs rank-biserial correlation in [-1, 1]; positive where the arm is better.
        mean, median: Of the differences, each with its interval; the one that `statistic` names is `difference`.
    """

    arm: str
    reference: str
    class_name: str
    metric: str
    n_cases: int
    n_missing: int
    n_better: int
    n_worse: int
    statistic: str
    difference: float
    low: float
    high: float
    p_value: float
    p_holm: float
    note: str
    effect_size: float = np.nan
    mean: Estimate = UNKNOWN
    median: Estimate = UNKNOWN


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


def summarise(rows: Iterable[ScoreRow], class_name: str, metric: str) -> list[ArmSummary]:
    """Summarises every arm on one class and metric.

    Args:
        rows: Score rows of all arms, all classes.
        class_name: The class to summarise.
        metric: One of ``METRICS``.

    Returns:
        One summary per arm, in the order in which the arms first appear.

    Raises:
        InputError: No row has the class, an arm lacks it, a row is double or not a number, or the metric is
            unknown.
    """
    return summarise_values(case_values(rows, class_name), metric)


def summarise_values(values: CaseValues, metric: str) -> list[ArmSummary]:
    """As `summarise`, of rows that were collected before."""
    kind = find_metric(metric)
    filled = values.filled(metric, kind.worst)
    n_dice_zero = (values.filled("dice", METRICS["dice"].worst) == 0).sum(axis=1)
    estimate = estimate_means if kind.statistic == "mean" else estimate_medians
    return [
        ArmSummary(
            arm=arm,
            class_name=values.class_name,
            metric=metric,
            n_cases=len(values.case_ids),
            n_missing=int(values.is_missing[place].sum()),
            n_dice_zero=int(n_dice_zero[place]),
            mean=float(np.mean(filled[place])),
            median=float(np.median(filled[place])),
            statistic=kind.statistic,
            low=found.low,
            high=found.high,
        )
        for place, (arm, found) in enumerate(zip(values.arms, estimate(filled), strict=True))
    ]


def compare_arms(rows: Iterable[ScoreRow], class_name: str, metric: str, reference: str) -> list[PairedDifference]:
    """Compares every arm with a reference arm, paired by patient.

    Args:
        rows: Score rows of all arms, all classes.
        class_name: The class to compare on.
        metric: One of ``METRICS``.
        reference: Name of the arm that the others are held against.

    Returns:
        One difference per other arm, in the order in which the arms first appear; empty if there is no other
        arm.

    Raises:
        InputError: The reference is not an arm, or as for ``summarise``.
    """
    return compare_values(case_values(rows, class_name), metric, reference)


def compare_values(values: CaseValues, metric: str, reference: str) -> list[PairedDifference]:
    """As `compare_arms`, of rows that were collected before."""
    kind = find_metric(metric)
    base = _place_of(reference, values)
    others = [place for place in range(len(values.arms)) if place != base]
    filled = values.filled(metric, kind.worst)
    differences = _subtract(filled[others], filled[base])
    means, medians = estimate_means(differences), estimate_medians(differences)
    pairs = []
    for row, place in enumerate(others):
        gains = differences[row] if kind.higher_is_better else -differences[row]
        main = means[row] if kind.statistic == "mean" else medians[row]
        p_value = signed_rank_p(differences[row])
        pairs.append(
            PairedDifference(
                arm=values.arms[place],
                reference=reference,
                class_name=values.class_name,
                metric=metric,
                n_cases=len(gains),
                n_missing=int((values.is_missing[place] | values.is_missing[base]).sum()),
                n_better=int((gains > 0).sum()),
                n_worse=int((gains < 0).sum()),
                statistic=kind.statistic,
                difference=main.value,
                low=main.low,
                high=main.high,
                p_value=p_value,
                p_holm=p_value,
                note=main.note,
                effect_size=rank_biserial(gains),
                mean=means[row],
                median=medians[row],
            )
        )
    adjusted = holm_adjust([pair.p_value for pair in pairs])
    return [replace(pair, p_holm=p_holm) for pair, p_holm in zip(pairs, adjusted, strict=True)]


def judge_margin(pair: PairedDifference, margin: float) -> Verdict:
    """Whether the arm is worse than the reference by less than a margin, by the interval of the difference.

    A two-sided 95 % interval that lies above -margin is a one-sided test at 2.5 %.

    Args:
        pair: The difference; its own direction of better is heeded.
        margin: Largest loss that does not matter, in the unit of the metric.

    Returns:
        `undecided` also where there is no interval.
    """
    gains = (pair.low, pair.high) if METRICS[pair.metric].higher_is_better else (-pair.high, -pair.low)
    if gains[0] > -margin:
        return "non-inferior"
    return "inferior" if gains[1] < -margin else "undecided"


def summarise_aggregated_dice(rows: Iterable[ScoreRow], class_name: str) -> dict[str, float]:
    """Aggregated Dice of every arm, seeds averaged first.

    A patient missing from an arm counts as an empty prediction: its target volume is known from the other
    arms.

    Args:
        rows: Score rows of all arms, all classes.
        class_name: The class to summarise.

    Returns:
        One value per arm, in the order in which the arms first appear; NaN where no case has any volume.

    Raises:
        InputError: As for ``summarise``.
    """
    pooled = summarise_pooled(case_values(rows, class_name), "dice_aggregated")
    return {summary.arm: summary.estimate.value for summary in pooled}


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
    base = _place_of(reference, values)
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


def target_volumes(rows: Iterable[CaseScore]) -> dict[str, float]:
    """True volume in ml of each case, by case id; the rows are of one class."""
    return dict(sorted((row.case_id, row.target_volume_ml) for row in rows))


def mean_by_case(
    rows: Iterable[CaseScore], case_ids: Iterable[str], read: Callable[[CaseScore], float], missing: float = np.nan
) -> Values:
    """One value per case, the mean over its rows (of one arm and class); `missing` where it has none."""
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        values[row.case_id].append(read(row))
    return np.array([np.mean(values[case_id]) if case_id in values else missing for case_id in case_ids])


def find_metric(name: str) -> Metric:
    """The metric of a name.

    Raises:
        InputError: It is not one of `METRICS`.
    """
    if name not in METRICS:
        raise InputError(f"metric is {name!r}, expected one of {', '.join(METRICS)}")
    return METRICS[name]


def _place_of(reference: str, values: CaseValues) -> int:
    if reference not in values.arms:
        raise InputError(f"reference arm is {reference!r}, expected one of {', '.join(values.arms)}")
    return values.arms.index(reference)


def _subtract(arms: Values, reference: Values) -> Values:
    """Arms minus reference (arm, case); 0 where both are infinite."""
    reference = np.broadcast_to(reference, arms.shape)
    return np.subtract(arms, reference, out=np.zeros_like(arms), where=arms != reference).round(TIE_DECIMALS)


def _ratios(above: Values, below: Values) -> tuple[Values, Values]:
    """Sum over sum of (arm, case): over the cohort (arm,), and over each resample (resample, arm)."""
    is_known = np.isfinite(above + below).all(axis=1)[:, None]
    above, below = np.where(is_known, above, 0.0), np.where(is_known, below, 0.0)
    sums = resample_sums(np.concatenate([above, below]))
    return _divide(above.sum(axis=1), below.sum(axis=1)), _divide(sums[:, : len(above)], sums[:, len(above) :])


def _divide(above: Values, below: Values) -> Values:
    """NaN where there is nothing below the line."""
    return np.divide(above, below, out=np.full_like(below, np.nan), where=below > 0)
