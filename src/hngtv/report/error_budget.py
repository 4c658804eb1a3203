"""The picture of the error budget."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from matplotlib.figure import Figure

from hngtv.report.figures import ARM_COLOURS
from hngtv.report.words import NO_NUMBER

SLICES = {"oracle": "only the slices\nwith tumour", "chain": "the slices that\nstage 1 keeps", "whole": "all slices"}
BOXES = {"oracle": "the true ROI", "chain": "the ROI of\nstage 1", "whole": "the whole image"}
CEILING = "best possible after\nthe loss in stage 1"
CEILING_COLOUR = "#bbbbbb"


class Outcome(Protocol):
    """What is drawn; see `hngtv.error_budget.Outcome`."""

    @property
    def case_id(self) -> str: ...
    @property
    def way(self) -> str: ...
    @property
    def dice(self) -> Mapping[str, float]: ...
    @property
    def dice_ceiling(self) -> float | None: ...


def draw_error_budget(outcomes: Sequence[Outcome], summary: Mapping[str, Any], of_slices: bool) -> Figure:
    """Dice of all tumour by where the fine stage looked: a bar for each mean, a dot for each patient.

    Args:
        outcomes: Of each case and way.
        summary: Of `hngtv.error_budget.summarise`.
        of_slices: Stage 1 keeps slices, else ROIs.
    """
    words = SLICES if of_slices else BOXES
    bars = {
        words[way]: (ARM_COLOURS[place], [o.dice["GTV"] for o in outcomes if o.way == way])
        for place, way in enumerate(words)
    }
    left = [o.dice_ceiling for o in outcomes if o.way == "chain" and o.dice_ceiling is not None]
    bars[CEILING] = (CEILING_COLOUR, left)
    figure = Figure(figsize=(7.0, 4.0), dpi=110, layout="constrained")
    axis = figure.subplots()
    for place, (colour, values) in enumerate(bars.values()):
        if not values:
            continue
        mean = float(np.mean(values))
        axis.bar(place, mean, width=0.7, color=colour, alpha=0.45)
        offsets = 0.5 * (np.arange(len(values)) * 0.618 % 1 - 0.5)
        axis.scatter(place + offsets, values, s=22, color=colour, edgecolor="black", linewidths=0.5, zorder=3)
        axis.annotate(f"{mean:.3f}", (place, 1.04), ha="center", fontsize=10, weight="bold")
    axis.set_xticks(range(len(bars)), list(bars), fontsize=9)
    axis.set_ylim(0, 1.1)
    axis.set_yticks(np.linspace(0, 1, 6))
    axis.set_ylabel("Dice of all tumour", fontsize=9)
    axis.grid(axis="y", color="#dddddd", linewidth=0.7)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=9)
    axis.set_xlabel("Where the same fine stage looks. Bar: mean; dot: a patient.", fontsize=9)
    figure.suptitle(_in_words(summary), fontsize=9)
    return figure


def _in_words(summary: Mapping[str, Any]) -> str:
    """What stage 1 lost."""
    dropped = summary["dropped"]
    lines = [
        f"Stage 1 loses {_percent(dropped['mean'])} of the tumour on average over patients, "
        f"{_percent(dropped['worst'])} in the worst; it finds nothing in {len(summary['nothing_found'])} "
        f"of {summary['n_cases']}."
    ]
    if slices := summary.get("slices"):
        auc = NO_NUMBER if slices["auc"] is None else f"{slices['auc']:.3f}"
        lines.append(
            f"It keeps {_percent(slices['sensitivity'])} of the slices with tumour and drops "
            f"{_percent(slices['specificity'])} of the others (AUC {auc})."
        )
    return "\n".join(lines)


def _percent(share: float | None) -> str:
    return NO_NUMBER if share is None else f"{100 * share:.1f} %"
