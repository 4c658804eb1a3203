"""Pictures of one case: CT and PET slices through the tumour, with truth, prediction and the predicted box."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from hngtv.cases.checks import in_hu
from hngtv.cases.manifest import RawCase
from hngtv.cases.store import pet_factor_of
from hngtv.errors import InputError
from hngtv.report.figures import plain
from hngtv.report.scores import grid_difference, read_prediction
from hngtv.volume.box import Box
from hngtv.volume.components import bounding_slices
from hngtv.volume.grid import Grid
from hngtv.volume.labels import LABEL_NAMES
from hngtv.volume.nifti import Image, read_image
from hngtv.volume.resample import resample

CT_WINDOW_HU = (-135.0, 215.0)
"""Soft tissue, level 40 and width 350 HU. Source: our choice, as usual for the neck."""
PET_WINDOW_SUV = (0.0, 10.0)
"""Source: our choice."""
VIEW_MARGIN_MM = 25.0
"""Shown around tumour, prediction and box. Source: our choice."""
MIN_VIEW_MM = 140.0
"""Source: our choice, about the width of a neck."""
Extent = tuple[float, float, float, float]
LineStyle = Literal["solid", "dashed"]
TRUTH_COLOURS = {1: "#00e5ff", 2: "#5dff7a"}
PREDICTION_COLOURS = {1: "#ff3df2", 2: "#ffb000"}
BOX_COLOUR = "#ffffff"
HALO = patheffects.withStroke(linewidth=2, foreground="black")
PLANES = {"axial": (0, 1, 2), "coronal": (0, 2, 1), "sagittal": (1, 2, 0)}
"""Axes drawn across, upwards, and through the page."""
SIDES = {0: ("R", "L"), 1: ("A", "P"), 2: ("S", "I")}
"""Letters at the high and the low end of x, y, z."""


@dataclass(frozen=True)
class CaseView:
    """One case, ready to draw. All arrays lie on the CT grid, axes X, Y, Z in RAS order.

    Attributes:
        ct: CT in HU.
        pet: PET in SUV on a grid of its own; None if the case lacks it.
        target: (X, Y, Z) labels; None if the truth is unknown.
        prediction: (X, Y, Z) labels; None if it is missing.
        box: Where a prediction may lie, world RAS mm; None if anywhere.
        gates: Alpha maps in [0, 1] by gate, on grids of their own.
    """

    ct: Image
    pet: Image | None
    target: NDArray | None
    prediction: NDArray | None
    box: Box | None
    gates: Mapping[str, Image] = field(default_factory=dict)


@dataclass(frozen=True)
class _Layer:
    """Labels to outline, and how: a colour for each label."""

    name: str
    labels: NDArray
    colours: dict[int, str]
    style: LineStyle


def load_view(case: RawCase, prediction: Path | None = None, box: Box | None = None) -> CaseView:
    """Read the files of a case; a prediction file that is missing or does not fit becomes None.

    Raises:
        InputError: CT, PET or target cannot be read, or the target is not on the CT grid.
    """
    ct = in_hu(case, _read(case.ct))
    pet = _read(case.pet) if case.pet else None
    if pet is not None:
        pet = Image(pet.values * np.float32(pet_factor_of(case)), pet.grid, pet.digest)
    target = _read(case.target) if case.target else None
    if target is not None and grid_difference(target.grid, ct.grid):
        raise InputError(f"case {case.case_id}: target and CT differ ({grid_difference(target.grid, ct.grid)})")
    labels = None
    if prediction is not None:
        try:
            labels = read_prediction(prediction, ct.grid)
        except InputError:
            labels = None
    return CaseView(ct, pet, None if target is None else target.values, labels, box)


def _read(path: Path) -> Image:
    """An image that may have been read a moment ago: several arms are shown on one case. Not to be changed."""
    return _read_once(path, path.stat().st_mtime_ns if path.is_file() else 0)


@lru_cache(maxsize=3)
def _read_once(path: Path, changed_ns: int) -> Image:
    return read_image(path)


def draw_case(view: CaseView, title: str = "") -> Figure:
    """Axial, coronal and sagittal slices through the tumour: CT above, CT with PET below, then a row for each gate.

    The slices are those with the most tumour; without a target those with the most prediction; else the middle of the
    box or of the image. Radiological convention: the patient's right is on the left.
    """
    region = view_region(view)
    centre = central_voxel(view)
    sizes = [(region[a].stop - region[a].start) * view.ct.grid.spacing_mm[a] for a in range(3)]
    widths = [sizes[across] for across, _, _ in PLANES.values()]
    layers = ["ct", *([] if view.pet is None else ["pet"]), *view.gates]
    n_rows = len(layers)
    height = max(sizes[up] for _, up, _ in PLANES.values()) / sum(widths) * 9.6
    figure = Figure(figsize=(9.6, n_rows * height + 0.8), dpi=100, facecolor="white", layout="constrained")
    axes = figure.subplots(n_rows, 3, squeeze=False, width_ratios=widths)
    for column, plane in enumerate(PLANES):
        index = centre[PLANES[plane][2]]
        for axis, layer in zip(axes[:, column], layers, strict=True):
            draw_slice(axis, view, plane, index, region, layer)
    if title:
        figure.suptitle(plain(title), fontsize=10)
    _add_legend(figure, view)
    return figure


def draw_axial_series(view: CaseView, n_slices: int = 12, with_pet: bool = True) -> Figure:
    """A sheet of axial slices, evenly spaced from the lower to the upper end of tumour and prediction."""
    region = view_region(view)
    n_columns = min(4, n_slices)
    n_rows = -(-n_slices // n_columns)
    figure = Figure(figsize=(9.6, 2.4 * n_rows + 0.6), dpi=100, facecolor="white", layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for axis, index in zip(axes, axial_indices(view, n_slices), strict=False):
        draw_slice(axis, view, "axial", index, region, "pet" if with_pet else "ct")
    for axis in axes[n_slices:]:
        axis.axis("off")
    _add_legend(figure, view)
    return figure


def axial_indices(view: CaseView, n_slices: int) -> list[int]:
    """Slice numbers along z, low to high, through tumour and prediction; through the shown region if both are empty."""
    found = bounding_slices(_marked(view))
    span = found[2] if found else view_region(view)[2]
    return [round(z) for z in np.linspace(span.start, span.stop - 1, n_slices)]


def draw_slice(
    axis: Axes, view: CaseView, plane: str, index: int, region: tuple[slice, slice, slice], layer: str
) -> None:
    """Draw one slice of a plane, millimetres along both axes.

    Args:
        plane: A key of `PLANES`.
        index: Voxel number of the slice along the third axis of the plane.
        region: Voxels shown, inside the image.
        layer: "ct" alone, or what is laid over it: "pet", where there is one, or the name of a gate.
    """
    across, up, through = PLANES[plane]
    slices = list(region)
    slices[through] = slice(index, index + 1)
    spacing = view.ct.grid.spacing_mm
    shape = [s.stop - s.start for s in slices]
    extent = (0.0, shape[across] * spacing[across], 0.0, shape[up] * spacing[up])
    ct = _flat(view.ct.values[tuple(slices)], through)
    axis.imshow(ct.T, cmap="gray", vmin=CT_WINDOW_HU[0], vmax=CT_WINDOW_HU[1], origin="lower", extent=extent,
                interpolation="bilinear")  # fmt: skip
    plane_grid = view.ct.grid.crop((slices[0], slices[1], slices[2]))
    if layer == "pet" and view.pet is not None:
        _draw_pet(axis, view.pet, plane_grid, through, extent)
    if layer in view.gates:
        _draw_gate(axis, view.gates[layer], plane_grid, through, extent)
    for outlined in _layers(view):
        _draw_outlines(axis, _flat(outlined.labels[tuple(slices)], through), outlined, extent)
    _draw_box(axis, view, plane, index, region)
    axis.set_aspect("equal")
    axis.set(xticks=[], yticks=[], xlim=(extent[1], extent[0]), ylim=(extent[2], extent[3]))
    _annotate(
        axis,
        plane,
        f"{plane}\n{'xyz'[through]} = {_position_mm(view.ct.grid, through, index):.0f} mm"
        + (f"\n{plain(layer)}" if layer in view.gates else ""),
        extent,
    )


def view_region(view: CaseView) -> tuple[slice, slice, slice]:
    """Voxels to show: tumour, prediction and box with a margin, at least `MIN_VIEW_MM` wide, inside the image."""
    grid = view.ct.grid
    marked = bounding_slices(_marked(view))
    boxes = [grid.box_of(marked)] if marked else []
    boxes += [view.box] if view.box else []
    if not boxes:
        boxes = [grid.bounds()]
    lower = np.min([box.lower_mm for box in boxes], axis=0)
    upper = np.max([box.upper_mm for box in boxes], axis=0)
    shown = Box.from_corners(lower, upper).expand(VIEW_MARGIN_MM).grow_to((MIN_VIEW_MM,) * 3)
    region = grid.clip(grid.slices_of(shown))
    return region if all(s.stop > s.start for s in region) else grid.clip(grid.slices_of(grid.bounds()))


def central_voxel(view: CaseView) -> tuple[int, int, int]:
    """The slice with most tumour along each axis; most prediction without tumour; else the middle of box or image."""
    for labels in (view.target, view.prediction):
        if labels is not None and np.any(labels):
            mask = labels > 0
            x, y, z = (int(np.argmax(mask.sum(axis=other))) for other in ((1, 2), (0, 2), (0, 1)))
            return x, y, z
    middle_mm = (view.box or view.ct.grid.bounds()).centre_mm
    last = np.subtract(view.ct.grid.shape, 1)
    x, y, z = np.clip(np.round(view.ct.grid.to_index(np.array(middle_mm))), 0, last).astype(int)
    return int(x), int(y), int(z)


def _marked(view: CaseView) -> NDArray[np.bool_]:
    marked = np.zeros(view.ct.grid.shape, dtype=bool)
    for labels in (view.target, view.prediction):
        if labels is not None:
            marked |= labels > 0
    return marked


def _layers(view: CaseView) -> list[_Layer]:
    layers = []
    if view.target is not None:
        layers.append(_Layer("truth", view.target, TRUTH_COLOURS, "solid"))
    if view.prediction is not None:
        style: LineStyle = "solid" if view.target is None else "dashed"
        layers.append(_Layer("prediction", view.prediction, PREDICTION_COLOURS, style))
    return layers


def _flat(values: NDArray, through: int) -> NDArray:
    return np.take(values, 0, axis=through)


def _draw_pet(axis: Axes, pet: Image, plane_grid: Grid, through: int, extent: Extent) -> None:
    """Heat over the CT, the stronger the higher the SUV."""
    suv = _flat(resample(pet.values, pet.grid, plane_grid, outside=0.0), through)
    low, high = PET_WINDOW_SUV
    strength = np.clip((suv - low) / (high - low), 0, 1)
    axis.imshow(
        suv.T, cmap="hot", vmin=low, vmax=high, alpha=np.minimum(1.3 * strength, 0.8).T, origin="lower",
        extent=extent, interpolation="bilinear",
    )  # fmt: skip


def _draw_gate(axis: Axes, alpha: Image, plane_grid: Grid, through: int, extent: Extent) -> None:
    """What a gate lets pass, over the CT: dark blue nothing, yellow all."""
    values = _flat(resample(alpha.values, alpha.grid, plane_grid, outside=0.0), through)
    axis.imshow(values.T, cmap="viridis", vmin=0, vmax=1, alpha=0.55, origin="lower", extent=extent)


def _draw_outlines(axis: Axes, labels: NDArray, layer: _Layer, extent: Extent) -> None:
    for label, colour in layer.colours.items():
        draw_outline(axis, labels == label, colour, layer.style, extent)


def draw_outline(axis: Axes, mask: NDArray, colour: str, style: LineStyle, extent: Extent) -> None:
    """Outline the mask (across, up) of a slice; a rim of background closes outlines at the edge of the picture."""
    if not mask.any():
        return
    n_across, n_up = mask.shape
    across = (np.arange(-1, n_across + 1) + 0.5) * extent[1] / n_across
    up = (np.arange(-1, n_up + 1) + 0.5) * extent[3] / n_up
    padded = np.pad(mask, 1).T.astype(float)
    lines = axis.contour(across, up, padded, levels=[0.5], colors=[colour], linestyles=[style], linewidths=1.6)
    lines.set_path_effects([patheffects.withStroke(linewidth=2.6, foreground="black", alpha=0.6)])


def _draw_box(axis: Axes, view: CaseView, plane: str, index: int, region: tuple[slice, slice, slice]) -> None:
    """The rectangle in which the box cuts this slice, if it does."""
    if view.box is None:
        return
    across, up, through = PLANES[plane]
    box = view.ct.grid.slices_of(view.box)
    if not box[through].start <= index < box[through].stop:
        return
    spacing = view.ct.grid.spacing_mm
    corner = [(box[a].start - region[a].start) * spacing[a] for a in (across, up)]
    size = [(box[a].stop - box[a].start) * spacing[a] for a in (across, up)]
    axis.add_patch(Rectangle((corner[0], corner[1]), size[0], size[1], fill=False, edgecolor=BOX_COLOUR, linewidth=1.2))


def _annotate(axis: Axes, plane: str, text: str, extent: Extent) -> None:
    """Orientation letters, the slice's place, in short lines beside the upper letter, and a scale bar."""
    mark_sides(axis, plane)
    _write(axis, (0.015, 0.985), text, ("left", "top"), 7)
    length_mm = 50.0 if extent[1] > 120 else 20.0
    length = length_mm / extent[1]
    axis.plot(
        [0.05, 0.05 + length], [0.05, 0.05], transform=axis.transAxes, color="white", linewidth=2.5,
        solid_capstyle="butt", path_effects=[HALO],
    )  # fmt: skip
    _write(axis, (0.05, 0.06), f"{length_mm:.0f} mm", ("left", "bottom"), 7)


