"""Differences between the arms by centre and by size of the tumour."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hngtv.report.case_values import CaseValues
from hngtv.report.pooled import POOLED, compare_pooled
from hngtv.report.runs import Run
from hngtv.report.statistics import METRICS, compare_metrics, compare_values, summarise_values
from hngtv.report.tables import Comparison, margin_cells, rounded

DIFFERENCE_COLUMNS = (
    "stratum", "class_name", "metric", "arm", "reference", "n_cases", "n_missing", "n_better", "n_worse", "statistic",
    "difference", "low", "high", "mean_difference", "mean_low", "mean_high", "median_difference", "median_low",
    "median_high", "p_value", "p_holm", "effect_size", "margin", "verdict", "note",
)  # fmt: skip
ALL_CASES = "all"
"""The stratum that holds every case."""

MIN_CASES_FOR_THIRDS = 6
"""Source: our choice, two cases a third."""


def difference_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Rows of `differences.csv`: every arm against the reference by stratum, class and metric."""
    groups = {ALL_CASES: set(comparison.values["GTV"].case_ids)} | strata(comparison)
    rows = []
    for stratum, case_ids in groups.items():
        for class_name in comparison.class_names:
            values = comparison.values[class_name].of_cases(case_ids)
            if not values.case_ids:
                continue
            found = _differences_of(values, comparison)
            rows += [{"stratum": stratum} | {key: rounded(value) for key, value in row.items()} for row in found]
    return rows


def subgroup_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """The metric on GTV by centre and by target volume.

    Returns:
        For each group its name, `n_cases`, the metric's `value` for each arm, and the paired difference to the
        reference in `pairs` for each other arm.
    """
    rows = []
    for name, case_ids in strata(comparison).items():
        values = comparison.values["GTV"].of_cases(case_ids)
        summaries = summarise_values(values, comparison.metric)
        pairs = compare_values(values, comparison.metric, comparison.reference)
        rows.append(
            {
                "group": name,
                "n_cases": len(values.case_ids),
                "value": {s.arm: s.mean if s.statistic == "mean" else s.median for s in summaries},
                "pairs": {pair.arm: pair for pair in pairs},
            }
        )
    return rows


def strata(comparison: Comparison) -> dict[str, set[str]]:
    """Case ids of each centre and of each third by the volume of the target; groups without a case are left out."""
    groups = _groups_by_centre(comparison.runs) | _groups_by_volume(comparison.values["GTV"])
    return {name: case_ids for name, case_ids in groups.items() if case_ids}


def _groups_by_centre(runs: Sequence[Run]) -> dict[str, set[str]]:
    """Case ids of each centre; empty if fewer than two are known."""
    centre_of = {case_id: case.centre for run in runs for case_id, case in run.cases.items() if case.centre}
    names = sorted(set(centre_of.values()))
    if len(names) < 2:
        return {}
    return {f"centre {name}": {case_id for case_id, found in centre_of.items() if found == name} for name in names}


def _groups_by_volume(values: CaseValues) -> dict[str, set[str]]:
    """Case ids by thirds of the target volume; empty below `MIN_CASES_FOR_THIRDS` cases with a tumour."""
    target_ml = values.of_target("target_volume_ml")
    volume_of = {case_id: float(ml) for case_id, ml in zip(values.case_ids, target_ml, strict=True) if ml > 0}
    if len(volume_of) < MIN_CASES_FOR_THIRDS:
        return {}
    low, high = np.quantile(list(volume_of.values()), [1 / 3, 2 / 3])
    return {
        f"smallest third (target up to {low:.1f} ml)": {c for c, ml in volume_of.items() if ml <= low},
        f"middle third ({low:.1f} to {high:.1f} ml)": {c for c, ml in volume_of.items() if low < ml <= high},
        f"largest third (over {high:.1f} ml)": {c for c, ml in volume_of.items() if ml > high},
    }


def _differences_of(values: CaseValues, comparison: Comparison) -> list[dict[str, Any]]:
    """Rows of `differences.csv` of one stratum and class; the margin is one of the compared metric alone."""
    rows = []
    for pair in compare_metrics(values, list(METRICS), comparison.reference):
        margin = comparison.conditions.margin if pair.metric == comparison.metric else None
        row = {name: getattr(pair, name) for name in DIFFERENCE_COLUMNS if hasattr(pair, name)}
        for name, found in (("mean", pair.mean), ("median", pair.median)):
            row |= {f"{name}_difference": found.value, f"{name}_low": found.low, f"{name}_high": found.high}
        rows.append(row | margin_cells(pair, margin))
    for measure in POOLED:
        for pooled in compare_pooled(values, measure, comparison.reference):
            found = pooled.estimate
            row = {name: getattr(pooled, name) for name in ("class_name", "arm", "reference", "n_cases", "n_missing")}
            row |= {"metric": measure, "statistic": "pooled", "difference": found.value, "note": found.note}
            rows.append(row | {"low": found.low, "high": found.high})
    return rows
