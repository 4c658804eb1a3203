"""Stage 2: what the fine networks make of the ROIs of one case, on the grid of its CT. No Lightning."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hngtv.cases.checks import CheckedImages
from hngtv.cases.intensity import window
from hngtv.cases.prepare import Volume, prepare_images
from hngtv.config import InferenceSettings, RunSettings
from hngtv.errors import InputError
from hngtv.metrics.calibration import calibrated
from hngtv.metrics.uncertainty import mean_dice
from hngtv.model import Model
from hngtv.networks.build import AXES, predict_attention, predict_flipped, predict_probabilities
from hngtv.volume.box import Box, hull
from hngtv.volume.components import (
    bounding_slices,
    remove_cold_components,
    remove_minor_components,
    remove_small_components,
)
from hngtv.volume.grid import Grid
from hngtv.volume.resample import resample

GTVP = 1
"""Label of the primary tumour."""

AGREEMENT_THRESHOLD = 0.5
"""Of tumour probability, where a network is held against itself on flipped images. Source: our choice."""

Slices = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Region:
    """What the networks say of the part of a CT that holds all ROIs.

    Attributes:
        slices: That part of the CT.
        grid: Its grid.
        classes: (tumour classes, x, y, z) float32 probabilities, averaged over networks, 0 outside the ROIs.
        disagreement: (x, y, z) standard deviation of the tumour's probability over the networks, where ROIs overlap the
            largest; None of one network.
        suv: (x, y, z) PET, where the clean-up needs it; None also for a patient without one.
        agreement: Mean Dice, over networks, of the tumour in the image as it is with that in the image flipped along x,
            along y and along z, at `AGREEMENT_THRESHOLD` inside the ROIs, before any clean-up; a network that finds
            nothing agrees with nothing. None where the rule for review does not need it.
    """

    slices: Slices
    grid: Grid
    classes: NDArray[np.float32]
    disagreement: NDArray[np.float32] | None
    suv: NDArray[np.float32] | None
    agreement: float | None

    @property
    def tumour(self) -> NDArray[np.float32]:
        """(x, y, z) probability of tumour of any kind."""
        return np.clip(self.classes.sum(axis=0), 0, 1)


@dataclass(frozen=True)
class Segmentation:
    """Labels of one case, and how sure they are.

    Attributes:
        labels: (X, Y, Z) uint8 on the CT grid, 0 outside of the ROIs.
        region: What they were made from.
        probability: (x, y, z) of tumour in that region, calibrated by the settings, before any clean-up.
    """

    labels: NDArray[np.uint8]
    region: Region
    probability: NDArray[np.float32]


def segment(model: Model, images: CheckedImages, rois: Sequence[Box]) -> Segmentation:
    """Labels inside the ROIs.

    The networks see at least the window they were trained on, so around a small ROI they see more than they may label;
    at the edge of the image the window is moved inwards, so that it shows anatomy rather than padding. Where ROIs
    overlap, the one that finds tumour likelier counts, of equals the last.
    """
    inference = model.settings.inference
    region = look(model, images, rois)
    labels = np.zeros(images.ct.grid.shape, dtype=np.uint8)
    labels[region.slices] = label_region(region, inference)
    probability = calibrated(region.tumour, inference.temperature, inference.logit_shift)
    return Segmentation(labels, region, probability)


def look(model: Model, images: CheckedImages, rois: Sequence[Box], for_choice: bool = False) -> Region:
    """Let the networks of stage 2 look at the ROIs; with `for_choice`, PET and agreement come along in any case."""
    settings, ct = model.settings, images.ct.grid
    around = ct.clip(ct.slices_of(hull(rois)))
    part = ct.crop(around)
    needs_agreement = for_choice or settings.inference.review_below > 0
    counts = []
    classes, spread = None, None
    for roi in rois:
        image, grid = seen_by_network(model, images, roi)
        inside = grid.clip(grid.slices_of(roi)) if needs_agreement else None
        each, counted = _pass(model, image, inside)
        counts.append(counted)
        of_roi = _on_part(each.mean(dim=0)[1:].numpy(), grid, roi, part)
        if len(each) > 1:
            tumour = each[:, 1:].sum(dim=1).std(dim=0, correction=0)
            of_spread = _on_part(tumour[None].numpy(), grid, roi, part)[0]
            spread = of_spread if spread is None else np.maximum(spread, of_spread)
        classes = of_roi if classes is None else _likelier(classes, of_roi)
    assert classes is not None
    suv = None
    if images.pet.digest and (for_choice or settings.inference.min_component_suv):
        suv = resample(images.pet.values, images.pet.grid, part, outside=0.0)
    agreement = mean_dice(*np.sum(counts, axis=0)) if needs_agreement else None
    return Region(around, part, classes, spread, suv, agreement)


def _pass(model: Model, image: torch.Tensor, inside: Slices | None) -> tuple[torch.Tensor, NDArray[np.int64]]:
    """What each network says of an image (C, X, Y, Z), and how it agrees with itself on the flipped image.

    Args:
        model: Whose networks look.
        image: A network's input.
        inside: The part of it that agreement is counted in; None counts none, which saves three passes.

    Returns:
        (network, classes, X, Y, Z) probabilities, and (2, network, flip) voxels: those that are tumour both in the
        image as it is and in the flipped one, and the sum of both; zeros if none is counted.
    """
    inference, window_voxels = model.settings.inference, model.window_voxels
    each, counts = [], np.zeros((2, len(model.fine), len(AXES)), np.int64)
    for number, network in enumerate(model.fine):
        flipped = None
        if inside is not None:
            flipped = predict_flipped(network, image, inference, window_voxels)
            plain, *others = flipped[:, 1:, *inside].sum(dim=1).numpy() >= AGREEMENT_THRESHOLD
            counts[0, number] = [np.count_nonzero(plain & other) for other in others]
            counts[1, number] = [np.count_nonzero(plain) + np.count_nonzero(other) for other in others]
        if flipped is None or inference.flip_axes:
            each.append(predict_probabilities([network], image, inference, window_voxels))
        else:
            each.append(flipped[0])
    return torch.stack(each), counts


def label_region(region: Region, settings: InferenceSettings) -> NDArray[np.uint8]:
    """Labels (x, y, z) of a region, cleaned up."""
    labels = label_of(region.classes, settings.threshold)
    around = bounding_slices(labels > 0)
    if around is not None:
        suv = None if region.suv is None else region.suv[around]
        labels[around] = clean_up(labels[around], region.grid.voxel_ml, settings, suv)
    return labels


def attend(model: Model, images: CheckedImages, rois: Sequence[Box]) -> dict[str, NDArray[np.float32]]:
    """Alphas of the gates on the CT grid, by name; several gates of one skip are numbered.

    Of several networks their mean; where ROIs overlap, the largest.
    """
    attention: dict[str, NDArray[np.float32]] = {}
    for roi in rois:
        image, grid = seen_by_network(model, images, roi)
        each = [predict_attention(net, image, model.settings.inference, model.window_voxels) for net in model.fine]
        for name in each[0]:
            alphas = torch.stack([maps[name] for maps in each]).mean(dim=0)
            for number, alpha in enumerate(alphas, start=1):
                gate = name if len(alphas) == 1 else f"{name}_{number}"
                found = resample(alpha.numpy(), grid, images.ct.grid, outside=0.0)
                attention[gate] = np.maximum(attention[gate], found) if gate in attention else found
    return attention


def check_has_gates(model: Model) -> None:
    """Raise InputError if the fine networks return no attention."""
    image = torch.zeros(model.settings.intensity.n_channels, *model.window_voxels)
    if not predict_attention(model.fine[0], image, model.settings.inference, model.window_voxels):
        raise InputError(
            f"attention=true, but {model.settings.network.name} of arm {model.settings.arm} returns no attention; "
            "use a run with network=attention_unet"
        )


def seen_by_network(model: Model, images: CheckedImages, box: Box) -> tuple[torch.Tensor, Grid]:
    """The input (C, X, Y, Z) of the fine networks around a box, and its grid."""
    settings = model.settings
    window_mm = np.multiply(model.window_voxels, settings.data.spacing_mm)
    seen = box.grow_to(window_mm).move_into(images.ct.grid.bounds())
    volume = prepare_images(images, settings.data.spacing_mm, seen)
    return input_of(volume, settings), volume.grid


def input_of(volume: Volume, settings: RunSettings) -> torch.Tensor:
    """A network's input (C, X, Y, Z)."""
    return torch.from_numpy(window(np.stack([volume.ct, volume.pet]), settings.intensity))


