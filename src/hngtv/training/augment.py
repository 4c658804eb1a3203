"""Random changes of a training crop, reproducible from one seed per crop: space by MONAI, intensities in HU and SUV."""

from typing import Any

import numpy as np
from monai.transforms.compose import Compose
from monai.transforms.spatial.dictionary import RandAffined, RandFlipd
from numpy.typing import NDArray
from scipy import ndimage

from hngtv.config import AugmentSettings

AXES = {"x": 0, "y": 1, "z": 2}
KEYS = ("image", "target")
READ_MARGIN = 0.25
"""Share of the crop read beyond each face, so that a rotated crop shows anatomy in its corners. Source: our choice."""
SOFT_TISSUE_HU = 50.0
"""CT contrast changes about this value. Source: our choice."""
TUMOUR_SUV = 2.5
"""PET gamma leaves this value as it is. Source: our choice."""


class Augmentation:
    """Affine, flips and intensity changes of a crop or of an axial slice; the same seed gives the same change."""

    def __init__(self, settings: AugmentSettings, crop_voxels: tuple[int, ...]) -> None:
        self.settings = settings
        n_axes = len(crop_voxels)
        about_x, about_y, about_z = (float(angle) for angle in np.broadcast_to(np.deg2rad(settings.rotation_deg), 3))
        self.space = Compose(
            [
                RandAffined(
                    KEYS,
                    spatial_size=crop_voxels,
                    prob=settings.affine_probability,
                    rotate_range=[about_x, about_y, about_z] if n_axes == 3 else [about_z],
                    scale_range=[settings.scale] * n_axes,
                    mode=("bilinear", "nearest"),
                    padding_mode="border",
                    cache_grid=True,
                ),
                *(
                    RandFlipd(KEYS, prob=0.5, spatial_axis=AXES[axis])
                    for axis in settings.flip_axes
                    if AXES[axis] < n_axes
                ),
            ]
        )

    def __call__(self, image: NDArray, target: NDArray, seed: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Change one crop.

        Args:
            image: (2, X, Y, Z) float32, CT in HU and PET in SUV, as large as the crop or larger about the same centre.
            target: (1, X, Y, Z) labels.
            seed: Decides every draw.
        Returns:
            Image (2, *crop_voxels) float32, still in HU and SUV, and labels (1, *crop_voxels). A crop that lost its
            PET has SUV 0 everywhere, as a patient without one.
        """
        self.space.set_random_state(seed=seed)
        changed: Any = self.space({"image": image, "target": target})
        draws = np.random.default_rng(seed)
        ct, pet = changed["image"].numpy()
        varied = np.stack([vary_ct(ct, self.settings, draws), vary_pet(pet, self.settings, draws)])
        # The last draw: the others are the same with and without it.
        if draws.random() < self.settings.pet_dropout:
            varied[1] = 0
        return varied.astype(np.float32), changed["target"].numpy().astype(np.uint8)


def vary_ct(ct: NDArray, settings: AugmentSettings, draws: np.random.Generator) -> NDArray:
    """Shift, contrast, noise and blur of a CT (X, Y, Z) in HU, each with the probability of intensity changes."""
    p = settings.intensity_probability
    if draws.random() < p:
        ct = ct + np.float32(draws.normal(0, settings.ct_shift_hu))
    if draws.random() < p:
        ct = (ct - SOFT_TISSUE_HU) * _factor(draws, settings.ct_contrast) + SOFT_TISSUE_HU
    if draws.random() < p:
        ct = ct + _noise(draws, ct.shape, settings.ct_noise_hu)
    return _blur(ct, draws) if draws.random() < settings.blur_probability else ct


def vary_pet(pet: NDArray, settings: AugmentSettings, draws: np.random.Generator) -> NDArray:
    """Gain, gamma, noise in proportion, and blur of a PET (X, Y, Z) in SUV; all but blur keep SUV 0."""
    p = settings.intensity_probability
    if draws.random() < p:
        pet = pet * _factor(draws, settings.pet_gain)
    if draws.random() < p:
        pet = (
            np.power(np.maximum(pet, 0) / TUMOUR_SUV, _factor(draws, settings.pet_gamma), dtype=np.float32) * TUMOUR_SUV
        )
    if draws.random() < p:
        pet = pet * (1 + _noise(draws, pet.shape, settings.pet_noise))
    return _blur(pet, draws) if draws.random() < settings.blur_probability else pet


def _factor(draws: np.random.Generator, spread: float) -> np.float32:
    """exp of a uniform draw within +- spread."""
    return np.float32(np.exp(draws.uniform(-spread, spread)))


def _noise(draws: np.random.Generator, shape: tuple[int, ...], largest: float) -> NDArray[np.float32]:
    return draws.standard_normal(shape, dtype=np.float32) * np.float32(draws.uniform(0, largest))


def _blur(values: NDArray, draws: np.random.Generator) -> NDArray:
    blurred = np.empty_like(values)
    ndimage.gaussian_filter(values, draws.uniform(0.3, 1.0), output=blurred, truncate=2.0)
    return blurred
