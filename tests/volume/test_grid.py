"""Voxels and millimetres agree on oblique, flipped and permuted grids."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hngtv.volume.box import Box
from hngtv.volume.grid import Grid
from tests.volume.strategies import boxes, grids, spacings_mm

indices = st.tuples(*[st.floats(-50, 90)] * 3)


@given(grids(), indices)
def test_index_to_world_and_back(grid: Grid, index: tuple[float, ...]) -> None:
    np.testing.assert_allclose(grid.to_index(grid.to_world(np.array(index))), index, atol=1e-6)


@given(grids())
def test_spacing_and_voxel_volume_do_not_depend_on_orientation(grid: Grid) -> None:
    assert grid.voxel_ml == pytest.approx(np.prod(grid.spacing_mm) / 1000)


@given(grids(), st.data())
def test_crop_keeps_every_voxel_in_its_place(grid: Grid, data: st.DataObject) -> None:
    starts = np.array(data.draw(st.tuples(*[st.integers(-10, 30)] * 3)))
    sizes = np.array(data.draw(st.tuples(*[st.integers(1, 20)] * 3)))
    x, y, z = (slice(int(a), int(a + n)) for a, n in zip(starts, sizes, strict=True))
    crop = grid.crop((x, y, z))
    assert crop.shape == tuple(sizes)
    last = sizes - 1
    np.testing.assert_allclose(crop.to_world(last), grid.to_world(starts + last), atol=1e-6)


@given(grids())
def test_bounds_hold_every_corner_and_touch_it(grid: Grid) -> None:
    box = grid.bounds()
    ends = np.stack(np.meshgrid(*[(-0.5, n - 0.5) for n in grid.shape], indexing="ij"), -1).reshape(-1, 3)
    world = grid.to_world(ends)
    np.testing.assert_allclose(world.min(axis=0), box.lower_mm, atol=1e-6)
    np.testing.assert_allclose(world.max(axis=0), box.upper_mm, atol=1e-6)


@given(boxes(), grids())
def test_slices_of_a_box_hold_the_box(box: Box, grid: Grid) -> None:
    held = grid.box_of(grid.slices_of(box))
    assert (np.array(held.lower_mm) <= np.array(box.lower_mm) + 1e-3).all()
    assert (np.array(held.upper_mm) >= np.array(box.upper_mm) - 1e-3).all()


@given(boxes(), st.tuples(spacings_mm, spacings_mm, spacings_mm))
def test_axis_aligned_grid_just_covers_its_box(box: Box, spacing_mm: tuple[float, float, float]) -> None:
    grid = Grid.axis_aligned(box, spacing_mm)
    assert grid.is_axis_aligned
    np.testing.assert_allclose(grid.spacing_mm, spacing_mm)
    held = grid.bounds()
    np.testing.assert_allclose(held.centre_mm, box.centre_mm, atol=1e-6)
    overhang = np.subtract(held.size_mm, box.size_mm)
    assert (overhang > -1e-4).all()
    assert (overhang < np.array(spacing_mm) + 1e-4).all()


@given(boxes(), st.tuples(spacings_mm, spacings_mm, spacings_mm), st.data())
def test_slices_of_whole_voxels_come_back_exactly(
    box: Box, spacing_mm: tuple[float, float, float], data: st.DataObject
) -> None:
    grid = Grid.axis_aligned(box, spacing_mm)
    starts = data.draw(st.tuples(*[st.integers(-5, 20)] * 3))
    x, y, z = (slice(a, a + data.draw(st.integers(1, 9))) for a in starts)
    assert grid.slices_of(grid.box_of((x, y, z))) == (x, y, z)


@given(grids(), st.tuples(*[st.tuples(st.integers(-60, 60), st.integers(0, 60))] * 3))
def test_clipped_slices_select_what_lies_inside(grid: Grid, ranges: tuple[tuple[int, int], ...]) -> None:
    x, y, z = (slice(start, start + n) for start, n in ranges)
    for clipped, wanted, n in zip(grid.clip((x, y, z)), (x, y, z), grid.shape, strict=True):
        inside = [i for i in range(wanted.start, wanted.stop) if 0 <= i < n]
        assert list(range(n))[clipped] == inside
        assert 0 <= clipped.start <= clipped.stop <= n


def test_known_flipped_grid() -> None:
    grid = Grid.from_array((10, 20, 30), np.array([[-1, 0, 0, 5], [0, -2, 0, 7], [0, 0, 3, -9], [0, 0, 0, 1.0]]))
    assert grid.spacing_mm == (1, 2, 3)
    assert not grid.is_axis_aligned
    assert grid.bounds() == Box((-4.5, -32.0, -10.5), (5.5, 8.0, 79.5))
