"""The picture of attention over training."""

from pathlib import Path

import numpy as np
import pytest

from hngtv.errors import InputError
from hngtv.report.attention import draw_history, load_history


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


def test_a_row_for_each_gate_and_a_column_for_each_moment() -> None:
    figure = draw_history(history())
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[:4] == ["CT", "PET", "truth", "tumour probability"]
    assert sum("step" in title for title in titles) == 3 * 3
    assert [title.split("\n")[0] for title in titles if title.startswith("gate")] == ["gate2, 1", "gate2, 2", "gate3"]


def test_patient_right_is_on_the_left_and_front_on_top() -> None:
    axis = draw_history(history()).axes[2]
    assert axis.get_xlim()[0] > axis.get_xlim()[1]
    assert axis.get_ylim()[0] < axis.get_ylim()[1]
    np.testing.assert_array_equal(np.asarray(axis.images[0].get_array()), history()["target"].T > 0)


def test_an_empty_target_is_drawn_without_outline() -> None:
    empty = history() | {"target": np.zeros((12, 10), dtype=np.uint8)}
    assert draw_history(empty).axes


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "attention.npz").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(InputError, match=r"attention\.npz"):
        load_history(tmp_path / "attention.npz")
