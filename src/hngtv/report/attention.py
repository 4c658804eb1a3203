"""A picture of what the gates looked at while they learnt, from the alphas kept in training."""

from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hngtv.errors import InputError
from hngtv.report.figures import plain
from hngtv.report.overlay import CT_WINDOW_HU, PET_WINDOW_SUV

TRUTH_COLOUR = "#00e5ff"
SIDE_INCHES = 1.7


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
    """Above CT, PET, truth and prediction; below a row for each gate, from the start of training to its end."""
    steps = history["steps"]
    gates = {key.partition(":")[2]: history[key] for key in sorted(history) if key.startswith("alpha:")}
    maps = [
        (name if alphas.shape[1] == 1 else f"{name}, {number + 1}", alphas[:, number])
        for name, alphas in gates.items()
        for number in range(alphas.shape[1])
    ]
    n_columns, n_rows = max(4, len(steps)), 1 + len(maps)
    figure = Figure(figsize=(SIDE_INCHES * n_columns + 1.2, (SIDE_INCHES + 0.25) * n_rows + 0.5), layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    target, last = history["target"] > 0, history["tumour"][-1]
    _show(axes[0, 0], history["ct"], "CT", "gray", *CT_WINDOW_HU)
    _show(axes[0, 1], history["pet"], "PET", "gray_r", *PET_WINDOW_SUV)
    _show(axes[0, 2], target, "truth", "gray", 0, 1)
    _show(axes[0, 3], last, "tumour probability", "gray", 0, 1)
    shown = None
    for row, (name, alphas) in zip(axes[1:], maps, strict=True):
        for number, (axis, alpha, step) in enumerate(zip(row, alphas, steps, strict=False)):
            title = f"{plain(name)}\n" if number == 0 else "\n"
            shown = _show(axis, alpha, f"{title}step {step}, mean {alpha.mean():.2f}", "viridis", 0, 1)
    for axis in axes.flat:
        if axis.images and target.any() and not target.all():
            axis.contour(target.T, levels=[0.5], colors=TRUTH_COLOUR, linewidths=0.8)
    if shown is not None:
        figure.colorbar(shown, ax=axes[1:].ravel().tolist(), label="alpha", shrink=0.6)
    figure.suptitle(plain(f"{history['case_id']}, a training case; truth outlined"), fontsize=9)
    return figure


def _show(axis: Axes, values: NDArray, title: str, colours: str, low: float, high: float):
    """An axial slice (X, Y) in RAS order as radiologists see it: patient's right on the left, front on top."""
    axis.set_title(title, fontsize=7)
    image = axis.imshow(values.T, cmap=colours, vmin=low, vmax=high, origin="lower", interpolation="nearest")
    axis.set_xlim(len(values) - 0.5, -0.5)
    return image
