"""Boxes from probabilities: components held, small ones dropped, every way out when nothing is found."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hngtv.config import CoarseLocaliser, UNetSettings
from hngtv.errors import InputError
from hngtv.localise.coarse_net import Finding, choose_threshold, find_box
from hngtv.localise.roi_table import Roi
from hngtv.localise.rules import covered_fraction, pet_rule_box
from hngtv.volume.box import Box
from hngtv.volume.grid import Grid

GRID = Grid.axis_aligned(Box((-50, -60, 200), (50, 60, 280)), (10.0, 10.0, 10.0))
"""10 x 12 x 8 voxels of 1 ml."""


def settings(**changes: Any) -> CoarseLocaliser:
    network = UNetSettings(name="unet", widths=(4, 8), norm="instance", deep_supervision="none")
    plain: dict[str, Any] = {
        "name": "coarse", "network": network, "n_inner_folds": 2, "budget_share": 0.2, "crop_voxels": None,
        "thresholds": (0.5,), "min_covered": 0.99, "min_component_ml": 2.0, "on_empty": "pet_rule",
    }  # fmt: skip
    return CoarseLocaliser(**(plain | changes))


def find(probability: np.ndarray, **changes: Any) -> Finding:
    pet = np.zeros(GRID.shape)
    pet[4, 5, 7] = 9
    return find_box(probability, pet, GRID, 0.5, settings(**changes), "P01")


def test_box_is_the_component_in_world_mm() -> None:
    probability = np.zeros(GRID.shape)
    probability[2:4, 3:6, 1:3] = 0.75
    finding = find(probability)
    assert finding == Finding(Box((-30, -30, 210), (-10, 0, 230)), 0.75, "found")


def test_small_components_are_dropped_and_all_others_held() -> None:
    probability = np.zeros(GRID.shape)
    probability[0, 0, 0] = 1.0  # 1 ml
    probability[3:5, 3:5, 3:5] = 0.5
    probability[8, 9:11, 6] = 0.9
    finding = find(probability)
    assert finding.box == Box((-20, -30, 230), (40, 50, 270))
    assert finding.confidence == pytest.approx((8 * 0.5 + 2 * 0.9) / 10)
    assert find(probability, min_component_ml=0.0).box.lower_mm == (-50, -60, 200)


def test_threshold_counts_as_reached() -> None:
    probability = np.full(GRID.shape, 0.5)
    assert find(probability).reason == "found"
    assert find(np.nextafter(probability, 0)).reason != "found"


@given(st.lists(st.tuples(*(st.integers(0, n - 1) for n in GRID.shape)), min_size=1, max_size=5))
def test_box_holds_every_voxel_that_is_found(voxels: list[tuple[int, int, int]]) -> None:
    probability = np.zeros(GRID.shape)
    for voxel in voxels:
        probability[voxel] = 0.8
    finding = find(probability, min_component_ml=0.0)
    assert covered_fraction(probability >= 0.5, GRID, finding.box) == 1.0
    assert 0 <= finding.confidence <= 1


def test_nothing_found_falls_back_to_the_pet_rule() -> None:
    finding = find(np.zeros(GRID.shape))
    pet = np.zeros(GRID.shape)
    pet[4, 5, 7] = 9
    assert finding.box == pet_rule_box(pet, GRID)
    assert finding.confidence == 0
    assert finding.reason.startswith("fallback:pet_rule")
    assert "0.5" in finding.reason
    assert "2 ml" in finding.reason


def test_nothing_found_falls_back_to_the_whole_volume() -> None:
    finding = find(np.zeros(GRID.shape), on_empty="whole_volume")
    assert (finding.box, finding.confidence) == (GRID.bounds(), 0.0)
    assert finding.reason.startswith("fallback:whole_volume")


def test_nothing_found_fails_with_the_case_and_the_way_out() -> None:
    with pytest.raises(InputError, match=r"P01.*localiser\.on_empty"):
        find(np.zeros(GRID.shape), on_empty="fail")


PART = GRID.box_of((slice(2, 6), slice(2, 6), slice(2, 6)))
IMAGE_ML = {"P": GRID.bounds().volume_ml}


def held(*fractions: float | None) -> list[Roi]:
    """Boxes that hold these shares of the target; a negative share is held by a fallback."""
    return [
        Roi("P", "coarse", "0", PART, 0.5, part and abs(part), "fallback:x" if part and part < 0 else "found")
        for part in fractions
    ]


def test_the_highest_threshold_that_holds_enough_is_chosen() -> None:
    rois = {0.5: held(1.0, 0.9), 0.3: held(1.0, 0.98), 0.1: held(1.0, 1.0)}
    assert choose_threshold(rois, IMAGE_ML, 0.99) == 0.3
    assert choose_threshold(rois, IMAGE_ML, 0.9) == 0.5


def test_where_none_holds_enough_the_one_that_holds_most_is_chosen() -> None:
    assert choose_threshold({0.5: held(0.2), 0.3: held(0.8), 0.1: held(0.8), 0.05: held(0.7)}, IMAGE_ML, 0.99) == 0.1


def test_a_fallback_that_holds_all_is_not_a_find() -> None:
    assert choose_threshold({0.5: held(-1.0, -1.0), 0.3: held(0.9, 0.9)}, IMAGE_ML, 0.99) == 0.3


def test_empty_targets_do_not_count() -> None:
    assert choose_threshold({0.5: held(1.0, None), 0.3: held(1.0, None)}, IMAGE_ML, 0.99) == 0.5
    assert choose_threshold({0.5: held(None), 0.3: held(None)}, IMAGE_ML, 0.99) == 0.3


def test_a_box_of_the_whole_image_is_not_a_find() -> None:
    whole = [replace(roi, box=GRID.bounds()) for roi in held(1.0, 1.0)]
    assert choose_threshold({0.5: held(0.5, 0.5), 0.1: whole}, IMAGE_ML, 0.99) == 0.5
