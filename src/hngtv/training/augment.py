"""Random changes of a training crop, by MONAI, reproducible from one seed per crop."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from monai.transforms.compose import Compose
from monai.transforms.intensity.dictionary import (
    RandGaussianNoised,
    RandScaleIntensityd,
    RandShiftIntensityd,
)
from monai.transforms.spatial.dictionary import RandAffined, RandFlipd
from monai.transforms.transform import RandomizableTransform
from torch import Tensor

from hngtv.config import AugmentSettings

AXES = {"x": 0, "y": 1, "z": 2}
KEYS = ("image", "target")
READ_MARGIN = 0.25
"""Share of the crop read beyond each face, so that a rotated crop shows anatomy in its corners. Source: our choice."""


class ChannelGamma(RandomizableTransform):
    """Bend each channel of the image by an exponent of its own, between its lowest and its highest value.

    MONAI's contrast bends all channels between their common ends: with CT from -1 to 1, that moves SUV 0.
    """

    def __init__(self, probability: float, spread: float) -> None:
        super().__init__(probability)
        self.spread = spread

    def __call__(self, data: Mapping[str, Tensor]) -> dict[str, Tensor]:
        image = data["image"]
        self.randomize(None)
        exponents = self.R.uniform(1 - self.spread, 1 + self.spread, size=(len(image), 1, 1, 1))
        if not self._do_transform:
            return dict(data)
        low, high = image.amin((1, 2, 3), keepdim=True), image.amax((1, 2, 3), keepdim=True)
        share = (image - low) / (high - low).clamp_min(torch.finfo(image.dtype).eps)
        return {**data, "image": low + share ** torch.from_numpy(exponents).to(image) * (high - low)}


class Augmentation:
    """Affine, flips and intensity changes; the same seed gives the same change.

    Intensity changes act on windowed values, where every channel spans [-1, 1]. With PET on a logarithmic scale, a shift
    is a factor on SUV.
    """

    def __init__(self, settings: AugmentSettings, crop_voxels: tuple[int, int, int]) -> None:
        angle = np.deg2rad(settings.rotation_deg)
        image, p = KEYS[:1], settings.intensity_probability
        self.transform = Compose(
            [
                RandAffined(
                    KEYS,
                    spatial_size=crop_voxels,
                    prob=settings.affine_probability,
                    rotate_range=[angle] * 3,
                    scale_range=[settings.scale] * 3,
                    mode=("bilinear", "nearest"),
                    padding_mode="border",
                    cache_grid=True,
                ),
                *(RandFlipd(KEYS, prob=0.5, spatial_axis=AXES[axis]) for axis in settings.flip_axes),
                RandScaleIntensityd(image, factors=settings.gain, prob=p, channel_wise=True),
                RandShiftIntensityd(image, offsets=settings.shift, prob=p, channel_wise=True),
                ChannelGamma(p, settings.gamma),
                RandGaussianNoised(image, prob=p, std=settings.noise),
            ]
        )

    def __call__(self, image: np.ndarray, target: np.ndarray, seed: int) -> tuple[Tensor, Tensor]:
        """Change one crop.

        Args:
            image: (C, X, Y, Z) float32, windowed, as large as the crop or larger about the same centre.
            target: (1, X, Y, Z) labels.
            seed: Decides every draw.
        Returns:
            Image (C, *crop_voxels) float32 and labels (1, *crop_voxels).
        """
        self.transform.set_random_state(seed=seed)
        changed: Any = self.transform({"image": image, "target": target})
        return changed["image"].as_tensor(), changed["target"].as_tensor()
