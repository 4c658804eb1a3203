"""From what a localiser found to the regions that the fine stage sees."""

from collections.abc import Sequence

import numpy as np

from hngtv.config import RoiSettings
from hngtv.volume.box import Box, hull


def place_rois(boxes: Sequence[Box], image: Box, settings: RoiSettings) -> tuple[Box, ...]:
    """ROIs before their margin: boxes made slabs, joined, given their size and cut to the image; never none.

    Args:
        boxes: Of the localiser, at least one.
        image: Bounds of the image.
        settings: Which boxes are joined, and the shape of a ROI.
    """
    if settings.shape == "slab":
        boxes = [_slab(box, image) for box in boxes]
    joined = [hull(boxes)] if settings.join_mm is None else _join(boxes, settings.join_mm)
    if settings.size_mm is not None:
        joined = [Box.about(box.centre_mm, settings.size_mm).move_into(image) for box in joined]
    inside = [cut for box in joined if (cut := box.intersect(image)) is not None]
    return tuple(dict.fromkeys(inside)) or (image,)


def _slab(box: Box, image: Box) -> Box:
    """All of the axial plane, along the box."""
    (x0, y0, _), (x1, y1, _) = image.lower_mm, image.upper_mm
    return Box((x0, y0, box.lower_mm[2]), (x1, y1, box.upper_mm[2]))


def widen(rois: Sequence[Box], settings: RoiSettings) -> tuple[Box, ...]:
    """ROIs with the margin of the fine stage; they may reach beyond the image."""
    return tuple(roi.expand(settings.margin_mm) for roi in rois)


def _join(boxes: Sequence[Box], join_mm: float) -> list[Box]:
    """Replace boxes by the box around them while any two are no farther apart than `join_mm`."""
    joined = list(boxes)
    while pair := _near_pair(joined, join_mm):
        one, other = pair
        joined = [box for number, box in enumerate(joined) if number not in pair] + [hull([joined[one], joined[other]])]
    return joined


def _near_pair(boxes: Sequence[Box], join_mm: float) -> tuple[int, int] | None:
    for one in range(len(boxes)):
        for other in range(one + 1, len(boxes)):
            if boxes[one].distance_mm(boxes[other]) <= join_mm:
                return one, other
    return None


def matched_jitter_mm(rois: Sequence[tuple[Box, Box]]) -> float:
    """The jitter whose spread is that of the localiser's error.

    Args:
        rois: Found and true box of each training case, the found one from a model that never saw the case.
    Returns:
        Half-width of the uniform distribution whose root mean square equals that of the distance between the centres
        along an axis; 0 without cases. Source: our choice.
    """
    if not rois:
        return 0.0
    errors = np.array([np.subtract(found.centre_mm, true.centre_mm) for found, true in rois])
    return float(np.sqrt(3 * np.mean(errors**2)))
