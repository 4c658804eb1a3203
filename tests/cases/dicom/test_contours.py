"""Lines around masks, filled again by another library's rule for points in polygons."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from matplotlib.path import Path as Polygon
from numpy.typing import NDArray

from hngtv.cases.dicom.contours import trace
from hngtv.cases.dicom.rtstruct import Contour, fill

MASKS = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9).flatmap(lambda shape: arrays(bool, shape))


def filled(lines: list[NDArray[np.float64]], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Voxels whose centre lies in one of the lines, by matplotlib."""
    centres = np.argwhere(np.ones(shape, bool))
    inside = [Polygon(line).contains_points(centres).reshape(shape) for line in lines]
    return np.logical_or.reduce(inside) if inside else np.zeros(shape, bool)


@given(MASKS)
def test_any_mask_comes_back(mask: NDArray[np.bool_]) -> None:
    lines = trace(mask)
    np.testing.assert_array_equal(filled(lines, mask.shape), mask)
    if lines:
        own = fill([Contour(line, 0, "CLOSED_PLANAR") for line in lines], (*mask.shape, 1))
        np.testing.assert_array_equal(own[:, :, 0], mask)


@given(st.integers(1, 5), st.integers(1, 5))
def test_a_rectangle_is_cut_at_its_corners_alone(n_x: int, n_y: int) -> None:
    (line,) = trace(np.ones((n_x, n_y), bool))
    x, y = line.T
    assert (x.min(), x.max(), y.min(), y.max()) == (-0.5, n_x - 0.5, -0.5, n_y - 0.5)
    area = abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2
    assert area == pytest.approx(n_x * n_y - 4 / 8)  # of each corner voxel, a triangle of half a side is lost


def test_holes_are_keyholes_and_an_island_in_one_is_a_line_of_its_own() -> None:
    mask = np.zeros((15, 12), bool)
    mask[1:14, 1:11] = True
    mask[2:8, 2:9] = False
    mask[4:6, 4:6] = True
    mask[9, 3] = mask[11, 7] = mask[12, 8] = False  # the last two touch at a corner
    assert len(trace(mask)) == 2
    np.testing.assert_array_equal(filled(trace(mask), mask.shape), mask)


def test_the_way_to_a_hole_meets_no_centre() -> None:
    mask = np.ones((9, 5), bool)
    mask[2, 2] = False
    (line,) = trace(mask)
    for start, end in zip(line, np.roll(line, -1, axis=0), strict=True):
        if start[1] == end[1] and abs(start[0] - end[0]) > 1:
            assert start[1] % 1 not in (0.0, 0.5)
            break
    else:
        pytest.fail("no way to the hole")


def test_nothing_has_no_line() -> None:
    assert trace(np.zeros((4, 4), bool)) == []
