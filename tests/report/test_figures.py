import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from hngtv.report import figures
from hngtv.report.statistics import PairedDifference

COLOURS = figures.colours_of(["a", "b"])


def pair(arm: str, low: float, high: float) -> PairedDifference:
    return PairedDifference(arm, "r", "GTV", "dice", 8, 0, 5, 3, "mean", (low + high) / 2, low, high, 0.04, 0.08, "")


@pytest.mark.parametrize("image_format", ["webp", "png"])
def test_encodes_a_picture_of_that_format(image_format: str) -> None:
    figure = figures.draw_distributions({"a": [0.1, 0.9]}, "dice", COLOURS)
    picture = Image.open(io.BytesIO(figures.encode(figure, image_format)))
    assert picture.format == image_format.upper()
    assert picture.width > 300


def test_every_case_is_a_dot_and_infinite_ones_are_counted() -> None:
    figure = figures.draw_distributions({"a": [3.0, 4.0, np.inf], "b": []}, "hd95_mm", COLOURS)
    axis = figure.axes[0]
    dots = np.asarray(axis.collections[0].get_offsets())
    assert sorted(dots[:, 0]) == [3.0, 4.0]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["a (and 1 infinite)", "b"]


def test_intervals_stand_on_their_rows_about_a_centred_zero() -> None:
    axis = figures.draw_differences([pair("a", -0.1, 0.3), pair("b", np.nan, np.nan)], COLOURS).axes[0]
    intervals = [line.get_xdata() for line in axis.lines[1:]]
    assert [np.asarray(x).tolist() for x in intervals] == [[-0.1, 0.3]]
    low, high = axis.get_xlim()
    assert low == pytest.approx(-high)
    assert "right of 0: better than r" in axis.get_xlabel()
    assert [text.get_text() for text in axis.texts] == ["+0.100"]


def test_a_difference_has_the_digits_of_its_unit_and_no_negative_zero() -> None:
    in_mm = dataclasses.replace(pair("a", -200.0, 100.0), metric="hd95_mm")
    none = pair("a", -0.1002, 0.1)
    assert [figures.draw_differences([one], COLOURS).axes[0].texts[0].get_text() for one in (in_mm, none)] == [
        "-50.0",
        "+0.000",
    ]


def test_differences_of_no_pair_are_an_error() -> None:
    with pytest.raises(ValueError, match="no pair"):
        figures.draw_differences([], COLOURS)


def test_fallbacks_are_marked_apart() -> None:
    points = [figures.BoxPoint("coarse", 1.0, 200.0, False), figures.BoxPoint("coarse", 0.4, 900.0, True)]
    axis = figures.draw_coverage(points).axes[0]
    assert axis.get_legend_handles_labels()[1] == ["coarse", "coarse, fallback"]
    assert axis.get_ylim()[0] <= 40


def test_curves_of_one_name_share_a_panel_and_an_arm_its_label() -> None:
    curves = [figures.Curve(arm, "fine: train/loss", [0, 1, 2], [3.0, 2.0, 1.0]) for arm in ("a", "a", "b")]
    figure = figures.draw_curves(curves, COLOURS)
    drawn = [axis for axis in figure.axes if axis.lines]
    assert len(drawn) == 1
    assert drawn[0].get_legend_handles_labels()[1] == ["a", "b"]


def test_a_name_with_dollars_is_no_formula() -> None:
    name = "a$^$"
    colours = figures.colours_of([name])
    point, curve = figures.BoxPoint(name, 1.0, 200.0, False), figures.Curve(name, name, [0, 1], [1.0, 2.0])
    against = dataclasses.replace(pair(name, 0.1, 0.3), reference=name)
    for figure in (
        figures.draw_distributions({name: [0.5]}, "dice", colours),
        figures.draw_differences([against], colours),
        figures.draw_coverage([point]),
        figures.draw_curves([curve], colours),
    ):
        assert figures.encode(figure)


def test_smoothing_keeps_a_straight_line() -> None:
    steps = np.arange(100.0)
    x, y = figures.smooth(steps, 2 * steps)
    assert len(x) == 96
    assert np.allclose(y, 2 * x)
