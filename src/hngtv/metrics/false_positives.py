"""How much is outlined that is no tumour: at its rim, and away from it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hngtv.metrics.score import CaseScore
from hngtv.volume.components import bounding_slices

FAR_MM = 5.0
"""Farther than this from the tumour, a predicted voxel is no matter of where the rim is drawn. Source: our choice."""


def outside_ml(score: CaseScore) -> float:
    """Predicted volume in ml that is no tumour, rim included; from the scores, since precision is the share that is."""
    return score.volume_ml * (1 - score.precision)


def far_outside_ml(
    prediction: NDArray[np.bool_], target: NDArray[np.bool_], spacing_mm: Sequence[float], far_mm: float = FAR_MM
) -> float:
    """Predicted volume in ml whose voxels lie farther than `far_mm` from the nearest voxel of the target.

    Without a target that is all of the prediction.

    Args:
        prediction: (X, Y, Z).
        target: (X, Y, Z), on the same grid.
        spacing_mm: Size of a voxel along x, y, z.
        far_mm: Between centres of voxels.
    """
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    if not target.any():
        return int(np.count_nonzero(prediction)) * voxel_ml
    box = bounding_slices(prediction | target)
    assert box is not None
    prediction, target = prediction[box], target[box]
    distance_mm = ndimage.distance_transform_edt(~target, sampling=spacing_mm)
    return int(np.count_nonzero(prediction & (np.asarray(distance_mm) > far_mm))) * voxel_ml
