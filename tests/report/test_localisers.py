"""The curve and the table of localisers, by hand."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hngtv.localise.located import LocalisedCase
from hngtv.report.localisers import (
    DISTURBED_COLUMNS,
    LOCALISER_COLUMNS,
    disturbed_rows,
    draw_localisers,
    localiser_rows,
    margin_for_all,
    share_held,
    volume_ml,
)
from hngtv.volume.box import Box

IMAGE = Box((0, 0, 0), (100, 100, 100))
BOX = Box((40, 40, 40), (60, 60, 60))


def located(case_id: str, needed: tuple[float, ...] | None, **changes: Any) -> LocalisedCase:
    case = LocalisedCase(case_id, "coarse", "0", "", (BOX,), IMAGE, needed, 4.0, 0.9, "found", 0.5)
    return replace(case, **changes)


CASES = [
    located("a", (5.0, 2.0, -3.0)),
    located("b", (12.0, 9.0, 9.0), reason="fallback:pet_rule (nothing)"),
    located("c", None, target_ml=0.0),
]


@pytest.mark.parametrize(("margin_mm", "expected"), [(0, 8), (10, 64), (-5, 1), (-10, 0), (-30, 0), (100, 1000)])
def test_volume_with_a_margin_stays_inside_the_image(margin_mm: float, expected: float) -> None:
    assert volume_ml(CASES[0], margin_mm) == pytest.approx(expected)


def test_two_boxes_cost_both() -> None:
    assert volume_ml(located("a", None, boxes=(BOX, BOX.shift((30, 0, 0)))), 0) == pytest.approx(16)


def test_share_of_patients_is_counted_among_those_with_tumour() -> None:
    assert share_held(CASES, 0, 4.9) == 0
    assert share_held(CASES, 0, 5.0) == 0.5
    assert share_held(CASES, 1, 9.0) == 1
    assert np.isnan(share_held(CASES[2:], 0, 9.0))


def test_margin_for_all_is_that_of_99_percent_of_the_patients() -> None:
    many = [located(str(n), (float(n), 0.0, 0.0)) for n in range(1, 101)]
    assert margin_for_all(many) == 99
    assert margin_for_all(many[:24]) == 24
    assert np.isnan(margin_for_all(CASES[2:]))


def test_table() -> None:
    (row,) = localiser_rows([*CASES, located("a", (90.0, 90.0, 90.0), disturbance="head_cut")], 10)
    assert set(row) == set(LOCALISER_COLUMNS)
    assert (row["n_patients"], row["n_with_tumour"], row["n_fallbacks"]) == (3, 2, 1)
    assert (row["share_all"], row["share_99"], row["share_95"]) == (0.5, 1.0, 1.0)
    assert row["volume_ml_mean"] == pytest.approx(64)
    assert row["efficiency_mean"] == pytest.approx(4 / 64)
    assert row["margin_for_all_mm"] == 12
    assert row["volume_for_all_ml"] == pytest.approx(44**3 / 1000)


def test_refused_scans_are_counted_and_not_averaged() -> None:
    refused = located("b", None, disturbance="pet_in_bqml", boxes=(), reason="refused: too high", confidence=0.0)
    rows = disturbed_rows([*CASES, refused], 10)
    assert [row["disturbance"] for row in rows] == ["none", "pet_in_bqml"]
    assert set(rows[1]) == set(DISTURBED_COLUMNS)
    assert (rows[1]["n_patients"], rows[1]["n_refused"]) == (1, 1)
    assert np.isnan(rows[1]["confidence_mean"])


def test_figure_has_a_line_for_each_localiser_and_a_panel_for_each_share() -> None:
    figure = draw_localisers([*CASES, *(replace(case, localiser="nvauto") for case in CASES)], 10, ["coarse"])
    assert [len(axis.lines) for axis in figure.axes] == [2, 2, 2]
    solid, dashed = figure.axes[0].lines
    assert (solid.get_linestyle(), dashed.get_linestyle()) == ("-", "--")
    shares = np.asarray(solid.get_ydata())
    assert shares[0] == 0
    assert shares[-1] == 100
    assert (np.diff(shares) >= 0).all()
