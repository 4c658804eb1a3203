"""A cohort before anything is trained on it: what its files hold, case by case, and how they look."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from hngtv.cases.checks import CheckedImages, check_case
from hngtv.cases.findings import measure_case
from hngtv.cases.manifest import RawCase
from hngtv.errors import InputError
from hngtv.report.figures import ARM_COLOURS, new_figure, plain
from hngtv.report.overlay import load_view
from hngtv.report.viewer import render_viewer, viewer_case
from hngtv.volume.grid import Grid
from hngtv.volume.labels import LABEL_NAMES


def cohort_rows(cases: Sequence[RawCase]) -> list[dict[str, Any]]:
    """One row for each case: grids, field of view, highest uptake, volumes, and what the checks say of it.

    A case without PET or target has "" for what is measured in it; one that fails the checks has nothing but its id,
    its centre and the reason.
    """
    rows = []
    for case in cases:
        row: dict[str, Any] = {"case": case.case_id, "centre": case.centre}
        try:
            images = check_case(case, needs_pet=False)
        except InputError as error:
            rows.append(row | dict.fromkeys(_NAMES, "") | {"checks": str(error)})
            continue
        rows.append(row | _measures(case, images) | {"checks": "; ".join(images.warnings) or "fine"})
    return rows


def draw_volumes(rows: Sequence[dict[str, Any]]) -> Figure:
    """Volume of GTVp and GTVn of each case, a dot each, by centre; on a logarithmic axis, empty ones left out."""
    figure, axis = new_figure(3.2)
    centres = list(dict.fromkeys(row["centre"] for row in rows))
    for place, name in enumerate(LABEL_NAMES.values()):
        for centre, colour in zip(centres, ARM_COLOURS * len(centres), strict=False):
            volumes = [float(row[f"{name}_ml"]) for row in rows if row["centre"] == centre and row[f"{name}_ml"]]
            jitter = 0.5 * ((np.arange(len(volumes)) * 0.618) % 1 - 0.5)
            label = plain(centre or "all") if place == 0 else None
            axis.scatter(volumes, place + jitter, color=colour, s=26, alpha=0.75, linewidths=0, label=label)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(FuncFormatter(lambda ml, _: f"{ml:g}"))
    axis.xaxis.set_minor_formatter(FuncFormatter(lambda ml, _: f"{ml:g}" if f"{ml:g}"[0] in "25" else ""))
    axis.set_yticks(range(len(LABEL_NAMES)), list(LABEL_NAMES.values()))
    axis.set_ylim(len(LABEL_NAMES) - 0.4, -0.6)
    axis.set_xlabel("volume [ml]", fontsize=9)
    figure.legend(fontsize=8, frameon=False, loc="outside lower center", ncols=4, title="centre", title_fontsize=8)
    return figure


def cohort_browser(cases: Sequence[RawCase]) -> str:
    """Cases with their tumours, slice by slice, each opened by a click: HTML that needs neither kernel nor network."""
    shown = []
    for case in cases:
        try:
            shown.append(viewer_case(case.case_id, case.centre, load_view(case), []))
        except InputError:
            continue
    return render_viewer(shown)


_NAMES = ("CT voxels", "CT [mm]", "PET [mm]", "height [mm]", "SUV max", "GTVp_ml", "GTVn_ml")


def _measures(case: RawCase, images: CheckedImages) -> dict[str, Any]:
    facts, grid = measure_case(case, images), images.ct.grid
    values = (
        " x ".join(map(str, grid.shape)),
        _spacing(grid),
        "" if case.pet is None else _spacing(images.pet.grid),
        round(grid.shape[2] * grid.spacing_mm[2]),
        "" if case.pet is None else facts.suv_max,
        *("" if ml is None else ml for ml in (facts.gtvp_ml, facts.gtvn_ml)),
    )
    return dict(zip(_NAMES, values, strict=True))


def _spacing(grid: Grid) -> str:
    return " x ".join(f"{mm:.3g}" for mm in grid.spacing_mm)
