"""Boxes from heat maps: those of true maps are the lesions', close peaks are one, every way out without a peak."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hngtv.config import HeatMapLocaliser, UNetSettings
from hngtv.errors import InputError
from hngtv.localise.finding import Finding
from hngtv.localise.heat_map import HeatMaps, find_peak_boxes, find_peaks
from hngtv.localise.rules import NVAUTO_SIZE_MM, nvauto_box
from hngtv.training.heat_map import draw_targets
from hngtv.volume.box import Box
from hngtv.volume.grid import Grid

GRID = Grid.axis_aligned(Box((-80, -60, 200), (80, 60, 320)), (10.0, 10.0, 12.0))
"""16 x 12 x 10 voxels."""
Slices = tuple[slice, slice, slice]


def settings(**changes: Any) -> HeatMapLocaliser:
    network = UNetSettings(name="unet", widths=(4, 8), norm="instance", deep_supervision="none")
    plain: dict[str, Any] = {
        "name": "heat_map", "network": network, "n_inner_folds": 2, "budget_share": 0.2, "crop_voxels": None,
        "sigma_mm": 12.0, "extent_weight": 1.0, "window_mm": 40.0, "max_peaks": 4, "thresholds": (0.5,),
        "min_covered": 0.99, "on_empty": "pet_rule",
    }  # fmt: skip
    return HeatMapLocaliser(**(plain | changes))


def find(heat: np.ndarray, side_mm: float = 30.0, **changes: Any) -> Finding:
    pet = np.zeros(GRID.shape)
    pet[4, 5, 9] = 9
    maps = HeatMaps(heat.astype(np.float32), np.full((3, *GRID.shape), side_mm, dtype=np.float32))
    return find_peak_boxes(maps, pet, GRID, 0.5, settings(**changes), "P01")


def heat_at(**peaks: Any) -> np.ndarray:
    """Heat 0.1 but at voxels given as `x_y_z=heat`, after a letter."""
    heat = np.full(GRID.shape, 0.1)
    for name, value in peaks.items():
        heat[tuple(int(n) for n in name[1:].split("_"))] = value
    return heat


def test_a_peak_becomes_a_box_about_its_voxel() -> None:
    assert find(heat_at(v7_6_4=0.75)) == Finding((Box((-20, -10, 239), (10, 20, 269)),), 0.75, "found")


def test_one_box_for_each_peak_the_hottest_first() -> None:
    heat = heat_at(v2_2_2=0.6, v8_8_5=0.8, v13_2_8=0.7, v2_9_8=0.4)
    finding = find(heat)
    assert [box.centre_mm for box in finding.boxes] == [(5, 25, 266), (55, -35, 302), (-55, -35, 230)]
    assert finding.confidence == pytest.approx(0.7)
    assert find(heat, max_peaks=2).boxes == finding.boxes[:2]
    assert find(heat, max_peaks=2).confidence == pytest.approx(0.75)


def test_peaks_too_near_each_other_are_one() -> None:
    """A window of 40 mm holds two voxels to each side along x and y, and one along z."""
    assert find_peaks(heat_at(v7_6_4=0.8, v9_6_4=0.7), GRID.spacing_mm, 0.5, 40.0, 9).tolist() == [[7, 6, 4]]
    assert len(find_peaks(heat_at(v7_6_4=0.8, v10_6_4=0.7), GRID.spacing_mm, 0.5, 40.0, 9)) == 2
    assert len(find_peaks(heat_at(v7_6_4=0.8, v7_6_6=0.7), GRID.spacing_mm, 0.5, 40.0, 9)) == 2
    assert len(find_peaks(heat_at(v7_6_4=0.8, v8_6_4=0.7), GRID.spacing_mm, 0.5, 1.0, 9)) == 1, "always the neighbours"


def test_the_hottest_peaks_of_an_even_map_are_found_at_once() -> None:
    even = np.full((48, 48, 48), 0.12)
    assert len(find_peaks(even, (8.0, 8.0, 8.0), 0.1, 40.0, 5)) == 5


def test_equally_hot_neighbours_are_one_peak() -> None:
    assert find_peaks(heat_at(v7_6_4=0.8, v8_7_5=0.8), GRID.spacing_mm, 0.5, 40.0, 9).tolist() == [[7, 6, 4]]


def test_threshold_counts_as_reached() -> None:
    assert find(heat_at(v7_6_4=0.5)).reason == "found"
    assert find(heat_at(v7_6_4=0.499)).reason != "found"


def test_sides_are_a_voxel_at_least_and_the_image_at_most() -> None:
    assert find(heat_at(v7_6_4=0.8), side_mm=1e-6).boxes[0].size_mm == GRID.spacing_mm
    assert find(heat_at(v7_6_4=0.8), side_mm=float("inf")).boxes[0].size_mm == GRID.bounds().size_mm


def far_apart(lesions: list[Slices]) -> bool:
    """Whether lesions do not touch, and their centres are far enough apart to be two peaks."""
    gaps = [
        (np.array([b.start - a.stop for a, b in zip(one, other, strict=True)]),
         np.array([a.start - b.stop for a, b in zip(one, other, strict=True)]))
        for number, one in enumerate(lesions) for other in lesions[:number]
    ]  # fmt: skip
    return all(np.maximum(*gap).max() >= 2 for gap in gaps)


def lesion_in(shape: tuple[int, int, int]) -> st.SearchStrategy[Slices]:
    """Boxes of 1 to 4 voxels along each axis that do not touch the border."""
    axes = [
        st.integers(1, n - 6).flatmap(lambda start: st.integers(1, 4).map(lambda size: slice(start, start + size)))
        for n in shape
    ]
    return st.tuples(*axes)


@given(st.lists(lesion_in(GRID.shape), min_size=1, max_size=3).filter(far_apart))
def test_true_maps_give_back_the_boxes_of_the_lesions(lesions: list[Slices]) -> None:
    labels = torch.zeros(1, 1, *GRID.shape)
    for lesion in lesions:
        labels[(0, 0, *lesion)] = 1
    target = draw_targets(labels, GRID.spacing_mm, sigma_mm=6.0)
    maps = HeatMaps(target.heat[0, 0].numpy(), target.sides_mm[0].numpy())
    finding = find_peak_boxes(maps, np.zeros(GRID.shape), GRID, 0.9, settings(window_mm=1.0), "P01")
    true = sorted((GRID.box_of(lesion) for lesion in lesions), key=lambda box: box.lower_mm)
    found = sorted(finding.boxes, key=lambda box: box.lower_mm)
    assert len(found) == len(true)
    assert finding.confidence == 1.0
    for box in true:
        nearest = min(found, key=lambda other: np.abs(np.subtract(other.centre_mm, box.centre_mm)).max())
        assert np.allclose(nearest.size_mm, box.size_mm, atol=1e-3)
        assert (np.abs(np.subtract(nearest.centre_mm, box.centre_mm)) <= np.divide(GRID.spacing_mm, 2) + 1e-6).all()


def test_nothing_found_falls_back_to_the_pet_rule() -> None:
    finding = find(heat_at())
    pet = np.zeros(GRID.shape)
    pet[4, 5, 9] = 9
    assert finding.boxes == (nvauto_box(pet, GRID, NVAUTO_SIZE_MM),)
    assert finding.confidence == 0
    assert finding.reason == "fallback:pet_rule (no peak of heat 0.5)"


def test_nothing_found_falls_back_to_the_whole_volume() -> None:
    finding = find(heat_at(), on_empty="whole_volume")
    assert (finding.boxes, finding.confidence) == ((GRID.bounds(),), 0.0)


def test_nothing_found_fails_with_the_case_and_the_way_out() -> None:
    with pytest.raises(InputError, match=r"P01.*localiser\.on_empty"):
        find(heat_at(), on_empty="fail")
