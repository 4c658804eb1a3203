"""Soft Dice plus cross-entropy, on the logits and on the coarser decoder levels."""

import torch
from monai.losses.dice import DiceCELoss
from torch import Tensor, nn
from torch.nn import functional

from hngtv.config import LossSettings
from hngtv.networks.output import NetworkOutput

AUXILIARY_DECAY = 0.5
"""Weight of each coarser level against the one above it. Source: our choice; the paper gives no weights."""


class SupervisedLoss(nn.Module):
    """Loss of a network's output, the auxiliary levels included.

    Each coarser level counts `AUXILIARY_DECAY` times the one above it, and the weights sum to 1. Dice is taken over
    the whole batch and without the background, so that a crop without tumour has a defined loss.
    """

    def __init__(self, settings: LossSettings) -> None:
        super().__init__()
        self.loss = DiceCELoss(
            include_background=False,
            to_onehot_y=True,
            softmax=True,
            batch=True,
            lambda_dice=settings.dice_weight,
            lambda_ce=settings.cross_entropy_weight,
        )

    def forward(self, output: NetworkOutput, target: Tensor) -> Tensor:
        """Scalar loss of an output against labels (N, 1, X, Y, Z)."""
        levels = (output.logits, *output.auxiliary)
        weights = [AUXILIARY_DECAY**level for level in range(len(levels))]
        losses: list[Tensor] = [
            weight * self.loss(logits.float(), functional.interpolate(target.float(), size=tuple(logits.shape[2:])))
            for weight, logits in zip(weights, levels, strict=True)
        ]
        return torch.stack(losses).sum() / sum(weights)
