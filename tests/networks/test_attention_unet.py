"""The U-Net: parameter counts of the released networks, shapes, sizes, gates."""

import re
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hngtv.networks.attention_gate import AttentionGate, Variant
from hngtv.networks.attention_unet import AttentionUNet, DeepSupervision
from hngtv.networks.build import count_parameters
from hngtv.networks.output import NetworkOutput, SegmentationNetwork

WIDTHS = (4, 8, 8)


def tiny_network(**changes: object) -> AttentionUNet:
    torch.manual_seed(0)
    arguments: dict = {"widths": WIDTHS, "norm": "instance", "out_channels": 3} | changes
    return AttentionUNet(**arguments).eval()


@pytest.mark.parametrize(
    ("n_gates", "n_parameters", "giga_macs"), [(0, 5_888_004, 169.7), (1, 6_214_151, 171.5), (2, 6_473_322, 173.3)]
)
def test_size_and_cost_of_the_released_networks(n_gates: int, n_parameters: int, giga_macs: float) -> None:
    """Cost: multiplications of all convolutions for one image of 160 x 160 x 96."""
    with torch.device("meta"):
        network = AttentionUNet(3, 1, 4, (16, 32, 64, 128, 256), n_gates=n_gates, variant="reference")
        image = torch.empty(1, 1, 160, 160, 96)
    assert count_parameters(network) == n_parameters
    with FlopCounterMode(display=False) as counter:
        network(image)
    assert counter.get_total_flops() / 2e9 == pytest.approx(giga_macs, abs=0.05)


@pytest.mark.parametrize(("feature_scale", "millions"), [(3.82, 6.444), (3.0, 10.403)])
def test_size_of_the_wider_plain_networks(feature_scale: float, millions: float) -> None:
    widths = [int(channels / feature_scale) for channels in (64, 128, 256, 512, 1024)]
    with torch.device("meta"):
        network = AttentionUNet(3, 1, 4, widths, n_gates=0)
    assert round(count_parameters(network) / 1e6, 3) == millions


@pytest.mark.parametrize("size", [(8, 8, 8), (9, 8, 11), (13, 17, 5), (3, 10, 4)])
def test_any_input_size_gives_logits_of_that_size(size: tuple[int, int, int]) -> None:
    logits = tiny_network()(torch.randn(1, 2, *size))
    assert logits.shape == (1, 3, *size)
    assert logits.isfinite().all()


@pytest.mark.parametrize("variant", ["paper", "reference"])
def test_two_dimensions(variant: str) -> None:
    network = tiny_network(spatial_dims=2, variant=variant, n_gates=2)
    output = network.run(torch.randn(2, 2, 12, 9))
    assert output.logits.shape == (2, 3, 12, 9)
    assert output.attention["gate2"].shape == (2, 2, 6, 6)


def test_padding_does_not_reach_the_logits_of_a_fitting_size() -> None:
    network, images = tiny_network(), torch.randn(1, 2, 7, 8, 8)
    padded = torch.cat([images, images[:, :, -1:]], dim=2)
    torch.testing.assert_close(network(images), network(padded)[:, :, :7])


def test_every_skip_but_the_first_is_gated() -> None:
    network = tiny_network(widths=(4, 8, 8, 8))
    attention = network.run(torch.randn(1, 2, 16, 16, 16)).attention
    assert {name: alpha.shape for name, alpha in attention.items()} == {
        "gate3": (1, 1, 4, 4, 4),
        "gate2": (1, 1, 8, 8, 8),
    }


@pytest.mark.parametrize("strides", [None, [(2, 2, 1), 2, 2]])
@pytest.mark.parametrize("size", [(37, 21, 50), (37, 21)])
def test_returned_attention_lies_on_the_image(size: tuple[int, ...], strides: list[Any] | None) -> None:
    if strides is not None and len(size) == 2:
        strides = [(2, 1), 2, 2]
    network = tiny_network(
        spatial_dims=len(size), widths=(4, 8, 8, 8), strides=strides, n_gates=2, open_gates=False, variant="paper"
    )
    images = torch.randn(2, 2, *size)
    logits, attention = network(images, return_attention=True)
    assert logits.shape == (2, 3, *size)
    assert {name: alpha.shape for name, alpha in attention.items()} == dict.fromkeys(("gate3", "gate2"), (2, 2, *size))
    torch.testing.assert_close(attention, network.run(images).attention_like(images.shape[2:]))
    for alpha in attention.values():
        assert alpha.min() >= 0
        assert alpha.max() <= 1
        assert alpha.std() > 0


