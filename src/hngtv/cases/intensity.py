"""Intensity windows, applied when a crop is read, so that they can change without preparing again."""

import numpy as np
from numpy.typing import NDArray

from hngtv.config import IntensitySettings


def window(image: NDArray[np.float32], settings: IntensitySettings) -> NDArray[np.float32]:
    """CT and PET as network input.

    Args:
        image: (2, ...) float32, CT in HU and PET in SUV; not changed.
    Returns:
        (C, ...) float32 in [-1, 1], one channel for each CT window and the last for PET: SUV up to `pet_max_suv`, or
        the logarithm of 1 + SUV.
    """
    ct, pet = image
    result = np.empty((settings.n_channels, *ct.shape), dtype=np.float32)
    for number, (low, high) in enumerate(settings.ct_windows_hu):
        np.clip(ct, low, high, out=result[number])
        _rescale(result[number], low, high)
    np.clip(pet, 0.0, settings.pet_max_suv, out=result[-1])
    if settings.pet_scale == "log":
        np.log1p(result[-1], out=result[-1])
        _rescale(result[-1], 0.0, float(np.log1p(settings.pet_max_suv)))
    else:
        _rescale(result[-1], 0.0, settings.pet_max_suv)
    return result


def _rescale(values: NDArray[np.float32], low: float, high: float) -> None:
    """Map [low, high] to [-1, 1] in place."""
    values -= (low + high) / 2
    values *= 2 / (high - low)
