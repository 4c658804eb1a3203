"""Soft Dice plus cross-entropy, on the logits and on the coarser decoder levels."""

import torch
from monai.losses.dice import DiceLoss
from torch import Tensor, nn
from torch.nn import functional

from hngtv.config import LossSettings
from hngtv.networks.output import NetworkOutput

AUXILIARY_DECAY = 0.5
"""Weight of each coarser level against the one above it. Source: our choice; the paper gives no weights."""


class SupervisedLoss(nn.Module):
    """Loss of a network's output, the auxiliary levels included.

    Each coarser level counts `AUXILIARY_DECAY` times the one above it, and the weights sum to 1. Dice is taken over
    the whole batch and without the background.

    Of a batch without tumour soft Dice is constant, whatever was outlined wrongly; with `absent_share` s of the batch's
    n voxels, p / (p + s n) takes its place, p being the sum of the probabilities of tumour. Source: our choice.
    """

    def __init__(self, settings: LossSettings) -> None:
        super().__init__()
        self.settings = settings
        self.dice = DiceLoss(include_background=False, to_onehot_y=True, softmax=True, batch=True, reduction="none")
        self.cross_entropy = nn.CrossEntropyLoss()

    def forward(self, output: NetworkOutput, target: Tensor) -> Tensor:
        """Scalar loss of an output against labels (N, 1, X, Y, Z)."""
        levels = (output.logits, *output.auxiliary)
        weights = [AUXILIARY_DECAY**level for level in range(len(levels))]
        # Of the whole target, since coarser levels lose small tumours.
        is_absent = self.settings.absent_share > 0 and not target.any()
        losses = []
        for weight, logits in zip(weights, levels, strict=True):
            of_level = functional.interpolate(target.float(), size=tuple(logits.shape[2:]))
            losses.append(weight * self._of_level(logits.float(), of_level, is_absent))
        return torch.stack(losses).sum() / sum(weights)

    def _of_level(self, logits: Tensor, target: Tensor, is_absent: bool) -> Tensor:
        if is_absent:
            volume = logits.softmax(1)[:, 1:].sum()
            dice = volume / (volume + self.settings.absent_share * target.numel())
        else:
            dice = self.dice(logits, target).mean()
        cross_entropy: Tensor = self.cross_entropy(logits, target[:, 0].long())
        return self.settings.dice_weight * dice + self.settings.cross_entropy_weight * cross_entropy
