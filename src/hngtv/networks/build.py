"""From network settings to a network, and from images to probabilities."""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

from hngtv.config import InferenceSettings, NetworkSettings
from hngtv.networks.attention_unet import AttentionUNet

AXES = {"x": 2, "y": 3, "z": 4}
"""Dimension of each axis in a (N, C, X, Y, Z) tensor."""


def build_network(settings: NetworkSettings, in_channels: int, out_channels: int) -> AttentionUNet:
    """The network that the settings name; `out_channels` counts the background."""
    match settings.name:
        case "unet":
            n_gates = 0
        case "attention_unet":
            n_gates = settings.n_gates
    return AttentionUNet(
        3,
        in_channels,
        out_channels,
        settings.widths,
        n_gates=n_gates,
        variant=settings.gate_variant,
        norm=settings.norm,
        deep_supervision=settings.deep_supervision,
        open_gates=settings.open_gates,
        leak=settings.leak,
    )


def count_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


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
    batch = image[None]
    total = None
    for network in networks:
        for dims in _flip_sets(settings.flip_axes):
            logits = _forward(network, batch.flip(dims) if dims else batch, settings, window_voxels)
            probabilities = logits.float().softmax(dim=1).flip(dims) if dims else logits.float().softmax(dim=1)
            total = probabilities if total is None else total + probabilities
    if total is None:
        raise ValueError("predict_probabilities needs at least one network")
    return total[0] / (len(networks) * 2 ** len(settings.flip_axes))


def _flip_sets(axes: Sequence[str]) -> list[list[int]]:
    """All combinations of the axes, the empty one included."""
    return [[AXES[a] for a in chosen] for n in range(len(axes) + 1) for chosen in combinations(axes, n)]


def _forward(
    network: nn.Module, batch: Tensor, settings: InferenceSettings, window_voxels: tuple[int, int, int]
) -> Tensor:
    # Never larger than the image: MONAI would pad with 0, which is soft tissue in a windowed CT.
    window = tuple(min(sides) for sides in zip(batch.shape[2:], window_voxels, strict=True))
    if settings.mode == "whole_volume" or window == batch.shape[2:]:
        return network(batch)
    from monai.inferers.utils import sliding_window_inference

    logits = sliding_window_inference(
        batch, window, sw_batch_size=1, predictor=network, overlap=settings.overlap, mode="gaussian"
    )
    assert isinstance(logits, Tensor)
    return logits
