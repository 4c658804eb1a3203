"""Uptake against numbers by hand, on grids that differ."""

import numpy as np
import pytest
from scipy import ndimage

from hngtv.metrics.uptake import measure_uptake
from hngtv.volume.grid import Grid

PET = Grid.from_array((12, 11, 10), np.diag([4.0, 4.0, 5.0, 1.0]))
VOXEL_ML = 4 * 4 * 5 / 1000
NOTHING = np.zeros(PET.shape, np.uint8)


def labels_of(*corners: tuple[slice, slice, slice]) -> np.ndarray:
    labels = NOTHING.copy()
    for label, corner in enumerate(corners, start=1):
        labels[corner] = label
    return labels


def test_by_hand() -> None:
    pet = np.zeros(PET.shape, np.float32)
    labels = labels_of(np.s_[2:4, 2:4, 2:4])
    pet[2:4, 2:4, 2:4] = np.array([10, 8, 5, 4.2, 4.0, 1, 1, 1]).reshape(2, 2, 2)
    found = measure_uptake(labels, PET, pet, PET)
    assert found is not None
    assert found.suv_max == 10
    assert found.suv_mean == pytest.approx(34.2 / 8)
    assert found.mtv_ml == pytest.approx(4 * VOXEL_ML)  # 10, 8, 5 and 4.2 are at least 4.1
    assert found.tlg_ml == pytest.approx(27.2 * VOXEL_ML)


def test_each_piece_has_a_threshold_of_its_own_and_labels_are_added() -> None:
    pet = np.zeros(PET.shape, np.float32)
    pet[1:3, 1, 1] = 20, 10
    pet[3, 1, 1], pet[8, 8, 8] = 5, 2
    labels = labels_of(np.s_[1:3, 1:2, 1:2], np.s_[3:4, 1:2, 1:2])
    labels[8, 8, 8] = 2
    both = measure_uptake(labels, PET, pet, PET)
    assert both is not None
    assert both.mtv_ml == pytest.approx(4 * VOXEL_ML)  # 5 touches 20, but is of another label
    parts = [measure_uptake(np.where(labels == label, 1, 0), PET, pet, PET) for label in (1, 2)]
    assert both.tlg_ml == pytest.approx(sum(part.tlg_ml for part in parts if part))


def test_peak_of_a_flat_image_is_flat_even_at_its_corner() -> None:
    found = measure_uptake(labels_of(np.s_[:2, :2, :2]), PET, np.full(PET.shape, 3.0), PET)
    assert found is not None
    assert found.suv_peak == pytest.approx(3.0)


def test_peak_is_the_mean_in_a_sphere_of_1_ml() -> None:
    """Against a fine grid on which the sphere is counted point by point."""
    rng = np.random.default_rng(0)
    pet = ndimage.gaussian_filter(rng.random(PET.shape), 1).astype(np.float32)
    centre = (6, 5, 5)
    found = measure_uptake(labels_of(*[tuple(slice(c, c + 1) for c in centre)]), PET, pet, PET)  # pyright: ignore
    offsets = np.stack(np.meshgrid(*[np.arange(-8, 8, 0.25) + 0.125] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    inside = offsets[np.linalg.norm(offsets, axis=1) <= 6.2035]
    voxels = np.rint(PET.to_index(PET.to_world(np.array(centre)) + inside)).astype(int)
    assert found is not None
    assert len(inside) * 0.25**3 == pytest.approx(1000, rel=0.01)
    assert found.suv_peak == pytest.approx(pet[tuple(voxels.T)].mean(), rel=0.01)


def test_the_mask_lies_where_it_lies_on_another_grid() -> None:
    fine = Grid.from_array((60, 60, 60), np.array([[-1, 0, 0, 40], [0, -1, 0, 40], [0, 0, 1, 0], [0, 0, 0, 1.0]]))
    points = fine.to_world(np.moveaxis(np.indices(fine.shape), 0, -1))
    mask = (np.linalg.norm(points - (20.0, 16.0, 25.0), axis=-1) < 3).astype(np.uint8)
    pet = NOTHING.astype(np.float32)
    pet[5, 4, 5] = 7
    found = measure_uptake(mask, fine, pet, PET)
    assert found is not None
    assert (found.suv_max, found.suv_mean) == (7, 7)
    assert found.mtv_ml == pytest.approx(VOXEL_ML)


def test_nothing_and_what_lies_between_the_centres_have_no_uptake() -> None:
    assert measure_uptake(NOTHING, PET, np.ones(PET.shape), PET) is None
    fine = Grid.from_array((2, 2, 2), np.array([[0.5, 0, 0, 2], [0, 0.5, 0, 2], [0, 0, 0.5, 2], [0, 0, 0, 1.0]]))
    assert measure_uptake(np.ones((2, 2, 2)), fine, np.ones(PET.shape), PET) is None
