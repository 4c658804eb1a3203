"""From settings to networks, and from images to averaged probabilities."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hngtv.config import InferenceSettings, UNetSettings
from hngtv.networks.attention_unet import AttentionUNet
from hngtv.networks.blocks import pad_to_multiple
from hngtv.networks.build import (
    build_network,
    count_parameters,
    predict_attention,
    predict_probabilities,
    to_fast_layout,
)
from hngtv.networks.output import NetworkOutput, SegmentationNetwork

WINDOW = (8, 8, 8)


def inference(**changes: Any) -> InferenceSettings:
    plain: dict[str, Any] = {
        "mode": "sliding_window", "overlap": 0.5, "flip_axes": (), "threshold": 0.5, "min_component_ml": 0.0,
        "min_gtvp_share": 0.0,
    }  # fmt: skip
    return InferenceSettings(**(plain | changes))


def local_network() -> nn.Module:
    """A network that looks one voxel far."""
    torch.manual_seed(0)
    return nn.Conv3d(2, 3, kernel_size=3, padding=1, padding_mode="replicate").eval()


class Ramp(nn.Module):
    """Logits that depend on the place in the array alone, so that a flip is seen."""

    def forward(self, images: Tensor) -> Tensor:
        place = torch.linspace(-2, 2, images.shape[2]).reshape(1, 1, -1, 1, 1).expand_as(images[:, :1])
        return torch.cat([-place, place], dim=1)


@pytest.mark.parametrize(("name", "n_gates"), [("unet", 0), ("attention_unet", 2)])
def test_network_is_what_the_settings_name(name: Any, n_gates: int) -> None:
    settings = UNetSettings(
        name=name,
        widths=(4, 8, 8),
        norm="instance",
        deep_supervision="none",
        gate_variant="paper",
        n_gates=n_gates,
    )
    network = build_network(settings, in_channels=2, out_channels=3)
    assert isinstance(network, AttentionUNet)
    assert network.n_gates == n_gates
    assert network(torch.zeros(1, 2, 8, 8, 8)).shape == (1, 3, 8, 8, 8)
    assert count_parameters(network) == sum(p.numel() for p in network.state_dict().values())


def test_sliding_window_equals_the_whole_volume_in_the_interior() -> None:
    network, image = local_network(), torch.randn(2, 20, 17, 12)
    whole = predict_probabilities([network], image, inference(mode="whole_volume"), WINDOW)
    slid = predict_probabilities([network], image, inference(overlap=0.75), WINDOW)
    assert whole.shape == slid.shape == (3, 20, 17, 12)
    # Where the windows' own edges weigh least: every voxel is the middle of some window.
    assert (whole - slid)[:, 4:-4, 4:-4, 4:-4].abs().max() < 0.05


def test_constant_image_gives_the_same_with_and_without_windows() -> None:
    network, image = local_network(), torch.ones(2, 20, 17, 9)
    whole = predict_probabilities([network], image, inference(mode="whole_volume"), WINDOW)
    torch.testing.assert_close(predict_probabilities([network], image, inference(), WINDOW), whole)


@pytest.mark.parametrize("size", [(20, 5, 12), (6, 30, 6)])
def test_image_thinner_than_the_window_is_not_padded_with_other_tissue(size: tuple[int, int, int]) -> None:
    """A value of 0 is soft tissue in a windowed CT; around air it would be a wall."""
    network, image = local_network(), torch.full((2, *size), -1.0)
    whole = predict_probabilities([network], image, inference(mode="whole_volume"), WINDOW)
    torch.testing.assert_close(predict_probabilities([network], image, inference(), WINDOW), whole)


@pytest.mark.parametrize("axes", [(), ("x",), ("x", "z"), ("x", "y", "z")])
def test_probabilities_sum_to_one(axes: tuple[str, ...]) -> None:
    networks = [local_network(), local_network()]
    probabilities = predict_probabilities(networks, torch.randn(2, 10, 9, 12), inference(flip_axes=axes), WINDOW)
    assert probabilities.min() >= 0
    torch.testing.assert_close(probabilities.sum(dim=0), torch.ones(10, 9, 12))


def test_flips_are_undone_before_averaging() -> None:
    image = torch.zeros(2, 6, 6, 6)
    plain = predict_probabilities([Ramp()], image, inference(), WINDOW)
    flipped = predict_probabilities([Ramp()], image, inference(flip_axes=("x",)), WINDOW)
    torch.testing.assert_close(flipped, (plain + plain.flip(1)) / 2)
    across = predict_probabilities([Ramp()], image, inference(flip_axes=("y", "z")), WINDOW)
    torch.testing.assert_close(across, plain)


def test_pointwise_network_does_not_feel_flips() -> None:
    network, image = nn.Conv3d(2, 2, kernel_size=1).eval(), torch.randn(2, 6, 7, 8)
    plain = predict_probabilities([network], image, inference(), WINDOW)
    torch.testing.assert_close(
        predict_probabilities([network], image, inference(flip_axes=("x", "y", "z")), WINDOW), plain
    )


def test_networks_are_averaged_as_probabilities() -> None:
    first, second, image = Ramp(), nn.Conv3d(2, 2, kernel_size=1).eval(), torch.randn(2, 6, 6, 6)
    alone = [predict_probabilities([network], image, inference(), WINDOW) for network in (first, second)]
    torch.testing.assert_close(predict_probabilities([first, second], image, inference(), WINDOW), sum(alone) / 2)


def test_no_network_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        predict_probabilities([], torch.zeros(2, 4, 4, 4), inference(), WINDOW)


class Pooled(SegmentationNetwork):
    """A network whose attention is its image, pooled by 8."""

    def run(self, images: Tensor) -> NetworkOutput:
        padded = pad_to_multiple(images, (8, 8, 8))
        return NetworkOutput(images, (), {"gate": functional.avg_pool3d(padded, 8)}, padded.shape[2:])


@pytest.mark.parametrize("mode", ["whole_volume", "sliding_window"])
@pytest.mark.parametrize("side", [33, 40, 41])
def test_attention_lies_where_the_network_looked(mode: str, side: int) -> None:
    """A bright block of 8 voxels is found at its place, also where the image is padded to be pooled."""
    image = torch.zeros(1, side, 40, 40)
    image[:, 16:24] = 1
    alpha = predict_attention(Pooled(), image, inference(mode=mode), (40, 40, 40))["gate"][0, :, 20, 20]
    centre = float((alpha * torch.arange(side)).sum() / alpha.sum())
    assert centre == pytest.approx(19.5, abs=0.3)


def test_layout_of_weights_of_any_rank() -> None:
    network = nn.ModuleList([nn.Conv2d(2, 3, 3), nn.Conv3d(2, 3, 3), nn.Linear(2, 3)])
    before = [parameter.clone() for parameter in network.parameters()]
    to_fast_layout(network)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    assert network[1].get_parameter("weight").is_contiguous(memory_format=torch.channels_last_3d)
