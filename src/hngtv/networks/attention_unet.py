"""The U-Net of Schlemper, Oktay et al. 2019 with attention gates on its skips, or without them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from hngtv.networks.attention_gate import MultiAttentionGate, Variant
from hngtv.networks.blocks import CONVOLUTIONS, POOLINGS, ConvBlock, PointwiseBlock, resize

DeepSupervision = Literal["none", "fused", "auxiliary"]

BACKGROUND_BIAS = 2.0
"""Head start of the background's logit, since most voxels are background. From 0, short trainings end with a tumour of
probability just below 0.5 (docs/results.md). Source: our choice, after the prior of the focal loss, Lin et al. 2017."""


@dataclass(frozen=True)
class NetworkOutput:
    """What a forward pass yields.

    Attributes:
        logits: (N, classes, X, Y, Z), full resolution.
        auxiliary: Logits of the coarser decoder levels on their own grids, finest first; empty unless the network
            has auxiliary deep supervision.
        attention: Gate name to alpha (N, n_gates, X_l, Y_l, Z_l) in [0, 1], on the grid of the gated skip.
    """

    logits: Tensor
    auxiliary: tuple[Tensor, ...]
    attention: dict[str, Tensor]


class AttentionUNet(nn.Module):
    """U-Net with additive attention gates on all skips but the first.

    Any input size works: sides are padded by their edge values to a multiple of 2^(levels - 1), and the result is
    cropped back.

    Args:
        spatial_dims: 2 or 3.
        in_channels: Input channels; 2 for CT and PET.
        out_channels: Classes, background included.
        widths: Channels of each level, finest first.
        n_gates: Gates per skip; 0 gives the plain U-Net.
        variant: Form of the gate, see `AttentionGate`.
        norm: "batch" (the paper) or "instance".
        deep_supervision: "fused": logits of all decoder levels, resized, concatenated and mixed by a 1 x 1 x 1
            convolution, as released with the paper. "auxiliary": a head on each level, for a loss on each (our
            extension). "none": one head.
        open_gates: Let gates start open, as the paper asks.
        leak: Slope of the ReLUs below 0; 0 in the paper.
    """

    def __init__(
        self,
        spatial_dims: int = 3,
        in_channels: int = 2,
        out_channels: int = 2,
        widths: Sequence[int] = (16, 32, 64, 128, 256),
        *,
        n_gates: int = 1,
        variant: Variant = "reference",
        norm: str = "batch",
        deep_supervision: DeepSupervision = "fused",
        open_gates: bool = True,
        leak: float = 0.0,
    ) -> None:
        super().__init__()
        self.deep_supervision = deep_supervision
        self.n_gates = n_gates
        n_levels = len(widths)
        convolution = CONVOLUTIONS[spatial_dims]
        inputs = (in_channels, *widths[:-1])
        self.encoder = nn.ModuleList(
            ConvBlock(a, b, norm, spatial_dims, leak) for a, b in zip(inputs, widths, strict=True)
        )
        self.pool = POOLINGS[spatial_dims](kernel_size=2)
        # decoder[level] and heads[level] work at the resolution of encoder[level]; gates[level - 1] on its skip.
        self.decoder = nn.ModuleList(
            ConvBlock(widths[level] + widths[level + 1], widths[level], norm, spatial_dims, leak)
            for level in range(n_levels - 1)
        )
        self.gating = PointwiseBlock(widths[-1], widths[-1], norm, spatial_dims) if n_gates else None
        self.gates = nn.ModuleList(
            MultiAttentionGate(widths[level], widths[level + 1], n_gates, variant, norm, spatial_dims, open_gates)
            for level in range(1, n_levels - 1)
            if n_gates
        )
        n_heads = 1 if deep_supervision == "none" else n_levels - 1
        self.heads = nn.ModuleList(convolution(widths[level], out_channels, kernel_size=1) for level in range(n_heads))
        self.fuse = (
            convolution(n_heads * out_channels, out_channels, kernel_size=1) if deep_supervision == "fused" else None
        )
        self._initialise()

    def _initialise(self) -> None:
        """Kaiming-normal 3 x 3 (x 3) convolutions, as in the released code, and heads that start at background."""
        for block in (*self.encoder, *self.decoder):
            for layer in block.children():
                if isinstance(layer, (nn.Conv2d, nn.Conv3d)):
                    nn.init.kaiming_normal_(layer.weight)
        for head in self.heads if self.fuse is None else [self.fuse]:
            bias = head.get_parameter("bias")
            nn.init.zeros_(bias)
            nn.init.constant_(bias[:1], BACKGROUND_BIAS)

    def forward(self, images: Tensor, return_attention: bool = False) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Logits (N, classes, X, Y, Z) of images (N, C, X, Y, Z); with `return_attention` also the alphas by gate."""
        output = self.run(images)
        return (output.logits, output.attention) if return_attention else output.logits

    def run(self, images: Tensor) -> NetworkOutput:
        """The whole output of a forward pass; see `NetworkOutput`."""
        size = images.shape[2:]
        skips = self._encode(_pad_to_multiple(images, 2 ** (len(self.encoder) - 1)))
        levels, attention = self._decode(skips)
        logits = self._fuse_heads(levels)
        auxiliary = ()
        if self.deep_supervision == "auxiliary":
            auxiliary = tuple(head(level) for head, level in zip(self.heads[1:], levels[1:], strict=True))
        return NetworkOutput(_crop_to(logits, size), auxiliary, attention)

    def _encode(self, features: Tensor) -> list[Tensor]:
        skips = []
        for level, block in enumerate(self.encoder):
            features = block(features if level == 0 else self.pool(features))
            skips.append(features)
        return skips

    def _decode(self, skips: list[Tensor]) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Decoder features, finest first, and the alphas."""
        features = skips[-1]
        gating = features if self.gating is None else self.gating(features)
        levels: list[Tensor] = []
        attention: dict[str, Tensor] = {}
        for level in reversed(range(len(self.decoder))):
            skip = skips[level]
            if self.n_gates and level > 0:
                skip, attention[f"gate{level + 1}"] = self.gates[level - 1](skip, gating)
            features = self.decoder[level](torch.cat([skip, resize(features, skip.shape[2:])], dim=1))
            gating = features
            levels.insert(0, features)
        return levels, attention

    def _fuse_heads(self, levels: list[Tensor]) -> Tensor:
        finest = self.heads[0](levels[0])
        if self.fuse is None:
            return finest
        others = [resize(head(level), finest.shape[2:]) for head, level in zip(self.heads[1:], levels[1:], strict=True)]
        return self.fuse(torch.cat([finest, *others], dim=1))


def _pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    padding = []
    for side in reversed(images.shape[2:]):
        padding += [0, -side % multiple]
    return functional.pad(images, padding, mode="replicate") if any(padding) else images


def _crop_to(maps: Tensor, size: torch.Size) -> Tensor:
    return maps[(..., *(slice(0, side) for side in size))]
