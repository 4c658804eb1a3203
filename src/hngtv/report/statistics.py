"""Statistics of the comparison of arms: paired by patient, seeds averaged first, nothing dropped.

The patient is the unit. A case scored by an arm in several rows (seeds, folds of an ensemble) first becomes
one value, the mean of its rows, so more seeds do not pretend to be more patients. A case that an arm lacks
while another arm has it counts as the worst value (0 for the overlap metrics, infinity for HD95) and is
counted in ``n_missing``.

HD95 is summarised and compared by its median: a miss is a whole image diagonal, or infinite, and would rule
the mean.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from hngtv.errors import InputError
from hngtv.metrics.score import CaseScore
from hngtv.report.bootstrap import UNKNOWN, Estimate, estimate_means, estimate_medians
from hngtv.report.case_values import CaseValues, case_values
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


def summarise_values(values: CaseValues, metric: str) -> list[ArmSummary]:
    """Summarises every arm on one class and metric, one of ``METRICS``.

    Raises:
        InputError: The metric is unknown.
    """
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


def compare_arms(rows: Iterable[CaseScore], class_name: str, metric: str, reference: str) -> list[PairedDifference]:
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
        InputError: The reference is not an arm, the metric is unknown, or as for ``case_values``.
    """
    return compare_values(case_values(rows, class_name), metric, reference)


def compare_values(values: CaseValues, metric: str, reference: str) -> list[PairedDifference]:
    """As `compare_arms`, of rows that were collected before."""
    return compare_metrics(values, [metric], reference)


def compare_metrics(values: CaseValues, metrics: Sequence[str], reference: str) -> list[PairedDifference]:
    """As `compare_values`, metric after metric; all at once, as the sums of all are one product."""
    base = place_of(reference, values)
    others = [place for place in range(len(values.arms)) if place != base]
    kinds = [find_metric(metric) for metric in metrics]
    filled = [values.filled(kind.name, kind.worst) for kind in kinds]
    differences = np.concatenate([_subtract(column[others], column[base]) for column in filled])
    means, medians = estimate_means(differences), estimate_medians(differences)
    pairs = [
        _pair(values, (place, base), kind, differences[row], (means[row], medians[row]))
        for row, (kind, place) in enumerate((kind, place) for kind in kinds for place in others)
    ]
    adjusted = [p_holm for kind in kinds for p_holm in holm_adjust([p.p_value for p in pairs if p.metric == kind.name])]
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


def find_metric(name: str) -> Metric:
    """The metric of a name.

    Raises:
        InputError: It is not one of `METRICS`.
    """
    if name not in METRICS:
        raise InputError(f"metric is {name!r}, expected one of {', '.join(METRICS)}")
    return METRICS[name]


def place_of(reference: str, values: CaseValues) -> int:
    """Place of the reference among the arms.

    Raises:
        InputError: It is not one of them.
    """
    if reference not in values.arms:
        raise InputError(f"reference arm is {reference!r}, expected one of {', '.join(values.arms)}")
    return values.arms.index(reference)


def _pair(
    values: CaseValues,
    places: tuple[int, int],
    metric: Metric,
    differences: Values,
    mean_and_median: tuple[Estimate, Estimate],
) -> PairedDifference:
    """Of the arm and the reference at two places; ``p_holm`` is still the raw p value: the adjustment needs all."""
    arm, reference = places
    gains = differences if metric.higher_is_better else -differences
    mean, median = mean_and_median
    main = mean if metric.statistic == "mean" else median
    p_value = signed_rank_p(differences)
    return PairedDifference(
        arm=values.arms[arm],
        reference=values.arms[reference],
        class_name=values.class_name,
        metric=metric.name,
        n_cases=len(gains),
        n_missing=int((values.is_missing[arm] | values.is_missing[reference]).sum()),
        n_better=int((gains > 0).sum()),
        n_worse=int((gains < 0).sum()),
        statistic=metric.statistic,
        difference=main.value,
        low=main.low,
        high=main.high,
        p_value=p_value,
        p_holm=p_value,
        note=main.note,
        effect_size=rank_biserial(gains),
        mean=mean,
        median=median,
    )


def _subtract(arms: Values, reference: Values) -> Values:
    """Arms minus reference (arm, case); 0 where both are infinite."""
    reference = np.broadcast_to(reference, arms.shape)
    return np.subtract(arms, reference, out=np.zeros_like(arms), where=arms != reference).round(TIE_DECIMALS)
