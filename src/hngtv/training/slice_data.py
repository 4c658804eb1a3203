"""Training slices of the slice classifier: half drawn among those with tumour, cropped and augmented in-plane."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hngtv.cases.intensity import window
from hngtv.cases.store import Level, PreparedCase
from hngtv.config import RunSettings, SliceLocaliser
from hngtv.training.augment import READ_MARGIN, Augmentation

TUMOUR_SHARE = 0.5
"""Share of items drawn among the slices with tumour. Source: the released sampler, which gives each class the same
share but the background as much as all the others together; with two classes both come to half."""


class TrainingSlices(Dataset[tuple[Tensor, Tensor]]):
    """An endless stream of slices, cut to a number of items; item n depends on the seed and n alone.

    Args:
        cases: Prepared, with targets.
        localiser: Level and size of the crops.
        settings: Intensities and augmentation.
        seed: Decides slices, positions and augmentation.
        n_items: Length of the stream.
    """

    def __init__(
        self, cases: Sequence[PreparedCase], localiser: SliceLocaliser, settings: RunSettings, seed: int, n_items: int
    ) -> None:
        self.cases = sorted(cases, key=lambda case: case.case_id)
        self.level: Level = localiser.level
        self.intensity = settings.intensity
        self.seed = seed
        self.n_items = n_items
        stride = localiser.network.total_stride
        x, y = (-(-side // stride) * stride for side in localiser.crop_voxels)
        self.size = (x, y)
        self.augment = Augmentation(settings.augment, self.size)
        with_tumour = [case.slices_with_target(self.level) for case in self.cases]
        self.slices = tuple(
            [(number, int(z)) for number, holds in enumerate(with_tumour) for z in np.flatnonzero(holds == wanted)]
            for wanted in (False, True)
        )

    def __len__(self) -> int:
        return self.n_items

    def __getitem__(self, item: int) -> tuple[Tensor, Tensor]:
        """Slice (C, X, Y) float32 and its class, int64: 1 if any of its voxels is tumour."""
        draws = np.random.default_rng((self.seed, item))
        wanted = int(draws.random() < TUMOUR_SHARE)
        among = self.slices[wanted] or self.slices[1 - wanted]
        number, z = among[draws.integers(len(among))]
        case = self.cases[number]
        margins = np.ceil(READ_MARGIN * np.array(self.size)).astype(int)
        starts = self._starts(case, z, draws)
        x, y = (
            slice(int(start - m), int(start + n + m)) for start, n, m in zip(starts, self.size, margins, strict=True)
        )
        image, target = case.read_crop(self.level, (x, y, slice(z, z + 1)))
        image, target = self.augment(image[..., 0], target[None, ..., 0], seed=int(draws.integers(2**31)))
        return torch.from_numpy(window(image, self.intensity)), torch.tensor(int(target.any()))

    def _starts(self, case: PreparedCase, z: int, draws: np.random.Generator) -> list[int]:
        """First voxel along x and y: anywhere that shows some tumour of the slice; centred on a smaller image."""
        shape = case.grid(self.level).shape[:2]
        tumour = np.argwhere(case.read_target_slice(self.level, z))
        anchor = tumour[draws.integers(len(tumour))] if len(tumour) else draws.integers(shape)
        starts = []
        for aimed, image, size in zip(anchor, shape, self.size, strict=True):
            start = int(aimed) - int(draws.integers(size))
            starts.append(min(max(start, 0), image - size) if image > size else (image - size) // 2)
        return starts
