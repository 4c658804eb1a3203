"""A 2D network on volumes does to each slice what it does to that slice alone."""

from typing import Any

import pytest
import torch

from hngtv.config import InferenceSettings, UNetSettings
from hngtv.networks.attention_unet import AttentionUNet
from hngtv.networks.build import build_network, predict_attention, predict_probabilities, to_fast_layout
from hngtv.networks.slice_network import SliceNetwork
from hngtv.networks.slices import SLICES_AT_ONCE


def settings(**changes: Any) -> UNetSettings:
    plain: dict[str, Any] = {
        "name": "attention_unet", "widths": (4, 8, 8), "norm": "instance", "deep_supervision": "auxiliary",
        "n_gates": 2, "spatial_dims": 2,
    }  # fmt: skip
    return UNetSettings(**(plain | changes))


def build(**changes: Any) -> tuple[SliceNetwork, AttentionUNet]:
    """A network of volumes and the network of slices in it, in eval mode."""
    torch.manual_seed(0)
    network = build_network(settings(**changes), in_channels=2, out_channels=3).eval()
    assert isinstance(network, SliceNetwork)
    assert isinstance(network.network, AttentionUNet)
    return network, network.network


@pytest.mark.parametrize("norm", ["batch", "instance", "group"])
@pytest.mark.parametrize("size", [(8, 8, 4), (9, 13, 5), (11, 6, SLICES_AT_ONCE + 3)])
def test_every_slice_is_as_if_alone(size: tuple[int, int, int], norm: str) -> None:
    network, of_slices = build(norm=norm)
    images = torch.randn(2, 2, *size)
    output = network.run(images)
    assert output.logits.shape == (2, 3, *size)
    for z in range(size[2]):
        alone = of_slices.run(images[..., z])
        torch.testing.assert_close(output.logits[..., z], alone.logits)
        for level, level_alone in zip(output.auxiliary, alone.auxiliary, strict=True):
            torch.testing.assert_close(level[..., z], level_alone)
        torch.testing.assert_close(output.attention["gate2"][..., z], alone.attention["gate2"])


def test_maps_lie_on_the_image_slice_by_slice() -> None:
    network, of_slices = build()
    images = torch.randn(1, 2, 9, 13, 5)
    output = network.run(images)
    assert output.seen == (12, 16, 5)
    assert {name: tuple(alpha.shape) for name, alpha in output.attention.items()} == {"gate2": (1, 2, 6, 8, 5)}
    resized = output.attention_like(images.shape[2:])["gate2"]
    alone = of_slices.run(images[..., 3]).attention_like(images.shape[2:4])["gate2"]
    torch.testing.assert_close(resized[..., 3], alone)


def test_training_reaches_every_weight_and_batch_normalisation_sees_all_slices() -> None:
    network, of_slices = build(norm="batch", open_gates=False)
    network.train()
    images = torch.randn(2, 2, 8, 8, SLICES_AT_ONCE)
    output = network.run(images)
    torch.stack([logits.square().mean() for logits in (output.logits, *output.auxiliary)]).sum().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []
    together = of_slices.run(images.permute(0, 4, 1, 2, 3).flatten(0, 1))
    torch.testing.assert_close(output.logits[1, ..., 2], together.logits[SLICES_AT_ONCE + 2])


@pytest.mark.parametrize("name", ["unet", "attention_unet"])
def test_windows_and_memory_layout(name: Any) -> None:
    network, _ = build(name=name)
    image = torch.randn(2, 20, 17, 12)
    inference = InferenceSettings(
        mode="sliding_window", overlap=0.5, flip_axes=("x", "z"), threshold=0.5, min_component_ml=0, min_gtvp_share=0
    )
    whole = predict_probabilities([network], image, inference, (20, 17, 4))
    to_fast_layout(network)
    torch.testing.assert_close(whole, predict_probabilities([network], image, inference, (20, 17, 12)))
    assert predict_probabilities([network], image, inference, (8, 8, 4)).shape == (3, 20, 17, 12)
    gates = predict_attention(network, image, inference, (8, 8, 4))
    shapes = {gate: tuple(alpha.shape) for gate, alpha in gates.items()}
    assert shapes == ({"gate2": (2, 20, 17, 12)} if name == "attention_unet" else {})


@pytest.mark.parametrize(
    ("changes", "stride"),
    [
        ({}, (4, 4, 1)),
        ({"strides": ((2, 2, 1), (4, 2, 1))}, (8, 4, 1)),
        ({"spatial_dims": 3}, (4, 4, 4)),
        ({"spatial_dims": 3, "strides": ((2, 2, 1), (2, 2, 2))}, (4, 4, 2)),
    ],
)
def test_total_stride_of_each_axis(changes: dict[str, Any], stride: tuple[int, int, int]) -> None:
    assert settings(**changes).total_stride == stride
    network = build_network(settings(**changes), in_channels=2, out_channels=3)
    inner = network.network if isinstance(network, SliceNetwork) else network
    assert isinstance(inner, AttentionUNet)
    assert (*inner.total_stride, 1)[:3] == stride


def test_slices_cannot_be_joined() -> None:
    with pytest.raises(ValueError, match="third number of each step must be 1 with spatial_dims=2"):
        settings(strides=((2, 2, 1), (2, 2, 2)))


def test_images_without_slices_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got images of shape \(1, 2, 8, 8\), expected \(N, C, X, Y, Z\)"):
        build()[0].run(torch.zeros(1, 2, 8, 8))
