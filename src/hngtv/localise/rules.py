"""Boxes by rule: no training, no model. All rules take the head to be at high z."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from hngtv.cases.prepare import Volume
from hngtv.config import (
    AtlasLocaliser,
    FixedLocaliser,
    OnEmpty,
    OracleLocaliser,
    PetRuleLocaliser,
    RuleLocaliser,
    UntrainedLocaliser,
    WholeLocaliser,
)
from hngtv.errors import InputError
from hngtv.localise.finding import EMPTY_TARGET, FOUND, Finding
from hngtv.volume.box import Box
from hngtv.volume.components import largest_component
from hngtv.volume.grid import Grid

Size = tuple[float, float, float]
Rule = Callable[[NDArray, Grid, Size], Box | None]

NVAUTO_SIZE_MM = (200.0, 200.0, 310.0)
"""Source: the PET rule of the HECKTOR 2022 winner (NVAUTO), as released."""
TOP_SHARE = 0.25
Z_SCORE = 1.0
"""NVAUTO and MEDAI: hot is this many standard deviations above the mean of the upper quarter. Source: as released."""

BRAIN_SUV = 3.0
BRAIN_RETRY_SUV = 0.1
BRAIN_SIGMA_MM = 12.0
BRAIN_TOP_SHARE = 1 / 3
BOX_ABOVE_BRAIN_BOTTOM_MM = 30.0
BOX_FORWARD_MM = 30.0
"""HECKTOR 2020: as released, but for the smoothing, which is 3 voxels there; 12 mm is that on a PET of 4 mm."""

HOT_SHARE = 0.01
BRAIN_DEPTH_MM = 50.0
LOWEST_MM = 360.0
"""AiventraLab 2026: the hottest voxels between these depths below the top of the scan. Source: as released."""


@dataclass(frozen=True)
class RuleBox:
    """A localiser by rule."""

    settings: RuleLocaliser

    def find(self, volume: Volume, case_id: str) -> Finding:
        """As `Localiser.find`; the confidence is 1, since a rule does not know."""
        settings, grid = self.settings, volume.grid
        match settings:
            case FixedLocaliser():
                return Finding((fixed_box(grid, settings),), 1.0, FOUND)
            case AtlasLocaliser():
                return Finding((atlas_box(grid, settings),), 1.0, FOUND)
            case PetRuleLocaliser():
                box = PET_RULES[settings.name](volume.pet, grid, settings.size_mm)
                if box is not None:
                    return Finding((box,), 1.0, FOUND)
                return fall_back("no uptake that stands out", volume.pet, grid, settings.on_empty, case_id)


def find_untrained(
    settings: UntrainedLocaliser,
    image: Box,
    truth: Callable[[], Box | None],
    volume: Callable[[], Volume],
    case_id: str,
) -> Finding:
    """What a localiser that learns nothing finds; only what it needs is asked for.

    Args:
        settings: Of the localiser.
        image: Bounds of the image.
        truth: Gives the box of the target, None for an empty one.
        volume: Gives the whole case at the localiser's level.
        case_id: For messages.
    Raises:
        InputError: Nothing is found and `on_empty` is "fail", or what `truth` and `volume` raise.
    """
    match settings:
        case WholeLocaliser():
            return Finding((image,), 1.0, FOUND)
        case OracleLocaliser():
            box = truth()
            return Finding((box or image,), 1.0, FOUND if box else EMPTY_TARGET)
        case FixedLocaliser() | AtlasLocaliser() | PetRuleLocaliser():
            return RuleBox(settings).find(volume(), case_id)


def fall_back(why: str, pet_suv: NDArray, grid: Grid, on_empty: OnEmpty, case_id: str) -> Finding:
    """What a localiser that found nothing answers.

    Raises:
        InputError: `on_empty` is "fail".
    """
    match on_empty:
        case "pet_rule":
            box = nvauto_box(pet_suv, grid, NVAUTO_SIZE_MM)
            return Finding((box or grid.bounds(),), 0.0, f"fallback:{'pet_rule' if box else 'whole_volume'} ({why})")
        case "whole_volume":
            return Finding((grid.bounds(),), 0.0, f"fallback:whole_volume ({why})")
        case "fail":
            raise InputError(f"{case_id}: the localiser found {why}; localiser.on_empty=pet_rule goes on")


def fixed_box(grid: Grid, settings: FixedLocaliser) -> Box:
    """A box hung from the top of the image, in the middle of its axial plane."""
    image = grid.bounds()
    x, y, _ = image.centre_mm
    return _fit((x, y, image.upper_mm[2] - settings.below_top_mm - settings.size_mm[2] / 2), settings.size_mm, grid)


def atlas_box(grid: Grid, settings: AtlasLocaliser) -> Box:
    """A box at fractions of the image's extent, from its low end to its high one in RAS mm."""
    image = grid.bounds()
    x, y, z = settings.centre
    if image.size_mm[2] >= settings.long_mm:
        z = settings.long_centre_z
    return _fit(np.add(image.lower_mm, np.multiply((x, y, z), image.size_mm)), settings.size_mm, grid)


