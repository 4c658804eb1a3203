"""How far may a ROI be off? The Dice of a trained fine stage as the true box is shifted and scaled."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hngtv.cases.checks import CheckedImages, check_case
from hngtv.cases.manifest import RawCase
from hngtv.localise.roi_policy import place_rois, widen
from hngtv.localise.truth import target_box
from hngtv.metrics.overlap import dice
from hngtv.model import Model
from hngtv.segmentation import segment
from hngtv.volume.box import Box

DIRECTIONS = {"-x": (-1, 0, 0), "+x": (1, 0, 0), "-y": (0, -1, 0), "+y": (0, 1, 0), "-z": (0, 0, -1), "+z": (0, 0, 1)}


@dataclass(frozen=True)
class ChangedBox:
    """Dice of all tumour together with one changed box.

    Attributes:
        case_id: The case.
        change: "shift" in mm or "scale" of the side lengths.
        amount: How much.
        direction: Of a shift; "" for none.
        dice: In [0, 1].
    """

    case_id: str
    change: str
    amount: float
    direction: str
    dice: float


def change_boxes(
    model: Model, case: RawCase, shifts_mm: Sequence[float], scales: Sequence[float]
) -> Iterator[ChangedBox]:
    """Segment a case inside its true box, shifted along each axis and scaled; the run's ROI policy and margin follow.

    Nothing is yielded for a case without tumour. Where `roi.shape` is "slab" only shifts along z change a ROI, so the
    others are left out; where it is "fixed", scales change nothing.

    Raises:
        InputError: A file of the case cannot be used.
    """
    images = check_case(case)
    box = None if images.target is None else target_box(images.target, images.ct.grid)
    if box is None:
        return
    along_z = model.settings.roi.shape == "slab"
    directions = {name: way for name, way in DIRECTIONS.items() if way[2] or not along_z}
    for amount, direction, shifted in _shifts(box, shifts_mm, directions):
        yield ChangedBox(case.case_id, "shift", amount, direction, _dice_in(model, images, shifted))
    for scale in scales if model.settings.roi.shape != "fixed" else ():
        yield ChangedBox(case.case_id, "scale", scale, "", _dice_in(model, images, box.scale(scale)))


def _shifts(
    box: Box, shifts_mm: Sequence[float], directions: Mapping[str, tuple[int, int, int]]
) -> Iterator[tuple[float, str, Box]]:
    for amount in shifts_mm:
        for name, direction in directions.items() if amount else [("", (0, 0, 0))]:
            yield amount, name, box.shift(np.multiply(amount, direction))


def _dice_in(model: Model, images: CheckedImages, box: Box) -> float:
    """0 where the box has left the image."""
    assert images.target is not None
    settings, image = model.settings.roi, images.ct.grid.bounds()
    if box.intersect(image) is None:
        return 0.0
    rois = widen(place_rois((box,), image, settings), settings)
    return dice(segment(model, images, rois).labels > 0, images.target > 0)
