"""The U-Net of Schlemper, Oktay et al. 2019 with attention gates on its skips, or without them."""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from hngtv.networks.attention_gate import MultiAttentionGate, Variant
from hngtv.networks.blocks import (
    CONVOLUTIONS,
    NORM_NAMES,
    POOLINGS,
    ConvBlock,
    PointwiseBlock,
    crop_to,
    pad_to,
    padded_size,
    resize,
)
from hngtv.networks.checks import check_choice, check_count, check_maps, step_of, widths_of
from hngtv.networks.fusion import Fusion, ModalityStems, check_fusion, pet_encoder_widths, split_modalities
from hngtv.networks.output import NetworkOutput, SegmentationNetwork

DeepSupervision = Literal["none", "fused", "auxiliary"]

BACKGROUND_BIAS = 2.0
"""Head start of the background's logit, since most voxels are background. From 0, short trainings end with a tumour of
probability just below 0.5 (docs/results.md). Source: our choice, after the prior of the focal loss, Lin et al. 2017."""


def _steps_of(strides: Sequence[int | Sequence[int]] | None, n_levels: int, spatial_dims: int) -> list[tuple[int, ...]]:
    """Strides of each step down, one for each axis.

    Raises:
        ValueError: Not one for each step, or not one for each axis.
    """
    n_steps = n_levels - 1
    given = [2] * n_steps if strides is None else list(strides) if isinstance(strides, Iterable) else []
    steps = [step for step in (step_of(stride, spatial_dims) for stride in given) if step is not None]
    if not len(steps) == len(given) == n_steps:
        raise ValueError(
            f"strides: got {strides!r}, expected {n_steps} of them for {n_levels} levels, "
            f"each a whole number or {spatial_dims} of them, all 1 or more: "
            f"give such as {[2] * n_steps}, or leave them out for that"
        )
    return steps


def _build_encoder(in_channels: int, widths: Sequence[int], norm: str, spatial_dims: int, leak: float) -> nn.ModuleList:
    """A block for each level, finest first."""
    inputs = (in_channels, *widths[:-1])
    return nn.ModuleList(ConvBlock(a, b, norm, spatial_dims, leak) for a, b in zip(inputs, widths, strict=True))


def _build_decoder(widths: Sequence[int], norm: str, spatial_dims: int, leak: float) -> nn.ModuleList:
    """A block for each level but the coarsest, finest first; it takes the skip and the next coarser level."""
    return nn.ModuleList(ConvBlock(a + b, a, norm, spatial_dims, leak) for a, b in pairwise(widths))


def _build_heads(
    widths: Sequence[int], out_channels: int, deep_supervision: DeepSupervision, spatial_dims: int
) -> tuple[nn.ModuleList, nn.Module | None]:
    """Heads of the decoder's levels, finest first, and what mixes their logits, None if nothing does."""
    convolution = CONVOLUTIONS[spatial_dims]
    levels = widths[:1] if deep_supervision == "none" else widths[:-1]
    heads = nn.ModuleList(convolution(width, out_channels, kernel_size=1) for width in levels)
    if deep_supervision != "fused":
        return heads, None
    return heads, convolution(len(levels) * out_channels, out_channels, kernel_size=1)


