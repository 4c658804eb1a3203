"""A picture of what the gates looked at while they learnt, from the alphas kept in training."""

from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from hngtv.errors import InputError
from hngtv.report.figures import plain
from hngtv.report.overlay import (
    CT_WINDOW_HU,
    PET_WINDOW_SUV,
    PREDICTION_COLOURS,
    TRUTH_COLOURS,
    draw_outline,
    mark_sides,
)

NEARLY_UNIFORM = 0.05
"""An alpha map whose highest and lowest value differ by less has no contrast worth a picture. Source: our choice."""
PREDICTED = 0.5
"""Tumour probability above which the prediction is outlined. Source: our choice."""
TRUTH_COLOUR = TRUTH_COLOURS[1]
PREDICTION_COLOUR = PREDICTION_COLOURS[1]
SIDE_INCHES = 1.9
EXPLANATION = (
    "Axial slice of a training case, which the network learnt from, with the weights it had at that step. "
    "R: the patient's right.\n"
    "Alpha: share of the features that a gate lets pass, 1 all, 0 nothing; it does not tell why a voxel is called "
    "tumour.\n"
    "Own scale: small differences look large, so read the range above the map.\n"
    f"Nearly uniform: highest and lowest alpha differ by less than {NEARLY_UNIFORM:g} (our choice)."
)
WINDOW = f"level {sum(CT_WINDOW_HU) / 2:.0f}, width {CT_WINDOW_HU[1] - CT_WINDOW_HU[0]:.0f}"


def load_history(path: Path) -> dict[str, NDArray]:
    """Arrays of an `attention.npz`, by name.

    Raises:
        InputError: The file is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise InputError(f"{path} cannot be read ({error}); delete it and run again") from None


def draw_history(history: dict[str, NDArray]) -> Figure:
    """Above CT, PET and the last tumour probability; below each gate's alphas, from the start of training to its end.

    Each gate has two rows: alphas on the scale 0 to 1, so that moments and gates can be compared, and each map from its
    own lowest to its own highest value, so that its contrast is seen. A map that is `NEARLY_UNIFORM` is not stretched,
    and a gate that never has another lacks its second row.
    """
    kept = {int(step): number for number, step in enumerate(history["steps"])}  # older files hold a step twice
    steps, numbers = list(kept), list(kept.values())
    truth, predictions = history["target"] > 0, history["tumour"][numbers] > PREDICTED
    rows = []
    for key in sorted(key for key in history if key.startswith("alpha:")):
        n_maps = history[key].shape[1]
        for number in range(n_maps):
            name = key.partition(":")[2] + (f", {number + 1}" if n_maps > 1 else "")
            alphas = history[key][numbers, number]
            rows += [(name, alphas, False)] + [(name, alphas, True)] * _has_contrast(alphas)
    n_columns, n_rows = max(4, len(steps)), 1 + len(rows)
    size = (SIDE_INCHES * n_columns + 1.6, (SIDE_INCHES + 0.3) * n_rows + 1.7)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    scans = (
        ("CT", history["ct"], "gray", CT_WINDOW_HU, f"HU ({WINDOW})"),
        ("PET", history["pet"], "gray_r", PET_WINDOW_SUV, "SUV"),
        (f"tumour probability, step {steps[-1]}", history["tumour"][-1], "gray", (0.0, 1.0), "probability"),
    )
    for axis, (title, values, colours, scale, unit) in zip(axes[0], scans, strict=False):
        image = _show(axis, values, truth, predictions[-1], colours, scale)
        axis.set_title(title, fontsize=8)
        _add_bar(figure, image, unit, [axis], "bottom")
    for tiles, (name, alphas, own) in zip(axes[1:], rows, strict=True):
        _name_row(tiles[0], f"{plain(name)}\n" + ("each map on\nits own scale" if own else "alpha, 0 to 1"))
        image = None
        for axis, step, alpha, prediction in zip(tiles, steps, alphas, predictions, strict=False):
            image = _show_alpha(axis, alpha, step, own, truth, prediction) or image
        assert image is not None, f"no map of {name} to draw"
        bar = _add_bar(figure, image, "alpha of each map" if own else "alpha", list(tiles), "right")
        if own:
            bar.set_ticks(list(image.get_clim()), labels=["lowest", "highest"])
    figure.suptitle(plain(f"{history['case_id']}: what the gates let pass while they learnt"), fontsize=10)
    _add_legend(figure)
    return figure


def _show_alpha(
    axis: Axes, alpha: NDArray, step: int, own: bool, truth: NDArray, prediction: NDArray
) -> AxesImage | None:
    """A map on the scale 0 to 1, or on its `own` if it has contrast."""
    low, high = float(alpha.min()), float(alpha.max())
    if own and not _has_contrast(alpha):
        words = "nearly uniform,\nnot drawn"
        axis.text(0.5, 0.5, words, ha="center", va="center", transform=axis.transAxes, fontsize=8)
        return None
    if own:
        axis.set_title(f"step {step}\nscaled {low:.2f} to {high:.2f}", fontsize=8)
        return _show(axis, alpha, truth, prediction, "cividis", (low, high))
    remark = "" if _has_contrast(alpha) else ", nearly uniform"
    axis.set_title(f"step {step}{remark}\n{low:.2f} to {high:.2f}", fontsize=8)
    return _show(axis, alpha, truth, prediction, "viridis", (0.0, 1.0))


def _has_contrast(alphas: NDArray) -> bool:
    """Whether any map (..., X, Y) is more than nearly uniform."""
    return bool((np.ptp(alphas, axis=(-2, -1)) >= NEARLY_UNIFORM).any())


def _show(
    axis: Axes, values: NDArray, truth: NDArray, prediction: NDArray, colours: str, scale: tuple[float, float]
) -> AxesImage:
    """An axial slice (X, Y) in RAS order as radiologists see it: patient's right on the left, front on top."""
    n_x, n_y = values.shape
    extent = (0.0, float(n_x), 0.0, float(n_y))
    image = axis.imshow(
        values.T, cmap=colours, vmin=scale[0], vmax=scale[1], origin="lower", extent=extent, interpolation="nearest"
    )
    draw_outline(axis, truth, TRUTH_COLOUR, "solid", extent)
    draw_outline(axis, prediction, PREDICTION_COLOUR, "dashed", extent)
    axis.set(xlim=(n_x, 0), ylim=(0, n_y))
    mark_sides(axis, "axial")
    return image


def _add_bar(figure: Figure, image: AxesImage, label: str, beside: list[Axes], place: str) -> Colorbar:
    bar = figure.colorbar(image, ax=beside, location=place, shrink=0.9, aspect=12)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)
    low, high = image.get_clim()
    ticks = [low, (low + high) / 2, high]
    bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    return bar


def _name_row(axis: Axes, name: str) -> None:
    axis.set_axis_on()
    axis.set(xticks=[], yticks=[], facecolor="none")
    axis.set_ylabel(name, fontsize=8)
    for edge in axis.spines.values():
        edge.set_visible(False)


def _add_legend(figure: Figure) -> None:
    lines = [
        Line2D([], [], color=TRUTH_COLOUR, linewidth=2, label="truth"),
        Line2D(
            [], [], color=PREDICTION_COLOUR, linewidth=2, linestyle="dashed",
            label=f"prediction at that step (tumour probability above {PREDICTED:g}; no line: nothing predicted)",
        ),
    ]  # fmt: skip
    figure.legend(
        handles=lines, title=EXPLANATION, title_fontsize=8, loc="outside lower center", ncols=2, fontsize=8,
        frameon=False,
    )  # fmt: skip