def mark_sides(axis: Axes, plane: str) -> None:
    """Orientation letters at the four edges of a slice."""
    across, up, _ = PLANES[plane]
    left, right = SIDES[across]
    top, bottom = SIDES[up]
    _write(axis, (0.015, 0.5), left, ("left", "center"), 9)
    _write(axis, (0.985, 0.5), right, ("right", "center"), 9)
    _write(axis, (0.5, 0.985), top, ("center", "top"), 9)
    _write(axis, (0.5, 0.015), bottom, ("center", "bottom"), 9)


def _write(axis: Axes, place: tuple[float, float], text: str, anchor: tuple[Any, Any], size: int) -> None:
    axis.text(
        *place, text, ha=anchor[0], va=anchor[1], transform=axis.transAxes, fontsize=size, color="white",
        weight="bold" if size > 8 else "normal", path_effects=[HALO],
    )  # fmt: skip


def _position_mm(grid: Grid, axis: int, index: int) -> float:
    """World position of a slice at the middle of the image (exact unless the grid is oblique)."""
    middle = (np.array(grid.shape) - 1) / 2
    middle[axis] = index
    return float(grid.to_world(middle)[axis])


def _add_legend(figure: Figure, view: CaseView) -> None:
    handles = [
        Line2D([], [], color=layer.colours[label], linestyle=layer.style, linewidth=2, label=f"{name} {layer.name}")
        for layer in _layers(view)
        for label, name in LABEL_NAMES.items()
        if (layer.labels == label).any()
    ]
    if view.box is not None:
        handles.append(Line2D([], [], color="#888888", linewidth=1.2, label="box with its margin (drawn in white)"))
    level, width = sum(CT_WINDOW_HU) / 2, CT_WINDOW_HU[1] - CT_WINDOW_HU[0]
    window = f"CT level {level:.0f}, width {width:.0f} HU"
    if view.pet is not None:
        window += f"; PET {PET_WINDOW_SUV[0]:.0f} to {PET_WINDOW_SUV[1]:.0f} SUV over CT"
    if view.gates:
        window += "; gates: alpha 0 (blue) to 1 (yellow)"
    figure.legend(
        handles=handles, title=window, title_fontsize=8, loc="outside lower center", ncols=max(len(handles), 1),
        fontsize=8, frameon=False,
    )  # fmt: skip
