"""How the U-Net brings CT and PET together: the names of the ways, and the parts that only some of them need."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from hngtv.networks.blocks import ConvBlock
from hngtv.networks.checks import check_choice

Fusion = Literal["early", "stems", "pet_gated", "ct_only", "pet_only"]
"""
early: CT and PET are channels of one image.
stems: the first level has a block for each, and the rest sees both.
pet_gated: an encoder for each; PET features gate the CT skips and join CT at the coarsest level.
ct_only, pet_only: the network sees nothing of the other.
"""


def check_fusion(fusion: Fusion, in_channels: int, widths: Sequence[int], n_gates: int) -> None:
    """Raise ValueError for a name that is none, and for a network that cannot fuse its input like this."""
    check_choice("fusion", fusion, get_args(Fusion), "choose one, early for channels of one image")
    if fusion != "early" and in_channels < 2:
        raise ValueError(f"fusion={fusion} needs channels of CT and a last one of PET, got in_channels={in_channels}")
    if fusion == "stems" and widths[0] < 2:
        raise ValueError(f"fusion=stems divides the first level between CT and PET, got widths[0]={widths[0]}")
    if fusion == "pet_gated" and (n_gates < 1 or len(widths) < 3):
        raise ValueError(
            f"fusion=pet_gated needs gates, so n_gates of 1 or more and at least 3 widths (the first skip is free), "
            f"got n_gates={n_gates} and {len(widths)} widths"
        )


def split_modalities(images: Tensor) -> tuple[Tensor, Tensor]:
    """CT (N, C - 1, X, Y, Z) and PET (N, 1, X, Y, Z) of images (N, C, X, Y, Z), whose last channel is PET."""
    return images[:, :-1], images[:, -1:]


def pet_encoder_widths(widths: Sequence[int]) -> tuple[int, ...]:
    """Channels of the PET encoder of pet_gated: half of the CT encoder's, rounded up. Source: our choice."""
    return tuple((width + 1) // 2 for width in widths)


class ModalityStems(nn.Module):
    """The first level with a block for each modality, side by side, so that each has its own normalisation.

    Args:
        in_channels: Channels of the image, the last one PET.
        out_channels: Of the level; half of them (rounded down) are PET's, the others CT's. Source: our choice.
        norm: As for `ConvBlock`.
        spatial_dims: 2 or 3.
        leak: As for `ConvBlock`.
    """

    def __init__(self, in_channels: int, out_channels: int, norm: str, spatial_dims: int, leak: float) -> None:
        super().__init__()
        n_pet = out_channels // 2
        self.ct = ConvBlock(in_channels - 1, out_channels - n_pet, norm, spatial_dims, leak)
        self.pet = ConvBlock(1, n_pet, norm, spatial_dims, leak)

    def forward(self, images: Tensor) -> Tensor:
        """Features (N, out_channels, X, Y, Z) of images (N, in_channels, X, Y, Z)."""
        ct, pet = split_modalities(images)
        return torch.cat([self.ct(ct), self.pet(pet)], dim=1)
