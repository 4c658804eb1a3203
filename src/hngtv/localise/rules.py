"""Boxes by rule: no training, no model."""

import numpy as np
from numpy.typing import NDArray

from hngtv.volume.box import Box
from hngtv.volume.components import bounding_slices
from hngtv.volume.grid import Grid

PET_RULE_SIZE_MM = (200.0, 200.0, 310.0)
PET_RULE_TOP_SHARE = 0.25
PET_RULE_Z_SCORE = 1.0
"""Source: the PET rule of the HECKTOR 2022 winner (NVAUTO), as released."""


def pet_rule_box(pet_suv: NDArray, grid: Grid) -> Box:
    """A head-and-neck box hung below the highest uptake in the upper part of a scan.

    Args:
        pet_suv: (X, Y, Z) SUV on an axis-aligned grid, head at high z.
        grid: Its grid.
    Returns:
        200 x 200 x 310 mm, clipped to the image; the whole image where nothing stands out.
    """
    n_below = int(pet_suv.shape[2] * (1 - PET_RULE_TOP_SHARE))
    slab = pet_suv[:, :, n_below:]
    spread = float(slab.std())
    hot = np.argwhere(slab > slab.mean() + PET_RULE_Z_SCORE * spread) if spread > 0 else np.empty((0, 3))
    if len(hot) == 0:
        return grid.bounds()
    points_mm = grid.to_world(hot + np.array([0, 0, n_below]))
    x, y, _ = points_mm.mean(axis=0)
    half_x, half_y, length = PET_RULE_SIZE_MM[0] / 2, PET_RULE_SIZE_MM[1] / 2, PET_RULE_SIZE_MM[2]
    top = float(points_mm[:, 2].max())
    box = Box.from_corners((x - half_x, y - half_y, top - length), (x + half_x, y + half_y, top))
    return box.intersect(grid.bounds()) or grid.bounds()


def target_box(target: NDArray, grid: Grid) -> Box | None:
    """The box that just holds all labels; None for an empty target."""
    slices = bounding_slices(target > 0)
    return None if slices is None else grid.box_of(slices)


def covered_fraction(target: NDArray, grid: Grid, box: Box) -> float | None:
    """Share of the target's voxels whose centres lie in a box; None for an empty target."""
    points_mm = grid.to_world(np.argwhere(target > 0))
    if len(points_mm) == 0:
        return None
    inside = (points_mm >= box.lower_mm).all(axis=1) & (points_mm <= box.upper_mm).all(axis=1)
    return float(inside.mean())
