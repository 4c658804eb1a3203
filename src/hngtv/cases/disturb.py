"""Scans as they should not be, made from good ones: what does a localiser do with them?"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hngtv.cases.checks import OUTSIDE_CT_HU, CheckedImages
from hngtv.volume.box import Box
from hngtv.volume.grid import Grid
from hngtv.volume.nifti import Image

TOO_BRIGHT = 3.0
BQML_PER_SUV = 5000.0
"""About that of 370 MBq in 75 kg. Source: our choice."""
HEAD_CUT_MM = 100.0
HEAD_CUT_ABOVE_TARGET_MM = 10.0
"""The scan ends this far below its top, but leaves the tumour in. Source: our choice."""
ARM_RADIUS_MM, BONE_RADIUS_MM = 45.0, 12.0
ARM_HU, BONE_HU, ARM_SUV = 40.0, 700.0, 0.8
"""An arm beside the head on either side, in an image made wider for it. Source: our choice."""
ERASED_MM, AROUND_MM = 10.0, 20.0
"""Uptake up to here around the tumour becomes the median of that up to there. Source: our choice."""


def pet_too_bright(images: CheckedImages) -> CheckedImages:
    """PET three times too bright."""
    return _with_pet(images, images.pet.values * np.float32(TOO_BRIGHT))


def pet_in_bqml(images: CheckedImages) -> CheckedImages:
    """PET in Bq/mL taken for SUV."""
    return _with_pet(images, images.pet.values * np.float32(BQML_PER_SUV))


def head_cut(images: CheckedImages) -> CheckedImages:
    """A scan whose upper end lies below the brain, or just above the tumour where that is higher."""
    bounds = images.ct.grid.bounds()
    top_mm = bounds.upper_mm[2] - HEAD_CUT_MM
    if images.target is not None and images.target.any():
        points_mm = images.ct.grid.to_world(np.argwhere(images.target > 0))
        top_mm = max(top_mm, float(points_mm[:, 2].max()) + HEAD_CUT_ABOVE_TARGET_MM)
    top_mm = max(top_mm, bounds.centre_mm[2])  # half of a short scan is left
    kept = Box(bounds.lower_mm, (*bounds.upper_mm[:2], min(top_mm, bounds.upper_mm[2])))
    slices = images.ct.grid.clip(images.ct.grid.slices_of(kept))
    target = None if images.target is None else images.target[slices]
    pet_box = images.pet.grid.bounds()
    pet_kept = Box(
        pet_box.lower_mm, (*pet_box.upper_mm[:2], max(min(top_mm, pet_box.upper_mm[2]), pet_box.lower_mm[2]))
    )
    pet_slices = images.pet.grid.clip(images.pet.grid.slices_of(pet_kept))
    return replace(images, ct=_cut(images.ct, slices), pet=_cut(images.pet, pet_slices), target=target)


def feet_first(images: CheckedImages) -> CheckedImages:
    """A patient who lies feet first in a scan whose header says head first: turned by half about front to back."""
    centre = np.array(images.ct.grid.bounds().centre_mm)
    turn = np.diag([-1.0, 1.0, -1.0, 1.0])
    turn[:3, 3] = centre - turn[:3, :3] @ centre

    def turned(image: Image) -> Image:
        return replace(image, grid=Grid.from_array(image.grid.shape, turn @ image.grid.matrix))

    return replace(images, ct=turned(images.ct), pet=turned(images.pet))


def arms_in_view(images: CheckedImages) -> CheckedImages:
    """Raised arms beside the head, in an image wide enough to show them."""
    box = images.ct.grid.bounds()
    room_mm = 2 * ARM_RADIUS_MM
    wide = Box((box.lower_mm[0] - room_mm, *box.lower_mm[1:]), (box.upper_mm[0] + room_mm, *box.upper_mm[1:]))
    centres = [(x, box.centre_mm[1]) for x in (box.lower_mm[0] - ARM_RADIUS_MM, box.upper_mm[0] + ARM_RADIUS_MM)]
    ct, slices = _widen(images.ct, wide, OUTSIDE_CT_HU)
    pet, _ = _widen(images.pet, wide, 0.0)
    target = None
    if images.target is not None:
        target = np.zeros(ct.grid.shape, dtype=np.uint8)
        target[slices] = images.target
    for centre in centres:
        _paint_arm(ct, centre, ARM_RADIUS_MM, ARM_HU)
        _paint_arm(ct, centre, BONE_RADIUS_MM, BONE_HU)
        _paint_arm(pet, centre, ARM_RADIUS_MM, ARM_SUV)
    return replace(images, ct=ct, pet=pet, target=target)


def no_tumour(images: CheckedImages) -> CheckedImages:
    """The patient with the uptake of the tumour erased; the CT stays as it was."""
    if images.target is None or not images.target.any():
        return images
    target = np.zeros(images.pet.grid.shape, dtype=bool)
    voxels = images.pet.grid.to_index(images.ct.grid.to_world(np.argwhere(images.target > 0)))
    voxels = np.rint(voxels).astype(int)
    inside = ((voxels >= 0) & (voxels < target.shape)).all(axis=1)
    target[tuple(voxels[inside].T)] = True
    pet = images.pet.values.copy()
    if target.any():
        away_mm = ndimage.distance_transform_edt(~target, sampling=images.pet.grid.spacing_mm)
        assert isinstance(away_mm, np.ndarray)
        shell = (away_mm > ERASED_MM) & (away_mm <= AROUND_MM)
        pet[away_mm <= ERASED_MM] = np.median(pet[shell]) if shell.any() else 0.0
    return replace(_with_pet(images, pet), target=np.zeros_like(images.target))


DISTURBANCES: dict[str, Callable[[CheckedImages], CheckedImages]] = {
    "pet_too_bright": pet_too_bright,
    "pet_in_bqml": pet_in_bqml,
    "head_cut": head_cut,
    "feet_first": feet_first,
    "arms_in_view": arms_in_view,
    "no_tumour": no_tumour,
}


def _with_pet(images: CheckedImages, values: NDArray) -> CheckedImages:
    return replace(images, pet=replace(images.pet, values=values))


def _cut(image: Image, slices: tuple[slice, slice, slice]) -> Image:
    return replace(image, values=image.values[slices], grid=image.grid.crop(slices))


def _widen(image: Image, box: Box, outside: float) -> tuple[Image, tuple[slice, slice, slice]]:
    """The image on a grid that also holds a box, and where in it the old one lies."""
    asked = image.grid.slices_of(box)
    x, y, z = (slice(min(s.start, 0), max(s.stop, n)) for s, n in zip(asked, image.grid.shape, strict=True))
    grid = image.grid.crop((x, y, z))
    values = np.full(grid.shape, outside, dtype=image.values.dtype)
    i, j, k = (slice(-s.start, n - s.start) for s, n in zip((x, y, z), image.grid.shape, strict=True))
    values[i, j, k] = image.values
    return replace(image, values=values, grid=grid), (i, j, k)


def _paint_arm(image: Image, centre_mm: tuple[float, float], radius_mm: float, value: float) -> None:
    """Set the voxels of an upright cylinder, in place."""
    affine = image.grid.matrix
    i, j, k = np.ogrid[tuple(slice(n) for n in image.grid.shape)]
    x, y = (affine[row, 0] * i + affine[row, 1] * j + affine[row, 2] * k + affine[row, 3] for row in (0, 1))
    image.values[(x - centre_mm[0]) ** 2 + (y - centre_mm[1]) ** 2 <= radius_mm**2] = value
