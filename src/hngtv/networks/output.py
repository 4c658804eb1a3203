"""What every segmenting network is, whoever wrote it, and what it returns."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hngtv.networks.blocks import crop_to, resize


@dataclass(frozen=True)
class NetworkOutput:
    """What a forward pass yields.

    Attributes:
        logits: (N, classes, X, Y, Z), full resolution.
        auxiliary: Further logits for the loss, each on its own grid, finest first; empty unless the network has
            auxiliary deep supervision.
        attention: Name to alpha (N, n_maps, X_l, Y_l, Z_l) in [0, 1], on a grid of the network's choice; for an
            attention gate that of the gated skip. The maps span the image as the network saw it.
        seen: Spatial size of that image: the input, padded at its end.
    """

    logits: Tensor
    auxiliary: tuple[Tensor, ...]
    attention: dict[str, Tensor]
    seen: torch.Size

    def attention_like(self, size: torch.Size) -> dict[str, Tensor]:
        """The maps (N, n_maps, X, Y, Z) on the grid of an input of spatial size `size`: resized, padding cut off."""
        return {name: crop_to(resize(alpha, self.seen), size) for name, alpha in self.attention.items()}


class SegmentationNetwork(nn.Module, ABC):
    """A network that gives logits for images of any size.

    Attributes:
        label: What messages call it; empty for the name of its class.
    """

    label: str = ""

    @abstractmethod
    def run(self, images: Tensor) -> NetworkOutput:
        """The whole output of a forward pass of images (N, C, X, Y, Z); see `NetworkOutput`."""

    def forward(self, images: Tensor, return_attention: bool = False) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Logits (N, classes, X, Y, Z) of images (N, C, X, Y, Z); with `return_attention` also the alphas.

        Returns:
            The logits; or these and a dict of name to alpha (N, n_maps, X, Y, Z) in [0, 1], resized to the image as in
            `NetworkOutput.attention_like`. An attention gate's `n_maps` is `n_gates`. `run` gives alphas on their own
            grids.

        Raises:
            ValueError: Attention is asked of a network that has none, or the images do not fit the network.
        """
        output = self.run(images)
        if return_attention and not output.attention:
            name = self.label or f"this {type(self).__name__}"
            raise ValueError(
                f"got return_attention=True, but {name} returns no attention maps: "
                "build an AttentionUNet with n_gates=1 or more"
            )
        return (output.logits, output.attention_like(images.shape[2:])) if return_attention else output.logits
