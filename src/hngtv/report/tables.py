"""Tables of the comparison: one row per arm and class, and what the arms shared."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from hngtv.metrics.score import CLASS_NAMES, CaseScore, classes_present
from hngtv.report.case_values import CaseValues, case_values
from hngtv.report.evidence import calibration_rows, outside_rows
from hngtv.report.figures import BoxPoint
from hngtv.report.pooled import POOLED, summarise_pooled
from hngtv.report.runs import Run, runs_by_arm
from hngtv.report.statistics import (
    METRICS,
    ArmSummary,
    PairedDifference,
    judge_margin,
    summarise_values,
)
from hngtv.report.terms import Conditions

TABLE_COLUMNS = (
    "arm", "class_name", "n_cases", "n_runs", "n_missing", "n_dice_zero", "dice_mean", "dice_low", "dice_high",
    "dice_median", "dice_aggregated", "dice_aggregated_low", "dice_aggregated_high", "f1_aggregated",
    "f1_aggregated_low", "f1_aggregated_high", "hd95_median_mm", "msd_median_mm", "surface_dice_2mm_mean",
    "precision_mean", "recall_mean", "volume_error_ml", "absolute_volume_error_ml", "reference", "metric", "difference",
    "difference_low", "difference_high", "p_value", "p_holm", "effect_size", "n_better", "n_worse", "margin", "verdict",
    "box_covered_fraction", "box_ml_median", "n_fallbacks", "training_steps", "training_s", "n_parameters", "predict_s",
    "peak_memory_mb",
)  # fmt: skip
FULL_COVERAGE = 0.999
"""Share of the tumour from which a box counts as holding all of it. Source: our choice."""


@dataclass(frozen=True)
class Comparison:
    """Everything that the tables and the page show, computed once.

    Attributes:
        runs: Runs on the folds that all arms share.
        left_out: Runs on other folds.
        unfinished: Names of run folders without scores.
        scores: Rows of `runs`.
        class_names: Classes that occur, GTV last; only GTV in a cohort with one label.
        reference: The arm that the others are held against.
        metric: What is compared.
        conditions: What is asked of it.
        values: Scores of `runs` by class, those shown and those that the rankings need.
        summaries: Per class, metric and arm.
        pairs: Per class, one difference for each other arm.
    """

    runs: Sequence[Run]
    left_out: Sequence[Run]
    unfinished: Sequence[str]
    scores: Sequence[CaseScore]
    class_names: Sequence[str]
    reference: str
    metric: str
    conditions: Conditions
    values: Mapping[str, CaseValues]
    summaries: Mapping[tuple[str, str], Mapping[str, ArmSummary]]
    pairs: Mapping[str, Sequence[PairedDifference]]

    @property
    def arms(self) -> dict[str, list[Run]]:
        return runs_by_arm(self.runs)

    @property
    def n_cases(self) -> int:
        return len({row.case_id for row in self.scores})

    @cached_property
    def table(self) -> list[dict[str, Any]]:
        return table_rows(self)

    @cached_property
    def calibration(self) -> list[dict[str, Any]]:
        return calibration_rows(self.arms)

    @cached_property
    def outside(self) -> list[dict[str, Any]]:
        return outside_rows(self.arms, self.reference)


def shown_classes(scores: Sequence[CaseScore]) -> list[str]:
    """Classes to show, GTV (all labels together) first; only GTV where one label would repeat it."""
    present = classes_present(scores)
    return ["GTV", *(name for name in present if name != "GTV")] if len(present) > 2 else ["GTV"]


def values_of_classes(scores: Sequence[CaseScore], class_names: Sequence[str]) -> dict[str, CaseValues]:
    """Scores by class: the named ones, and others that every arm has.

    Raises:
        InputError: As for `case_values`.
    """
    found = {(row.arm, row.class_name) for row in scores}
    arms = {arm for arm, _ in found}
    complete = [name for name in CLASS_NAMES if all((arm, name) in found for arm in arms)]
    return {name: case_values(scores, name) for name in dict.fromkeys([*class_names, *complete])}


def summarise_classes(
    values: Mapping[str, CaseValues], class_names: Sequence[str]
) -> dict[tuple[str, str], dict[str, ArmSummary]]:
    """Summaries by class and metric, then by arm."""
    return {
        (class_name, metric): {s.arm: s for s in summarise_values(values[class_name], metric)}
        for class_name in class_names
        for metric in METRICS
    }


def table_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Rows of `table.csv`, with the columns `TABLE_COLUMNS`; what an arm lacks is missing from its row."""
    rows = []
    for class_name in comparison.class_names:
        pairs = {pair.arm: pair for pair in comparison.pairs[class_name]}
        pooled = _pooled_cells(comparison.values[class_name])
        errors_ml = _volume_errors_ml(comparison.values[class_name])
        for arm, runs in comparison.arms.items():
            row = {"arm": arm, "class_name": class_name, "n_runs": len(runs)}
            row |= _score_cells(comparison, class_name, arm) | errors_ml[arm] | pooled[arm]
            row |= _pair_cells(pairs.get(arm), comparison.conditions.margin)
            row |= box_cells(runs) | cost_cells(runs)
            rows.append({key: rounded(value) for key, value in row.items()})
    return rows


