"""Tables of the comparison: one row per arm and class, and what the arms shared."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import Any

import numpy as np

from hngtv.metrics.score import CaseScore, classes_present
from hngtv.report.figures import BoxPoint
from hngtv.report.runs import Run, runs_by_arm
from hngtv.report.statistics import (
    ArmSummary,
    PairedDifference,
    compare_arms,
    mean_by_case,
    summarise,
    summarise_aggregated_dice,
    target_volumes,
)

TABLE_COLUMNS = (
    "arm", "class_name", "n_cases", "n_runs", "n_missing", "n_dice_zero", "dice_mean", "dice_low", "dice_high",
    "dice_median", "dice_aggregated", "hd95_median_mm", "msd_median_mm", "surface_dice_2mm_mean", "precision_mean",
    "recall_mean", "volume_error_ml", "absolute_volume_error_ml", "reference", "metric", "difference", "difference_low",
    "difference_high", "p_value", "p_holm", "n_better", "n_worse", "box_covered_fraction", "box_ml_median",
    "n_fallbacks", "training_steps", "training_s", "n_parameters",
)  # fmt: skip
ARM_SETTINGS = (
    "arm", "run_dir", "work_dir", "fold", "seed", "localiser", "logger", "network.name", "network.gate_variant",
    "network.n_gates", "network.open_gates", "roi.margin_mm", "roi.jitter_mm",
)  # fmt: skip
"""Settings, or groups of them, that may differ between arms: what an arm is, and where it lies."""
FULL_COVERAGE = 0.999
"""Share of the tumour from which a box counts as holding all of it. Source: our choice."""

MIN_CASES_FOR_THIRDS = 6
"""Source: our choice, two cases a third."""


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


def shown_classes(scores: Sequence[CaseScore]) -> list[str]:
    """Classes to show, GTV (all labels together) first; only GTV where one label would repeat it."""
    present = classes_present(scores)
    return ["GTV", *(name for name in present if name != "GTV")] if len(present) > 2 else ["GTV"]


def summarise_classes(
    scores: Sequence[CaseScore], class_names: Sequence[str]
) -> dict[tuple[str, str], dict[str, ArmSummary]]:
    """Summaries by class and metric, then by arm."""
    metrics = ("dice", "hd95_mm", "msd_mm", "surface_dice_2mm", "precision", "recall")
    return {
        (class_name, metric): {s.arm: s for s in summarise(scores, class_name, metric)}
        for class_name in class_names
        for metric in metrics
    }


def compare_classes(
    scores: Sequence[CaseScore], class_names: Sequence[str], metric: str, reference: str
) -> dict[str, list[PairedDifference]]:
    return {class_name: compare_arms(scores, class_name, metric, reference) for class_name in class_names}


def table_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Rows of `table.csv`, with the columns `TABLE_COLUMNS`; what an arm lacks is missing from its row."""
    rows = []
    for class_name in comparison.class_names:
        pairs = {pair.arm: pair for pair in comparison.pairs[class_name]}
        aggregated = summarise_aggregated_dice(comparison.scores, class_name)
        for arm, runs in comparison.arms.items():
            row = {
                "arm": arm,
                "class_name": class_name,
                "n_runs": len(runs),
                "dice_aggregated": aggregated[arm],
            }
            row |= _score_cells(comparison, class_name, arm) | _pair_cells(pairs.get(arm))
            row |= box_cells(runs) | training_cells(runs)
            rows.append({key: _rounded(value) for key, value in row.items()})
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


def training_cells(runs: Sequence[Run]) -> dict[str, Any]:
    """Means over the runs that say it."""
    names = {"steps": "training_steps", "cpu_s": "training_s", "n_parameters": "n_parameters"}
    found = {key: [run.training[key] for run in runs if key in run.training] for key in names}
    return {names[key]: float(np.mean(values)) for key, values in found.items() if values}