class AttentionUNet(SegmentationNetwork):
    """U-Net with additive attention gates on all skips but the first.

    `decoder[level]` and `heads[level]` work at the resolution of `encoder[level]`, `gates[level - 1]` on its skip.

    Any input size works: sides are padded by their edge values to a multiple of the product of the strides along each
    axis, 2^(levels - 1) by default, and to at least two voxels at the coarsest level, which normalisation needs; the
    result is cropped back.

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
        strides: From each level to the next coarser one, a number or one for each axis, such as (2, 2, 1) for thick
            slices; None for 2 everywhere.
        fusion: How CT and PET come together, see `Fusion`. For all but "early" the last channel is PET and the others
            are CT, so `in_channels` is at least 2. "pet_gated" needs gates: that on the CT skip of a level takes its
            gating signal from the next coarser level of a PET encoder, half as wide, rather than from the decoder.

    Raises:
        ValueError: A setting is not among those allowed; the message says which are.
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
        strides: Sequence[int | Sequence[int]] | None = None,
        fusion: Fusion = "early",
    ) -> None:
        super().__init__()
        widths = widths_of(widths)
        self._check_settings(spatial_dims, in_channels, out_channels, widths, n_gates, variant, norm, deep_supervision)
        check_fusion(fusion, in_channels, widths, n_gates)
        self.in_channels = in_channels
        self.fusion = fusion
        self.deep_supervision = deep_supervision
        self.n_gates = n_gates
        steps = _steps_of(strides, len(widths), spatial_dims)
        self.total_stride = tuple(math.prod(along) for along in zip(*steps, strict=True))
        # The order in which layers are made is part of the result of a seed.
        n_seen = {"ct_only": in_channels - 1, "pet_gated": in_channels - 1, "pet_only": 1}.get(fusion, in_channels)
        self.encoder = _build_encoder(n_seen, widths, norm, spatial_dims, leak)
        if fusion == "stems":
            self.encoder[0] = ModalityStems(in_channels, widths[0], norm, spatial_dims, leak)
        pet_widths = pet_encoder_widths(widths) if fusion == "pet_gated" else None
        self.pet_encoder = _build_encoder(1, pet_widths, norm, spatial_dims, leak) if pet_widths else None
        self.join = PointwiseBlock(widths[-1] + pet_widths[-1], widths[-1], norm, spatial_dims) if pet_widths else None
        self.pools = nn.ModuleList(POOLINGS[spatial_dims](kernel_size=step) for step in steps)
        self.decoder = _build_decoder(widths, norm, spatial_dims, leak)
        by_decoder = n_gates and pet_widths is None
        self.gating = PointwiseBlock(widths[-1], widths[-1], norm, spatial_dims) if by_decoder else None
        self.gates = nn.ModuleList(
            MultiAttentionGate(width, signal, n_gates, variant, norm, spatial_dims, open_gates, step)
            for width, signal, step in zip(widths[1:-1], (pet_widths or widths)[2:], steps[1:], strict=True)
            if n_gates
        )
        self.heads, self.fuse = _build_heads(widths, out_channels, deep_supervision, spatial_dims)
        self._initialise()

    @staticmethod
    def _check_settings(
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int],
        n_gates: int,
        variant: str,
        norm: str,
        deep_supervision: str,
    ) -> None:
        for name, got, allowed in (
            ("spatial_dims", spatial_dims, (2, 3)),
            ("variant", variant, get_args(Variant)),
            ("norm", norm, NORM_NAMES),
            ("deep_supervision", deep_supervision, get_args(DeepSupervision)),
        ):
            check_choice(name, got, allowed)
        for name, got, least, fix in (
            ("in_channels", in_channels, 1, "give the channels of your images"),
            ("out_channels", out_channels, 2, "count the background as a class"),
            ("n_gates", n_gates, 0, "0 gives the plain U-Net"),
            ("number of widths", len(widths), 3 if n_gates else 2, "the first skip is free of gates"),
        ):
            check_count(name, got, least, fix)

    def _initialise(self) -> None:
        """Kaiming-normal 3 x 3 (x 3) convolutions, as in the released code, and heads that start at background."""
        for block in (*self.encoder, *(self.pet_encoder or ()), *self.decoder):
            for layer in block.modules():
                if isinstance(layer, (nn.Conv2d, nn.Conv3d)):
                    nn.init.kaiming_normal_(layer.weight)
        for head in self.heads if self.fuse is None else [self.fuse]:
            bias = head.get_parameter("bias")
            nn.init.zeros_(bias)
            nn.init.constant_(bias[:1], BACKGROUND_BIAS)

    def run(self, images: Tensor) -> NetworkOutput:
        """The whole output of a forward pass; see `NetworkOutput`."""
        size = images.shape[2:]
        check_maps("images", images, self.in_channels, len(self.total_stride), "build with other in_channels")
        padded = pad_to(images, padded_size(size, self.total_stride))
        skips, uptake = self._encode(padded)
        levels, attention = self._decode(skips, uptake)
        logits = self._fuse_heads(levels)
        auxiliary = ()
        if self.deep_supervision == "auxiliary":
            auxiliary = tuple(head(level) for head, level in zip(self.heads[1:], levels[1:], strict=True))
        return NetworkOutput(crop_to(logits, size), auxiliary, attention, padded.shape[2:])

    def _encode(self, images: Tensor) -> tuple[list[Tensor], list[Tensor] | None]:
        """Skips, finest first, and PET features of the same levels where they gate, else None."""
        if self.fusion in ("early", "stems"):
            return self._run_encoder(self.encoder, images), None
        ct, pet = split_modalities(images)
        skips = self._run_encoder(self.encoder, pet if self.fusion == "pet_only" else ct)
        if self.pet_encoder is None or self.join is None:
            return skips, None
        uptake = self._run_encoder(self.pet_encoder, pet)
        skips[-1] = self.join(torch.cat([skips[-1], uptake[-1]], dim=1))
        return skips, uptake

    def _run_encoder(self, encoder: nn.ModuleList, features: Tensor) -> list[Tensor]:
        """Features of each level, finest first."""
        levels = []
        for level, block in enumerate(encoder):
            features = block(features if level == 0 else self.pools[level - 1](features))
            levels.append(features)
        return levels

    def _decode(self, skips: list[Tensor], uptake: list[Tensor] | None) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Decoder features, finest first, and the alphas; gates listen to `uptake`, or without it to the decoder."""
        features = skips[-1]
        gating = features if self.gating is None else self.gating(features)
        levels: list[Tensor] = []
        attention: dict[str, Tensor] = {}
        for level in reversed(range(len(self.decoder))):
            skip = skips[level]
            if self.n_gates and level > 0:
                signal = gating if uptake is None else uptake[level + 1]
                skip, attention[f"gate{level + 1}"] = self.gates[level - 1](skip, signal)
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
