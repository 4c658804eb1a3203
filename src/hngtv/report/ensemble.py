"""The pictures of `hngtv ensemble`."""

from collections.abc import Sequence
from typing import Protocol

from matplotlib.figure import Figure

from hngtv.metrics.calibration import BinCounts, add_counts, expected_calibration_error
from hngtv.report.evidence import draw_reliability
from hngtv.report.figures import ARM_COLOURS, new_figure


class JudgedCase(Protocol):
    """What is drawn; see `hngtv.ensemble.choices.Judged`."""

    @property
    def dice(self) -> float: ...
    @property
    def agreement(self) -> float: ...
    @property
    def flagged(self) -> bool: ...
    @property
    def before(self) -> BinCounts: ...
    @property
    def after(self) -> BinCounts: ...


def draw_calibration(judged: Sequence[JudgedCase]) -> Figure:
    """Reliability of the networks' probability, as it is and by the calibration that the other folds chose."""
    counts = {
        "as the networks give it": add_counts([case.before for case in judged]),
        "calibrated": add_counts([case.after for case in judged]),
    }
    errors = {name: expected_calibration_error(one, from_floor=False) for name, one in counts.items()}
    rows = [{"arm": name, "counts": one, "error": errors[name]} for name, one in counts.items()]
    return draw_reliability(rows, dict(zip(counts, ARM_COLOURS, strict=False)))


def draw_review(judged: Sequence[JudgedCase], below: float, low_dice: float) -> Figure:
    """Dice of held-out cases against agreement over flips; those that the rule of the other folds flags are orange."""
    figure, axis = new_figure(4.6)
    axis.axvline(below, color=ARM_COLOURS[1], linewidth=1, linestyle="--")
    axis.axhline(low_dice, color="#777777", linewidth=1, linestyle=":")
    for flagged, colour, label in (
        (False, ARM_COLOURS[0], "not flagged"),
        (True, ARM_COLOURS[1], "flagged for review"),
    ):
        cases = [case for case in judged if case.flagged == flagged]
        axis.scatter(
            [case.agreement for case in cases],
            [case.dice for case in cases],
            s=26,
            color=colour,
            label=f"{label}: {len(cases)}",
            zorder=3,
        )
    axis.set(xlim=(None, 1), ylim=(0, 1))
    axis.set_xlabel(
        f"agreement over flips (dashed: limit of all folds, {below:.2f}; colour: of the others)", fontsize=9
    )
    axis.set_ylabel(f"Dice (dotted: {low_dice:g})", fontsize=9)
    figure.legend(fontsize=8, loc="outside lower center", ncols=2, frameon=False)
    return figure
