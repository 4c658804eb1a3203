"""Overlap of two masks, counted in voxels.

These are the plain definitions: where one divides nothing by nothing the answer is NaN. What an empty mask
means for a score is decided once, in ``hngtv.metrics.score``.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hngtv.errors import InputError

Mask = npt.NDArray[np.bool_]


def dice(prediction: Mask, target: Mask) -> float:
    """Dice similarity coefficient, 2 |P and T| / (|P| + |T|).

    Args:
        prediction: Boolean mask (X, Y, Z).
        target: Boolean mask on the same grid.

    Returns:
        A value in [0, 1]; 0 where exactly one mask is empty, NaN where both are.

    Raises:
        InputError: The shapes differ.
    """
    return _ratio(2 * count_overlap(prediction, target), _count(prediction) + _count(target))


def precision(prediction: Mask, target: Mask) -> float:
    """Fraction of the predicted voxels that are target, |P and T| / |P|.

    Args:
        prediction: Boolean mask (X, Y, Z).
        target: Boolean mask on the same grid.

    Returns:
        A value in [0, 1]; 0 where only the target is empty, NaN where the prediction is empty.

    Raises:
        InputError: The shapes differ.
    """
    return _ratio(count_overlap(prediction, target), _count(prediction))


def recall(prediction: Mask, target: Mask) -> float:
    """Fraction of the target voxels that were predicted, |P and T| / |T|.

    Args:
        prediction: Boolean mask (X, Y, Z).
        target: Boolean mask on the same grid.

    Returns:
        A value in [0, 1]; 0 where only the prediction is empty, NaN where the target is empty.

    Raises:
        InputError: The shapes differ.
    """
    return precision(target, prediction)


def volume_ml(mask: Mask, spacing_mm: Sequence[float]) -> float:
    """Volume of a mask.

    Args:
        mask: Boolean mask (X, Y, Z).
        spacing_mm: Size of a voxel along x, y, z.

    Returns:
        Millilitres; 0 for an empty mask.
    """
    return _count(mask) * math.prod(spacing_mm) / 1000.0


def count_overlap(prediction: Mask, target: Mask) -> int:
    """Number of voxels that both masks hold.

    Raises:
        InputError: The shapes differ.
    """
    check_same_shape(prediction, target)
    return _count(prediction & target)


def check_same_shape(prediction: npt.NDArray[Any], target: npt.NDArray[Any]) -> None:
    """Refuses two arrays that do not have one shape (X, Y, Z).

    Raises:
        InputError: The shapes differ, or are not three-dimensional.
    """
    if prediction.shape != target.shape or prediction.ndim != 3:
        raise InputError(
            f"prediction has shape {prediction.shape}, target {target.shape}: expected one shape (X, Y, Z), "
            "resample the prediction to the target's grid"
        )


def _count(mask: Mask) -> int:
    return int(np.count_nonzero(mask))


def _ratio(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else math.nan
