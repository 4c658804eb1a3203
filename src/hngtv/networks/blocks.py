"""The layers that the U-Net and its gates share, in two and three dimensions."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from hngtv.networks.convolution import Conv3d

N_GROUPS = 8
"""Most groups of group normalisation; fewer where they do not divide the channels. Source: our choice."""

CONVOLUTIONS = {2: nn.Conv2d, 3: Conv3d}
NORMS = {
    ("batch", 2): nn.BatchNorm2d,
    ("batch", 3): nn.BatchNorm3d,
    ("instance", 2): nn.InstanceNorm2d,
    ("instance", 3): nn.InstanceNorm3d,
}
NORM_NAMES = ("batch", "instance", "group")
POOLINGS = {2: nn.MaxPool2d, 3: nn.MaxPool3d}


def build_norm(kind: str, n_channels: int, spatial_dims: int) -> nn.Module:
    """A normalisation layer with trainable scale and shift: "batch", "instance" or "group"."""
    if kind == "group":
        n_groups = max(n for n in range(1, N_GROUPS + 1) if n_channels % n == 0)
        return nn.GroupNorm(n_groups, n_channels)
    return NORMS[kind, spatial_dims](n_channels, affine=True)


def resize(maps: Tensor, size: torch.Size) -> Tensor:
    """Bi- or trilinear interpolation of (N, C, ...) maps to a spatial size; corners are not aligned."""
    if maps.shape[2:] == size:
        return maps
    mode = "trilinear" if maps.dim() == 5 else "bilinear"
    return functional.interpolate(maps, size=tuple(size), mode=mode, align_corners=False)


def padded_size(size: Sequence[int], multiples: Sequence[int]) -> list[int]:
    """Sides rounded up to multiples, of which there are at least two, since no normalisation takes a single voxel."""
    padded = [-(-side // multiple) * multiple for side, multiple in zip(size, multiples, strict=True)]
    return [2 * multiples[0], *padded[1:]] if padded == list(multiples) else padded


def pad_to_multiple(images: Tensor, multiples: Sequence[int]) -> Tensor:
    """Images (N, C, ...) whose sides are padded at their end, by edge values, to multiples of a number for each."""
    sides = zip(images.shape[2:], multiples, strict=True)
    return pad_to(images, [-(-side // multiple) * multiple for side, multiple in sides])


def pad_to(images: Tensor, size: Sequence[int]) -> Tensor:
    """Images (N, C, ...) whose sides are padded at their end, by edge values, to a spatial size no smaller."""
    padding = []
    for side, wanted in zip(reversed(images.shape[2:]), reversed(size), strict=True):
        padding += [0, wanted - side]
    return functional.pad(images, padding, mode="replicate") if any(padding) else images


def crop_to(maps: Tensor, size: torch.Size) -> Tensor:
    """Undo `pad_to`: maps (..., X, Y[, Z]) cut at their end to a spatial size."""
    return maps[(..., *(slice(0, side) for side in size))]


class ConvBlock(nn.Sequential):
    """Twice: 3 x 3 (x 3) convolution, normalisation, ReLU with a slope of `leak` below 0."""

    def __init__(self, in_channels: int, out_channels: int, norm: str, spatial_dims: int, leak: float) -> None:
        layers: list[nn.Module] = []
        for channels in (in_channels, out_channels):
            layers += [
                CONVOLUTIONS[spatial_dims](channels, out_channels, kernel_size=3, padding=1),
                build_norm(norm, out_channels, spatial_dims),
                nn.LeakyReLU(leak, inplace=True),
            ]
        super().__init__(*layers)


class PointwiseBlock(nn.Sequential):
    """1 x 1 (x 1) convolution, normalisation, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, norm: str, spatial_dims: int) -> None:
        super().__init__(
            CONVOLUTIONS[spatial_dims](in_channels, out_channels, kernel_size=1),
            build_norm(norm, out_channels, spatial_dims),
            nn.ReLU(inplace=True),
        )
