"""Boxes from probabilities: components held, small ones dropped, every way out when nothing is found."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hngtv.config import CoarseLocaliser, UNetSettings
from hngtv.errors import InputError
from hngtv.localise.coarse_net import choose_threshold, find_boxes, mass_slices
from hngtv.localise.finding import Finding
from hngtv.localise.roi_table import Roi
from hngtv.localise.rules import NVAUTO_SIZE_MM, nvauto_box
from hngtv.localise.truth import covered_fraction
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
    return find_boxes(probability, pet, GRID, 0.5, settings(**changes), "P01")


def test_box_is_the_component_in_world_mm() -> None:
    probability = np.zeros(GRID.shape)
    probability[2:4, 3:6, 1:3] = 0.75
    finding = find(probability)
    assert finding == Finding((Box((-30, -30, 210), (-10, 0, 230)),), 0.75, "found")


def test_small_components_are_dropped_and_every_other_has_its_box() -> None:
    probability = np.zeros(GRID.shape)
    probability[0, 0, 0] = 1.0  # 1 ml
    probability[3:5, 3:5, 3:5] = 0.5
    probability[8, 9:11, 6] = 0.9
    finding = find(probability)
    assert finding.boxes == (Box((-20, -30, 230), (0, -10, 250)), Box((30, 30, 260), (40, 50, 270)))
    assert finding.confidence == pytest.approx((8 * 0.5 + 2 * 0.9) / 10)
    assert find(probability, min_component_ml=0.0).boxes == (Box((-50, -60, 200), (-40, -50, 210)), *finding.boxes)


def test_components_of_a_low_peak_count_only_where_none_is_higher() -> None:
    probability = np.zeros(GRID.shape)
    probability[3:5, 3:5, 3:5] = 0.5
    probability[4, 4, 4] = 0.9
    probability[8, 9:11, 6] = 0.6
    sure, unsure = Box((-20, -30, 230), (0, -10, 250)), Box((30, 30, 260), (40, 50, 270))
    assert find(probability).boxes == (sure, unsure)
    assert find(probability, min_peak=0.6).boxes == (sure, unsure)
    finding = find(probability, min_peak=0.7)
    assert finding.boxes == (sure,)
    assert finding.confidence == pytest.approx((7 * 0.5 + 0.9) / 8)
    assert find(probability, min_peak=0.95).boxes == (sure, unsure)


def test_components_that_touch_at_a_corner_are_one() -> None:
    probability = np.zeros(GRID.shape)
    probability[2, 2, 2] = probability[3, 3, 3] = 0.8
    assert find(probability).boxes == (Box((-30, -40, 220), (-10, -20, 240)),)


def test_nothing_found_and_no_uptake_is_the_whole_volume() -> None:
    finding = find_boxes(np.zeros(GRID.shape), np.zeros(GRID.shape), GRID, 0.5, settings(), "P01")
    assert finding.boxes == (GRID.bounds(),)
    assert finding.reason.startswith("fallback:whole_volume (no component")


def test_threshold_counts_as_reached() -> None:
    probability = np.full(GRID.shape, 0.5)
    assert find(probability).reason == "found"
    assert find(np.nextafter(probability, 0)).reason != "found"


@given(st.lists(st.tuples(*(st.integers(0, n - 1) for n in GRID.shape)), min_size=1, max_size=5))
def test_boxes_hold_every_voxel_that_is_found(voxels: list[tuple[int, int, int]]) -> None:
    probability = np.zeros(GRID.shape)
    for voxel in voxels:
        probability[voxel] = 0.8
    finding = find(probability, min_component_ml=0.0)
    assert covered_fraction(probability >= 0.5, GRID, finding.boxes) == 1.0
    assert 0 <= finding.confidence <= 1


def test_nothing_found_falls_back_to_the_pet_rule() -> None:
    finding = find(np.zeros(GRID.shape))
    pet = np.zeros(GRID.shape)
    pet[4, 5, 7] = 9
    assert finding.boxes == (nvauto_box(pet, GRID, NVAUTO_SIZE_MM),)
    assert finding.confidence == 0
    assert finding.reason.startswith("fallback:pet_rule")
    assert "0.5" in finding.reason
    assert "2 ml" in finding.reason


def test_nothing_found_falls_back_to_the_whole_volume() -> None:
    finding = find(np.zeros(GRID.shape), on_empty="whole_volume")
    assert (finding.boxes, finding.confidence) == ((GRID.bounds(),), 0.0)
    assert finding.reason.startswith("fallback:whole_volume")


def test_nothing_found_fails_with_the_case_and_the_way_out() -> None:
    with pytest.raises(InputError, match=r"P01.*localiser\.on_empty"):
        find(np.zeros(GRID.shape), on_empty="fail")


PART = GRID.box_of((slice(2, 6), slice(2, 6), slice(2, 6)))
IMAGE_ML = {"P": GRID.bounds().volume_ml}


def held(*fractions: float | None) -> list[Roi]:
    """Boxes that hold these shares of the target; a negative share is held by a fallback."""
    return [
        Roi("P", "coarse", "0", (PART,), 0.5, part and abs(part), "fallback:x" if part and part < 0 else "found")
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
    whole = [replace(roi, boxes=(GRID.bounds(),)) for roi in held(1.0, 1.0)]
    assert choose_threshold({0.5: held(0.5, 0.5), 0.1: whole}, IMAGE_ML, 0.99) == 0.5


def test_boxes_that_hold_the_whole_image_together_are_not_a_find() -> None:
    low, high = (
        GRID.box_of((slice(0, 10), slice(0, 12), slice(0, 4))),
        GRID.box_of((slice(0, 10), slice(0, 12), slice(4, 8))),
    )
    halves = [replace(roi, boxes=(low, high)) for roi in held(1.0, 1.0)]
    assert choose_threshold({0.5: held(0.5, 0.5), 0.1: halves}, IMAGE_ML, 0.99) == 0.5


EVERYTHING = (slice(0, 10), slice(0, 12), slice(0, 8))


def test_mass_cuts_the_same_from_both_tails() -> None:
    """Along x the shares are 5, 5, 80, 5 and 5 %; along y and z there is one slice."""
    probability = np.zeros(GRID.shape)
    probability[2:7, 4, 3] = 0.05, 0.05, 0.8, 0.05, 0.05
    slices = (slice(2, 7), slice(4, 5), slice(3, 4))
    wanted = {
        1.0: slice(2, 7),
        0.95: slice(2, 7),
        0.89: slice(3, 6),
        0.81: slice(3, 6),
        0.79: slice(4, 5),
        0.01: slice(4, 5),
    }
    for mass, x in wanted.items():
        assert mass_slices(probability[slices], slices, mass) == (x, slice(4, 5), slice(3, 4)), mass


def test_mass_keeps_the_heavier_side() -> None:
    probability = np.zeros(GRID.shape)
    probability[2:6, 4, 3] = 0.01, 0.3, 0.34, 0.35
    box = (slice(2, 6), slice(4, 5), slice(3, 4))
    assert mass_slices(probability[box], box, 0.9)[0] == slice(3, 6)


@given(st.lists(st.floats(0, 1, width=32), min_size=4 * 3 * 2, max_size=4 * 3 * 2), st.floats(0.01, 1))
def test_mass_is_held_along_each_axis_by_a_box_that_is_never_empty(values: list[float], mass: float) -> None:
    probability = np.zeros(GRID.shape)
    box = (slice(3, 7), slice(2, 5), slice(6, 8))
    probability[box] = np.reshape(values, (4, 3, 2))
    found = mass_slices(probability[box], box, mass)
    total = probability.sum()
    for axis, (inside, around) in enumerate(zip(found, box, strict=True)):
        assert around.start <= inside.start < inside.stop <= around.stop
        along = probability.sum(axis=tuple(other for other in range(3) if other != axis))
        assert along[inside].sum() >= (mass - 1e-9) * total
    assert mass_slices(probability[box], box, 1.0) == box


def test_a_box_without_probability_stays_whole() -> None:
    """As at threshold 0, where every voxel is found."""
    assert mass_slices(np.zeros(GRID.shape), EVERYTHING, 0.9) == EVERYTHING
    finding = find_boxes(np.zeros(GRID.shape), np.zeros(GRID.shape), GRID, 0.0, settings(), "P01")
    assert (finding.boxes, finding.reason) == ((GRID.bounds(),), "found")


def test_mass_of_a_component_is_its_own() -> None:
    """A second component that reaches into the box of the first does not count there."""
    probability = np.zeros(GRID.shape)
    probability[1, 1:8, 3] = probability[1:6, 1, 3] = 0.5
    alone = find(probability, mass=0.8).boxes
    probability[4, 5, 3] = probability[4, 6, 3] = 1.0
    assert find(probability, mass=0.8).boxes[0] == alone[0]


def test_mass_is_a_setting_of_the_localiser() -> None:
    probability = np.zeros(GRID.shape)
    probability[2:7, 4, 3] = 0.5, 0.5, 1, 0.5, 0.5
    assert find(probability).boxes == (GRID.box_of((slice(2, 7), slice(4, 5), slice(3, 4))),)
    assert find(probability, mass=0.6).boxes == (GRID.box_of((slice(3, 6), slice(4, 5), slice(3, 4))),)
