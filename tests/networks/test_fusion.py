"""Fusion of CT and PET: shapes, what each network sees, what gates listen to, and sizes."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from hngtv.config import UNetSettings
from hngtv.networks.attention_unet import AttentionUNet
from hngtv.networks.build import build_network, count_parameters
from hngtv.networks.fusion import Fusion, ModalityStems

FUSIONS: tuple[Fusion, ...] = ("early", "stems", "pet_gated", "ct_only", "pet_only")
N_CT = 2


def tiny_network(fusion: Fusion, **changes: Any) -> AttentionUNet:
    """Two CT windows and PET in, three classes out; gates are not at their open start, so that they react."""
    torch.manual_seed(0)
    arguments: dict[str, Any] = {
        "in_channels": N_CT + 1, "out_channels": 3, "widths": (6, 8, 8, 12), "norm": "group", "open_gates": False,
        "variant": "paper", "fusion": fusion,
    }  # fmt: skip
    return AttentionUNet(**(arguments | changes)).eval()


def ct_and_pet(*size: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    size = size or (16, 16, 8)
    return torch.randn(1, N_CT, *size), torch.randn(1, 1, *size)


def join(ct: Tensor, pet: Tensor) -> Tensor:
    return torch.cat([ct, pet], dim=1)


@pytest.mark.parametrize("size", [(16, 8, 8), (9, 8, 11), (13, 17, 5), (3, 10, 4)])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_any_input_size_gives_logits_of_that_size(fusion: Fusion, size: tuple[int, int, int]) -> None:
    logits = tiny_network(fusion)(join(*ct_and_pet(*size)))
    assert isinstance(logits, Tensor)
    assert logits.shape == (1, 3, *size)
    assert logits.isfinite().all()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_two_dimensions_and_several_gates(fusion: Fusion) -> None:
    network = tiny_network(fusion, spatial_dims=2, variant="reference", n_gates=2)
    output = network.run(torch.randn(2, N_CT + 1, 12, 9))
    assert output.logits.shape == (2, 3, 12, 9)
    assert {name: alpha.shape for name, alpha in output.attention.items()} == {
        "gate3": (2, 2, 4, 4),
        "gate2": (2, 2, 8, 8),
    }


@pytest.mark.parametrize("fusion", FUSIONS)
def test_network_sees_what_its_name_says(fusion: Fusion) -> None:
    """Unseen channels change nothing at all, whatever they hold; seen ones do."""
    network, (ct, pet) = tiny_network(fusion), ct_and_pet()
    before = network(join(ct, pet))
    other_ct, other_pet = network(join(ct + 1, pet)), network(join(ct, pet * 2))
    assert torch.equal(other_ct, before) == (fusion == "pet_only")
    assert torch.equal(other_pet, before) == (fusion == "ct_only")
    broken = torch.full_like(pet, torch.nan)
    assert network(join(ct, broken)).isfinite().all() == (fusion == "ct_only")


@pytest.mark.parametrize("channel", range(N_CT + 1))
@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_seen_channel_gets_a_gradient(fusion: Fusion, channel: int) -> None:
    image = join(*ct_and_pet()).requires_grad_()
    tiny_network(fusion).run(image).logits.square().sum().backward()
    assert image.grad is not None
    unseen = fusion == ("ct_only" if channel == N_CT else "pet_only")
    assert bool(image.grad[:, channel].any()) != unseen


@pytest.mark.parametrize("deep_supervision", ["none", "fused", "auxiliary"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_weight_that_is_there_is_trained(fusion: Fusion, deep_supervision: Any) -> None:
    network = tiny_network(fusion, deep_supervision=deep_supervision).train()
    output = network.run(torch.randn(2, N_CT + 1, 16, 16, 8))
    torch.stack([logits.square().mean() for logits in (output.logits, *output.auxiliary)]).sum().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


def alphas(network: AttentionUNet, image: Tensor) -> list[Tensor]:
    return list(network.run(image).attention.values())


def test_pet_gates_listen_to_pet_and_not_to_the_decoder() -> None:
    ct, pet = ct_and_pet()
    for fusion in ("pet_gated", "early"):
        network = tiny_network(fusion)
        before = alphas(network, join(ct, pet))
        assert all(not torch.equal(a, b) for a, b in zip(before, alphas(network, join(ct, pet * 2)), strict=True))
        with torch.no_grad():
            for parameter in network.decoder.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        coarsest, finer = (torch.equal(a, b) for a, b in zip(before, alphas(network, join(ct, pet)), strict=True))
        assert coarsest
        assert finer == (fusion == "pet_gated")


def test_pet_gating_signal_is_one_level_coarser_than_its_skip() -> None:
    network = tiny_network("pet_gated")
    assert network.pet_encoder is not None
    ct, pet = ct_and_pet()
    heard: list[torch.Size] = []
    for gate in network.gates:
        gate.register_forward_pre_hook(lambda _, inputs: heard.append(inputs[1].shape))
    network(join(ct, pet))
    assert heard == [(1, 6, 2, 2, 1), (1, 4, 4, 4, 2)]


def test_pet_reaches_pet_gated_through_the_coarsest_level_too() -> None:
    """With all gates closed, so that no skip but the first one passes."""
    network, (ct, pet) = tiny_network("pet_gated"), ct_and_pet()
    with torch.no_grad():
        for name, parameter in network.gates.named_parameters():
            if "psi" in name:
                parameter.fill_(-100.0 if name.endswith("bias") else 0.0)
    assert all(not alpha.any() for alpha in alphas(network, join(ct, pet)))
    assert not torch.equal(network(join(ct, pet)), network(join(ct, pet * 2)))


def test_stems_keep_modalities_apart_in_the_first_level() -> None:
    network, (ct, pet) = tiny_network("stems", widths=(7, 8, 8)), ct_and_pet()
    stems = network.encoder[0]
    assert isinstance(stems, ModalityStems)
    before, other = stems(join(ct, pet)), stems(join(ct, pet * pet))
    assert before.shape[1] == 7
    assert torch.equal(before[:, :4], other[:, :4])
    assert not torch.equal(before[:, 4:], other[:, 4:])


@pytest.mark.parametrize(
    ("fusion", "n_parameters"),
    [
        ("early", 1_494_075),
        ("stems", 1_490_187),
        ("pet_gated", 1_717_107),
        ("ct_only", 1_493_643),
        ("pet_only", 1_493_643),
    ],
)
def test_parameters_of_the_default_attention_unet(fusion: Fusion, n_parameters: int) -> None:
    settings = UNetSettings(
        name="attention_unet",
        widths=(16, 32, 64, 128),
        norm="group",
        deep_supervision="auxiliary",
        gate_variant="paper",
        n_gates=1,
        leak=0.01,
        fusion=fusion,
    )
    with torch.device("meta"):
        network = build_network(settings, in_channels=2, out_channels=3)
    assert count_parameters(network) == n_parameters


@pytest.mark.parametrize("fusion", FUSIONS[1:])
def test_one_channel_cannot_be_fused(fusion: Fusion) -> None:
    with pytest.raises(ValueError, match=f"{fusion}.*in_channels=1"):
        AttentionUNet(3, 1, 2, (4, 8, 8), fusion=fusion)


@pytest.mark.parametrize("fusion", ["late", None, ["early"]])
def test_unknown_fusion_is_refused_by_name(fusion: Any) -> None:
    told = f"fusion: got {fusion!r}, allowed are early, stems, pet_gated, ct_only, pet_only: choose one"
    with pytest.raises(ValueError, match=re.escape(told)):
        AttentionUNet(in_channels=2, fusion=fusion)


def test_ways_that_need_more_say_so() -> None:
    with pytest.raises(ValueError, match="n_gates=0"):
        AttentionUNet(3, 2, 2, (4, 8, 8), n_gates=0, fusion="pet_gated")
    with pytest.raises(ValueError, match="number of widths: got 2"):
        AttentionUNet(3, 2, 2, (4, 8), fusion="pet_gated")
    with pytest.raises(ValueError, match=r"widths\[0\]=1"):
        AttentionUNet(3, 2, 2, (1, 8, 8), fusion="stems")
