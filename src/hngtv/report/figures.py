"""Charts of the comparison: pure functions from numbers to a `Figure`, and from a figure to the bytes of a picture."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import ArrayLike

from hngtv.report.statistics import METRICS, PairedDifference
from hngtv.report.words import format_signed

ARM_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#777777")
"""Source: Okabe and Ito, Color Universal Design, and two of our choice."""
METRIC_LABELS = {
    "dice": "Dice",
    "precision": "Precision",
    "recall": "Recall",
    "hd95_mm": "HD95 [mm]",
    "msd_mm": "Mean surface distance [mm]",
    "surface_dice_2mm": "Surface Dice at 2 mm",
}
WIDTH_INCHES = 5.2
"""Narrow, so that letters can be read on a telephone. Source: our choice."""
NAME_LETTERS = 20
"""Longer names of arms are broken into lines. Source: our choice."""
SMOOTHING_SHARE = 0.05
"""A training curve is drawn as its mean over this share of its points. Source: our choice."""
DPI = 150
WEBP_QUALITY = 85


@dataclass(frozen=True)
class BoxPoint:
    """How one localiser did on one case: share of the target in the box (margin included), and the box's volume."""

    localiser: str
    covered_fraction: float
    box_ml: float
    is_fallback: bool


@dataclass(frozen=True)
class Curve:
    """Values of one training curve; `arm` decides its colour and `panel` where it is drawn."""

    arm: str
    panel: str
    steps: Sequence[float]
    values: Sequence[float]


def encode(figure: Figure, image_format: str = "webp", lossless: bool = False) -> bytes:
    """A figure as the bytes of a picture file, "webp", "png" or "svg"; the same figure gives the same bytes."""
    stream = io.BytesIO()
    options: dict[str, Any] = {}
    if image_format == "webp":
        options["pil_kwargs"] = {"lossless": True} if lossless else {"quality": WEBP_QUALITY}
    if image_format == "svg":
        options["metadata"] = {"Date": None}
    with rc_context({"svg.hashsalt": "hngtv"}):
        figure.savefig(stream, format=image_format, facecolor="white", **options)
    return stream.getvalue()


def data_url(figure: Figure, lossless: bool = False) -> str:
    """A figure as a URL that holds the whole picture; lossless is sharper and, for charts, no larger."""
    return "data:image/webp;base64," + base64.b64encode(encode(figure, lossless=lossless)).decode("ascii")


def colours_of(arms: Sequence[str]) -> dict[str, str]:
    """A colour for every arm, the same in all figures of a report."""
    return {arm: ARM_COLOURS[i % len(ARM_COLOURS)] for i, arm in enumerate(arms)}


def plain(name: str) -> str:
    """A name as matplotlib shows it letter by letter: between two dollars it would read a formula."""
    return name.replace("$", r"\$")


def draw_distributions(values: Mapping[str, ArrayLike], metric: str, colours: Mapping[str, str]) -> Figure:
    """One dot per case over a box of quartiles, a row for each arm, the first on top; the diamond is the mean.

    Args:
        values: For each arm, the metric of its cases (case,); an arm without cases leaves its row empty.
        metric: A key of `METRIC_LABELS`.
        colours: Of the arms.
    """
    figure, axis = new_figure(0.75 + 0.5 * len(values))
    names = []
    for row, (arm, cases) in enumerate(values.items()):
        numbers = np.asarray(cases, dtype=float)
        n_infinite = int((~np.isfinite(numbers)).sum())
        numbers = numbers[np.isfinite(numbers)]
        names.append(f"{arm} (and {n_infinite} infinite)" if n_infinite else arm)
        if numbers.size == 0:
            continue
        axis.boxplot(
            [numbers], positions=[row], orientation="horizontal", widths=0.55, showfliers=False, whis=(0, 100),
            medianprops={"color": "black", "linewidth": 1.8}, boxprops={"color": "#888888"},
            whiskerprops={"color": "#888888"}, capprops={"color": "#888888"},
        )  # fmt: skip
        jitter = 0.18 * (((np.arange(numbers.size) * 0.618) % 1) * 2 - 1)
        axis.scatter(numbers, row + jitter, s=26, color=colours[arm], alpha=0.75, linewidths=0, zorder=3)
        axis.scatter([numbers.mean()], [row], s=60, marker="D", facecolor="white", edgecolor="black", zorder=4)
    name_rows(axis, names)
    if METRICS[metric].higher_is_better:
        axis.set_xlim(-0.03, 1.03)
    axis.set_xlabel(f"{METRIC_LABELS[metric]} of each case\nbox: quartiles; line: median; diamond: mean", fontsize=9)
    return figure


