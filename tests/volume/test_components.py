"""Small components go, and boxes hold masks."""

import numpy as np

from hngtv.volume.components import bounding_slices, remove_small_components


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
