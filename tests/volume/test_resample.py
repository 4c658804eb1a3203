"""Resampling puts values where they belong in the patient."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from hngtv.volume.grid import Grid
from hngtv.volume.resample import SMOOTHING_PER_FACTOR, TRUNCATE, resample, resample_labels
from tests.volume.strategies import grids


def cover(grid: Grid, spacing_mm: float) -> Grid:
    return Grid.axis_aligned(grid.bounds(), (spacing_mm, spacing_mm, spacing_mm))


def plane(grid: Grid) -> np.ndarray:
    """Values that are linear in world coordinates, which linear interpolation keeps exactly."""
    world = grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1))
    return world @ np.array([1.0, -0.5, 0.25])


def is_inside(points_on: Grid, image: Grid) -> np.ndarray:
    index = image.to_index(points_on.to_world(np.moveaxis(np.indices(points_on.shape), 0, -1)))
    return np.all((index >= 0) & (index <= np.array(image.shape) - 1), axis=-1)


@settings(max_examples=25)
@given(grids(), st.integers(0, 2**31))
def test_same_grid_gives_the_same_values(grid: Grid, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=grid.shape)
    np.testing.assert_allclose(resample(values, grid, grid, outside=-1), values, atol=1e-3)


@settings(max_examples=25)
@given(grids())
def test_a_linear_image_stays_linear_on_any_finer_grid(source: Grid) -> None:
    target = cover(Grid.from_array(tuple(min(n, 12) for n in source.shape), source.matrix), min(source.spacing_mm))
    result = resample(plane(source), source, target, outside=np.nan)
    inside = is_inside(target, source)
    np.testing.assert_allclose(result[inside], plane(target)[inside], atol=0.05)


@settings(max_examples=25)
@given(grids(), st.data())
def test_a_crop_of_the_target_gives_the_crop_of_the_result(source: Grid, data: st.DataObject) -> None:
    small = Grid.from_array(tuple(min(n, 14) for n in source.shape), source.matrix)
    target = cover(small, 1.7 * max(small.spacing_mm))
    starts = [data.draw(st.integers(0, n - 1)) for n in target.shape]
    x, y, z = (slice(a, data.draw(st.integers(a + 1, n))) for a, n in zip(starts, target.shape, strict=True))
    values = np.random.default_rng(0).normal(size=small.shape)
    whole = resample(values, small, target, outside=-5)
    np.testing.assert_allclose(resample(values, small, target.crop((x, y, z)), outside=-5), whole[x, y, z], atol=1e-4)


def test_outside_the_image_is_the_outside_value() -> None:
    source = Grid.from_array((4, 4, 4), np.eye(4))
    far = source.crop((slice(20, 24), slice(0, 4), slice(0, 4)))
    assert (resample(np.ones((4, 4, 4)), source, far, outside=-1024) == -1024).all()
    assert (resample_labels(np.ones((4, 4, 4), np.uint8), source, far) == 0).all()


def test_the_outer_half_voxel_takes_the_edge_value() -> None:
    source = Grid.from_array((4, 4, 4), np.eye(4))
    result = resample(np.ones((4, 4, 4)), source, cover(source, 0.5), outside=-9)
    assert result.shape == (8, 8, 8)
    assert (result == 1).all()


@pytest.mark.parametrize("spacing_mm", [1.0, 2.0, 3.0])
def test_label_volume_survives_oblique_resampling(spacing_mm: float) -> None:
    angle = np.deg2rad(20)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    source = Grid.from_array((40, 40, 40), affine)
    ball = (np.linalg.norm(np.moveaxis(np.indices(source.shape), 0, -1) - 20, axis=-1) < 12).astype(np.uint8)
    target = cover(source, spacing_mm)
    result = resample_labels(ball * 2, source, target)
    assert set(np.unique(result)) == {0, 2}
    assert (result > 0).sum() * target.voxel_ml == pytest.approx(ball.sum() * source.voxel_ml, rel=0.06)


def test_touching_labels_share_their_border() -> None:
    source = Grid.from_array((8, 4, 4), np.eye(4))
    labels = np.ones((8, 4, 4), np.uint8)
    labels[4:] = 2
    assert (resample_labels(labels, source, source) == labels).all()
    assert (resample_labels(labels, source, cover(source, 0.5)) > 0).all()


def test_downsampling_averages_noise() -> None:
    source = Grid.from_array((48, 48, 48), np.eye(4))
    noise = np.random.default_rng(0).normal(size=source.shape)
    assert resample(noise, source, cover(source, 4.0), outside=0).std() < 0.3


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (3.7, 5.0, 0.8), (10.0, 2.0, 9.0)])
@pytest.mark.parametrize("flipped", [False, True])
def test_axis_by_axis_is_what_scipy_gives_at_once(spacing_mm: tuple[float, float, float], flipped: bool) -> None:
    rng = np.random.default_rng(0)
    shape = (31, 25, 37)
    values = rng.normal(0, 300, shape).astype(np.float32)
    affine = np.diag([-1.3 if flipped else 1.3, 1.1, 2.0, 1.0])
    source = Grid.from_array(shape, affine)
    target = Grid.axis_aligned(source.bounds().expand(4.0), spacing_mm)
    matrix = np.linalg.inv(source.matrix) @ target.matrix
    sigmas = np.maximum(np.abs(matrix[:3, :3]).max(axis=1) - 1, 0) * SMOOTHING_PER_FACTOR
    smooth = ndimage.gaussian_filter(values, sigmas, mode="nearest", truncate=TRUNCATE)
    padded = np.pad(smooth.astype(np.float64), 1, mode="edge")
    places = np.moveaxis(np.indices(target.shape), 0, -1) @ matrix[:3, :3].T + matrix[:3, 3] + 1
    expected = ndimage.map_coordinates(padded, np.moveaxis(places, -1, 0), order=1, cval=-1024, prefilter=False)
    assert resample(values, source, target, outside=-1024) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_target_just_beside_the_image_is_outside(axis: int) -> None:
    source = Grid.from_array((10, 10, 10), np.eye(4))
    beside = np.eye(4)
    beside[axis, 3] = 11.5
    found = resample(np.ones((10, 10, 10), dtype=np.float32), source, Grid.from_array((4, 4, 4), beside), outside=-7.0)
    assert (found == -7).all()
