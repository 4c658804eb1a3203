"""A box from the probabilities of the coarse network."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hngtv.config import CoarseLocaliser
from hngtv.errors import InputError
from hngtv.localise.rules import pet_rule_box
from hngtv.volume.box import Box
from hngtv.volume.components import bounding_slices, remove_small_components
from hngtv.volume.grid import Grid


@dataclass(frozen=True)
class Finding:
    """A box, how sure the localiser is in [0, 1], and why this box."""

    box: Box
    confidence: float
    reason: str


def find_box(probability: NDArray, pet_suv: NDArray, grid: Grid, settings: CoarseLocaliser, case_id: str) -> Finding:
    """The box around all components that reach the threshold.

    Args:
        probability: (X, Y, Z) of tumour, in [0, 1].
        pet_suv: (X, Y, Z) SUV on the same grid, for the fallback.
        grid: Their grid, axis-aligned.
        settings: Threshold, smallest component, and what to do when nothing is found.
        case_id: For messages.
    Raises:
        InputError: Nothing is found and `settings.on_empty` is "fail".
    """
    mask = remove_small_components(
        probability >= settings.threshold, max(1, round(settings.min_component_ml / grid.voxel_ml))
    )
    slices = bounding_slices(mask)
    if slices is not None:
        return Finding(grid.box_of(slices), float(np.mean(probability[mask])), "found")
    why = f"no component of probability {settings.threshold:g} and {settings.min_component_ml:g} ml"
    match settings.on_empty:
        case "pet_rule":
            return Finding(pet_rule_box(pet_suv, grid), 0.0, f"fallback:pet_rule ({why})")
        case "whole_volume":
            return Finding(grid.bounds(), 0.0, f"fallback:whole_volume ({why})")
        case "fail":
            raise InputError(f"{case_id}: the coarse localiser found {why}; localiser.on_empty=pet_rule goes on")
