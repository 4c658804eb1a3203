"""What a person looks through: the cases of a run as a table, single cases, and a slider over slices."""

import html
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from hngtv.errors import InputError
from hngtv.metrics.score import CaseScore
from hngtv.report.figures import data_url
from hngtv.report.overlay import CaseView, axial_indices, central_voxel, draw_slice, load_view, view_region
from hngtv.report.runs import Run

RANKS = ("best", "median", "worst")


def pick_cases(scores: Sequence[CaseScore], class_name: str = "GTV") -> dict[str, CaseScore]:
    """The rows with the best, the median and the worst Dice, each row once; empty where there is no row."""
    rows = sorted((r for r in scores if r.class_name == class_name), key=lambda r: (-r.dice, r.case_id))
    if not rows:
        return {}
    places = {"best": 0, "worst": len(rows) - 1, "median": len(rows) // 2}
    first_name_of = {place: name for name, place in reversed(places.items())}
    return {name: rows[places[name]] for name in RANKS if first_name_of[places[name]] == name}


def view_of(run: Run, case_id: str) -> CaseView:
    """Images, truth, prediction and box (margin included) of a scored case.

    Raises:
        InputError: The run does not list the case, or its images cannot be read.
    """
    if case_id not in run.cases:
        raise InputError(f"case {case_id} is not in {run.folder.root / 'cases.csv'}, so there is no picture of it")
    roi = run.rois.get(case_id)
    box = None if roi is None else roi.box.expand(run.margin_mm)
    return load_view(run.cases[case_id], run.folder.prediction(case_id), box)


def case_table(run: Run, class_name: str = "GTV") -> str:
    """The cases of a run as an HTML table, worst Dice first."""
    names = (
        "case",
        "Dice",
        "HD95 [mm]",
        "surface Dice 2 mm",
        "precision",
        "recall",
        "predicted [ml]",
        "true [ml]",
        "box",
    )
    rows = sorted((row for row in run.scores if row.class_name == class_name), key=lambda row: row.dice)
    body = "".join(_table_row([*_score_cells(row), _box_cell(run, row.case_id)]) for row in rows)
    return f"<table><tr>{''.join(f'<th>{name}</th>' for name in names)}</tr>{body}</table>"


def slice_browser(view: CaseView, n_slices: int = 16) -> str:
    """A slider over axial slices, CT beside PET over CT, as HTML that needs neither a kernel nor a network.

    It starts on the slice with the most tumour.
    """
    indices = axial_indices(view, n_slices)
    first = int(np.argmin(np.abs(np.array(indices) - central_voxel(view)[2])))
    pictures = [data_url(_draw_pair(view, index)) for index in indices]
    images = "".join(
        f'<img src="{url}" style="display:{"block" if i == first else "none"}">' for i, url in enumerate(pictures)
    )
    script = (
        "const images = this.parentElement.querySelectorAll('img');"
        "images.forEach((image, i) => { image.style.display = i == this.value ? 'block' : 'none'; });"
    )
    return (
        f'<div><input type="range" min="0" max="{len(pictures) - 1}" value="{first}" '
        f'style="width:640px" aria-label="slice" oninput="{html.escape(script)}">{images}</div>'
    )


def _draw_pair(view: CaseView, index: int) -> Figure:
    n_columns = 1 if view.pet is None else 2
    figure = Figure(figsize=(4.2 * n_columns, 4.2), dpi=80, layout="constrained")
    region = view_region(view)
    for column, axis in enumerate(figure.subplots(1, n_columns, squeeze=False).ravel()):
        draw_slice(axis, view, "axial", index, region, with_pet=column == 1)
    return figure


def _score_cells(row: CaseScore) -> list[str]:
    shares = [f"{value:.3f}" for value in (row.surface_dice_2mm, row.precision, row.recall)]
    volumes = [f"{value:.1f}" for value in (row.volume_ml, row.target_volume_ml)]
    return [row.case_id, f"{row.dice:.3f}", f"{row.hd95_mm:.1f}", *shares, *volumes]


def _box_cell(run: Run, case_id: str) -> str:
    if not run.folder.prediction(case_id).is_file():
        return "no prediction"
    roi = run.rois.get(case_id)
    if roi is None:
        return "" if run.localiser != "whole" else "whole image"
    covered = "" if roi.covered_fraction is None else f", holds {100 * roi.covered_fraction:.0f} %"
    return f"{roi.reason}{covered}"


def _table_row(cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>"
