"""ONNX files give what their networks give, at sizes they were not exported with; one that does not is not left."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hngtv.errors import InputError
from hngtv.export import onnx_files
from hngtv.export.onnx_files import write_file, write_onnx
from hngtv.export.package import open_model
from hngtv.model import Model
from hngtv.networks.attention_unet import AttentionUNet
from hngtv.networks.build import to_fast_layout
from hngtv.networks.convolution import plain_copy
from hngtv.networks.output import NetworkOutput
from hngtv.networks.slice_network import SliceNetwork
from hngtv.networks.sononet import SonoNet
from tests.export.conftest import Exported

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


@pytest.fixture(scope="module")
def model(exported: Exported) -> Model:
    """Both stages, with one of the networks of stage 1."""
    model = open_model(exported.package)
    return replace(model, coarse=model.coarse[:1])


def run(path: Path, image: Tensor) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image.numpy()})


@torch.inference_mode()
def outputs_of(network: Any, image: Tensor) -> list[Tensor]:
    output = network.run(image)
    return [output.logits, *output.attention.values()] if isinstance(network, SonoNet) else [output.logits]


def test_both_stages_agree_at_another_size(model: Model, tmp_path: Path) -> None:
    entries = write_onnx(model, tmp_path / "onnx")
    index = json.loads((tmp_path / "onnx/onnx.json").read_text())
    assert index["files"] == entries
    assert [entry["file"] for entry in entries] == ["coarse_0.onnx", "fine.onnx"]
    assert index["channels"][-1] == "PET from 0 to 20 SUV as log(1 + SUV)"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["onnx"]
    torch.manual_seed(1)
    for entry, network in zip(entries, (model.coarse[0], model.fine[0]), strict=True):
        assert entry["checked_on"].keys() == {"random", "phantom"}
        assert entry["largest_difference"] < 1e-4
        assert entry["times_faster"] == pytest.approx(entry["network_s"] / entry["onnx_s"], rel=0.1)
        image = torch.rand(1, 3, 8, 20, 12) * 2 - 1
        (got,) = run(tmp_path / "onnx" / entry["file"], image)
        (wanted,) = outputs_of(network, image)
        np.testing.assert_allclose(got, wanted.numpy(), atol=1e-4)


def test_a_file_that_does_not_agree_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, other = (AttentionUNet(3, 2, 2, (4, 8), n_gates=0, norm="instance").eval() for _ in range(2))
    other = plain_copy(other)
    monkeypatch.setattr(onnx_files, "plain_copy", lambda _: other)
    with pytest.raises(InputError, match=r"fine\.onnx differs from its network by .*at most 0\.0001 is allowed"):
        write_file(network, tmp_path / "fine.onnx", {"random": torch.rand(1, 2, 8, 8, 8)})


def test_a_file_is_held_against_the_network_in_its_plain_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the layout that predicts fastest, group normalisation rounds more than a file may differ."""
    network = AttentionUNet(3, 2, 2, (4, 8), n_gates=0, norm="group").eval()
    to_fast_layout(network)
    seen: list[nn.Module] = []
    difference = onnx_files._difference

    def noting(module: nn.Module, session: object, images: Tensor) -> float:
        seen.append(module)
        return difference(module, session, images)

    monkeypatch.setattr(onnx_files, "_difference", noting)
    write_file(network, tmp_path / "fine.onnx", {"random": torch.rand(1, 2, 8, 8, 8)})
    assert all(parameter.is_contiguous() for parameter in seen[0].parameters())
    assert not all(parameter.is_contiguous() for parameter in network.parameters())


def test_a_network_that_cannot_be_exported_is_told_with_its_cause(tmp_path: Path) -> None:
    class OfItsOwnMind(AttentionUNet):
        def run(self, images: Tensor) -> NetworkOutput:
            return super().run(images * float(np.random.default_rng().normal(images.mean().item())))

    network = OfItsOwnMind(3, 2, 2, (4, 8), n_gates=0, norm="instance").eval()
    with pytest.raises(InputError, match=r"fine\.onnx: PyTorch cannot export this network \(.+\); leave onnx out"):
        write_file(network, tmp_path / "fine.onnx", {"random": torch.rand(1, 2, 8, 8, 8)})
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_of_a_refused_export(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(network: nn.Module, path: Path, samples: dict[str, Tensor]) -> None:
        path.write_bytes(b"half a file")
        raise InputError("differs")

    monkeypatch.setattr(onnx_files, "write_file", refuse)
    with pytest.raises(InputError, match="differs"):
        write_onnx(model, tmp_path / "onnx")
    assert not list(tmp_path.iterdir())


def classifier() -> tuple[nn.Module, Tensor, Tensor]:
    network = SonoNet(2, 2, width=8, gated=True, aggregation="ft").eval()
    return network, torch.rand(3, 2, 32, 48), torch.rand(1, 2, 48, 32)


def slice_network() -> tuple[nn.Module, Tensor, Tensor]:
    network = SliceNetwork(AttentionUNet(2, 2, 2, (4, 8), n_gates=0, norm="instance")).eval()
    return network, torch.rand(3, 2, 16, 24), torch.rand(5, 2, 32, 12)


@pytest.mark.parametrize("kind", [classifier, slice_network])
def test_networks_of_slices_take_slices_as_their_batch(kind: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, sample, other = kind()
    entry = write_file(network, tmp_path / "slices.onnx", {"random": sample})
    inner = network.network if isinstance(network, SliceNetwork) else network
    for got, wanted in zip(run(tmp_path / "slices.onnx", other), outputs_of(inner, other), strict=True):
        np.testing.assert_allclose(got, wanted.numpy(), atol=1e-4)
    assert entry["outputs"] == (["logits", "gate3", "gate4"] if isinstance(network, SonoNet) else ["logits"])