def unequal_terms(runs: Sequence[Run]) -> list[str]:
    """What the arms did not share though a fair comparison needs it, one sentence each; empty if they are equal."""
    arms = {arm: {(run.fold, run.seed): run for run in group} for arm, group in runs_by_arm(runs).items()}
    if len(arms) < 2:
        return []
    places = sorted({(run.fold, run.seed) for run in runs})
    lacking = {arm: [_place(place) for place in places if place not in runs_of] for arm, runs_of in arms.items()}
    gaps = [f"{arm} lacks {', '.join(names)}" for arm, names in lacking.items() if names]
    twins = [{arm: runs_of[place] for arm, runs_of in arms.items() if place in runs_of} for place in places]
    return [
        *([f"Different folds or seeds: {'; '.join(gaps)}."] if gaps else []),
        *_differences("budget", twins, lambda run: budget_text(run.settings), str),
        *_differences("cases", twins, lambda run: sorted(run.case_ids), len),
        *_other_differences(runs),
    ]


def budget_text(settings: Mapping[str, Any]) -> str:
    budget = settings.get("budget") or {}
    if budget.get("steps") is not None:
        return f"{budget['steps']} steps"
    return f"{budget['cpu_s']:g} s" if budget.get("cpu_s") is not None else "unknown"


def subgroup_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Mean Dice (GTV) of each arm by centre and by target volume: name of the group, n cases, and a value per arm."""
    rows = [row for row in comparison.scores if row.class_name == "GTV"]
    groups = _groups_by_centre(comparison.runs) | _groups_by_volume(rows)
    rows_of = {arm: [row for row in rows if row.arm == arm] for arm in comparison.arms}
    return [
        {
            "group": name,
            "n_cases": len(members),
            "mean": {
                arm: float(mean_by_case(rows_of[arm], members, attrgetter("dice"), 0.0).mean()) for arm in rows_of
            },
        }
        for name, members in groups.items()
        if members
    ]


def _groups_by_centre(runs: Sequence[Run]) -> dict[str, set[str]]:
    """Case ids of each centre; empty if fewer than two are known."""
    centre_of = {case_id: case.centre for run in runs for case_id, case in run.cases.items() if case.centre}
    names = sorted(set(centre_of.values()))
    if len(names) < 2:
        return {}
    return {f"centre {name}": {case_id for case_id, found in centre_of.items() if found == name} for name in names}


def _groups_by_volume(rows: Sequence[CaseScore]) -> dict[str, set[str]]:
    """Case ids by thirds of the target volume; empty below `MIN_CASES_FOR_THIRDS` cases with a tumour."""
    volume_of = {row.case_id: row.target_volume_ml for row in rows if row.target_volume_ml > 0}
    if len(volume_of) < MIN_CASES_FOR_THIRDS:
        return {}
    low, high = np.quantile(list(volume_of.values()), [1 / 3, 2 / 3])
    return {
        f"smallest third (target up to {low:.1f} ml)": {c for c, ml in volume_of.items() if ml <= low},
        f"middle third ({low:.1f} to {high:.1f} ml)": {c for c, ml in volume_of.items() if low < ml <= high},
        f"largest third (over {high:.1f} ml)": {c for c, ml in volume_of.items() if ml > high},
    }


def failure_rows(runs: Sequence[Run]) -> list[tuple[str, str, str]]:
    """Run, case and what went wrong: no prediction, tumour missed entirely, tumour invented, box by fallback."""
    found = []
    for run in runs:
        for row in run.scores:
            if row.class_name != "GTV":
                continue
            problem = score_problem(run, row)
            if problem:
                found.append((run.name, row.case_id, problem))
            roi = run.rois.get(row.case_id)
            if roi is not None and roi.is_fallback:
                found.append((run.name, row.case_id, f"box by {roi.reason}"))
    return found


def score_problem(run: Run, row: CaseScore) -> str:
    """Why a case has the worst score, or what it lacks; empty if nothing is wrong."""
    has_file = run.folder.prediction(row.case_id).is_file()
    if row.dice > 0:
        return "" if has_file else "prediction file removed after scoring"
    if row.volume_ml == 0 and not has_file:
        return "no prediction file; scored as the worst"
    if row.target_volume_ml == 0:
        found = f"{row.volume_ml:.1f} ml predicted where there is no tumour"
        return found if row.volume_ml > 0 else "no usable prediction; scored as the worst"
    what = "prediction does not meet the tumour" if row.volume_ml > 0 else "nothing predicted, or nothing usable"
    return f"{what} ({row.target_volume_ml:.1f} ml missed)"


def _score_cells(comparison: Comparison, class_name: str, arm: str) -> dict[str, Any]:
    def of(metric: str) -> ArmSummary:
        return comparison.summaries[class_name, metric][arm]

    signed_ml, absolute_ml = _volume_errors_ml(comparison.scores, class_name, arm)
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
        "volume_error_ml": signed_ml,
        "absolute_volume_error_ml": absolute_ml,
        "reference": comparison.reference,
        "metric": comparison.metric,
    }


def _volume_errors_ml(scores: Sequence[CaseScore], class_name: str, arm: str) -> tuple[float, float]:
    """Predicted minus true volume and the size of that, means over cases; a case that the arm lacks is empty."""
    rows = [row for row in scores if row.class_name == class_name]
    targets = target_volumes(rows)
    rows = [row for row in rows if row.arm == arm]
    target_ml = np.array(list(targets.values()))
    signed = mean_by_case(rows, targets, attrgetter("volume_ml"), 0.0) - target_ml
    absolute = mean_by_case(rows, targets, lambda row: abs(row.volume_error_ml))
    return float(signed.mean()), float(np.where(np.isnan(absolute), target_ml, absolute).mean())


def _pair_cells(pair: PairedDifference | None) -> dict[str, Any]:
    if pair is None:
        return {}
    return {
        "difference": pair.difference,
        "difference_low": pair.low,
        "difference_high": pair.high,
        "p_value": pair.p_value,
        "p_holm": pair.p_holm,
        "n_better": pair.n_better,
        "n_worse": pair.n_worse,
    }


def _differences(
    name: str, twins: Sequence[Mapping[str, Run]], value_of: Callable[[Run], Any], word: Callable[[Any], object]
) -> list[str]:
    """One sentence on the first of the twins (runs of one fold and seed, by arm) that differ; empty if none do."""
    differ = [runs for runs in twins if len({str(value_of(run)) for run in runs.values()}) > 1]
    if not differ:
        return []
    first = differ[0]
    values = "; ".join(f"{arm} has {word(value_of(run))}" for arm, run in first.items())
    place = _place(next((run.fold, run.seed) for run in first.values()))
    more = f" and {len(differ) - 1} more" if len(differ) > 1 else ""
    return [f"Different {name}: {values} ({place}{more})."]


def _place(fold_and_seed: tuple[str, int]) -> str:
    return "fold {} seed {}".format(*fold_and_seed)


def _other_differences(runs: Sequence[Run]) -> list[str]:
    """Settings outside the arm's own choices that are not the same in all runs."""
    trees = [_flat_settings(run.settings) for run in runs]
    keys = dict.fromkeys(key for tree in trees for key in tree)
    changed = [key for key in keys if any(tree.get(key) != trees[0].get(key) for tree in trees)]
    return [f"Different settings: {', '.join(changed)} (see settings.json of the runs)."] if changed else []


def _flat_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`group.key: value` of what should be equal in all arms."""
    flat: dict[str, Any] = {}
    for group, value in settings.items():
        if group not in (*ARM_SETTINGS, "budget"):
            flat |= {f"{group}.{key}": v for key, v in value.items()} if isinstance(value, Mapping) else {group: value}
    return {key: value for key, value in flat.items() if key not in ARM_SETTINGS}


def _rounded(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return "" if np.isnan(value) else f"{value:.5g}"
