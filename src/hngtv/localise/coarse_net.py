"""Boxes from the probabilities of the coarse network."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hngtv.config import CoarseLocaliser
from hngtv.localise.finding import FOUND, Finding
from hngtv.localise.roi_table import Roi
from hngtv.localise.rules import fall_back
from hngtv.volume.components import components, remove_small_components
from hngtv.volume.grid import Grid

Slices = tuple[slice, slice, slice]

WHOLE_IMAGE = 0.9
"""A box of this share of its image says nothing. Source: our choice."""


def find_boxes(
    probability: NDArray, pet_suv: NDArray, grid: Grid, threshold: float, settings: CoarseLocaliser, case_id: str
) -> Finding:
    """A box for each component that reaches the threshold and, where any does, `settings.min_peak` at its highest.

    Args:
        probability: (X, Y, Z) of tumour, in [0, 1].
        pet_suv: (X, Y, Z) SUV on the same grid, for the fallback.
        grid: Their grid, axis-aligned.
        threshold: See `choose_threshold`.
        settings: Smallest component, its least peak, share of its probability mass in its box, and what to do when
            nothing is found.
        case_id: For messages.
    Raises:
        InputError: Nothing is found and `settings.on_empty` is "fail".
    """
    mask = remove_small_components(probability >= threshold, max(1, round(settings.min_component_ml / grid.voxel_ml)))
    if not mask.any():
        why = f"no component of probability {threshold:g} and {settings.min_component_ml:g} ml"
        return fall_back(why, pet_suv, grid, settings.on_empty, case_id)
    every = components(mask)
    found = [(slices, own) for slices, own in every if probability[slices][own].max() >= settings.min_peak] or every
    boxes = [
        grid.box_of(mass_slices(np.where(own, probability[slices], 0.0), slices, settings.mass))
        for slices, own in found
    ]
    confidence = float(np.mean(np.concatenate([probability[slices][own] for slices, own in found])))
    return Finding(tuple(boxes), confidence, FOUND)


def mass_slices(probability: NDArray, slices: Slices, mass: float) -> Slices:
    """The part of a box along each axis without the tails that hold less than `1 - mass` of its probability.

    Args:
        probability: (X, Y, Z) in the box, 0 outside the component.
        slices: The box, not empty.
        mass: In (0, 1]; 1 keeps the whole box, as does a box without any probability.
    """
    if mass == 1 or not probability.any():
        return slices
    kept = []
    for axis, around in enumerate(slices):
        along = probability.sum(axis=tuple(other for other in range(3) if other != axis))
        tail = (1 - mass) / 2 * along.sum()
        first = int(np.searchsorted(np.cumsum(along), tail, side="right"))
        last = len(along) - int(np.searchsorted(np.cumsum(along[::-1]), tail, side="right"))
        kept.append(slice(around.start + first, around.start + max(last, first + 1)))
    x, y, z = kept
    return x, y, z


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
    return not roi.is_fallback and roi.volume_ml < WHOLE_IMAGE * image_ml
