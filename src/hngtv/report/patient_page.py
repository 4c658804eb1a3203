"""One A4 page on the prediction of one patient, as PDF: pictures, volumes, uptake, and how it was made.

It names the patient by the case id alone.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from hngtv.cases.manifest import RawCase
from hngtv.localise.roi_table import Roi
from hngtv.metrics.uptake import MTV_SHARE, PEAK_ML, measure_uptake
from hngtv.report.figures import plain
from hngtv.report.overlay import (
    CT_WINDOW_HU,
    PET_WINDOW_SUV,
    PLANES,
    PREDICTION_COLOURS,
    CaseView,
    central_voxel,
    draw_slice,
    load_view,
    view_region,
)
from hngtv.run_folder import atomic_path
from hngtv.volume.components import components
from hngtv.volume.labels import LABEL_NAMES

A4_INCH = (8.27, 11.69)
NOTICE = "For research use only. Not a medical device. Outlined automatically, not reviewed by a person."
ALERT_COLOUR, QUIET_COLOUR = "#b00020", "#555555"
LEFT, RIGHT = 0.07, 0.93
COLUMNS = ("", "pieces", "volume, mL", "SUVmax", "SUVmean", "SUVpeak", "MTV, mL", "TLG, SUV x mL")
TERMS = (
    "Volume: of the mask on the CT. SUV: by body weight, on the PET's own voxels whose centre lies in the mask. "
    f"SUVpeak: highest mean in a sphere of {PEAK_ML:g} mL around any voxel of the mask. MTV: voxels with at least "
    f"{MTV_SHARE:.0%} of the SUVmax of their own piece. TLG: SUV summed over that volume. Confidence: mean "
    "probability, from 0 to 1, of stage 1 inside what it found; it does not say how likely the outline is right."
)
N_AXIAL = 4
MAX_NOTES = 3
LETTERS_A_LINE, LETTERS_A_NOTE = 105, 120


def write_patient_page(
    path: Path, case: RawCase, mask: Path, roi: Roi, facts: Mapping[str, str], notes: Sequence[str] = ()
) -> None:
    """Write the page.

    Args:
        path: The PDF.
        case: Files of the patient; a target is not shown.
        mask: The predicted labels.
        roi: Where the tumour was looked for.
        facts: What else is told of model and images, by name.
        notes: What is odd, one line each, shown as warnings.
    Raises:
        InputError: A file cannot be read.
    """
    figure = draw_patient_page(case, mask, roi, facts, notes)
    title = {"Title": f"{case.case_id}: predicted outlines, for research use", "Author": "hngtv"}
    with atomic_path(path) as temporary, PdfPages(temporary, metadata=title) as pages:
        pages.savefig(figure, dpi=200)


def draw_patient_page(
    case: RawCase, mask: Path, roi: Roi, facts: Mapping[str, str], notes: Sequence[str] = ()
) -> Figure:
    """As `write_patient_page`."""
    view = load_view(replace(case, target=None), mask)
    if view.prediction is None or not view.prediction.any():
        view = replace(view, box=roi.box)
    figure = Figure(figsize=A4_INCH, facecolor="white")
    figure.text(LEFT, 0.965, f"Case {plain(case.case_id)}", fontsize=17, weight="bold", va="top")
    figure.text(RIGHT, 0.96, "Predicted gross tumour volume", fontsize=11, color=QUIET_COLOUR, va="top", ha="right")
    figure.text(LEFT, 0.935, NOTICE, fontsize=9.5, color=ALERT_COLOUR, weight="bold", va="top")
    spec = figure.add_gridspec(
        2, 1, left=LEFT, right=RIGHT, top=0.91, bottom=0.355, height_ratios=(41, 15), hspace=0.02
    )
    _draw_planes(figure, spec[0], view)
    _draw_axials(figure, spec[1], view)
    _write_legend(figure, view, 0.343)
    _draw_table(figure, uptake_rows(view), 0.325)
    bottom = _write_notes(figure, [*_alerts(roi, view), *notes], 0.225)
    _write_facts(figure, {"stage 1": _stage_1(roi), **facts}, bottom - 0.006)
    figure.text(LEFT, 0.025, _wrapped(TERMS, 160), fontsize=6.2, color=QUIET_COLOUR, va="bottom", linespacing=1.4)
    return figure


def uptake_rows(view: CaseView) -> list[list[str]]:
    """The cells of the table: each label, then all together if there are several; "-" where nothing can be measured."""
    if view.prediction is None:
        return []
    found = [label for label in LABEL_NAMES if (view.prediction == label).any()]
    parts = {name: np.where(view.prediction == label, view.prediction, 0) for label, name in LABEL_NAMES.items()}
    if len(found) > 1:
        parts["both"] = view.prediction
    return [[name, *_cells(labels, view)] for name, labels in parts.items()]


def _cells(labels: NDArray, view: CaseView) -> list[str]:
    n_pieces = sum(len(components(labels == label)) for label in LABEL_NAMES)
    if not n_pieces:
        return ["none", *["-"] * (len(COLUMNS) - 2)]
    cells = [str(n_pieces), f"{int((labels > 0).sum()) * view.ct.grid.voxel_ml:.1f}"]
    uptake = None if view.pet is None else measure_uptake(labels, view.ct.grid, view.pet.values, view.pet.grid)
    if uptake is None:
        return [*cells, *["-"] * (len(COLUMNS) - 1 - len(cells))]
    suvs = [f"{value:.1f}" for value in (uptake.suv_max, uptake.suv_mean, uptake.suv_peak)]
    return [*cells, *suvs, f"{uptake.mtv_ml:.1f}", f"{uptake.tlg_ml:.0f}"]


def _draw_planes(figure: Figure, place: SubplotSpec, view: CaseView) -> None:
    """CT above and CT with PET below, on three planes; the slices are those with most of the outline."""
    region, centre = view_region(view), central_voxel(view)
    sizes = [(region[a].stop - region[a].start) * view.ct.grid.spacing_mm[a] for a in range(3)]
    layers = ["ct"] if view.pet is None else ["ct", "pet"]
    grid = place.subgridspec(
        len(layers), 3, width_ratios=[sizes[across] for across, _, _ in PLANES.values()], wspace=0.03, hspace=0.04
    )
    for row, layer in enumerate(layers):
        for column, plane in enumerate(PLANES):
            axis = figure.add_subplot(grid[row, column])
            draw_slice(axis, view, plane, centre[PLANES[plane][2]], region, layer)


def _draw_axials(figure: Figure, place: SubplotSpec, view: CaseView) -> None:
    """Axial slices through all of the outline, from its lower to its upper end."""
    region = view_region(view)
    grid = place.subgridspec(1, N_AXIAL, wspace=0.03)
    for column, index in enumerate(_axial_indices(view)):
        axis = figure.add_subplot(grid[0, column])
        draw_slice(axis, view, "axial", index, region, "pet")


def _axial_indices(view: CaseView) -> list[int]:
    """Evenly spaced among the slices that hold an outline; among those shown, if none does."""
    filled = np.flatnonzero(view.prediction.any(axis=(0, 1))) if view.prediction is not None else np.empty(0, int)
    if not len(filled):
        filled = np.arange(view_region(view)[2].start, view_region(view)[2].stop)
    middles = (np.arange(N_AXIAL) + 0.5) / N_AXIAL * len(filled)
    return [int(filled[int(middle)]) for middle in middles]


def _write_legend(figure: Figure, view: CaseView, top: float) -> None:
    left = LEFT
    for label, name in LABEL_NAMES.items():
        if view.prediction is not None and (view.prediction == label).any():
            figure.text(
                left, top, f"\N{EM DASH} {name}", color=PREDICTION_COLOURS[label], fontsize=9, weight="bold", va="top"
            )
            left += 0.09
    level, width = sum(CT_WINDOW_HU) / 2, CT_WINDOW_HU[1] - CT_WINDOW_HU[0]
    window = f"CT level {level:.0f}, width {width:.0f} HU"
    if view.pet is not None:
        window += f"; PET {PET_WINDOW_SUV[0]:.0f} to {PET_WINDOW_SUV[1]:.0f} SUV over CT"
    figure.text(RIGHT, top, f"{window}; the patient's right is on the left", fontsize=7.5, va="top", ha="right")


def _draw_table(figure: Figure, rows: Sequence[Sequence[str]], top: float) -> None:
    height = 0.022 * (len(rows) + 1)
    axis = figure.add_axes((LEFT, top - height, RIGHT - LEFT, height))
    axis.axis("off")
    if not rows:
        return
    table = axis.table(
        [list(row) for row in rows], colLabels=COLUMNS, bbox=Bbox.unit(), cellLoc="right", edges="horizontal"
    )
    table.auto_set_font_size(False)
    table.set_fontsize(9)
    for (row, column), cell in table.get_celld().items():
        cell.set_edgecolor("#bbbbbb")
        if row == 0 or column == 0:
            cell.get_text().set_fontweight("bold")
        if row == 0:
            cell.get_text().set_fontsize(8)


def _stage_1(roi: Roi) -> str:
    n, what = len(roi.boxes), "region" if len(roi.boxes) == 1 else "regions"
    reason = roi.reason.replace("fallback:", "fallback, ")
    return f"{roi.localiser}: {reason}, confidence {roi.confidence:.2f}, {n} {what} of {roi.volume_ml:.0f} mL"


def _alerts(roi: Roi, view: CaseView) -> list[str]:
    alerts = []
    if view.prediction is None or not view.prediction.any():
        alerts.append("Nothing was outlined. This does not say that there is no tumour.")
    if roi.is_fallback:
        why = roi.reason.removeprefix("fallback:")
        alerts.append(f"Stage 1 did not find the tumour ({why}); what is outlined rests on its fallback.")
    if view.pet is None:
        alerts.append("There was no PET: it was taken as SUV 0 everywhere, and no uptake is given.")
    return alerts


def _write_notes(figure: Figure, notes: Sequence[str], top: float) -> float:
    """Warnings in red, each cut to its lines; returns where they end."""
    notes = list(dict.fromkeys(notes))
    if len(notes) > MAX_NOTES:
        notes = [*notes[: MAX_NOTES - 1], f"and {len(notes) - MAX_NOTES + 1} more in the JSON file beside the mask"]
    for note in notes:
        lines = _wrapped(f"Warning: {note}", LETTERS_A_NOTE)
        figure.text(LEFT, top, lines, fontsize=8, color=ALERT_COLOUR, va="top", linespacing=1.3)
        top -= 0.0145 * (lines.count("\n") + 1)
    return top


def _write_facts(figure: Figure, facts: Mapping[str, str], top: float) -> None:
    for name, text in facts.items():
        lines = _wrapped(text)
        figure.text(LEFT, top, name, fontsize=8, weight="bold", va="top", linespacing=1.3)
        figure.text(LEFT + 0.1, top, lines, fontsize=8, va="top", linespacing=1.3)
        top -= 0.0145 * (lines.count("\n") + 1)


def _wrapped(text: str, n_letters: int = LETTERS_A_LINE) -> str:
    return plain("\n".join(textwrap.wrap(" ".join(text.split()), n_letters)))
