"""Dice on validation cases while a stage trains, at a few moments, so that a hopeless training can be ended early."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from hngtv.cases.intensity import window
from hngtv.networks.output import SegmentationNetwork
from hngtv.training.attention_history import WatchedCrop
from hngtv.training.averaging import AveragedWeights


@dataclass(frozen=True)
class Milestones:
    """When to look, and who is told.

    Attributes:
        moments: Shares of the training, rising.
        report: Called with the number of the moment and the Dice; what it raises ends the training. A training that
            goes on from a checkpoint reports the moments before it again.
    """

    moments: tuple[float, ...]
    report: Callable[[int, float], None]


@dataclass(frozen=True)
class Validation:
    """A crop around the tumour of each validation case, and how it is judged.

    The crop shows nothing far from the tumour, so its Dice is no score: it only ranks trainings of one kind.
    """

    crops: Sequence[WatchedCrop]
    threshold: float
    milestones: Milestones


class ValidationDice(pl.Callback):
    """Reports the mean Dice of the averaged weights over the crops, all tumour together; 0 without any crop.

    Args:
        validation: What is looked at.
        weights: The average, which must be a callback before this one.
    """

    def __init__(self, validation: Validation, weights: AveragedWeights) -> None:
        self.validation = validation
        self.weights = weights
        self.values: list[float] = []

    def on_train_start(self, *_: Any) -> None:
        for number, value in enumerate(self.values):
            self.validation.milestones.report(number, value)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        total_steps: Any = pl_module.total_steps
        moments = self.validation.milestones.moments
        while len(self.values) < len(moments) and trainer.global_step >= moments[len(self.values)] * total_steps:
            self.values.append(self._dice(self.weights.network))
            self.validation.milestones.report(len(self.values) - 1, self.values[-1])

    def _dice(self, network: SegmentationNetwork) -> float:
        device = next(network.parameters()).device
        network.eval()
        values = []
        for crop in self.validation.crops:
            image = torch.from_numpy(window(crop.image, crop.intensity))[None].to(device)
            with torch.no_grad():
                background = network.run(image).logits.float().softmax(dim=1)[0, 0].cpu().numpy()
            found, true = 1 - background >= self.validation.threshold, crop.target > 0
            values.append(2 * np.sum(found & true) / max(1, np.sum(found) + np.sum(true)))
        return float(np.mean(values)) if values else 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"values": list(self.values)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.values = list(state_dict["values"])
