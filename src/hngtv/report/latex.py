"""The table of a comparison as LaTeX, in the form of the booktabs package."""

from collections.abc import Mapping, Sequence
from typing import Any

from hngtv.report.words import NO_NUMBER, format_count, format_number, format_p_cell

ESCAPED = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}",
}  # fmt: skip
HEADS = (
    "Arm", "Class", "Cases", "Dice 0", "Dice (95 % interval)", "DSCagg", "F1agg", "HD95 [mm]",
    "Difference (95 % interval)", "p (Holm)", "Parameters", "Training [s]", "Prediction [s]", "Memory [MB]",
)  # fmt: skip


def latex_table(rows: Sequence[Mapping[str, Any]]) -> str:
    r"""A `tabular` of rows of `table.csv`, to be read in with \input; classes are parted by a rule."""
    lines = [
        f"% rows of table.csv; needs \\usepackage{{booktabs}}; differences against {_plain(rows)}",
        rf"\begin{{tabular}}{{ll{'r' * (len(HEADS) - 2)}}}",
        r"\toprule",
        " & ".join(escape(head) for head in HEADS) + r" \\",
        r"\midrule",
    ]
    for place, row in enumerate(rows):
        if place and row["class_name"] != rows[place - 1]["class_name"]:
            lines.append(r"\midrule")
        lines.append(" & ".join(_cells(row)) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def escape(text: str) -> str:
    """Text that LaTeX prints letter by letter."""
    return "".join(ESCAPED.get(letter, letter) for letter in " ".join(text.split()))


def _cells(row: Mapping[str, Any]) -> list[str]:
    return [
        escape(row["arm"]),
        escape(row["class_name"]),
        str(row["n_cases"]),
        str(row["n_dice_zero"]),
        _with_interval(row, "dice_mean", "dice_low", "dice_high", ""),
        _number(row, "dice_aggregated"),
        _number(row, "f1_aggregated"),
        _number(row, "hd95_median_mm", 1),
        _with_interval(row, "difference", "difference_low", "difference_high", "+"),
        _math(format_p_cell(row.get("p_holm"))),
        _math(format_count(row.get("n_parameters"))),
        _number(row, "training_s", 0),
        _number(row, "predict_s", 1),
        _number(row, "peak_memory_mb", 0),
    ]


def _number(row: Mapping[str, Any], column: str, digits: int = 3, sign: str = "") -> str:
    return _math(format_number(row.get(column), digits, sign))


def _with_interval(row: Mapping[str, Any], value: str, low: str, high: str, sign: str) -> str:
    ends = [_number(row, end, sign=sign) for end in (low, high)]
    return _number(row, value, sign=sign) + ("" if "--" in ends else f" ({ends[0]} to {ends[1]})")


def _math(text: str) -> str:
    """A number as LaTeX sets it: a minus and not a hyphen."""
    if text == NO_NUMBER:
        return "--"
    return "$" + text.replace("infinite", r"\infty").replace(",", "{,}") + "$"


def _plain(rows: Sequence[Mapping[str, Any]]) -> str:
    """The reference, on one line: a comment ends with its line."""
    return " ".join(str(rows[0]["reference"]).split()) if rows else "none"
