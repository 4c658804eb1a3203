"""What the runs know of their predictions beside the scores: where the tumour was looked for, how sure the networks
were, and what was outlined that is no tumour.

Runs of earlier versions lack some of it; what there is not is left out.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hngtv.errors import InputError
from hngtv.localise.located import LocalisedCase
from hngtv.metrics.calibration import (
    BinCounts,
    add_counts,
    expected_calibration_error,
    overconfidence,
    read_calibration,
    reliability,
)
from hngtv.metrics.false_positives import FAR_MM, outside_ml
from hngtv.report.bootstrap import Estimate, estimate_means
from hngtv.report.figures import WIDTH_INCHES, name_rows, new_figure, plain
from hngtv.report.runs import Run
from hngtv.run_folder import read_json
from hngtv.volume.box import Box

CLASS_NAME = "GTV"
TRUTH_KEYS = ("image_mm", "target_ml", "margins_mm", "far_ml")
"""What `two_stage.write_prediction` notes of the truth and is read here."""
MIN_SHARE_DRAWN = 0.001
"""A bin with a smaller share of the voxels is not drawn: its frequency is chance. Source: our choice."""


def roi_names(runs: Sequence[Run]) -> dict[str, str]:
    """What the localiser of each run with ROIs is called, by name of the run: with its margin, where margins differ."""
    chosen = [run for run in runs if run.localiser != "whole"]
    is_one = len({run.margin_mm for run in chosen}) == 1
    return {run.name: run.localiser if is_one else f"{run.localiser}, margin {run.margin_mm:g} mm" for run in chosen}


def located_cases(runs: Sequence[Run]) -> list[LocalisedCase]:
    """Where the localisers looked in each test case, by their `roi_names`; boxes that runs share are given once."""
    names = roi_names(runs)
    found: dict[tuple[object, ...], LocalisedCase] = {}
    for run in (run for run in runs if run.name in names):
        for case_id in run.case_ids:
            case = _located_case(run, case_id, names[run.name])
            if case is not None:
                found.setdefault((case.localiser, case_id, case.boxes), case)
    return list(found.values())


def calibration_of(runs: Sequence[Run]) -> BinCounts | None:
    """Counts over all test cases of an arm, seeds together; None if one of its runs has none."""
    tables = []
    for run in runs:
        if not run.folder.calibration.is_file():
            return None
        known = read_calibration(run.folder.calibration)
        tables += [known[case_id] for case_id in run.case_ids if case_id in known]
    return add_counts(tables)


def calibration_rows(arms: Mapping[str, Sequence[Run]]) -> list[dict[str, Any]]:
    """For each arm that has counts: its counts, the expected calibration error, and its sign."""
    counts = {arm: calibration_of(runs) for arm, runs in arms.items()}
    return [
        {"arm": arm, "counts": one, "error": expected_calibration_error(one), "overconfidence": overconfidence(one)}
        for arm, one in counts.items()
        if one is not None and one.n_voxels[1:].any()
    ]


def outside_rows(arms: Mapping[str, Sequence[Run]], reference: str) -> list[dict[str, Any]]:
    """For each arm, ml outlined that are no GTV: mean and median over cases (seeds averaged), and the far part.

    A case without a prediction has nothing outlined. The far part is None where a prediction does not know it.
    `difference` is the mean paired difference to the reference arm with its interval, None for the reference itself.
    """
    found = {arm: _outside_of_cases(runs) for arm, runs in arms.items()}
    case_ids = sorted({case_id for outside, _ in found.values() for case_id in outside})
    values = {arm: np.array([outside.get(case_id, 0.0) for case_id in case_ids]) for arm, (outside, _) in found.items()}
    differences = _differences_ml(values, reference)
    rows = []
    for arm, (outside, far) in found.items():
        is_known = len(far) == len(outside)
        rows.append(
            {
                "arm": arm,
                "mean_ml": float(values[arm].mean()),
                "median_ml": float(np.median(values[arm])),
                "far_mean_ml": sum(far.values()) / len(case_ids) if is_known else None,
                "n_far": sum(ml > 0 for ml in far.values()) if is_known else None,
                "n_cases": len(case_ids),
                "difference": differences.get(arm),
            }
        )
    return rows


def draw_reliability(rows: Sequence[Mapping[str, Any]], colours: Mapping[str, str]) -> Figure:
    """Share of voxels that are tumour against the probability that the network gave them; large dots are many."""
    figure, axis = new_figure(WIDTH_INCHES)
    axis.plot([0, 1], [0, 1], color="black", linewidth=1)
    for row in rows:
        probability, truth, weight = reliability(row["counts"])
        shown = weight >= MIN_SHARE_DRAWN
        colour = colours[row["arm"]]
        label = plain(f"{row['arm']}: error {row['error']:.3f}")
        axis.plot(probability[shown], truth[shown], color=colour, linewidth=1.3, label=label)
        axis.scatter(probability[shown], truth[shown], s=8 + 200 * weight[shown], color=colour, alpha=0.7, linewidths=0)
    axis.set(xlim=(0, 1), ylim=(0, 1))
    axis.set_xlabel("probability that the network gives", fontsize=9)
    axis.set_ylabel("share of those voxels that are tumour", fontsize=9)
    figure.legend(fontsize=8, loc="outside lower center", frameon=False)
    return figure


def draw_outside(rows: Sequence[Mapping[str, Any]], colours: Mapping[str, str]) -> Figure:
    """Mean volume outlined that is no GTV, a bar for each arm; its far part is darker."""
    figure, axis = new_figure(1.0 + 0.42 * len(rows))
    for place, row in enumerate(rows):
        colour = colours[row["arm"]]
        axis.barh(place, row["mean_ml"], height=0.6, color=colour, alpha=0.45)
        words = f" {row['mean_ml']:.1f}"
        if row["far_mean_ml"] is not None:
            axis.barh(place, row["far_mean_ml"], height=0.6, color=colour)
            words += f", far {row['far_mean_ml']:.1f}"
        axis.text(row["mean_ml"], place, words, va="center", fontsize=8)
    name_rows(axis, [row["arm"] for row in rows])
    axis.set_xlim(0, 1.35 * max([row["mean_ml"] for row in rows] + [0.1]))
    axis.set_xlabel(f"outlined outside the GTV, mean [ml]\ndark: farther than {FAR_MM:g} mm from it", fontsize=9)
    return figure


def _outside_of_cases(runs: Sequence[Run]) -> tuple[dict[str, float], dict[str, float]]:
    """Ml outlined that are no GTV, by case, mean of the runs; and of it the far part, for the cases that know it."""
    outside: dict[str, list[float]] = {}
    far: dict[str, list[float]] = {}
    for run in runs:
        for score in (row for row in run.scores if row.class_name == CLASS_NAME):
            outside.setdefault(score.case_id, []).append(outside_ml(score))
            known = _truth_note(run, score.case_id)
            if known is not None or score.volume_ml == 0:
                far.setdefault(score.case_id, []).append(0.0 if known is None else float(known["far_ml"]))
    means = [{case_id: float(np.mean(ml)) for case_id, ml in values.items()} for values in (outside, far)]
    return means[0], means[1]


def _differences_ml(values: Mapping[str, NDArray[np.float64]], reference: str) -> dict[str, Estimate]:
    """Mean over cases of each arm (case,) minus the reference."""
    others = [arm for arm in values if arm != reference]
    if not others:
        return {}
    differences = np.array([values[arm] - values[reference] for arm in others])
    return dict(zip(others, estimate_means(differences), strict=True))


def _truth_note(run: Run, case_id: str) -> dict[str, Any] | None:
    """What the note beside a prediction says of the truth; None where it says nothing.

    Raises:
        InputError: It lacks something.
    """
    path = run.folder.prediction(case_id)
    note = path.with_name(f"{case_id}.json")
    truth = read_json(note).get("truth") if path.is_file() and note.is_file() else None
    lost = [] if truth is None else [key for key in TRUTH_KEYS if key not in truth]
    if lost:
        raise InputError(f"{note} is damaged (it lacks {', '.join(lost)}); delete it and run again")
    return truth


def _located_case(run: Run, case_id: str, name: str) -> LocalisedCase | None:
    truth, roi = _truth_note(run, case_id), run.rois.get(case_id)
    if truth is None or roi is None:
        return None
    corners, margins = truth["image_mm"], truth["margins_mm"]
    try:
        return LocalisedCase(
            case_id=case_id,
            localiser=name,
            fold=run.fold,
            disturbance="",
            boxes=roi.boxes,
            image=Box.from_corners(corners[:3], corners[3:]),
            margins_mm=None if margins is None else tuple(margins),
            target_ml=float(truth["target_ml"]),
            confidence=roi.confidence,
            reason=roi.reason,
            seconds=0.0,
        )
    except (TypeError, ValueError) as error:
        note = run.folder.prediction(case_id).with_name(f"{case_id}.json")
        raise InputError(f"{note} is damaged ({error}); delete it and run again") from None
