"""The picture of `hngtv robustness`."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from matplotlib.figure import Figure

from hngtv.report.figures import ARM_COLOURS

PANELS = {"shift": "true box shifted by [mm], mean over directions", "scale": "true box scaled by"}


class Changed(Protocol):
    """What is drawn; see `hngtv.robustness.ChangedBox`."""

    @property
    def case_id(self) -> str: ...
    @property
    def change(self) -> str: ...
    @property
    def amount(self) -> float: ...
    @property
    def direction(self) -> str: ...
    @property
    def dice(self) -> float: ...


def draw_robustness(rows: Sequence[Changed], margin_mm: float) -> Figure:
    """Dice against shift and scale: a thin line for each case, a thick one for their mean."""
    figure = Figure(figsize=(9.0, 3.6), dpi=110, layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, (change, label) in zip(axes, PANELS.items(), strict=True):
        chosen = [row for row in rows if row.change == change]
        amounts = sorted({row.amount for row in chosen})
        cases = list(dict.fromkeys(row.case_id for row in chosen))
        curves = np.array([[_mean_dice(chosen, case, amount) for amount in amounts] for case in cases])
        for curve in curves:
            axis.plot(amounts, curve, color="#999999", linewidth=0.8, alpha=0.7)
        if len(curves):
            axis.plot(amounts, curves.mean(axis=0), color=ARM_COLOURS[0], linewidth=2.5, marker="o")
        axis.set_xlabel(label, fontsize=9)
        axis.set_ylim(0, 1)
        axis.grid(color="#dddddd", linewidth=0.7)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    axes[0].set_ylabel("Dice of all tumour", fontsize=9)
    figure.suptitle(f"Grey: each case; blue: their mean. The box is then widened by {margin_mm:g} mm.", fontsize=9)
    return figure


def _mean_dice(rows: Sequence[Changed], case_id: str, amount: float) -> float:
    return float(np.mean([row.dice for row in rows if row.case_id == case_id and row.amount == amount]))
