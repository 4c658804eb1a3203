"""Networks of others behave as ours do, at any size and at batch size 1; the user's own come in by their door."""

import re
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hngtv.config import OwnNetworkSettings, parse_network
from hngtv.errors import InputError
from hngtv.networks import peers
from hngtv.networks.attention_unet import AttentionUNet
from hngtv.networks.build import build_network
from hngtv.networks.output import NetworkOutput, SegmentationNetwork
from hngtv.networks.peers import PeerNetwork
from tests.own_network import install_example

TREES: dict[str, dict[str, Any]] = {
    "monai_attention_unet": {"widths": [4, 8, 8], "kernel_size": 3, "up_kernel_size": 3, "dropout": 0},
    "segresnet": {
        "init_filters": 4, "blocks_down": [1, 1, 1], "blocks_up": [1, 1], "norm": "group",
        "upsample_mode": "nontrainable", "dropout": 0,
    },
    "dynunet": {
        "widths": [4, 8, 8, 8], "kernel_sizes": [[3, 3, 1], [3, 3, 3], [3, 3, 3], [3, 3, 3]],
        "strides": [[1, 1, 1], [2, 2, 1], [2, 2, 3], [1, 1, 1]], "norm": "instance", "res_block": False,
        "deep_supervision_heads": 2, "dropout": 0,
    },
    "swinunetr": {
        "feature_size": 12, "depths": [1, 1, 1, 1], "num_heads": [3, 6, 12, 24], "window_size": 2, "norm": "instance",
        "use_v2": False, "drop_rate": 0, "attn_drop_rate": 0, "dropout_path_rate": 0,
    },
}  # fmt: skip
STRIDES = {"monai_attention_unet": 4, "segresnet": 4, "dynunet": 12, "swinunetr": 32}


def tree_of(name: str, **changes: Any) -> dict[str, Any]:
    return {"name": name, **TREES[name], **changes}


def build(name: str, **changes: Any) -> SegmentationNetwork:
    torch.manual_seed(0)
    return build_network(parse_network(tree_of(name, **changes)), in_channels=2, out_channels=3)


@pytest.mark.parametrize("name", TREES)
def test_logits_have_the_size_of_the_image(name: str) -> None:
    network = build(name).eval()
    assert parse_network(tree_of(name)).total_stride == STRIDES[name]
    with torch.no_grad():
        for size in ((9, 5, 7), (STRIDES[name],) * 3):
            output = network.run(torch.randn(1, 2, *size))
            assert output.logits.shape == (1, 3, *size)
            assert not output.auxiliary
            assert not output.attention


@pytest.mark.parametrize("name", TREES)
def test_one_voxel_at_the_coarsest_level_trains_at_batch_size_1(name: str) -> None:
    network = build(name)
    output = network.run(torch.randn(1, 2, 4, 4, 4))
    torch.stack([logits.square().mean() for logits in (output.logits, *output.auxiliary)]).sum().backward()
    assert [key for key, value in network.named_parameters() if value.grad is None] == []


@pytest.mark.parametrize(("n_heads", "shapes"), [(0, []), (2, [(1, 3, 9, 5, 7)] * 2)])
def test_heads_of_dynunet_are_auxiliary_logits_in_training(n_heads: int, shapes: list[tuple[int, ...]]) -> None:
    network, images = build("dynunet", deep_supervision_heads=n_heads), torch.randn(1, 2, 9, 5, 7)
    trained = network.run(images)
    assert [tuple(logits.shape) for logits in trained.auxiliary] == shapes
    torch.testing.assert_close(network.eval().run(images).logits, trained.logits)


@pytest.mark.parametrize("norm", ["batch", "instance", "group"])
@pytest.mark.parametrize("name", ["segresnet", "dynunet", "swinunetr"])
def test_normalisation_is_the_one_asked_for(name: str, norm: str) -> None:
    kinds = {"batch": nn.BatchNorm3d, "instance": nn.InstanceNorm3d, "group": nn.GroupNorm}
    found = {type(layer) for layer in build(name, norm=norm).modules()}
    assert found & set(kinds.values()) == {kinds[norm]}


@pytest.mark.parametrize("shape", [(1, 3, 8, 8, 8), (1, 2, 8, 8)])
def test_images_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    told = f"got images for network segresnet of shape {shape}, expected (N, 2, X, Y, Z): reshape them, or build"
    with pytest.raises(ValueError, match=re.escape(told)):
        build("segresnet")(torch.zeros(shape))


def test_attention_of_a_network_without_is_refused_by_its_name() -> None:
    with pytest.raises(ValueError, match=r"return_attention=True, but network segresnet returns no attention maps"):
        build("segresnet").eval()(torch.zeros(1, 2, 8, 8, 8), return_attention=True)


