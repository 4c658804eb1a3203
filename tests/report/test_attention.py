"""The picture of attention over training."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgba_array
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure

from hngtv.errors import InputError
from hngtv.report.attention import NEARLY_UNIFORM, PREDICTION_COLOUR, TRUTH_COLOUR, draw_history, load_history


def history(n_steps: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    target = np.zeros((12, 10), dtype=np.uint8)
    target[3:5, 2:6] = 1
    return {
        "case_id": np.array("P$1"),
        "ct": rng.normal(0, 100, (12, 10)),
        "pet": rng.uniform(0, 10, (12, 10)),
        "target": target,
        "steps": np.arange(n_steps) * 10,
        "tumour": rng.random((n_steps, 12, 10)),
        "alpha:gate2": rng.random((n_steps, 2, 12, 10)),
        "alpha:gate3": rng.random((n_steps, 1, 12, 10)),
    }


def gate(*maps: np.ndarray) -> dict[str, np.ndarray]:
    """A history with one gate, a map for each step."""
    kept = {key: values for key, values in history(len(maps)).items() if not key.startswith("alpha:")}
    return kept | {"alpha:gate2": np.stack(maps)[:, None]}


def ramp(low: float, high: float) -> np.ndarray:
    return np.linspace(low, high, 120).reshape(12, 10)


def titles(figure: Figure) -> list[str]:
    return [axis.get_title() for axis in figure.axes]


def colours_of_outlines(axis: Axes) -> set[str]:
    return {
        to_hex(to_rgba_array(lines.get_edgecolor())[0]) for lines in axis.collections if isinstance(lines, ContourSet)
    }


def test_two_rows_for_each_gate_and_a_column_for_each_moment() -> None:
    figure = draw_history(history())
    assert titles(figure)[:3] == ["CT", "PET", "tumour probability, step 20"]
    names = ["gate2, 1", "gate2, 2", "gate3"]
    rows = [axis.get_ylabel() for axis in figure.axes if axis.get_ylabel().startswith("gate")]
    assert rows == [f"{name}\n{row}" for name in names for row in ("alpha, 0 to 1", "each map on\nits own scale")]
    assert sum(title.startswith("step") for title in titles(figure)) == 3 * 2 * 3


def test_a_range_stands_above_each_map_and_contrast_is_shown_where_there_is_some() -> None:
    figure = draw_history(gate(np.full((12, 10), 0.95), ramp(0.941, 0.948), ramp(0.2, 0.9)))
    fixed, own = figure.axes[4:7], figure.axes[8:11]
    assert [axis.get_title() for axis in fixed] == [
        "step 0, nearly uniform\n0.95 to 0.95",
        "step 10, nearly uniform\n0.94 to 0.95",
        "step 20\n0.20 to 0.90",
    ]
    assert [axis.images[0].get_clim() for axis in fixed] == [(0, 1)] * 3
    assert [len(axis.images) for axis in own] == [0, 0, 1]
    assert [text.get_text() for text in own[0].texts] == ["nearly uniform,\nnot drawn"]
    assert own[2].get_title() == "step 20\nscaled 0.20 to 0.90"
    assert own[2].images[0].get_clim() == pytest.approx((0.2, 0.9))


@pytest.mark.parametrize(("share", "n_rows"), [(0.99, 1), (1.01, 2)])
def test_a_gate_without_contrast_lacks_the_second_row(share: float, n_rows: int) -> None:
    figure = draw_history(gate(ramp(0.5, 0.5 + share * NEARLY_UNIFORM)))
    assert sum(axis.get_ylabel().startswith("gate") for axis in figure.axes) == n_rows


def test_patient_right_is_on_the_left_and_front_on_top() -> None:
    axis = draw_history(history()).axes[0]
    assert axis.get_xlim()[0] > axis.get_xlim()[1]
    assert axis.get_ylim()[0] < axis.get_ylim()[1]
    np.testing.assert_array_equal(np.asarray(axis.images[0].get_array()), history()["ct"].T)
    places = {text.get_text(): text.get_position() for text in axis.texts}
    assert places["R"][0] < 0.1 < 0.9 < places["L"][0]
    assert places["P"][1] < 0.1 < 0.9 < places["A"][1]


def test_bars_bear_units() -> None:
    figure = draw_history(gate(ramp(0.2, 0.9)))
    labels = {label for axis in figure.axes for label in (axis.get_xlabel(), axis.get_ylabel())}
    assert {"HU (level 40, width 350)", "SUV", "probability", "alpha", "alpha of each map"} <= labels


def test_truth_and_the_prediction_of_that_step_are_outlined() -> None:
    early_and_late = gate(ramp(0.2, 0.9), ramp(0.2, 0.9))
    early_and_late["tumour"] = np.stack([np.full((12, 10), 0.1), ramp(0, 1)])
    figure = draw_history(early_and_late)
    assert colours_of_outlines(figure.axes[4]) == {TRUTH_COLOUR}, "nothing was predicted yet"
    for axis in (*figure.axes[:3], figure.axes[5], figure.axes[9]):
        assert colours_of_outlines(axis) == {TRUTH_COLOUR, PREDICTION_COLOUR}
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words[0] == "truth"
    assert words[1].startswith("prediction at that step")


def test_an_old_file_with_a_step_twice_shows_it_once() -> None:
    twice = history(3) | {"steps": np.array([0, 2, 2])}
    shown = [title.split("\n")[0] for title in titles(draw_history(twice)) if title.startswith("step")]
    assert shown == ["step 0", "step 2"] * 6


def test_an_empty_target_is_drawn_without_outline() -> None:
    empty = history() | {"target": np.zeros((12, 10), dtype=np.uint8)}
    assert TRUTH_COLOUR not in colours_of_outlines(draw_history(empty).axes[0])


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "attention.npz").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(InputError, match=r"attention\.npz"):
        load_history(tmp_path / "attention.npz")
