"""Stage 1 by heat map: lesions as points with a size, after CenterNet (Zhou et al. 2019, Objects as Points).

CenterNet learns sizes at the centres alone. Here the voxels about a centre teach them too, as in TTFNet (Liu et al.
2020, Training-Time-Friendly Network); on phantoms the boxes are about as good either way.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from hngtv.config import OptimiserSettings, parse_network, parse_settings
from hngtv.networks.build import build_network
from hngtv.networks.heat_map import heat_logits_of, log_sides_of
from hngtv.networks.output import SegmentationNetwork
from hngtv.training.processes import gather_batch, own_share
from hngtv.training.stage import StageModule, gather_output
from hngtv.volume.components import components

ALPHA = 2
BETA = 4
"""Exponents of the penalty-reduced focal loss. Source: CornerNet (Law & Deng 2018), kept by CenterNet."""

Slices = tuple[slice, slice, slice]


@dataclass(frozen=True)
class HeatMapTarget:
    """What a heat-map network is to say of a batch of crops.

    Attributes:
        heat: (N, 1, X, Y, Z) in [0, 1]: a Gaussian about the centre of each lesion's box, 1 at the centre alone.
        sides_mm: (N, 3, X, Y, Z): side lengths along x, y and z of the box of the lesion whose Gaussian is the
            highest; 0 where that lesion is cut by the crop, and without any lesion.
    """

    heat: Tensor
    sides_mm: Tensor


def draw_targets(labels: Tensor, spacing_mm: Sequence[float], sigma_mm: float) -> HeatMapTarget:
    """Targets of a batch of crops; a lesion is a component (26 neighbours) of all tumour together.

    A lesion that touches the border of the crop may go on behind it: the centre is that of its visible part, and its
    side lengths are unknown.

    Args:
        labels: (N, 1, X, Y, Z): 0 background, 1 GTVp, 2 GTVn.
        spacing_mm: Of a voxel.
        sigma_mm: Standard deviation of the Gaussians.
    """
    masks = (labels[:, 0] > 0).cpu().numpy()
    heat = np.zeros((len(masks), 1, *masks.shape[1:]), dtype=np.float32)
    sides_mm = np.zeros((len(masks), 3, *masks.shape[1:]), dtype=np.float32)
    for number, mask in enumerate(masks):
        for slices, _ in components(mask):
            centre = tuple((along.start + along.stop - 1) // 2 for along in slices)
            gaussian = _gaussian(mask.shape, centre, spacing_mm, sigma_mm)
            own = gaussian > heat[number, 0]
            heat[number, 0][own] = gaussian[own]
            sides_mm[number][:, own] = _known_sides_mm(slices, mask.shape, spacing_mm)[:, None]
    return HeatMapTarget(torch.from_numpy(heat).to(labels.device), torch.from_numpy(sides_mm).to(labels.device))


def _gaussian(
    shape: Sequence[int], centre: Sequence[int], spacing_mm: Sequence[float], sigma_mm: float
) -> NDArray[np.float32]:
    """A Gaussian (X, Y, Z) of height 1 about a voxel."""
    x, y, z = (
        np.exp(-(((np.arange(n) - middle) * spacing / sigma_mm) ** 2) / 2).astype(np.float32)
        for n, middle, spacing in zip(shape, centre, spacing_mm, strict=True)
    )
    return x[:, None, None] * y[:, None] * z


def _known_sides_mm(slices: Slices, shape: Sequence[int], spacing_mm: Sequence[float]) -> NDArray[np.float64]:
    """Side lengths (3,) of a lesion's box; 0 for one that touches the border of its crop.

    With an even number of voxels the box lies half a voxel low, since its centre is that of a voxel.
    """
    if any(along.start == 0 or along.stop == n for along, n in zip(slices, shape, strict=True)):
        return np.zeros(3)
    return np.multiply([along.stop - along.start for along in slices], spacing_mm)


def heat_map_loss(logits: Tensor, target: HeatMapTarget, extent_weight: float) -> tuple[Tensor, Tensor]:
    """The focal loss of the heat, and the weighted loss of the side lengths; both are finite without any lesion.

    Side lengths are compared by their logarithms, so that an error counts in proportion to the lesion; a voxel counts
    as much as its true heat.

    Args:
        logits: (N, 4, X, Y, Z), see `networks/heat_map.py`.
        target: Of the same crops.
        extent_weight: Of the mean absolute error of the logarithms of the side lengths, summed over the axes.
    """
    weights = target.heat * (target.sides_mm > 0)
    errors = weights * (log_sides_of(logits.float()) - target.sides_mm.clamp(min=1).log()).abs()
    extent = errors.sum() / weights[:, 0].sum().clamp(min=1)
    return focal_loss(heat_logits_of(logits.float()), target.heat), extent_weight * extent


def focal_loss(logits: Tensor, heat: Tensor) -> Tensor:
    """The penalty-reduced focal loss for each centre: near a centre, heat is forgiven.

    Source: CornerNet (Law & Deng 2018); CenterNet.

    Args:
        logits: Of heat, of any shape.
        heat: True heat in [0, 1], of the same shape; exactly 1 at centres.
    """
    is_centre = heat == 1
    found = logits.sigmoid()
    at_centres = (1 - found) ** ALPHA * functional.logsigmoid(logits)
    elsewhere = (1 - heat) ** BETA * found**ALPHA * functional.logsigmoid(-logits)
    return -torch.where(is_centre, at_centres, elsewhere).sum() / is_centre.sum().clamp(min=1)


class HeatMapModule(StageModule):
    """A heat map of lesions' centres, and the side lengths of their boxes.

    Auxiliary heads of the network get no loss.

    Args:
        network: Plain `NetworkSettings`.
        optimiser: Plain `OptimiserSettings`.
        in_channels: 2 for CT and PET.
        out_channels: 4, see `networks/heat_map.py`.
        spacing_mm: Of a voxel of the crops.
        sigma_mm: See `draw_targets`.
        extent_weight: See `heat_map_loss`.
        total_steps: Where the learning rate reaches 0; a time budget corrects it in training.
    """

    network: SegmentationNetwork

    def __init__(
        self,
        network: dict[str, Any],
        optimiser: dict[str, Any],
        in_channels: int,
        out_channels: int,
        spacing_mm: list[float],
        sigma_mm: float,
        extent_weight: float,
        total_steps: int,
    ) -> None:
        super().__init__(parse_settings(OptimiserSettings, optimiser), total_steps)
        self.save_hyperparameters()
        self.network = build_network(parse_network(network), in_channels, out_channels)
        self.spacing_mm = spacing_mm
        self.sigma_mm = sigma_mm
        self.extent_weight = extent_weight

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 4, X, Y, Z) of images (N, C, X, Y, Z)."""
        return self.network(images)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Loss of images (N, C, X, Y, Z) and labels (N, 1, X, Y, Z)."""
        images, labels = batch
        logits = gather_output(self.network.run(images)).logits
        target = draw_targets(gather_batch(labels), self.spacing_mm, self.sigma_mm)
        heat, extent = heat_map_loss(logits, target, self.extent_weight)
        self.log("train/loss", heat + extent)
        self.log("train/heat", heat)
        self.log("train/extent", extent)
        return own_share(heat + extent)
