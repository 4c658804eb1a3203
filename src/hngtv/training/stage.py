"""What the trained stages share: an optimiser and its plan; and, for those that segment, network and loss."""

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any

import pytorch_lightning as pl
from torch import Tensor, nn

from hngtv.config import LossSettings, OptimiserSettings, parse_network, parse_settings
from hngtv.networks.build import build_network
from hngtv.networks.output import NetworkOutput, SegmentationNetwork
from hngtv.training.losses import SupervisedLoss
from hngtv.training.processes import gather_batch, own_share
from hngtv.training.schedule import build_optimiser, build_schedule


class StageModule(pl.LightningModule, ABC):
    """A stage in training. Hyperparameters are plain containers, so that checkpoints load with `weights_only`.

    Args:
        optimiser: Its settings.
        total_steps: Where the learning rate reaches 0; a time budget corrects it in training.
    """

    network: nn.Module

    def __init__(self, optimiser: OptimiserSettings, total_steps: int) -> None:
        super().__init__()
        self.optimiser_settings = optimiser
        self.total_steps = total_steps

    def configure_optimizers(self) -> dict[str, Any]:
        optimiser = build_optimiser(self.network, self.optimiser_settings)
        schedule = build_schedule(optimiser, self.optimiser_settings, lambda: self.total_steps)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class SegmentationStage(StageModule):
    """A stage that labels voxels.

    Args:
        network: Plain `NetworkSettings`.
        loss: Plain `LossSettings`.
        optimiser: Plain `OptimiserSettings`.
        in_channels: 2 for CT and PET.
        out_channels: Classes, background included.
        total_steps: Where the learning rate reaches 0; a time budget corrects it in training.
    """

    network: SegmentationNetwork

    def __init__(
        self,
        network: dict[str, Any],
        loss: dict[str, Any],
        optimiser: dict[str, Any],
        in_channels: int,
        out_channels: int,
        total_steps: int,
    ) -> None:
        super().__init__(parse_settings(OptimiserSettings, optimiser), total_steps)
        self.save_hyperparameters()
        self.network = build_network(parse_network(network), in_channels, out_channels)
        self.loss = SupervisedLoss(parse_settings(LossSettings, loss))

    @abstractmethod
    def classes_of(self, target: Tensor) -> Tensor:
        """Classes this stage learns, from labels (N, 1, X, Y, Z): 0 background, 1 GTVp, 2 GTVn."""

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes, X, Y, Z) of images (N, C, X, Y, Z)."""
        return self.network(images)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Loss of images (N, C, X, Y, Z) and labels (N, 1, X, Y, Z); mean alphas are logged beside it."""
        images, target = batch
        output = gather_output(self.network.run(images))
        loss = self.loss(output, self.classes_of(gather_batch(target)))
        self.log("train/loss", loss)
        for name, alpha in output.attention.items():
            self.log(f"attention/{name}", alpha.detach().mean(), sync_dist=True)
        return own_share(loss)


def gather_output(output: NetworkOutput) -> NetworkOutput:
    """What the networks of all processes said of the global batch, but for the attention."""
    return replace(output, logits=gather_batch(output.logits), auxiliary=tuple(map(gather_batch, output.auxiliary)))