def test_speed_changes_no_result() -> None:
    torch.manual_seed(0)
    plain, images = nn.Sequential(nn.Conv3d(2, 3, kernel_size=3, padding=1)), torch.randn(1, 2, 8, 8, 8)
    expected = plain(images)
    network = PeerNetwork(plain, in_channels=2, out_channels=3, total_stride=4, label="network")
    assert type(plain[0]) is not nn.Conv3d
    torch.testing.assert_close(network(images), expected)


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        ("segresnet", {"init_filtres": 8}, r"unknown key init_filtres; did you mean init_filters\?"),
        ("segresnet", {"blocks_up": [1]}, "blocks_up needs one value less"),
        ("segresnet", {"widths": [8]}, "unknown key widths"),
        ("dynunet", {"strides": [[1, 1, 1]] * 3}, "same number of levels"),
        ("dynunet", {"strides": [[2, 2, 2]] * 4}, "begin with"),
        ("dynunet", {"strides": [[1, 1, 1], [2, 2, 5], [1, 1, 1], [1, 1, 1]]}, "exceed kernel_sizes"),
        ("dynunet", {"deep_supervision_heads": 3}, "at most 2"),
        ("swinunetr", {"feature_size": 18}, "feature_size.* 12"),
        ("swinunetr", {"num_heads": [3, 6, 12, 25]}, r"num_heads\[3\]"),
        ("monai_attention_unet", {"kernel_size": 2}, "kernel_size.*got 2"),
    ],
)
def test_mistake_is_named(name: str, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        parse_network(tree_of(name, **changes))


def test_our_network_is_a_segmentation_network() -> None:
    network = AttentionUNet(3, 2, 2, (4, 8, 8))
    assert isinstance(network, SegmentationNetwork)
    assert isinstance(network.run(torch.zeros(1, 2, 8, 8, 8)), NetworkOutput)


def own(**changes: Any) -> SegmentationNetwork:
    tree = {"name": "own", "entry_point": "small", "arguments": {"width": 4}, "total_stride": 4, **changes}
    return build_network(parse_network(tree), in_channels=2, out_channels=3)


def test_own_network_of_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_example(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    logits, attention = own()(torch.randn(2, 2, 9, 5, 7), return_attention=True)
    assert logits.shape == (2, 3, 9, 5, 7)
    assert attention["gate"].shape == (2, 1, 9, 5, 7)
    assert own().run(torch.randn(2, 2, 9, 5, 7)).attention["gate"].shape == (2, 1, 3, 2, 2)
    with pytest.raises(InputError, match=r"expected one of the installed networks.*small.*got 'smal'"):
        own(entry_point="smal")
    with pytest.raises(InputError, match=r"own network small: my_networks:SmallNet fails .*TypeError.*widht"):
        own(arguments={"widht": 4})


def test_no_class_is_imported_that_is_not_registered() -> None:
    with pytest.raises(InputError, match=r"there are none.*got 'torch.nn:Conv3d'"):
        own(entry_point="torch.nn:Conv3d")


@pytest.mark.parametrize(
    ("value", "told"),
    [("nowhere:Net", "cannot be imported.*nowhere"), ("builtins:dict", "returned a dict, expected a torch.nn.Module")],
)
def test_unusable_entry_point_is_named(value: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OwnNetworkSettings, "__post_init__", lambda self: None)
    monkeypatch.setattr(peers, "entry_points", lambda group, name: [EntryPoint(name, value, group)])
    settings = OwnNetworkSettings(name="own", entry_point="mine", arguments={}, total_stride=4)
    with pytest.raises(InputError, match=f"own network mine: .*{told}"):
        build_network(settings, in_channels=2, out_channels=3)


class Answer(nn.Module):
    """Answers always the same."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, images: Tensor) -> Any:
        return self.answer


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ([1], "a list as logits"),
        (torch.zeros(1, 2, 8, 8, 8), r"shape \(1, 2, 8, 8, 8\), expected \(1, 3, 8, 8, 8\)"),
        (torch.zeros(1, 3, 4, 4, 4), r"shape \(1, 3, 4, 4, 4\), expected \(1, 3, 8, 8, 8\)"),
        ((torch.zeros(1, 3, 8, 8, 8), torch.zeros(1)), "a Tensor as attention, expected a dict"),
        ((torch.zeros(1, 3, 8, 8, 8), {"g": torch.zeros(1, 8)}), r"attention 'g' of shape \(1, 8\), expected"),
        ((torch.zeros(1, 3, 8, 8, 8), {"g": None}), "attention 'g' of a NoneType, expected"),
    ],
)
def test_wrong_answer_says_what_was_expected(answer: Any, told: str) -> None:
    network = PeerNetwork(Answer(answer), in_channels=2, out_channels=3, total_stride=4, label="own network mine")
    with pytest.raises(InputError, match=f"own network mine returned .*{told}"):
        network(torch.zeros(1, 2, 8, 8, 7))