def box_points(runs: Iterable[Run]) -> list[BoxPoint]:
    """Coverage and volume of the box (margin included) of every scored case that has a known target."""
    return [
        BoxPoint(
            run.localiser,
            roi.covered_fraction,
            sum(box.expand(run.margin_mm).volume_ml for box in roi.boxes),
            roi.is_fallback,
        )
        for run in runs
        for roi in run.rois.values()
        if roi.covered_fraction is not None
    ]


def box_cells(runs: Sequence[Run]) -> dict[str, Any]:
    """Coverage and volume over cases with a tumour, fallbacks over all; what there is not is missing."""
    points = box_points(runs)
    cells: dict[str, Any] = {"n_fallbacks": count_fallbacks(runs)} if any(run.rois for run in runs) else {}
    if points:
        cells["box_covered_fraction"] = float(np.mean([p.covered_fraction for p in points]))
        cells["box_ml_median"] = float(np.median([p.box_ml for p in points]))
    return cells


def count_fallbacks(runs: Iterable[Run]) -> int:
    return sum(roi.is_fallback for run in runs for roi in run.rois.values())


def cost_cells(runs: Sequence[Run]) -> dict[str, Any]:
    """Means over the runs that say it: by `costs.json`, or by the records of training in the folder."""
    names = {
        "training_steps": ("train_steps", "steps"),
        "training_s": ("train_cpu_s", "cpu_s"),
        "n_parameters": ("n_parameters", "n_parameters"),
        "predict_s": ("predict_s", ""),
        "peak_memory_mb": ("peak_memory_mb", ""),
    }
    cells = {}
    for column, (cost, recorded) in names.items():
        found = [run.costs.get(cost, run.training.get(recorded)) for run in runs]
        known = [value for value in found if value is not None]
        if known:
            cells[column] = float(np.mean(known))
    return cells


def _score_cells(comparison: Comparison, class_name: str, arm: str) -> dict[str, Any]:
    def of(metric: str) -> ArmSummary:
        return comparison.summaries[class_name, metric][arm]

    dice = of("dice")
    return {
        "n_cases": dice.n_cases,
        "n_missing": dice.n_missing,
        "n_dice_zero": dice.n_dice_zero,
        "dice_mean": dice.mean,
        "dice_low": dice.low,
        "dice_high": dice.high,
        "dice_median": dice.median,
        "hd95_median_mm": of("hd95_mm").median,
        "msd_median_mm": of("msd_mm").median,
        "surface_dice_2mm_mean": of("surface_dice_2mm").mean,
        "precision_mean": of("precision").mean,
        "recall_mean": of("recall").mean,
        "reference": comparison.reference,
        "metric": comparison.metric,
    }


def _volume_errors_ml(values: CaseValues) -> dict[str, dict[str, float]]:
    """Predicted minus true volume and the size of that, means over cases; a case that the arm lacks is empty."""
    target_ml = values.of_target("target_volume_ml")
    signed = np.where(values.is_missing, -target_ml, values.columns["volume_error_ml"]).mean(axis=1)
    absolute = np.where(values.is_missing, target_ml, values.columns["absolute_volume_error_ml"]).mean(axis=1)
    return {
        arm: {"volume_error_ml": float(signed[place]), "absolute_volume_error_ml": float(absolute[place])}
        for place, arm in enumerate(values.arms)
    }


def _pooled_cells(values: CaseValues) -> dict[str, dict[str, float]]:
    cells: dict[str, dict[str, float]] = {arm: {} for arm in values.arms}
    for measure in POOLED:
        for summary in summarise_pooled(values, measure):
            found = summary.estimate
            cells[summary.arm] |= {measure: found.value, f"{measure}_low": found.low, f"{measure}_high": found.high}
    return cells


def _pair_cells(pair: PairedDifference | None, margin: float | None) -> dict[str, Any]:
    if pair is None:
        return {}
    return {
        "difference": pair.difference,
        "difference_low": pair.low,
        "difference_high": pair.high,
        "p_value": pair.p_value,
        "p_holm": pair.p_holm,
        "effect_size": pair.effect_size,
        "n_better": pair.n_better,
        "n_worse": pair.n_worse,
    } | margin_cells(pair, margin)


def margin_cells(pair: PairedDifference, margin: float | None) -> dict[str, Any]:
    """The margin and its verdict; nothing without a margin."""
    return {} if margin is None else {"margin": margin, "verdict": judge_margin(pair, margin)}


def rounded(value: Any) -> Any:
    """A value as it is written: five digits, whole from 100,000 on (a count of parameters), and nothing for NaN."""
    if not isinstance(value, float):
        return value
    if np.isnan(value):
        return ""
    return f"{value:.0f}" if abs(value) >= 1e5 else f"{value:.5g}"
