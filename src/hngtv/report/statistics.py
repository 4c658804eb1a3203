"""Statistics of the comparison of arms: paired by patient, seeds averaged first, nothing dropped.

The patient is the unit. A case scored by an arm in several rows (seeds, folds of an ensemble) first becomes
one value, the mean of its rows, so more seeds do not pretend to be more patients. A case that an arm lacks
while another arm has it counts as the worst value (0 for the overlap metrics, infinity for HD95) and is
counted in ``n_missing``.

HD95 is summarised and compared by its median: a miss is a whole image diagonal, or infinite, and would rule
the mean.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from hngtv.errors import InputError
from hngtv.metrics.score import CaseScore, aggregated_dice

ScoreRow = CaseScore | Mapping[str, object]
Values = npt.NDArray[np.float64]

N_RESAMPLES = 9_999
"""Bootstrap resamples; 2.5 % of one more is a whole number. Source: our choice."""

CONFIDENCE = 0.95
BOOTSTRAP_SEED = 20_201
"""Every interval is drawn from this seed, so a report can be made again to the digit. Source: our choice."""

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
        p_value: Wilcoxon signed-rank test, two-sided, exact, zeros by Pratt's rule; 1 where no patient differs.
        p_holm: The same, adjusted by Holm over all arms compared with this reference.
        note: Why there is no interval, or empty.
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
    kind = _find_metric(metric)
    rows_of_arm = _rows_by_arm(rows, class_name)
    case_ids = _cohort(rows_of_arm)
    return [_summarise_arm(arm, arm_rows, case_ids, kind) for arm, arm_rows in rows_of_arm.items()]


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
    kind = _find_metric(metric)
    rows_of_arm = _rows_by_arm(rows, class_name)
    if reference not in rows_of_arm:
        raise InputError(f"reference arm is {reference!r}, expected one of {', '.join(rows_of_arm)}")
    case_ids = _cohort(rows_of_arm)
    read = attrgetter(metric)
    values_of_arm = {arm: mean_by_case(arm_rows, case_ids, read) for arm, arm_rows in rows_of_arm.items()}
    pairs = [
        _compare_pair((arm, values), (reference, values_of_arm[reference]), class_name, kind)
        for arm, values in values_of_arm.items()
        if arm != reference
    ]
    adjusted = holm_adjust([pair.p_value for pair in pairs])
    return [replace(pair, p_holm=p_holm) for pair, p_holm in zip(pairs, adjusted, strict=True)]


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
    rows_of_arm = _rows_by_arm(rows, class_name)
    target_ml = target_volumes(row for arm_rows in rows_of_arm.values() for row in arm_rows)
    return {arm: _aggregate_arm(arm_rows, target_ml) for arm, arm_rows in rows_of_arm.items()}


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


def holm_adjust(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment of p values, in the order given; an empty list stays empty.

    Source:
        Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    steps = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted.tolist()


def _find_metric(name: str) -> Metric:
    if name not in METRICS:
        raise InputError(f"metric is {name!r}, expected one of {', '.join(METRICS)}")
    return METRICS[name]


def _rows_by_arm(rows: Iterable[ScoreRow], class_name: str) -> dict[str, list[CaseScore]]:
    scores = [row if isinstance(row, CaseScore) else CaseScore.from_row(row) for row in rows]
    rows_of_arm: dict[str, list[CaseScore]] = {row.arm: [] for row in scores}
    seen = set()
    for row in scores:
        if row.class_name != class_name:
            continue
        key = (row.arm, row.case_id, row.fold, row.seed)
        if key in seen:
            raise InputError(
                f"scores: case {row.case_id} of arm {row.arm} has two rows for {class_name}, "
                f"fold {row.fold}, seed {row.seed}: remove one of them"
            )
        if any(np.isnan(getattr(row, name)) for name in METRICS):
            raise InputError(f"scores: case {row.case_id} of arm {row.arm} ({class_name}) holds a NaN")
        seen.add(key)
        rows_of_arm[row.arm].append(row)
    without = [arm for arm, arm_rows in rows_of_arm.items() if not arm_rows]
    if without or not rows_of_arm:
        raise InputError(f"scores: no row of class {class_name!r} in {', '.join(without) or 'an empty list'}")
    return rows_of_arm


def _cohort(rows_of_arm: Mapping[str, list[CaseScore]]) -> list[str]:
    return sorted({row.case_id for arm_rows in rows_of_arm.values() for row in arm_rows})


def _summarise_arm(arm: str, rows: Sequence[CaseScore], case_ids: Sequence[str], metric: Metric) -> ArmSummary:
    values = mean_by_case(rows, case_ids, attrgetter(metric.name), metric.worst)
    dice = mean_by_case(rows, case_ids, attrgetter("dice"), METRICS["dice"].worst)
    low, high, _ = _bootstrap_interval(values, metric)
    return ArmSummary(
        arm=arm,
        class_name=rows[0].class_name,
        metric=metric.name,
        n_cases=len(case_ids),
        n_missing=len(case_ids) - len({row.case_id for row in rows}),
        n_dice_zero=int((dice == 0).sum()),
        mean=float(np.mean(values)),
        median=float(np.median(values)),
        statistic=metric.statistic,
        low=low,
        high=high,
    )


def _compare_pair(
    arm: tuple[str, Values], reference: tuple[str, Values], class_name: str, metric: Metric
) -> PairedDifference:
    """``p_holm`` is still the raw p value here: the adjustment needs all pairs."""
    missing = np.isnan(arm[1]) | np.isnan(reference[1])
    differences = _paired_differences(arm[1], reference[1], metric)
    gains = differences if metric.higher_is_better else -differences
    p_value = _wilcoxon_p(differences)
    low, high, note = _bootstrap_interval(differences, metric)
    return PairedDifference(
        arm=arm[0],
        reference=reference[0],
        class_name=class_name,
        metric=metric.name,
        n_cases=len(differences),
        n_missing=int(missing.sum()),
        n_better=int((gains > 0).sum()),
        n_worse=int((gains < 0).sum()),
        statistic=metric.statistic,
        difference=float(_statistic(differences, metric)),
        low=low,
        high=high,
        p_value=p_value,
        p_holm=p_value,
        note=note,
    )


def _paired_differences(arm: Values, reference: Values, metric: Metric) -> Values:
    """Arm minus reference per case; 0 where both lack the case."""
    arm = np.nan_to_num(arm, nan=metric.worst, posinf=np.inf)
    reference = np.nan_to_num(reference, nan=metric.worst, posinf=np.inf)
    differences = np.subtract(arm, reference, out=np.zeros_like(arm), where=arm != reference)
    return differences.round(TIE_DECIMALS)


def _wilcoxon_p(differences: Values) -> float:
    """Share of all ways to flip the signs whose rank sum is as far from the middle as the one found.

    Source:
        Wilcoxon 1945; zeros are ranked, then left out: Pratt 1959, Remarks on zeros and ties.
    """
    # twice the rank, a whole number also in ties
    ranks = np.rint(2 * stats.rankdata(np.abs(differences))).astype(int)
    chance = np.ones(1)  # of each rank sum, from 0 on
    for rank in ranks[differences != 0]:
        chance = (np.pad(chance, (0, rank)) + np.pad(chance, (rank, 0))) / 2
    smaller = min(ranks[differences > 0].sum(), ranks[differences < 0].sum())
    return min(1.0, 2 * float(chance[: smaller + 1].sum()))


def _statistic(values: Values, metric: Metric) -> Values:
    """Mean or median over the last axis; NaN where the middle lies between minus and plus infinity."""
    if metric.statistic == "mean":
        return np.asarray(np.mean(values, axis=-1), dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.median(values, axis=-1), dtype=np.float64)


def _bootstrap_interval(values: Values, metric: Metric) -> tuple[float, float, str]:
    """Percentile interval of the statistic over resampled cases, and the reason where it is NaN."""
    if len(values) < 2:
        return np.nan, np.nan, "no interval: one case only"
    picks = np.random.default_rng(BOOTSTRAP_SEED).integers(len(values), size=(N_RESAMPLES, len(values)))
    resampled = _statistic(values[picks], metric)
    if np.isnan(resampled).any():
        return np.nan, np.nan, "no interval: undefined in some resamples"
    tail = (1 - CONFIDENCE) / 2
    # no interpolation between order statistics: one of them may be infinite
    low, high = np.quantile(resampled, [tail, 1 - tail], method="inverted_cdf")
    return float(low), float(high), ""


def _aggregate_arm(rows: Sequence[CaseScore], target_ml: Mapping[str, float]) -> float:
    both_ml = mean_by_case(rows, target_ml, lambda row: row.volume_ml + row.target_volume_ml)
    twice_overlap_ml = mean_by_case(rows, target_ml, lambda row: row.dice * (row.volume_ml + row.target_volume_ml), 0.0)
    both_ml = np.where(np.isnan(both_ml), list(target_ml.values()), both_ml)
    dice = np.divide(twice_overlap_ml, both_ml, out=np.zeros_like(both_ml), where=both_ml > 0)
    return float(aggregated_dice(dice, both_ml, 0.0))
