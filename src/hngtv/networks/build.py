"""From network settings to a network, and from images to probabilities."""

from collections.abc import Callable, Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

from hngtv.config import InferenceSettings, NetworkSettings, UNetSettings
from hngtv.networks.attention_unet import AttentionUNet
from hngtv.networks.output import SegmentationNetwork
from hngtv.networks.peers import build_peer
from hngtv.networks.slice_network import SliceNetwork

AXES = {"x": 2, "y": 3, "z": 4}
"""Dimension of each axis in a (N, C, X, Y, Z) tensor."""


def build_network(settings: NetworkSettings, in_channels: int, out_channels: int) -> SegmentationNetwork:
    """The network that the settings name; `out_channels` counts the background.

    Raises:
        InputError: The user's own network cannot be loaded or built.
    """
    if not isinstance(settings, UNetSettings):
        return build_peer(settings, in_channels, out_channels)
    dims = settings.spatial_dims
    network = AttentionUNet(
        dims,
        in_channels,
        out_channels,
        settings.widths,
        n_gates=settings.n_gates if settings.name == "attention_unet" else 0,
        variant=settings.gate_variant,
        norm=settings.norm,
        deep_supervision=settings.deep_supervision,
        open_gates=settings.open_gates,
        leak=settings.leak,
        strides=None if settings.strides is None else [step[:dims] for step in settings.strides],
        fusion=settings.fusion,
    )
    return SliceNetwork(network) if dims == 2 else network


def count_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def to_fast_layout(network: nn.Module) -> None:
    """Put weights into the memory layout that a CPU computes fastest in."""
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in network.parameters():
        if parameter.dim() in layouts:
            parameter.data = parameter.data.contiguous(memory_format=layouts[parameter.dim()])


@torch.inference_mode()
def predict_probabilities(
    networks: Sequence[nn.Module],
    image: Tensor,
    settings: InferenceSettings,
    window_voxels: tuple[int, int, int],
) -> Tensor:
    """Class probabilities of one image, averaged over networks and flips.

    Args:
        networks: In eval mode, on the device of `image`.
        image: (C, X, Y, Z) float32, windowed.
        settings: Whole volume or sliding window, and the flips to average over.
        window_voxels: Size of the sliding window.
    Returns:
        (classes, X, Y, Z) float32 in [0, 1].
    """
    return predict_mean(networks, image, settings, window_voxels, lambda logits: logits.softmax(dim=1))


@torch.inference_mode()
def predict_mean(
    networks: Sequence[nn.Module],
    image: Tensor,
    settings: InferenceSettings,
    window_voxels: tuple[int, int, int],
    activate: Callable[[Tensor], Tensor],
) -> Tensor:
    """What networks say of one image, averaged over networks and flips.

    Args:
        networks: In eval mode, on the device of `image`.
        image: (C, X, Y, Z) float32, windowed.
        settings: Whole volume or sliding window, and the flips to average over.
        window_voxels: Size of the sliding window.
        activate: From logits (1, channels, X, Y, Z) to what is averaged.
    Returns:
        (channels, X, Y, Z) float32.
    """
    batch = image[None]
    total = None
    for network in networks:
        for dims in _flip_sets(settings.flip_axes):
            logits = _forward(network, batch.flip(dims) if dims else batch, settings, window_voxels)
            maps = activate(logits.float()).flip(dims) if dims else activate(logits.float())
            total = maps if total is None else total + maps
    if total is None:
        raise ValueError("predict_mean needs at least one network")
    return total[0] / (len(networks) * 2 ** len(settings.flip_axes))


@torch.inference_mode()
def predict_flipped(
    network: nn.Module, image: Tensor, settings: InferenceSettings, window_voxels: tuple[int, int, int]
) -> Tensor:
    """Class probabilities of one image as it is, and flipped along x, y and z, each flipped back.

    Args:
        network: In eval mode, on the device of `image`.
        image: (C, X, Y, Z) float32, windowed.
        settings: Whole volume or sliding window; its flips are not used.
        window_voxels: Size of the sliding window.
    Returns:
        (4, classes, X, Y, Z) float32 in [0, 1].
    """
    ways: list[list[int]] = [[], *([dim] for dim in AXES.values())]
    passes = [_forward(network, image[None].flip(dims), settings, window_voxels).flip(dims) for dims in ways]
    return torch.cat(passes).float().softmax(dim=1)


@torch.inference_mode()
def predict_attention(
    network: SegmentationNetwork,
    image: Tensor,
    settings: InferenceSettings,
    window_voxels: tuple[int, int, int],
) -> dict[str, Tensor]:
    """Alphas of a network's gates on one image, without flips.

    Args:
        network: In eval mode, on the device of `image`.
        image: (C, X, Y, Z) float32, windowed.
        settings: Whole volume or sliding window.
        window_voxels: Size of the sliding window; where windows overlap, alphas are averaged.
    Returns:
        Gate name to (n_gates, X, Y, Z) in [0, 1], resized to the image; empty for a network without gates.
    """
    maps = _AttentionMaps(network)
    n_gates = maps.count(image[None], window_voxels)
    if not n_gates:
        return {}
    stacked = _forward(maps, image[None], settings, window_voxels)[0].float().clamp(0, 1)
    return dict(zip(n_gates, stacked.split(list(n_gates.values())), strict=True))


class _AttentionMaps(nn.Module):
    """A network whose output is the alphas of all its gates as channels, resized to its input."""

    def __init__(self, network: SegmentationNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat(list(self.network.run(images).attention_like(images.shape[2:]).values()), dim=1)

    def count(self, images: Tensor, window_voxels: tuple[int, int, int]) -> dict[str, int]:
        """Gates of each skip, by name, seen on one window."""
        x, y, z = (slice(0, n) for n in window_voxels)
        return {name: alpha.shape[1] for name, alpha in self.network.run(images[..., x, y, z]).attention.items()}


def _flip_sets(axes: Sequence[str]) -> list[list[int]]:
    """All combinations of the axes, the empty one included."""
    return [[AXES[a] for a in chosen] for n in range(len(axes) + 1) for chosen in combinations(axes, n)]


def _forward(
    network: nn.Module, batch: Tensor, settings: InferenceSettings, window_voxels: tuple[int, int, int]
) -> Tensor:
    # Never larger than the image: MONAI would pad with 0, which is soft tissue in a windowed CT.
    window = tuple(min(sides) for sides in zip(batch.shape[2:], window_voxels, strict=True))
    if any(isinstance(part, SliceNetwork) for part in network.modules()):
        window = (*window[:2], batch.shape[4])  # it sees each slice for itself
    if settings.mode == "whole_volume" or window == batch.shape[2:]:
        return network(batch)
    from monai.inferers.utils import sliding_window_inference

    logits = sliding_window_inference(
        batch, window, sw_batch_size=1, predictor=network, overlap=settings.overlap, mode="gaussian"
    )
    assert isinstance(logits, Tensor)
    return logits