def test_returned_attention_is_of_the_same_place_as_the_image() -> None:
    """Maps of 10 voxels along x, each of 4, of which the image fills nine and a quarter."""
    seen, ramp = torch.Size([40, 8, 8]), torch.linspace(0.05, 0.95, 10).reshape(1, 1, 10, 1, 1).expand(1, 1, 10, 2, 2)
    logits = torch.zeros(1, 2, 37, 5, 8)

    class Fixed(SegmentationNetwork):
        def run(self, images: torch.Tensor) -> NetworkOutput:
            return NetworkOutput(logits, (), {"gate": ramp}, seen)

    alpha = Fixed()(torch.zeros(1, 1, 37, 5, 8), return_attention=True)[1]["gate"]
    assert alpha.shape == (1, 1, 37, 5, 8)
    centres = (torch.arange(37) + 0.5) / 40
    torch.testing.assert_close(alpha[0, 0, :, 2, 3], centres.clamp(min=0.05))


def test_attention_comes_out_as_values_that_carry_gradients() -> None:
    network = tiny_network(n_gates=2, open_gates=False)
    output = network.run(torch.randn(1, 2, 8, 8, 8))
    (alpha,) = output.attention.values()
    assert alpha.requires_grad
    assert ((alpha >= 0) & (alpha <= 1)).all()
    alpha.sum().backward()
    assert next(network.encoder.parameters()).grad is not None


def test_no_gates_give_the_plain_network() -> None:
    plain = tiny_network(n_gates=0)
    assert not plain.gates
    assert plain.gating is None
    assert plain.run(torch.randn(1, 2, 8, 8, 8)).attention == {}


def set_gates(network: AttentionUNet, bias: float) -> None:
    """Make alpha sigmoid(bias) everywhere."""
    for gate in network.modules():
        if isinstance(gate, AttentionGate):
            torch.nn.init.constant_(gate.psi.bias, bias)  # pyright: ignore[reportArgumentType]


def test_closed_gates_cut_the_skip_and_full_open_gates_are_the_plain_network() -> None:
    """The paper's gate multiplies by alpha and nothing else, so at alpha = 1 the same weights give a plain U-Net."""
    gated, plain = tiny_network(variant="paper"), tiny_network(n_gates=0)
    shared = {name: value for name, value in gated.state_dict().items() if not name.startswith(("gates", "gating"))}
    plain.load_state_dict(shared)
    images = torch.randn(1, 2, 8, 8, 8)
    set_gates(gated, 50.0)
    torch.testing.assert_close(gated(images), plain(images))
    set_gates(gated, -50.0)
    assert not torch.allclose(gated(images), plain(images))


@pytest.mark.parametrize(("deep_supervision", "n_heads"), [("none", 1), ("fused", 3), ("auxiliary", 3)])
def test_auxiliary_logits_lie_on_the_decoder_s_grids(deep_supervision: DeepSupervision, n_heads: int) -> None:
    network = tiny_network(widths=(4, 8, 8, 8), deep_supervision=deep_supervision)
    output = network.run(torch.randn(1, 2, 16, 16, 8))
    assert output.logits.shape == (1, 3, 16, 16, 8)
    assert len(network.heads) == n_heads
    wanted = [(1, 3, 8, 8, 4), (1, 3, 4, 4, 2)] if deep_supervision == "auxiliary" else []
    assert [logits.shape for logits in output.auxiliary] == wanted


@pytest.mark.parametrize("deep_supervision", ["none", "fused", "auxiliary"])
def test_every_weight_that_is_there_is_trained(deep_supervision: DeepSupervision) -> None:
    network = tiny_network(deep_supervision=deep_supervision, open_gates=False).train()
    output = network.run(torch.randn(2, 2, 8, 8, 8))
    torch.stack([logits.square().mean() for logits in (output.logits, *output.auxiliary)]).sum().backward()
    unreached = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert unreached == []


@pytest.mark.parametrize("variant", ["paper", "reference"])
def test_strides_may_differ_by_axis(variant: Variant) -> None:
    """Thick slices: z is not halved on the first step, so its sides are multiples of 4 and x and y of 8."""
    net = AttentionUNet(
        3, 2, 3, (4, 8, 8, 8), variant=variant, norm="instance", strides=[(2, 2, 1), 2, 2], deep_supervision="auxiliary"
    ).eval()
    assert net.total_stride == (8, 8, 4)
    output = net.run(torch.randn(1, 2, 24, 16, 12))
    assert [tuple(level.shape[2:]) for level in output.auxiliary] == [(12, 8, 12), (6, 4, 6)]
    assert {name: tuple(alpha.shape[2:]) for name, alpha in output.attention.items()} == {
        "gate3": (6, 4, 6),
        "gate2": (12, 8, 12),
    }
    odd = net(torch.randn(1, 2, 19, 13, 5))
    assert isinstance(odd, torch.Tensor)
    assert odd.shape == (1, 3, 19, 13, 5)