def draw_differences(pairs: Sequence[PairedDifference], colours: Mapping[str, str]) -> Figure:
    """Paired difference of each arm to the reference with its 95 % interval; a row for each arm, the first on top.

    Raises:
        ValueError: There is no pair.
    """
    if not pairs:
        raise ValueError("draw_differences: no pair of arms to draw")
    figure, axis = new_figure(1.0 + 0.5 * len(pairs))
    digits = 1 if METRIC_LABELS[pairs[0].metric].endswith("[mm]") else 3
    axis.axvline(0, color="black", linewidth=1)
    for row, pair in enumerate(pairs):
        if np.isfinite([pair.low, pair.high]).all():
            axis.plot([pair.low, pair.high], [row, row], color=colours[pair.arm], linewidth=3, solid_capstyle="butt")
        if np.isfinite(pair.difference):
            axis.scatter([pair.difference], [row], s=60, color=colours[pair.arm], zorder=3)
            axis.annotate(
                format_signed(pair.difference, digits), (pair.difference, row), (0, 7), textcoords="offset points",
                ha="center", fontsize=8, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            )  # fmt: skip
    name_rows(axis, [pair.arm for pair in pairs])
    widest = max(abs(float(x)) for x in axis.get_xlim())
    axis.set_xlim(-widest * 1.05, widest * 1.05)
    metric, reference = METRICS[pairs[0].metric], plain(pairs[0].reference)
    better, worse = ("right", "left") if metric.higher_is_better else ("left", "right")
    axis.set_xlabel(
        f"difference in {METRIC_LABELS[metric.name]} ({metric.statistic}, 95 % interval)\n"
        f"{better} of 0: better than {reference};\n{worse} of 0: worse",
        fontsize=9,
    )
    return figure


def draw_coverage(points: Sequence[BoxPoint]) -> Figure:
    """Share of the tumour inside the box against the box's volume; a cross is a box by fallback.

    Good is up and to the left: a small box that holds everything.
    """
    figure, axis = new_figure(3.2)
    names = list(dict.fromkeys(point.localiser for point in points))
    for name, colour in colours_of(names).items():
        for is_fallback, marker in ((False, "o"), (True, "X")):
            chosen = [p for p in points if p.localiser == name and p.is_fallback == is_fallback]
            if chosen:
                label = plain(f"{name}, fallback" if is_fallback else name)
                axis.scatter(
                    [p.box_ml for p in chosen], [100 * p.covered_fraction for p in chosen], s=36, marker=marker,
                    color=colour, alpha=0.75, linewidths=0, label=label, clip_on=False,
                )  # fmt: skip
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(FuncFormatter(lambda ml, _: f"{ml:g}"))
    axis.xaxis.set_minor_formatter(FuncFormatter(lambda ml, _: f"{ml:g}" if f"{ml:g}"[0] in "25" else ""))
    lowest = min((p.covered_fraction for p in points), default=0.0)
    floor = max(0.0, 10 * np.floor(10 * lowest) - 10)
    axis.set_yticks(np.linspace(floor, 100, 6))
    axis.set_ylim(floor, 100 + 0.02 * (100 - floor))
    axis.set_xlabel("volume of the box, margin included [ml]", fontsize=9)
    axis.set_ylabel("tumour inside the box [%]", fontsize=9)
    axis.legend(fontsize=8, loc="lower right", frameon=False)
    return figure


def draw_curves(curves: Sequence[Curve], colours: Mapping[str, str]) -> Figure:
    """Training curves, one panel for each stage and name, one line for each run."""
    panels = list(dict.fromkeys(curve.panel for curve in curves))
    n_columns = min(2, max(len(panels), 1))
    n_rows = max(1, -(-len(panels) // n_columns))
    figure = Figure(figsize=(WIDTH_INCHES * 1.35, 2.7 * n_rows), dpi=100, layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for axis in axes[len(panels) :]:
        axis.axis("off")
    for axis, panel in zip(axes, panels, strict=False):
        labelled = set()
        for curve in (curve for curve in curves if curve.panel == panel):
            label = None if curve.arm in labelled else plain(curve.arm)
            labelled.add(curve.arm)
            axis.plot(
                *smooth(curve.steps, curve.values),
                color=colours[curve.arm],
                linewidth=1.3,
                alpha=0.85,
                label=label,
            )
        axis.set_title(plain(panel), fontsize=9)
        axis.set_xlabel("step", fontsize=9)
        axis.tick_params(labelsize=8)
        axis.legend(fontsize=7, frameon=False)
        _bare(axis)
    return figure


def smooth(steps: ArrayLike, values: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Running mean over `SMOOTHING_SHARE` of the points, each value at the middle step of its window."""
    x, y = np.asarray(steps, dtype=float), np.asarray(values, dtype=float)
    width = max(1, round(len(y) * SMOOTHING_SHARE))
    kernel = np.ones(width) / width
    return np.convolve(x, kernel, mode="valid"), np.convolve(y, kernel, mode="valid")


def new_figure(height_inches: float) -> tuple[Figure, Axes]:
    """A figure with one bare axis."""
    figure = Figure(figsize=(WIDTH_INCHES, height_inches), dpi=DPI, layout="constrained")
    axis = figure.subplots()
    axis.tick_params(labelsize=9)
    axis.grid(axis="x", color="#dddddd", linewidth=0.7)
    axis.set_axisbelow(True)
    _bare(axis)
    return figure, axis


def name_rows(axis: Axes, names: Sequence[str]) -> None:
    """Write names beside rows 0, 1, ..., the first on top."""
    axis.set_yticks(range(len(names)), ["\n".join(wrap(plain(name), NAME_LETTERS)) for name in names], fontsize=8)
    axis.set_ylim(len(names) - 0.4, -0.6)


def _bare(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
