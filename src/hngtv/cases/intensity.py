"""Intensity windows, applied when a crop is read, so that they can change without preparing again."""

import numpy as np
from numpy.typing import NDArray

from hngtv.config import IntensitySettings


def window(image: NDArray[np.float32], settings: IntensitySettings) -> NDArray[np.float32]:
    """CT and PET as network input.

    Args:
        image: (2, ...) float32, CT in HU and PET in SUV; not changed.
    Returns:
        (2, ...) float32, CT in [-1, 1] and PET in [0, 1]: SUV over `pet_max_suv`, or log(1 + SUV) over
        log(1 + `pet_max_suv`).
    """
    low, high = settings.ct_window_hu
    result = np.empty_like(image, dtype=np.float32)
    ct, pet = result
    np.clip(image[0], low, high, out=ct)
    ct -= (low + high) / 2
    ct *= 2 / (high - low)
    np.clip(image[1], 0.0, settings.pet_max_suv, out=pet)
    if settings.pet_scale == "log":
        np.log1p(pet, out=pet)
        pet /= np.log1p(settings.pet_max_suv)
    else:
        pet /= settings.pet_max_suv
    return result