def nvauto_box(pet_suv: NDArray, grid: Grid, size_mm: Size) -> Box | None:
    """A box that hangs from the highest hot voxel in the upper quarter, about the mean of the hot ones in plane.

    Source: NVAUTO, HECKTOR 2022, as released with MONAI's tutorials: 200 x 200 x 310 mm.
    """
    points_mm = _points_of(_hot_in_top(pet_suv), grid)
    if len(points_mm) == 0:
        return None
    x, y, _ = points_mm.mean(axis=0)
    return _fit((x, y, points_mm[:, 2].max() - size_mm[2] / 2), size_mm, grid)


def medai_box(pet_suv: NDArray, grid: Grid, size_mm: Size) -> Box | None:
    """A box about the centroid of the largest hot component in the upper quarter, often the brain.

    Source: MEDAI, HECKTOR 2025, as released: 200 x 200 x 310 mm.
    """
    points_mm = _points_of(largest_component(_hot_in_top(pet_suv)), grid)
    return _fit(points_mm.mean(axis=0), size_mm, grid) if len(points_mm) else None


def hecktor2020_box(pet_suv: NDArray, grid: Grid, size_mm: Size) -> Box | None:
    """A box below the brain: the hot component (6 neighbours) of the smoothed PET with most voxels in the top third.

    Source: the rule of the official boxes of HECKTOR 2020 and 2021, as released: 144 x 144 x 144 mm. Their shift
    towards lower y is taken to be forwards.
    """
    if pet_suv.max() <= pet_suv.min():
        return None
    smooth = ndimage.gaussian_filter(np.asarray(pet_suv, dtype=np.float32), np.divide(BRAIN_SIGMA_MM, grid.spacing_mm))
    top_third = int(pet_suv.shape[2] * (1 - BRAIN_TOP_SHARE))
    for threshold in (BRAIN_SUV, BRAIN_RETRY_SUV):
        labels = np.zeros(pet_suv.shape, dtype=np.int32)
        ndimage.label(smooth > threshold, output=labels)
        sizes = np.bincount(labels[:, :, top_third:].ravel())
        sizes[0] = 0
        if sizes.any():
            points_mm = _points_of(labels == sizes.argmax(), grid)
            x, y, bottom = points_mm.min(axis=0)
            x, y = np.add(points_mm[:, :2].max(axis=0), (x, y)) / 2
            top = bottom + BOX_ABOVE_BRAIN_BOTTOM_MM
            return _fit((x, y + BOX_FORWARD_MM, top - size_mm[2] / 2), size_mm, grid)
    return None


def hot_spot_box(pet_suv: NDArray, grid: Grid, size_mm: Size) -> Box | None:
    """A box about the mean of the hottest hundredth of the voxels below the brain.

    Source: AiventraLab, HECKTOR 2026, as released: 210 x 210 x 330 mm.
    """
    n_z, spacing_z = pet_suv.shape[2], grid.spacing_mm[2]
    stop = max(n_z - round(BRAIN_DEPTH_MM / spacing_z), 1)
    start = min(max(n_z - round(LOWEST_MM / spacing_z), 0), stop - 1)
    band = pet_suv[:, :, start:stop]
    if band.max() <= band.min():
        return None
    hot = np.zeros(pet_suv.shape, dtype=bool)
    hot[:, :, start:stop] = (band >= np.quantile(band, 1 - HOT_SHARE)) & (band > band.min())
    return _fit(_points_of(hot, grid).mean(axis=0), size_mm, grid)


PET_RULES: dict[str, Rule] = {
    "hecktor2020": hecktor2020_box,
    "nvauto": nvauto_box,
    "medai": medai_box,
    "hot_spot": hot_spot_box,
}
"""(X, Y, Z) SUV, its axis-aligned grid and a size in mm to a box; None where nothing stands out."""


def _hot_in_top(pet_suv: NDArray) -> NDArray[np.bool_]:
    """Voxels of the upper quarter that stand out from it."""
    n_below = int(pet_suv.shape[2] * (1 - TOP_SHARE))
    slab = pet_suv[:, :, n_below:]
    spread = float(slab.std())
    hot = np.zeros(pet_suv.shape, dtype=bool)
    if spread > 0:
        hot[:, :, n_below:] = slab > slab.mean() + Z_SCORE * spread
    return hot


def _points_of(mask: NDArray[np.bool_], grid: Grid) -> NDArray[np.float64]:
    """World mm (N, 3) of a mask's voxels."""
    return grid.to_world(np.argwhere(mask))


def _fit(centre_mm: ArrayLike, size_mm: Size, grid: Grid) -> Box:
    """The box about a centre, moved into the image, and cut to an image that is smaller."""
    image = grid.bounds()
    box = Box.about(centre_mm, size_mm).move_into(image)
    return box.intersect(image) or image
