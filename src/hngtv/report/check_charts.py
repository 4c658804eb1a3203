"""Histograms of a cohort, in which cases far from the others stand out."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from hngtv.cases.quantities import Quantity, find_outliers
from hngtv.report.figures import ARM_COLOURS, new_figure, plain

N_BINS = 20
USUAL_COLOUR, OUTLIER_COLOUR = ARM_COLOURS[0], ARM_COLOURS[1]
MAX_LINES = 6
"""Cases far from the others with a colour of their own. Source: our choice."""
HEIGHT_INCHES = 2.1


def draw_quantity(quantity: Quantity) -> Figure:
    """How many cases (or lesions) have which value, on a logarithmic axis for ratios; those far out in orange."""
    figure, axis = new_figure(HEIGHT_INCHES)
    numbers = np.array([value for _, value in quantity.values])
    far = np.array([value for _, value in find_outliers(quantity)])
    edges = _edges_of(numbers, quantity.is_ratio)
    heights, _ = np.histogram(numbers, edges)
    heights_far, _ = np.histogram(far, edges)
    places, widths = edges[:-1], np.diff(edges)
    axis.bar(places, heights - heights_far, widths, align="edge", color=USUAL_COLOUR, edgecolor="white", linewidth=0.5)
    axis.bar(
        places, heights_far, widths, bottom=heights - heights_far, align="edge", color=OUTLIER_COLOUR,
        edgecolor="white", linewidth=0.5,
    )  # fmt: skip
    if quantity.is_ratio:
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        digits = "2345678" if edges[-1] / edges[0] < 8 else "25" if edges[-1] / edges[0] < 1000 else ""
        axis.xaxis.set_minor_formatter(
            FuncFormatter(lambda value, _: f"{value:g}" if f"{value:g}".lstrip("0.")[0] in digits else "")
        )
        axis.tick_params(which="minor", labelsize=9)
    axis.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axis.set_xlabel(plain(f"{quantity.name} [{quantity.unit}]" if quantity.unit else quantity.name), fontsize=9)
    axis.set_ylabel(quantity.counted, fontsize=9)
    return figure


def draw_shares(
    shares: Mapping[str, NDArray], edges: NDArray[np.float64], label: str, outliers: Sequence[str]
) -> Figure:
    """How the voxels of each case are spread, a thin line each, and the median of all.

    Args:
        shares: (bin,) for each case, which sum to 1 or 0.
        edges: (bin + 1,).
        label: Of the values.
        outliers: Cases to be drawn in colour, the farthest first.
    """
    figure, axis = new_figure(HEIGHT_INCHES + 0.7)
    middles = np.array([(low + high) / 2 for low, high in pairwise(edges)])
    for case_id, share in shares.items():
        if case_id not in outliers[:MAX_LINES]:
            axis.plot(middles, _seen(share), color="#7f8c99", linewidth=0.6, alpha=max(0.15, 3 / (len(shares) + 9)))
    median = np.median(np.stack(list(shares.values())), axis=0)
    axis.plot(middles, _seen(median), color="black", linewidth=1.8, label="median")
    for case_id, colour in zip(outliers[:MAX_LINES], ARM_COLOURS[1:], strict=False):
        axis.plot(middles, _seen(shares[case_id]), color=colour, linewidth=1.2, label=plain(case_id))
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}"))
    axis.set_xlabel(label, fontsize=9)
    axis.set_ylabel("% of its voxels", fontsize=9)
    figure.legend(fontsize=8, frameon=False, loc="outside lower center", ncols=3)
    return figure


def _seen(share: NDArray) -> NDArray:
    """Empty bins are gaps, as a logarithmic axis has no 0."""
    return np.where(share > 0, share, np.nan)


def _edges_of(numbers: NDArray, is_ratio: bool) -> NDArray[np.float64]:
    low, high = float(numbers.min()), float(numbers.max())
    if is_ratio:
        return np.geomspace(low / 1.05, high * 1.05, N_BINS + 1)
    margin = max(0.05 * (high - low), 0.02 * abs(high), 1e-6)
    return np.linspace(low - margin, high + margin, N_BINS + 1)
