"""Boxes by rule, against hand geometry."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hngtv.localise.rules import PET_RULE_SIZE_MM, covered_fraction, pet_rule_box, target_box
from hngtv.volume.box import Box
from hngtv.volume.grid import Grid

SCAN = Grid.axis_aligned(Box((-300, -300, 0), (300, 300, 800)), (10.0, 10.0, 10.0))


def oblique_grid(shape: tuple[int, int, int] = (8, 9, 7)) -> Grid:
    """Voxels of 2 x 3 x 4 mm, turned by 20 degrees about z."""
    c, s = np.cos(np.pi / 9), np.sin(np.pi / 9)
    affine = np.array([[2 * c, -3 * s, 0, 5], [2 * s, 3 * c, 0, -40], [0, 0, 4, 100], [0, 0, 0, 1]])
    return Grid.from_array(shape, affine)


def hot_scan(index: tuple[int, int, int]) -> np.ndarray:
    pet = np.zeros(SCAN.shape)
    pet[index] = 10
    return pet


def test_pet_rule_hangs_a_box_below_the_uptake() -> None:
    box = pet_rule_box(hot_scan((30, 25, 70)), SCAN)
    x, y, z = SCAN.to_world(np.array([30, 25, 70]))
    assert box.size_mm == pytest.approx(PET_RULE_SIZE_MM)
    assert box.centre_mm[:2] == pytest.approx((x, y))
    assert box.upper_mm[2] == pytest.approx(z)


def test_pet_rule_looks_at_the_upper_quarter_only() -> None:
    pet = hot_scan((30, 25, 70))
    pet[5, 5, 20] = 1000
    assert pet_rule_box(pet, SCAN) == pet_rule_box(hot_scan((30, 25, 70)), SCAN)


@pytest.mark.parametrize("value", [0.0, 2.5])
def test_pet_rule_gives_the_whole_image_where_nothing_stands_out(value: float) -> None:
    assert pet_rule_box(np.full(SCAN.shape, value), SCAN) == SCAN.bounds()


@given(st.tuples(st.integers(0, 59), st.integers(0, 59), st.integers(60, 79)))
def test_pet_rule_box_lies_in_the_image_and_holds_the_uptake(index: tuple[int, int, int]) -> None:
    box, bounds = pet_rule_box(hot_scan(index), SCAN), SCAN.bounds()
    point = SCAN.to_world(np.array(index))
    assert (np.asarray(box.lower_mm) <= point + 1e-9).all()
    assert (point <= np.asarray(box.upper_mm) + 1e-9).all()
    assert (np.asarray(box.lower_mm) >= bounds.lower_mm).all()
    assert (np.asarray(box.upper_mm) <= bounds.upper_mm).all()


def test_target_box_is_the_labels_voxels_with_their_faces() -> None:
    target = np.zeros(SCAN.shape, dtype=np.uint8)
    target[3:5, 10, 7] = 1
    target[4, 12, 7] = 2
    assert target_box(target, SCAN) == Box((-270, -200, 70), (-250, -170, 80))
    assert target_box(np.zeros_like(target), SCAN) is None


def test_target_box_covers_the_target_on_an_oblique_grid() -> None:
    grid = oblique_grid()
    target = np.zeros(grid.shape, dtype=np.uint8)
    target[2:6, 1:7, 3:5] = 2
    box = target_box(target, grid)
    assert box is not None
    assert covered_fraction(target, grid, box) == 1.0


def test_covered_fraction_by_hand() -> None:
    target = np.zeros(SCAN.shape, dtype=np.uint8)
    target[0:4, 0, 0] = 1
    target[0, 5, 0] = 2
    # Voxel centres at x = -295, -285, -275, -265 and y = -295; one at y = -245.
    assert covered_fraction(target, SCAN, Box((-300, -300, 0), (-280, -280, 10))) == pytest.approx(2 / 5)
    assert covered_fraction(target, SCAN, Box((-285, -295, 5), (-285, -295, 5))) == pytest.approx(1 / 5)
    assert covered_fraction(target, SCAN, SCAN.bounds()) == 1.0
    assert covered_fraction(target, SCAN, Box((0, 0, 0), (10, 10, 10))) == 0.0
    assert covered_fraction(np.zeros_like(target), SCAN, SCAN.bounds()) is None
