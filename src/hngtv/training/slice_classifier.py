"""Stage 1 by slices: a SonoNet, gated or plain, that tells whether an axial slice holds tumour."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from hngtv.config import OptimiserSettings, SonoNetSettings, parse_settings
from hngtv.networks.slices import build_classifier, enlarge
from hngtv.networks.sononet import SonoNet, classification_loss
from hngtv.training.processes import gather_batch, own_share
from hngtv.training.stage import StageModule


class SliceClassificationModule(StageModule):
    """Cross-entropy of slices with and without tumour: the binary one on the difference of the two logits.

    Args:
        network: Plain `SonoNetSettings`.
        optimiser: Plain `OptimiserSettings`.
        in_channels: 2 for CT and PET.
        out_channels: 2.
        total_steps: Where the learning rate reaches 0; a time budget corrects it in training.
        start_from: Gives the network to start from instead of a fresh one.
    """

    network: SonoNet

    def __init__(
        self,
        network: dict[str, Any],
        optimiser: dict[str, Any],
        in_channels: int,
        out_channels: int,
        total_steps: int,
        start_from: Callable[[], SonoNet] | None = None,
    ) -> None:
        super().__init__(parse_settings(OptimiserSettings, optimiser), total_steps)
        self.save_hyperparameters(ignore=["start_from"])
        settings = parse_settings(SonoNetSettings, network)
        self.zoom = settings.zoom
        self.network = start_from() if start_from else build_classifier(settings, in_channels, out_channels)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 2) of slices (N, C, X, Y)."""
        return self.network(enlarge(images, self.zoom))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Loss of slices (N, C, X, Y) and classes (N,)."""
        images, classes = batch
        output = self.network.run(enlarge(images, self.zoom))
        output = replace(output, heads=tuple(map(gather_batch, output.heads)))
        loss = classification_loss(output, gather_batch(classes))
        self.log("train/loss", loss)
        self.log("train/accuracy", (output.logits.argmax(dim=1) == classes).float().mean(), sync_dist=True)
        return own_share(loss)
