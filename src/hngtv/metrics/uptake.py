"""What a PET says of an outline: SUVmax, SUVmean, SUVpeak, MTV and TLG.

All are reckoned on the PET's own voxels, since any resampling lowers a maximum. A PET voxel belongs to the outline if
its centre lies in it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hngtv.volume.components import bounding_slices, components
from hngtv.volume.grid import Grid

PEAK_ML = 1.0
"""Volume of the sphere of SUVpeak. Source: Wahl et al., PERCIST, J Nucl Med 2009."""
MTV_SHARE = 0.41
"""Share of a lesion's SUVmax from which on it counts as metabolically active. Source: Boellaard et al., EANM 2015."""
SUBVOXELS = 5
"""A side: how finely a voxel at the rim of the sphere is shared out. Source: our choice."""


@dataclass(frozen=True)
class Uptake:
    """Of one outline; `None` in place of this where no centre of a PET voxel lies in it.

    Attributes:
        suv_max: Highest SUV.
        suv_mean: Mean SUV of all its voxels.
        suv_peak: Highest mean SUV in a sphere of 1 mL around any of its voxels; it may reach beyond the outline.
        mtv_ml: Metabolic tumour volume: of voxels with at least 41 % of the highest SUV in their own piece of it.
        tlg_ml: Total lesion glycolysis: SUV summed over that volume, in SUV x mL.
    """

    suv_max: float
    suv_mean: float
    suv_peak: float
    mtv_ml: float
    tlg_ml: float


def measure_uptake(labels: NDArray, label_grid: Grid, pet: NDArray, pet_grid: Grid) -> Uptake | None:
    """Uptake in all labels above 0 (X, Y, Z) of a PET (U, V, W) in SUV, each on its own grid.

    Pieces of different labels are different pieces, even where they touch.
    """
    found = _onto(labels, label_grid, pet_grid)
    inside = found > 0
    if not inside.any():
        return None
    suv = pet[inside].astype(np.float64)
    active = np.zeros_like(inside)
    for label in np.unique(found[inside]):
        for slices, piece in components(found == label):
            active[slices] |= piece & (pet[slices] >= MTV_SHARE * pet[slices][piece].max())
    return Uptake(
        suv_max=float(suv.max()),
        suv_mean=float(suv.mean()),
        suv_peak=_peak(pet, inside, pet_grid),
        mtv_ml=int(active.sum()) * pet_grid.voxel_ml,
        tlg_ml=float(pet[active].astype(np.float64).sum()) * pet_grid.voxel_ml,
    )


def _onto(labels: NDArray, label_grid: Grid, grid: Grid) -> NDArray[np.uint8]:
    """For each voxel of a grid, the label at its centre, 0 beyond the labels."""
    onto = np.zeros(grid.shape, dtype=np.uint8)
    where = bounding_slices(labels > 0)
    if where is None:
        return onto
    around = grid.clip(grid.slices_of(label_grid.box_of(where)))
    part = grid.crop(around)
    indices = np.moveaxis(np.indices(part.shape), 0, -1)
    nearest = np.rint(label_grid.to_index(part.to_world(indices))).astype(int)
    there = ((nearest >= 0) & (nearest < labels.shape)).all(axis=-1)
    x, y, z = np.clip(nearest, 0, np.subtract(labels.shape, 1)).reshape(-1, 3).T
    onto[around] = np.where(there, labels[x, y, z].reshape(part.shape), 0)
    return onto


def _peak(pet: NDArray, inside: NDArray[np.bool_], grid: Grid) -> float:
    """The highest mean in the sphere; of a sphere that leaves the image, the part inside counts."""
    kernel = _sphere(grid)
    reach = [n // 2 for n in kernel.shape]
    found = bounding_slices(inside)
    assert found is not None
    x, y, z = (slice(max(s.start - r, 0), s.stop + r) for s, r in zip(found, reach, strict=True))
    part = pet[x, y, z].astype(np.float64)
    sums = ndimage.convolve(part, kernel, mode="constant")
    weights = ndimage.convolve(np.ones_like(part), kernel, mode="constant")
    return float((sums / weights)[inside[x, y, z]].max())


def _sphere(grid: Grid) -> NDArray[np.float64]:
    """Share of each voxel around a voxel's centre that lies in the sphere."""
    radius_mm = (3 * PEAK_ML * 1000 / (4 * np.pi)) ** (1 / 3)
    offsets = (np.arange(SUBVOXELS) + 0.5) / SUBVOXELS - 0.5
    axes = []
    for spacing in grid.spacing_mm:
        reach = int(np.ceil(radius_mm / spacing + 0.5))
        centres = np.arange(-reach, reach + 1)
        axes.append((centres[:, None] + offsets).ravel() * spacing)
    x, y, z = np.ix_(*axes)
    fine = (x**2 + y**2 + z**2 <= radius_mm**2).astype(np.float64)
    n = [len(axis) // SUBVOXELS for axis in axes]
    return fine.reshape(n[0], SUBVOXELS, n[1], SUBVOXELS, n[2], SUBVOXELS).mean(axis=(1, 3, 5))