def test_strided_gate_has_the_kernel_of_its_step() -> None:
    net = AttentionUNet(3, 1, 2, (4, 8, 8), variant="reference", strides=[2, (2, 2, 1)])
    gate = net.gates[0].get_submodule("gates.0")
    assert gate.get_parameter("theta.weight").shape[2:] == (2, 2, 1)


@pytest.mark.parametrize(
    "strides", [2, [2], [2, (2, 2)], [2, (2, 0, 2)], [2, 2, 2], [2, 1.5], [2, (2, 2, None)], "22", [2, ()]]
)
def test_strides_that_do_not_fit_are_refused(strides: Any) -> None:
    told = f"strides: got {strides!r}, expected 2 of them for 3 levels, each a whole number or 3 of them"
    with pytest.raises(ValueError, match=re.escape(told) + r".*: give such as \[2, 2\]"):
        AttentionUNet(3, 1, 2, (4, 8, 8), strides=strides)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"spatial_dims": 4}, "spatial_dims: got 4, allowed are 2, 3"),
        ({"in_channels": 0}, "in_channels: got 0, allowed are 1 and more"),
        ({"out_channels": 1}, "out_channels: got 1, allowed are 2 and more: count the background"),
        ({"n_gates": -1}, "n_gates: got -1, allowed are 0 and more"),
        ({"widths": (4, 8)}, "number of widths: got 2, allowed are 3 and more"),
        ({"widths": (4, 0, 8)}, "widths[1]: got 0, allowed are 1 and more: give the channels of each level"),
        ({"widths": (4, 8.0, 8)}, "widths[1]: got 8.0, allowed are whole numbers, 1 and more"),
        ({"widths": 16}, "widths: got 16, allowed are whole numbers, one for each level: give such as (16, 32)"),
        ({"widths": "16"}, "widths: got '16', allowed are whole numbers, one for each level"),
        ({"widths": ()}, "number of widths: got 0, allowed are 3 and more"),
        ({"n_gates": 1.5}, "n_gates: got 1.5, allowed are whole numbers, 0 and more: 0 gives the plain U-Net"),
        ({"n_gates": "two"}, "n_gates: got 'two', allowed are whole numbers, 0 and more"),
        ({"n_gates": True}, "n_gates: got True, allowed are whole numbers"),
        (
            {"in_channels": 1.5},
            "in_channels: got 1.5, allowed are whole numbers, 1 and more: give the channels of your",
        ),
        ({"out_channels": None}, "out_channels: got None, allowed are whole numbers, 2 and more"),
        ({"variant": "papr"}, "variant: got 'papr', allowed are paper, reference"),
        ({"norm": "layer"}, "norm: got 'layer', allowed are batch, instance, group"),
        ({"deep_supervision": True}, "deep_supervision: got True, allowed are none, fused, auxiliary"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        tiny_network(**changes)


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ((1, 3, 8, 8, 8), r"got images of shape \(1, 3, 8, 8, 8\), expected \(N, 2, X, Y, Z\)"),
        ((1, 2, 8, 8), r"expected \(N, 2, X, Y, Z\)"),
        ((1, 2, 8, 0, 8), "sides of 1 and more"),
    ],
)
def test_images_that_do_not_fit_are_refused(shape: tuple[int, ...], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        tiny_network()(torch.zeros(shape))


@pytest.mark.parametrize("norm", ["batch", "instance", "group"])
@pytest.mark.parametrize("training", [True, False])
def test_images_of_one_voxel_at_the_coarsest_level_work(norm: str, training: bool) -> None:
    network = tiny_network(norm=norm).train(training)
    assert network(torch.zeros(1, 2, 4, 3, 1)).shape == (1, 3, 4, 3, 1)


def test_attention_of_a_plain_network_is_refused() -> None:
    with pytest.raises(ValueError, match=r"return_attention=True.*n_gates=1"):
        tiny_network(n_gates=0)(torch.zeros(1, 2, 8, 8, 8), return_attention=True)
