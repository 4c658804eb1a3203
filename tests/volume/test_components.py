"""Small components go, and boxes hold masks."""

import numpy as np

from hngtv.volume.components import (
    bounding_slices,
    components,
    largest_component,
    remove_cold_components,
    remove_minor_components,
    remove_small_components,
)


def test_components_below_the_size_are_removed() -> None:
    mask = np.zeros((10, 10, 10), dtype=bool)
    mask[1:3, 1:3, 1:3] = True
    mask[6, 6, 6] = mask[7, 7, 7] = True  # joined by a corner
    assert remove_small_components(mask, 2).sum() == 10
    assert remove_small_components(mask, 3).sum() == 8
    assert remove_small_components(mask, 9).sum() == 0


def test_empty_mask_stays_empty() -> None:
    empty = np.zeros((3, 3, 3), dtype=bool)
    assert not remove_small_components(empty, 5).any()
    assert bounding_slices(empty) is None


def test_bounding_slices_hold_all_parts() -> None:
    mask = np.zeros((10, 10, 10), dtype=bool)
    mask[2, 3, 4] = mask[7, 3, 9] = True
    assert bounding_slices(mask) == (slice(2, 8), slice(3, 4), slice(4, 10))


def test_minor_components_are_measured_against_the_largest() -> None:
    mask = np.zeros((12, 4, 4), dtype=bool)
    mask[:5] = True  # 80 voxels
    mask[6:8] = True  # 32 voxels
    mask[9, 0, 0] = True
    kept = remove_minor_components(mask, 0.3)
    assert kept[:8].sum() == 112
    assert not kept[8:].any()
    assert remove_minor_components(mask, 0.5).sum() == 80
    assert remove_minor_components(mask, 0.0) is mask
    assert not remove_minor_components(np.zeros_like(mask), 0.3).any()


def two_blobs() -> np.ndarray:
    """27 voxels, and 8 with one more at a corner."""
    mask = np.zeros((10, 10, 10), dtype=bool)
    mask[1:4, 1:4, 1:4] = True
    mask[6:8, 6:8, 6:8] = mask[8, 8, 8] = True
    return mask


def test_largest_component_counts_voxels_joined_by_corners() -> None:
    found = largest_component(two_blobs())
    assert found.dtype == bool
    assert found.sum() == 27
    assert found[1:4, 1:4, 1:4].all()
    small = two_blobs()
    small[1:4, 1:4, 2:4] = False
    small[1, 1, 1] = False
    assert largest_component(small).sum() == 9, "8 voxels, and one at their corner, against 8"
    assert largest_component(small)[8, 8, 8]


def test_largest_component_of_nothing_is_nothing() -> None:
    assert not largest_component(np.zeros((3, 3, 3), dtype=bool)).any()
    assert largest_component(np.ones((3, 3, 3), dtype=bool)).all()


def test_each_component_has_its_slices() -> None:
    assert [slices for slices, _ in components(two_blobs())] == [
        (slice(1, 4), slice(1, 4), slice(1, 4)),
        (slice(6, 9), slice(6, 9), slice(6, 9)),
    ]
    assert components(np.zeros((3, 3, 3), dtype=bool)) == []


def test_components_without_a_hot_voxel_are_removed() -> None:
    mask = np.zeros((10, 6, 6), dtype=bool)
    mask[1:3, 1:3, 1:3] = mask[6:8, 1:3, 1:3] = True
    suv = np.ones(mask.shape, np.float32)
    suv[1, 1, 1] = 4
    kept = remove_cold_components(mask, suv, 3.0)
    assert kept[:5].sum() == 8
    assert not kept[5:].any()
    assert not remove_cold_components(mask, suv, 5.0).any()
    assert remove_cold_components(mask, suv, 0) is mask
    assert not remove_cold_components(np.zeros_like(mask), suv, 3.0).any()