def _on_part(maps: NDArray[np.float32], grid: Grid, box: Box, part: Grid) -> NDArray[np.float32]:
    """Maps (n, X, Y, Z) of a crop on a part (x, y, z) of the CT, 0 outside the box."""
    slices, values = paste_back(maps, grid, box, part)
    if values.shape[1:] == part.shape:
        return values
    whole = np.zeros((len(maps), *part.shape), np.float32)
    whole[:, *slices] = values
    return whole


def _likelier(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of two maps (tumour classes, x, y, z), voxel by voxel, the one where tumour is likelier, else the other."""
    return np.where(other.sum(axis=0) >= one.sum(axis=0), other, one)


def paste_back(maps: NDArray[np.float32], crop: Grid, box: Box, ct: Grid) -> tuple[Slices, NDArray[np.float32]]:
    """Maps on the part of a CT grid that a box touches, from those on a crop.

    Args:
        maps: (n, X, Y, Z).
        crop: Grid of `maps`.
        box: Where labels may lie.
        ct: Grid of the result.
    Returns:
        The slices of `ct` that hold the box, and (n, x, y, z) of that part, 0 outside the crop.
    """
    slices = ct.clip(ct.slices_of(box))
    part = ct.crop(slices)
    return slices, np.stack([resample(values, crop, part, outside=0.0) for values in maps])


def label_of(classes: NDArray[np.float32], threshold: float) -> NDArray[np.uint8]:
    """Labels (X, Y, Z) from probabilities (tumour classes, X, Y, Z).

    A voxel is tumour where all tumour classes together reach the threshold, and takes the likeliest of them.
    """
    return np.where(classes.sum(axis=0) >= threshold, classes.argmax(axis=0) + 1, 0).astype(np.uint8)


def clean_up(
    labels: NDArray[np.uint8], voxel_ml: float, settings: InferenceSettings, suv: NDArray[np.float32] | None = None
) -> NDArray[np.uint8]:
    """Labels (X, Y, Z) without components of tumour that are small or cold, and without pieces of GTVp small beside its
    largest.

    Args:
        labels: 0 background, 1 GTVp, 2 GTVn.
        voxel_ml: Volume of a voxel.
        settings: What is small and cold.
        suv: PET on the same grid; None leaves cold components.
    """
    tumour = remove_small_components(labels > 0, round(settings.min_component_ml / voxel_ml))
    if suv is not None:
        tumour = remove_cold_components(tumour, suv, settings.min_component_suv)
    found = np.where(tumour, labels, 0).astype(np.uint8)
    found[(found == GTVP) & ~remove_minor_components(found == GTVP, settings.min_gtvp_share)] = 0
    return found
