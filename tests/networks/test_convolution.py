"""Our 3D convolution against PyTorch's, forward and backward."""

import pytest
import torch
from torch import Tensor, nn

from hngtv.networks.convolution import PLAIN_LOOP_VALUES, Conv3d, plain_copy

KERNELS = {
    "3x3x3": {"kernel_size": 3, "padding": 1},
    "no bias": {"kernel_size": 3, "padding": 1, "bias": False},
    "1x1x1": {"kernel_size": 1},
    "strided": {"kernel_size": 2, "stride": 2},
    "unpadded": {"kernel_size": 3},
    "edge values": {"kernel_size": 3, "padding": 1, "padding_mode": "replicate"},
}


def run(layer: nn.Conv3d, image: Tensor, autocast: bool = False) -> dict[str, Tensor]:
    """Result and gradients of one pass."""
    image = image.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        result = layer(image)
    result.float().square().sum().backward()
    parameters = {name: parameter.grad for name, parameter in layer.named_parameters()}
    return {"result": result.float().detach(), "image": image.grad, **parameters}  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize("size", [(1, 3, 6, 6, 6), (1, 3, 5, 6, 7), (2, 3, 6, 5, 6)])
@pytest.mark.parametrize("kernel", KERNELS)
def test_it_is_the_usual_convolution(kernel: str, size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    ours, usual = Conv3d(3, 4, **KERNELS[kernel]), nn.Conv3d(3, 4, **KERNELS[kernel])
    usual.load_state_dict(ours.state_dict())
    image = torch.randn(size)
    for one, other in zip(run(ours, image).values(), run(usual, image).values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("autocast", [False, True])
def test_a_large_image_and_bf16(autocast: bool) -> None:
    """More values than the plain loop takes; bf16 is emulated where the processor lacks it."""
    torch.manual_seed(0)
    ours, usual = Conv3d(8, 4, 3, padding=1), nn.Conv3d(8, 4, 3, padding=1)
    usual.load_state_dict(ours.state_dict())
    image = torch.randn(1, 8, 54, 50, 3)
    assert image[0, ..., 0].numel() > PLAIN_LOOP_VALUES
    for one, other in zip(run(ours, image, autocast).values(), run(usual, image, autocast).values(), strict=True):
        assert (one - other).abs().max() <= (0.03 if autocast else 1e-4) * other.abs().max()


def test_an_image_without_gradient_and_frozen_weights() -> None:
    layer = Conv3d(2, 3, 3, padding=1)
    layer(torch.randn(1, 2, 4, 4, 4)).sum().backward()
    assert layer.weight.grad is not None
    with torch.inference_mode():
        assert layer(torch.randn(1, 2, 4, 4, 4)).shape == (1, 3, 4, 4, 4)


def test_a_plain_copy_has_pytorchs_layers_and_the_same_weights() -> None:
    torch.manual_seed(0)
    ours = nn.Sequential(Conv3d(2, 3, kernel_size=3, padding=1), nn.ReLU())
    copied = plain_copy(ours)
    assert type(copied[0]) is nn.Conv3d
    assert type(ours[0]) is Conv3d
    image = torch.randn(1, 2, 5, 6, 7)
    torch.testing.assert_close(copied(image), ours(image), rtol=1e-4, atol=1e-4)
