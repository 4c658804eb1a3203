"""What a person looks through: the cases of a run as a table, single cases, and a viewer that opens them."""

import html
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hngtv.errors import InputError
from hngtv.metrics.score import CaseScore
from hngtv.report.overlay import CaseView, load_view
from hngtv.report.runs import Run
from hngtv.report.scores import read_prediction
from hngtv.report.viewer import Outline, render_viewer, viewer_case
from hngtv.run_folder import RunFolder
from hngtv.volume.nifti import Image, read_image

log = logging.getLogger(__name__)

RANKS = ("best", "median", "worst")
COLUMNS = {
    "dice": "Dice",
    "hd95_mm": "HD95 [mm]",
    "surface_dice_2mm": "surface Dice 2 mm",
    "precision": "precision",
    "recall": "recall",
    "volume_ml": "predicted [ml]",
    "target_volume_ml": "true [ml]",
}
"""Scores that the table of cases shows and can be sorted by."""
HIGH_IS_BAD = ("hd95_mm", "msd_mm")


def pick_cases(scores: Sequence[CaseScore], class_name: str = "GTV") -> dict[str, CaseScore]:
    """The rows with the best, the median and the worst Dice, each row once; empty where there is no row."""
    rows = sorted((r for r in scores if r.class_name == class_name), key=lambda r: (-r.dice, r.case_id))
    if not rows:
        return {}
    places = {"best": 0, "worst": len(rows) - 1, "median": len(rows) // 2}
    first_name_of = {place: name for name, place in reversed(places.items())}
    return {name: rows[places[name]] for name in RANKS if first_name_of[places[name]] == name}


def pick_contested(dice: Mapping[str, Mapping[str, float]], n_cases: int) -> dict[str, str]:
    """Cases to look at, and why: the worst, those on which the arms differ most, the median and the best.

    Args:
        dice: For each arm, that of each case; every arm has the same cases.
        n_cases: At most.
    """
    case_ids = list(next(iter(dice.values()), {}))
    mean = {case_id: float(np.mean([arm[case_id] for arm in dice.values()])) for case_id in case_ids}
    spread = {case_id: float(np.ptp([arm[case_id] for arm in dice.values()])) for case_id in case_ids}
    ranked = sorted(case_ids, key=lambda case_id: (mean[case_id], case_id))
    if not ranked or n_cases < 1:
        return {}
    chosen = {ranked[0]: "worst"}
    others = {ranked[-1]: "best", ranked[len(ranked) // 2]: "median"}
    for case_id in sorted(case_ids, key=lambda case_id: (-spread[case_id], mean[case_id], case_id)):
        if len(chosen) < n_cases - len(others):
            chosen.setdefault(case_id, "arms differ most" if spread[case_id] > 0 else "among the worst")
    chosen |= {case_id: why for case_id, why in reversed(others.items()) if case_id not in chosen}
    return dict(list(chosen.items())[:n_cases])


def view_of(run: Run, case_id: str) -> CaseView:
    """Images, truth, prediction, box (margin included) and kept gate maps of a scored case.

    Raises:
        InputError: The run does not list the case, or its images cannot be read.
    """
    if case_id not in run.cases:
        raise InputError(f"case {case_id} is not in {run.folder.root / 'cases.csv'}, so there is no picture of it")
    roi = run.rois.get(case_id)
    box = None if roi is None else roi.box.expand(run.margin_mm)
    view = load_view(run.cases[case_id], run.folder.prediction(case_id), box)
    return replace(view, gates=gates_of(run, case_id))


def gates_of(run: Run, case_id: str) -> dict[str, Image]:
    """Alpha maps by gate that the run kept of a case; damaged ones are left out, with a warning."""
    maps = {}
    for name, path in gate_paths(run.folder, case_id).items():
        try:
            maps[name] = read_image(path)
        except InputError as error:
            log.warning("%s; the map is left out", error)
    return maps


def gate_paths(folder: RunFolder, case_id: str) -> dict[str, Path]:
    """Files of the alpha maps that a run kept of a case, by gate."""
    return {path.name.removesuffix(".nii.gz"): path for path in sorted((folder.gates / case_id).glob("*.nii.gz"))}


def outline_of(run: Run, score: CaseScore, view: CaseView) -> Outline:
    """What a run made of a scored case, for the viewer."""
    roi, path = run.rois.get(score.case_id), run.folder.prediction(score.case_id)
    text = f"{run.arm}: Dice {score.dice:.3f}, HD95 {score.hd95_mm:.1f} mm, {score.volume_ml:.1f} ml"
    try:
        labels = read_prediction(path, view.ct.grid)
    except InputError:
        labels, text = None, f"{text}; no prediction"
    boxes = () if roi is None else tuple(box.expand(run.margin_mm) for box in roi.boxes)
    return Outline(run.arm, text, labels, boxes, gates_of(run, score.case_id))


def case_browser(
    run: Run, by: str = "dice", n_cases: int = 8, gates: Mapping[str, Mapping[str, Image]] | None = None
) -> str:
    """Cases of a run, worst first by a score, each opened by a click: HTML that needs neither kernel nor network.

    Args:
        run: A finished run.
        by: A key of `COLUMNS`.
        n_cases: At most.
        gates: Alpha maps by case and gate beside those that the run kept.
    Raises:
        InputError: The score is unknown, or images cannot be read.
    """
    cases = []
    for row in sort_scores(run.scores, by)[:n_cases]:
        view = view_of(run, row.case_id)
        outline = outline_of(run, row, view)
        outline = replace(outline, gates={**outline.gates, **(gates or {}).get(row.case_id, {})})
        title = f"Dice {row.dice:.3f}" + ("" if by == "dice" else f", {COLUMNS[by]} {getattr(row, by):.3g}")
        cases.append(viewer_case(row.case_id, title, view, [outline]))
    return render_viewer(cases)


def sort_scores(scores: Sequence[CaseScore], by: str, class_name: str = "GTV") -> list[CaseScore]:
    """Rows of a class, worst first by a score (volumes: smallest first).

    Raises:
        InputError: The score is unknown.
    """
    if by not in COLUMNS:
        raise InputError(f"by is {by!r}; expected one of {', '.join(COLUMNS)}")
    sign = -1 if by in HIGH_IS_BAD else 1
    rows = [row for row in scores if row.class_name == class_name]
    return sorted(rows, key=lambda row: (sign * getattr(row, by), row.case_id))


def case_table(run: Run, class_name: str = "GTV", by: str = "dice") -> str:
    """The cases of a run as an HTML table, worst first by a score.

    Raises:
        InputError: The score is unknown.
    """
    names = ("case", *COLUMNS.values(), "box")
    rows = sort_scores(run.scores, by, class_name)
    body = "".join(_table_row([*_score_cells(row), _box_cell(run, row.case_id)]) for row in rows)
    return f"<table><tr>{''.join(f'<th>{name}</th>' for name in names)}</tr>{body}</table>"


def _score_cells(row: CaseScore) -> list[str]:
    def cell(name: str) -> str:
        return f"{getattr(row, name):.{1 if name.endswith(('_mm', '_ml')) else 3}f}"

    return [row.case_id, *map(cell, COLUMNS)]


def _box_cell(run: Run, case_id: str) -> str:
    if not run.folder.prediction(case_id).is_file():
        return "no prediction"
    roi = run.rois.get(case_id)
    if roi is None:
        return "" if run.localiser != "whole" else "whole image"
    covered = "" if roi.covered_fraction is None else f", holds {100 * roi.covered_fraction:.0f} %"
    return f"{roi.reason}{covered}"


def _table_row(cells: Sequence[Any]) -> str:
    return f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>"
