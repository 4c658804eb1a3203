"""A 2D network as a segmenter of volumes: it sees each axial slice for itself."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hngtv.networks.output import NetworkOutput, SegmentationNetwork
from hngtv.networks.slices import SLICES_AT_ONCE


class SliceNetwork(SegmentationNetwork):
    """A network of images (N, C, X, Y) that takes volumes (N, C, X, Y, Z): their axial slices become its batch.

    In training all slices pass together, so that batch normalisation sees them all; in eval mode `SLICES_AT_ONCE` at a
    time, which bounds memory.
    """

    def __init__(self, network: SegmentationNetwork) -> None:
        super().__init__()
        self.network = network

    def run(self, images: Tensor) -> NetworkOutput:
        """The whole output of a forward pass of images (N, C, X, Y, Z); maps keep the Z of the images.

        Raises:
            ValueError: The images have no three axes, or do not fit the network.
        """
        if images.dim() != 5 or min(images.shape) < 1:
            raise ValueError(
                f"got images of shape {tuple(images.shape)}, expected (N, C, X, Y, Z) with sides of 1 and more: "
                "reshape them"
            )
        n, z = len(images), images.shape[4]
        slices = images.permute(0, 4, 1, 2, 3).flatten(0, 1)
        outputs = [self.network.run(part) for part in slices.split(len(slices) if self.training else SLICES_AT_ONCE)]
        first = outputs[0]
        return NetworkOutput(
            logits=_stack([output.logits for output in outputs], n),
            auxiliary=tuple(
                _stack([output.auxiliary[level] for output in outputs], n) for level in range(len(first.auxiliary))
            ),
            attention={name: _stack([output.attention[name] for output in outputs], n) for name in first.attention},
            seen=torch.Size([*first.seen, z]),
        )


def _stack(parts: Sequence[Tensor], n_images: int) -> Tensor:
    """Maps (N, C, X, Y, Z) from those of consecutive slices, each (slices, C, X, Y)."""
    return torch.cat(list(parts)).unflatten(0, (n_images, -1)).permute(0, 2, 3, 4, 1)
