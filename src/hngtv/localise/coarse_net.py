"""A box from the probabilities of the coarse network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hngtv.config import CoarseLocaliser, OnEmpty
from hngtv.errors import InputError
from hngtv.localise.roi_table import FOUND, Roi
from hngtv.localise.rules import pet_rule_box
from hngtv.volume.box import Box
from hngtv.volume.components import bounding_slices, remove_small_components
from hngtv.volume.grid import Grid

WHOLE_IMAGE = 0.9
"""A box of this share of its image says nothing. Source: our choice."""


@dataclass(frozen=True)
class Finding:
    """A box, how sure the localiser is in [0, 1], and why this box."""

    box: Box
    confidence: float
    reason: str


def find_box(
    probability: NDArray, pet_suv: NDArray, grid: Grid, threshold: float, settings: CoarseLocaliser, case_id: str
) -> Finding:
    """The box around all components that reach the threshold.

    Args:
        probability: (X, Y, Z) of tumour, in [0, 1].
        pet_suv: (X, Y, Z) SUV on the same grid, for the fallback.
        grid: Their grid, axis-aligned.
        threshold: See `choose_threshold`.
        settings: Smallest component, and what to do when nothing is found.
        case_id: For messages.
    Raises:
        InputError: Nothing is found and `settings.on_empty` is "fail".
    """
    mask = remove_small_components(probability >= threshold, max(1, round(settings.min_component_ml / grid.voxel_ml)))
    slices = bounding_slices(mask)
    if slices is not None:
        return Finding(grid.box_of(slices), float(np.mean(probability[mask])), FOUND)
    why = f"no component of probability {threshold:g} and {settings.min_component_ml:g} ml"
    return fall_back(why, pet_suv, grid, settings.on_empty, case_id)


def fall_back(why: str, pet_suv: NDArray, grid: Grid, on_empty: OnEmpty, case_id: str) -> Finding:
    """What a localiser that found nothing answers.

    Raises:
        InputError: `on_empty` is "fail".
    """
    match on_empty:
        case "pet_rule":
            return Finding(pet_rule_box(pet_suv, grid), 0.0, f"fallback:pet_rule ({why})")
        case "whole_volume":
            return Finding(grid.bounds(), 0.0, f"fallback:whole_volume ({why})")
        case "fail":
            raise InputError(f"{case_id}: the localiser found {why}; localiser.on_empty=pet_rule goes on")


def choose_threshold(rois: Mapping[float, Sequence[Roi]], image_ml: Mapping[str, float], min_covered: float) -> float:
    """The highest threshold whose boxes hold enough of the target on average, else the lowest that holds most.

    A fallback, and a box of (nearly) the whole image, count as boxes that hold nothing: nothing was found there.

    Args:
        rois: Threshold to the out-of-fold boxes of the training cases.
        image_ml: Case id to the volume of its image.
        min_covered: How much is enough, in [0, 1]. Cases with an empty target do not count.
    """
    held = {threshold: mean_found(found, image_ml) for threshold, found in rois.items()}
    enough = [threshold for threshold, covered in held.items() if covered >= min_covered]
    return max(enough) if enough else max(held, key=lambda threshold: (held[threshold], -threshold))


def mean_found(rois: Sequence[Roi], image_ml: Mapping[str, float]) -> float:
    """Mean share of the target inside the boxes, 0 where nothing was found; 0 where no case has a target."""
    held = [
        roi.covered_fraction if _is_found(roi, image_ml[roi.case_id]) else 0.0
        for roi in rois
        if roi.covered_fraction is not None
    ]
    return float(np.mean(held)) if held else 0.0


def _is_found(roi: Roi, image_ml: float) -> bool:
    return not roi.is_fallback and roi.box.volume_ml < WHOLE_IMAGE * image_ml
