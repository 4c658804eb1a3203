"""Boxes from slices and from the attention in them, against boxes counted by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hngtv.config import AttentionBoxSettings, SliceLocaliser, SonoNetSettings
from hngtv.errors import InputError
from hngtv.localise.finding import Finding
from hngtv.localise.rules import NVAUTO_SIZE_MM, nvauto_box
from hngtv.localise.slices import (
    SliceBoxScore,
    SliceScores,
    attention_region,
    find_slice_boxes,
    keep_slices,
    score_attention_boxes,
    true_boxes,
    write_slice_boxes,
)
from hngtv.run_folder import read_csv
from hngtv.volume.box import Box
from hngtv.volume.grid import Grid

GRID = Grid.axis_aligned(Box((-50, -60, 200), (50, 60, 280)), (10.0, 10.0, 10.0))
"""10 x 12 x 8 voxels."""
BOX = AttentionBoxSettings(merge="mean", smoothing_mm=0.0, threshold=0.5, largest_component=True)


def settings(gated: bool = True, **changes: Any) -> SliceLocaliser:
    network = SonoNetSettings(name="sononet", width=8, gated=gated, aggregation="mean", zoom=1)
    plain: dict[str, Any] = {
        "name": "slices", "network": network, "n_inner_folds": 2, "budget_share": 0.2, "crop_voxels": (16, 16),
        "batch_size": 4, "thresholds": (0.5,), "min_covered": 0.99, "smoothing_mm": 0.0, "max_gap_mm": 0.0,
        "keep": "all", "in_plane": "attention", "attention": BOX, "on_empty": "pet_rule",
    }  # fmt: skip
    return SliceLocaliser(**(plain | changes))


def find(tumour: list[float], attention: np.ndarray | None = None, **changes: Any) -> Finding:
    scores = SliceScores(np.array(tumour, dtype=np.float32), attention)
    return find_slice_boxes(scores, np.zeros(GRID.shape), GRID, 0.5, settings(**changes), "P01")


TUMOUR = [0.1, 0.1, 0.6, 0.9, 0.9, 0.1, 0.1, 0.5]


def slab(low_mm: float, high_mm: float) -> Box:
    return Box((-50, -60, low_mm), (50, 60, high_mm))


def test_every_run_of_kept_slices_is_a_slab() -> None:
    finding = find(TUMOUR, in_plane="whole")
    assert finding.boxes == (slab(220, 250), slab(270, 280))
    assert finding.confidence == pytest.approx((0.6 + 0.9 + 0.9 + 0.5) / 4)
    assert finding.reason == "found"


def test_longest_run_alone() -> None:
    assert find(TUMOUR, in_plane="whole", keep="longest_run").boxes == (slab(220, 250),)


def test_gaps_up_to_the_longest_are_filled() -> None:
    kept = [True, False, True, False, False, True, False]
    for max_gap_mm, wanted in ((9, kept), (10, [1, 1, 1, 0, 0, 1, 0]), (20, [1, 1, 1, 1, 1, 1, 0])):
        found = keep_slices(np.array(kept, dtype=float), 0.5, 10.0, settings(max_gap_mm=max_gap_mm))
        assert found.tolist() == [bool(value) for value in wanted]


def test_smoothing_drops_a_single_slice_and_keeps_a_run() -> None:
    tumour = np.array([0, 1, 0, 0, 1, 1, 1, 1, 0], dtype=float)
    kept = keep_slices(tumour, 0.5, 10.0, settings(smoothing_mm=10.0))
    assert kept.tolist() == [False, False, False, False, True, True, True, True, False]


def test_box_is_around_the_attention_of_kept_slices() -> None:
    attention = np.zeros(GRID.shape, dtype=np.float32)
    attention[2:5, 3:7, 2:5] = 0.8
    attention[0, 0, 0] = 1.0  # in a slice that is not kept
    attention[8, 10, 3] = 1.0  # another component, smaller
    finding = find(TUMOUR, attention, keep="longest_run")
    assert finding.boxes == (Box((-30, -30, 220), (0, 10, 250)),)


def test_every_run_of_slices_has_a_box_of_its_own_attention() -> None:
    attention = np.zeros(GRID.shape, dtype=np.float32)
    attention[7:9, 8:10, 7] = 0.5  # in the second run, less than in the first
    attention[2:5, 3:7, 2:5] = 1.0
    assert find(TUMOUR, attention).boxes == (Box((-30, -30, 220), (0, 10, 250)), Box((20, 20, 270), (40, 40, 280)))


def test_attention_that_is_nowhere_gives_whole_slices() -> None:
    assert find(TUMOUR, np.zeros(GRID.shape, dtype=np.float32)).boxes == (slab(220, 250), slab(270, 280))


@pytest.mark.parametrize("on_empty", ["pet_rule", "whole_volume"])
def test_no_slice_and_no_uptake_is_the_whole_image(on_empty: str) -> None:
    finding = find([0.4] * 8, in_plane="whole", on_empty=on_empty)
    assert finding.boxes == (GRID.bounds(),)
    assert finding.confidence == 0
    assert finding.reason == "fallback:whole_volume (no slice of probability 0.5)"


def test_no_slice_falls_back_to_the_pet_rule() -> None:
    pet = np.zeros(GRID.shape)
    pet[4, 5, 7] = 9
    scores = SliceScores(np.full(8, 0.4, dtype=np.float32), None)
    finding = find_slice_boxes(scores, pet, GRID, 0.5, settings(in_plane="whole"), "P01")
    assert finding.boxes == (nvauto_box(pet, GRID, NVAUTO_SIZE_MM),)
    assert (finding.confidence, finding.reason) == (0.0, "fallback:pet_rule (no slice of probability 0.5)")


def test_margin_widens_every_run_but_not_beyond_the_image() -> None:
    finding = find(TUMOUR, in_plane="whole", slice_margin_mm=10)
    assert finding.boxes == (slab(210, 280),), "runs that meet are one"
    narrow = find(TUMOUR, in_plane="whole", slice_margin_mm=4)
    assert narrow.boxes == (slab(220, 250), slab(270, 280)), "less than half a slice is none"
    longest = find(TUMOUR, in_plane="whole", keep="longest_run", slice_margin_mm=20)
    assert longest.boxes == (slab(200, 270),)
    assert find(TUMOUR, in_plane="whole", slice_margin_mm=999).boxes == (slab(200, 280),)
    assert finding.confidence == find(TUMOUR, in_plane="whole").confidence, "that of the slices that were kept"


def test_attention_is_looked_at_in_the_margin_too() -> None:
    attention = np.zeros(GRID.shape, dtype=np.float32)
    attention[2:5, 3:7, 2:5] = 1.0
    attention[4:7, 3:7, 5] = 1.0  # next to the longest run
    assert find(TUMOUR, attention, keep="longest_run").boxes == (Box((-30, -30, 220), (0, 10, 250)),)
    widened = find(TUMOUR, attention, keep="longest_run", slice_margin_mm=10)
    assert widened.boxes == (Box((-30, -30, 210), (20, 10, 260)),)


UNSURE = [0.1, 0.3, 0.1, 0.4, 0.2, 0.1, 0.1, 0.1]


@pytest.mark.parametrize(
    ("top_k", "wanted"), [(1, slab(230, 240)), (2, slab(210, 240)), (3, slab(210, 250)), (99, slab(200, 280))]
)
def test_where_no_slice_is_kept_those_between_the_likeliest_are(top_k: int, wanted: Box) -> None:
    finding = find(UNSURE, in_plane="whole", top_k=top_k, keep="longest_run")
    assert finding.boxes == (wanted,)
    assert finding.confidence == 0
    assert finding.reason == f"fallback:top_{top_k} (no slice of probability 0.5)"


def test_top_k_has_its_margin_and_its_attention() -> None:
    attention = np.zeros(GRID.shape, dtype=np.float32)
    attention[2:5, 3:7, 0:5] = 1.0
    finding = find(UNSURE, attention, top_k=2, slice_margin_mm=10)
    assert finding.boxes == (Box((-30, -30, 200), (0, 10, 250)),)


def test_top_k_comes_before_on_empty_and_only_where_nothing_is_kept() -> None:
    assert find(UNSURE, in_plane="whole", top_k=2, on_empty="fail").reason.startswith("fallback:top_2")
    assert find(TUMOUR, in_plane="whole", top_k=2) == find(TUMOUR, in_plane="whole")


def test_no_slice_can_fail() -> None:
    with pytest.raises(InputError, match=r"P01.*slice.*0\.5"):
        find([0.4] * 8, in_plane="whole", on_empty="fail")


def test_attention_needs_gates() -> None:
    with pytest.raises(ValueError, match=r"network\.gated"):
        settings(gated=False)
    assert settings(gated=False, in_plane="whole").level == "fine"


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.floats(0, 60), st.sampled_from(["all", "longest_run"]))
def test_kept_slices_are_runs_of_what_reaches_the_threshold(kept: list[bool], gap: float, keep: str) -> None:
    found = keep_slices(np.array(kept, dtype=float), 0.5, 10.0, settings(max_gap_mm=gap, keep=keep))
    assert found.any() == any(kept)
    if keep == "all":
        assert (found >= np.array(kept)).all()
        if any(kept):
            first, last = np.flatnonzero(kept)[[0, -1]]
            assert not found[:first].any()
            assert not found[last + 1 :].any()
    else:
        assert np.abs(np.diff(np.concatenate([[False], found, [False]]).astype(int))).sum() <= 2


def test_attention_region_by_share_of_the_largest_value() -> None:
    attention = np.zeros((8, 8))
    attention[1:3, 1:3], attention[5:7, 5] = 0.4, 0.2
    assert attention_region(attention, (1, 1), BOX).sum() == 4
    lower = AttentionBoxSettings(merge="mean", smoothing_mm=0.0, threshold=0.5, largest_component=False)
    assert attention_region(attention, (1, 1), lower).sum() == 6
    assert not attention_region(np.zeros((8, 8)), (1, 1), BOX).any()


def test_smoothing_is_in_mm() -> None:
    attention = np.zeros((21, 21))
    attention[10, 10] = 1
    smooth = AttentionBoxSettings(merge="mean", smoothing_mm=6.0, threshold=0.5, largest_component=True)
    region = attention_region(attention, (3.0, 6.0), smooth)
    # A Gaussian of 6 mm falls to one half at 7.06 mm: 2 pixels of 3 mm, 1 of 6 mm.
    assert np.flatnonzero(region.any(axis=1)).tolist() == [8, 9, 10, 11, 12]
    assert np.flatnonzero(region.any(axis=0)).tolist() == [9, 10, 11]


def test_iou_of_boxes_in_slices_with_tumour() -> None:
    target = np.zeros(GRID.shape, dtype=np.uint8)
    target[2:4, 2:6, 3] = 1
    target[2:4, 2:6, 5] = 2
    attention = np.zeros(GRID.shape, dtype=np.float32)
    attention[2:4, 4:8, 3] = 1  # boxes of 8, 4 in common
    attention[2:4, 2:6, 5] = 1
    scores = SliceScores(np.linspace(0, 0.7, 8, dtype=np.float32), attention)
    found = score_attention_boxes(scores, target, GRID, BOX, "P01")
    assert [(s.case_id, s.z_mm) for s in found] == [("P01", 235.0), ("P01", 255.0)]
    assert [s.iou for s in found] == pytest.approx([4 / 12, 1.0])
    assert [s.tumour_probability for s in found] == pytest.approx([0.3, 0.5])


def test_true_boxes_are_around_the_tumour_of_each_run_of_slices() -> None:
    target = np.zeros(GRID.shape, dtype=np.uint8)
    target[2:4, 2:6, 1:3] = 1
    target[5, 5, 2] = 2
    target[0, 0, 7] = 1
    boxes = (Box((-30, -40, 210), (10, 0, 230)), Box((-50, -60, 270), (-40, -50, 280)))
    assert true_boxes(target, GRID) == boxes
    assert true_boxes(np.zeros_like(target), GRID) == ()


def test_slice_boxes_are_written(tmp_path: Path) -> None:
    write_slice_boxes(tmp_path / "boxes.csv", [SliceBoxScore("P01", 235.0, 0.25, 0.5)])
    assert read_csv(tmp_path / "boxes.csv", ("case_id", "iou")) == [
        {"case_id": "P01", "z_mm": "235.00", "tumour_probability": "0.2500", "iou": "0.5000"}
    ]
