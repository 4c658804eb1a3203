"""A slice classifier on all axial slices of an image."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from hngtv.config import SonoNetSettings
from hngtv.networks.blocks import crop_to, pad_to_multiple, resize
from hngtv.networks.sononet import MIN_SIDE, SonoNet

Merge = Literal["mean", "max", "product"]
SLICES_AT_ONCE = 16
"""Slices in one forward pass, which bounds memory."""


def build_classifier(settings: SonoNetSettings, in_channels: int, out_channels: int) -> SonoNet:
    """The classifier that the settings name; `out_channels` counts the background."""
    return SonoNet(in_channels, out_channels, settings.width, settings.gated, settings.aggregation)


def enlarge(slices: Tensor, zoom: int) -> Tensor:
    """Slices (N, C, X, Y) with each pixel drawn `zoom` times as large, padded by edge values to sides that pooling
    divides, so that attention spans all of them."""
    if zoom > 1:
        slices = functional.interpolate(slices, scale_factor=zoom, mode="bilinear")
    return pad_to_multiple(slices, (MIN_SIDE, MIN_SIDE))


@torch.inference_mode()
def classify_slices(
    networks: Sequence[SonoNet], image: Tensor, zoom: int, merge: Merge
) -> tuple[Tensor, Tensor | None]:
    """Tumour probability and attention of all axial slices, averaged over networks.

    Args:
        networks: In eval mode, of two classes, all gated or all plain.
        image: (C, X, Y, Z) float32, windowed.
        zoom: As in training.
        merge: How the maps of a network's gates become one.
    Returns:
        Probability (Z,), and attention (X, Y, Z) with largest value 1 in each slice; None without gates.
    """
    slices = image.permute(3, 0, 1, 2)
    tumour, attention = [], []
    for batch in slices.split(SLICES_AT_ONCE):
        seen = enlarge(batch, zoom)
        outputs = [network.run(seen) for network in networks]
        tumour.append(torch.stack([output.logits.softmax(dim=1)[:, 1] for output in outputs]).mean(dim=0))
        size, wanted = seen.shape[2:], slices.shape[2:]
        maps = [merge_attention(list(output.attention.values()), size, merge) for output in outputs if output.attention]
        if maps:
            attention.append(crop_to(functional.avg_pool2d(torch.stack(maps).mean(dim=0), zoom), wanted))
    if not attention:
        return torch.cat(tumour), None
    merged = _rescale(torch.cat(attention))
    return torch.cat(tumour), merged[:, 0].permute(1, 2, 0)


def merge_attention(alphas: Sequence[Tensor], size: torch.Size, merge: Merge) -> Tensor:
    """One map (N, 1, X, Y) from the maps of several gates, each resized to `size` with largest value 1."""
    maps = torch.stack([_rescale(resize(alpha, size)) for alpha in alphas])
    match merge:
        case "mean":
            return maps.mean(dim=0)
        case "max":
            return maps.amax(dim=0)
        case "product":
            return maps.prod(dim=0)


def _rescale(maps: Tensor) -> Tensor:
    """Maps (N, 1, X, Y) divided by their largest values; 0 stays 0."""
    return maps / maps.amax(dim=(2, 3), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
