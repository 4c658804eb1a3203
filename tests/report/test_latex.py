import re

from hngtv.report.latex import HEADS, escape, latex_table
from hngtv.report.tables import rounded

ROW = {
    "arm": "two_stage_ag network.n_gates=2", "class_name": "GTV", "n_cases": 40, "n_dice_zero": 3,
    "dice_mean": "0.71234", "dice_low": "0.65", "dice_high": "0.77", "dice_aggregated": "0.75", "f1_aggregated": "",
    "hd95_median_mm": "inf",
    "reference": "single_stage_unet", "difference": "-0.012", "difference_low": "-0.05", "difference_high": "0.02",
    "p_holm": "0.0004", "n_parameters": rounded(1494507.0),
}  # fmt: skip


def test_special_letters_are_printed_and_not_obeyed() -> None:
    assert escape(r"50%_$x^2~{a}\&#") == (r"50\%\_\$x\textasciicircum{}2\textasciitilde{}\{a\}\textbackslash{}\&\#")
    assert escape("a\nb") == "a b"


def test_a_row_by_hand() -> None:
    line = next(line for line in latex_table([ROW]).splitlines() if line.startswith("two"))
    assert line == (
        r"two\_stage\_ag network.n\_gates=2 & GTV & 40 & 3 & $0.712$ ($0.650$ to $0.770$) & $0.750$ & -- & $\infty$ & "
        r"$-0.012$ ($-0.050$ to $+0.020$) & $< 0.001$ & $1{,}494{,}507$ & -- & -- & -- \\"
    )


def test_every_line_has_as_many_cells_and_classes_are_parted() -> None:
    rows = [ROW, ROW | {"arm": "b"}, ROW | {"class_name": "GTVp"}]
    text = latex_table(rows)
    cells = [len(re.split(r"(?<!\\)&", line)) for line in text.splitlines() if line.endswith(r"\\")]
    assert cells == [len(HEADS)] * 4
    assert text.count(r"\midrule") == 2
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 1
    assert text.count("{tabular}") == 2


def test_a_reference_of_two_lines_stays_in_its_comment() -> None:
    first = latex_table([ROW | {"reference": "a\n\\input{b}"}]).splitlines()[0]
    assert first.startswith("%")
    assert first.endswith(r"a \input{b}")
