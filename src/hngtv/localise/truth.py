"""Boxes held against the truth."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hngtv.volume.box import Box
from hngtv.volume.components import bounding_slices
from hngtv.volume.grid import Grid


def target_box(target: NDArray, grid: Grid) -> Box | None:
    """The box that just holds all labels; None for an empty target."""
    slices = bounding_slices(target > 0)
    return None if slices is None else grid.box_of(slices)


def covered_fraction(target: NDArray, grid: Grid, boxes: Sequence[Box]) -> float | None:
    """Share of the target's voxels whose centres lie in any of the boxes; None for an empty target."""
    points_mm = grid.to_world(np.argwhere(target > 0))
    if len(points_mm) == 0:
        return None
    inside = np.zeros(len(points_mm), dtype=bool)
    for box in boxes:
        inside |= (points_mm >= box.lower_mm).all(axis=1) & (points_mm <= box.upper_mm).all(axis=1)
    return float(inside.mean())


def margins_needed(target: NDArray, grid: Grid, boxes: Sequence[Box], shares: Sequence[float]) -> list[float]:
    """The least margin in mm with which the boxes hold each share of the target's voxel centres.

    Negative where smaller boxes would do.

    Args:
        target: (X, Y, Z) labels, not empty.
        grid: Its grid.
        boxes: At least one.
        shares: In (0, 1].
    """
    points_mm = grid.to_world(np.argwhere(target > 0))
    outside = np.min(
        [np.maximum(box.lower_mm - points_mm, points_mm - box.upper_mm).max(axis=1) for box in boxes], axis=0
    )
    outside.sort()
    last = [min(int(np.ceil(share * len(outside) - 1e-9)), len(outside)) - 1 for share in shares]
    return [float(outside[max(number, 0)]) for number in last]
