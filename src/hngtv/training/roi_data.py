"""The datamodule between the stages: CT and PET fused as channels, cropped by the ROI table, windowed, augmented."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from hngtv.cases.intensity import window
from hngtv.cases.store import Level, PreparedCase
from hngtv.config import AugmentSettings, IntensitySettings, RoiSettings
from hngtv.training.augment import READ_MARGIN, Augmentation
from hngtv.training.slice_data import TrainingSlices
from hngtv.volume.box import Box

Size = tuple[int, int, int]
Slices = tuple[slice, slice, slice]


@dataclass(frozen=True)
class CropRules:
    """How training crops are taken.

    Attributes:
        level: Level of the prepared store, "fine" or "coarse".
        roi: Margin, crop size and share of crops that aim at tumour.
        multiple: Sides of the crop are multiples of this (the network's total downsampling), a number for all axes or
            one for each.
        jitter_mm: Each crop's ROI is shifted by up to this along each axis.
    """

    level: Level
    roi: RoiSettings
    intensity: IntensitySettings
    augment: AugmentSettings
    multiple: int | Size
    jitter_mm: float = 0.0


def crop_size(cases: Sequence[PreparedCase], rois: Mapping[str, Sequence[Box]], rules: CropRules) -> Size:
    """Voxels of a training crop: as set, else the largest ROI of the cases, rounded up to the network's multiple."""
    if rules.roi.crop_voxels is not None:
        size = np.array(rules.roi.crop_voxels)
    else:
        sizes = [roi_slices(case, roi, rules) for case in cases for roi in rois[case.case_id]]
        size = np.max([[s.stop - s.start for s in slices] for slices in sizes], axis=0)
    x, y, z = (int(n) for n in -(-size // rules.multiple) * np.array(rules.multiple))
    return x, y, z


def roi_slices(case: PreparedCase, roi: Box, rules: CropRules) -> Slices:
    """Voxels of a ROI with its margin, clipped to the image."""
    grid = case.grid(rules.level)
    return grid.clip(grid.slices_of(roi.expand(rules.roi.margin_mm)))


class TrainingCrops(Dataset[tuple[Tensor, Tensor]]):
    """An endless stream of crops, cut to a number of items; item n depends on the seed and n alone.

    Args:
        cases: Prepared, with targets.
        rois: Case id to its ROIs, without margin; each crop is about one of them.
        rules: How crops are taken.
        seed: Decides case order, positions and augmentation.
        n_items: Length of the stream.
    """

    def __init__(
        self,
        cases: Sequence[PreparedCase],
        rois: Mapping[str, Sequence[Box]],
        rules: CropRules,
        seed: int,
        n_items: int,
    ) -> None:
        self.cases = sorted(cases, key=lambda case: case.case_id)
        self.rois = rois
        self.rules = rules
        self.seed = seed
        self.n_items = n_items
        self.size = crop_size(self.cases, rois, rules)
        self.augment = Augmentation(rules.augment, self.size)

    def __len__(self) -> int:
        return self.n_items

    def __getitem__(self, item: int) -> tuple[Tensor, Tensor]:
        """Image (2, X, Y, Z) float32 and labels (1, X, Y, Z) of crop number `item`."""
        turn, position = divmod(item, len(self.cases))
        order = np.random.default_rng((self.seed, 0, turn)).permutation(len(self.cases))
        case = self.cases[order[position]]
        draws = np.random.default_rng((self.seed, 1, item))
        starts = self._starts(case, draws)
        margins = np.ceil(READ_MARGIN * np.array(self.size)).astype(int)
        x, y, z = (
            slice(int(start - m), int(start + n + m)) for start, n, m in zip(starts, self.size, margins, strict=True)
        )
        image, target = case.read_crop(self.rules.level, (x, y, z))
        image, target = self.augment(image, target[None], seed=int(draws.integers(2**31)))
        return torch.from_numpy(window(image, self.rules.intensity)), torch.from_numpy(target)

    def _starts(self, case: PreparedCase, draws: np.random.Generator) -> list[int]:
        """First voxel of the crop along each axis: around a small ROI, or somewhere inside a large one.

        A crop around a small ROI is moved into the image, and centred on an image that is smaller than it. Of several
        ROIs one is drawn. A crop that aims at tumour takes the one in which that lies, or the whole image where the
        localiser missed it.
        """
        jitter = draws.uniform(-1, 1, size=3) * self.rules.jitter_mm
        rois = [roi_slices(case, box.shift(jitter), self.rules) for box in self.rois[case.case_id]]
        seeds = case.foreground_voxels(self.rules.level)
        x, y, z = shape = case.grid(self.rules.level).shape
        if len(seeds) and draws.random() < self.rules.roi.foreground_share:
            anchor = seeds[draws.integers(len(seeds))]
            image = (slice(0, x), slice(0, y), slice(0, z))
            roi = next((roi for roi in rois if _holds(roi, anchor)), image)
        else:
            anchor, roi = None, rois[draws.integers(len(rois))]
        starts = []
        for axis, (found, size, n) in enumerate(zip(roi, self.size, shape, strict=True)):
            slack = (found.stop - found.start) - size
            if slack <= 0 and n <= size:
                starts.append((n - size) // 2)
            elif slack <= 0:
                starts.append(min(max(found.start + slack // 2, 0), n - size))
            elif anchor is None:
                starts.append(found.start + int(draws.integers(slack + 1)))
            else:
                start = int(anchor[axis]) - int(draws.integers(size))
                starts.append(min(max(start, found.start), found.stop - size))
        return starts


def _holds(roi: Slices, voxel: NDArray[np.int16]) -> bool:
    return all(s.start <= place < s.stop for s, place in zip(roi, voxel, strict=True))


class ResumableSampler(Sampler[int]):
    """Items in order from a step on; its length stays that of the whole stream, as Lightning expects on resume.

    Of each batch a process takes its share: joined in the order of the processes, these are the batch of one process.

    Args:
        start_step: Batches already done.
        batch_size: Of all processes together, a multiple of their number.
        n_items: Of the whole stream.
        rank: Of this process.
        n_processes: That share each batch.
    """

    def __init__(self, start_step: int, batch_size: int, n_items: int, rank: int = 0, n_processes: int = 1) -> None:
        self.start_step = start_step
        self.batch_size = batch_size
        self.n_items = n_items
        self.rank = rank
        self.n_processes = n_processes

    def __iter__(self) -> Iterator[int]:
        share = self.batch_size // self.n_processes
        for first in range(self.start_step * self.batch_size, self.n_items, self.batch_size):
            own = first + self.rank * share
            yield from range(own, min(own + share, self.n_items))

    def __len__(self) -> int:
        return self.n_items // self.n_processes


class RoiCropDataModule(pl.LightningDataModule):
    """Serves training crops of either stage.

    Args:
        crops: The stream of crops, or of slices.
        batch_size: Crops per step, of all processes together.
        start_step: Steps already done, when a killed run goes on.
        n_workers: Loader processes; 0 loads in the training process.
    """

    def __init__(self, crops: TrainingCrops | TrainingSlices, batch_size: int, start_step: int, n_workers: int) -> None:
        super().__init__()
        self.crops = crops
        self.batch_size = batch_size
        self.start_step = start_step
        self.n_workers = n_workers

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        rank, n_processes = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return DataLoader(
            self.crops,
            batch_size=self.batch_size // n_processes,
            sampler=ResumableSampler(self.start_step, self.batch_size, len(self.crops), rank, n_processes),
            num_workers=self.n_workers,
            persistent_workers=self.n_workers > 0,
            pin_memory=self.n_workers > 0,
        )
