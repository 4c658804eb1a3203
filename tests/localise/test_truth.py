"""Boxes held against the truth, by hand and by brute force."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hngtv.localise.truth import covered_fraction, margins_needed, target_box
from hngtv.volume.box import Box
from hngtv.volume.grid import Grid
from tests.volume.strategies import grids

SCAN = Grid.axis_aligned(Box((-300, -300, 0), (300, 300, 800)), (10.0, 10.0, 10.0))


def oblique_grid(shape: tuple[int, int, int] = (8, 9, 7)) -> Grid:
    """Voxels of 2 x 3 x 4 mm, turned by 20 degrees about z."""
    c, s = np.cos(np.pi / 9), np.sin(np.pi / 9)
    affine = np.array([[2 * c, -3 * s, 0, 5], [2 * s, 3 * c, 0, -40], [0, 0, 4, 100], [0, 0, 0, 1]])
    return Grid.from_array(shape, affine)


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
    assert covered_fraction(target, grid, [box]) == 1.0


def test_covered_fraction_by_hand() -> None:
    target = np.zeros(SCAN.shape, dtype=np.uint8)
    target[0:4, 0, 0] = 1
    target[0, 5, 0] = 2
    # Voxel centres at x = -295, -285, -275, -265 and y = -295; one at y = -245.
    left, point = Box((-300, -300, 0), (-280, -280, 10)), Box((-285, -295, 5), (-285, -295, 5))
    node, nowhere = Box((-300, -250, 0), (-290, -240, 10)), Box((0, 0, 0), (10, 10, 10))
    assert covered_fraction(target, SCAN, [left]) == pytest.approx(2 / 5)
    assert covered_fraction(target, SCAN, [point]) == pytest.approx(1 / 5)
    assert covered_fraction(target, SCAN, [SCAN.bounds()]) == 1.0
    assert covered_fraction(target, SCAN, [nowhere]) == 0.0
    assert covered_fraction(np.zeros_like(target), SCAN, [SCAN.bounds()]) is None
    # Of several boxes a voxel counts once.
    assert covered_fraction(target, SCAN, [left, node]) == pytest.approx(3 / 5)
    assert covered_fraction(target, SCAN, [left, point, left, nowhere]) == pytest.approx(2 / 5)


def test_margins_by_hand() -> None:
    target = np.zeros(SCAN.shape, dtype=np.uint8)
    target[30:34, 30, 40] = 1  # centres at x = 5, 15, 25, 35; y = 5; z = 405
    box = Box((0, -5, 395), (20, 15, 415))
    # x = 5 lies 5 mm inside, 15 lies 5 mm inside, 25 is 5 mm and 35 is 15 mm outside.
    assert margins_needed(target, SCAN, [box], [1.0, 0.75, 0.5, 0.25]) == pytest.approx([15, 5, -5, -5])
    # The second box holds the two others with 5 mm to spare.
    assert margins_needed(target, SCAN, [box, Box((20, 0, 400), (40, 10, 410))], [1.0]) == pytest.approx([-5])
    assert margins_needed(target, SCAN, [box], [0.99]) == margins_needed(target, SCAN, [box], [1.0])


def margin_boxes(draw: st.DrawFn) -> list[Box]:
    corner = st.tuples(*[st.floats(-40, 40)] * 3)
    size = st.tuples(*[st.floats(0, 60)] * 3)
    several = draw(st.lists(st.tuples(corner, size), min_size=1, max_size=3))
    return [Box.from_corners(lower, np.add(lower, size_mm)) for lower, size_mm in several]


@st.composite
def boxes_and_targets(draw: st.DrawFn) -> tuple[np.ndarray, Grid, list[Box]]:
    grid = draw(grids())
    indices = draw(st.lists(st.tuples(*[st.integers(0, n - 1) for n in grid.shape]), min_size=1, max_size=12))
    target = np.zeros(grid.shape, dtype=np.uint8)
    for number, index in enumerate(indices):
        target[index] = 1 + number % 2
    centre_mm = grid.bounds().centre_mm
    return target, grid, [box.shift(centre_mm) for box in margin_boxes(draw)]


@given(boxes_and_targets(), st.sampled_from([1.0, 0.99, 0.95, 0.5, 0.1]))
def test_margin_is_the_least_that_holds_the_share(found: tuple[np.ndarray, Grid, list[Box]], share: float) -> None:
    target, grid, boxes = found
    (margin_mm,) = margins_needed(target, grid, boxes, [share])
    assert share_in(target, grid, boxes, margin_mm + 1e-6) >= share - 1e-9
    assert share_in(target, grid, boxes, margin_mm - 1e-6) < share - 1e-9


def share_in(target: np.ndarray, grid: Grid, boxes: list[Box], margin_mm: float) -> float:
    """Share of the target in boxes with a margin that may be negative; a box that vanishes holds nothing."""
    left = [box.expand(margin_mm) for box in boxes if min(box.size_mm) + 2 * margin_mm >= 0]
    return covered_fraction(target, grid, left) or 0.0
