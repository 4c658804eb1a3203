"""3D convolution on a CPU in 32 bits through oneDNN, also where PyTorch would not ask for it.

For one small image on one thread PyTorch 2.13 falls back to a plain loop, forward and backward: 3 to 15 times slower on
the layers of this package (docs/results.md). Results are the same to rounding.
"""

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

ONE = (1, 1, 1)
PLAIN_LOOP_VALUES = 20480
"""PyTorch 2.13 uses its plain loop for a batch of 1 with at most this many values in channels x first two sides."""


class Conv3d(nn.Conv3d):
    """`nn.Conv3d` that asks for oneDNN on a CPU in 32 bits."""

    def forward(self, input: Tensor) -> Tensor:
        padding = self.padding
        in_32_bits = input.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        has_one_dnn = input.device.type == "cpu" and torch.backends.mkldnn.is_available()
        if isinstance(padding, str) or self.padding_mode != "zeros" or not in_32_bits or not has_one_dnn:
            return super().forward(input)
        shape = (self.kernel_size, padding, self.stride, self.dilation, self.groups)
        if input.shape[0] == 1 and shape == ((3, 3, 3), ONE, ONE, ONE, 1):
            return _OneImage.apply(input, self.weight, self.bias)  # pyright: ignore[reportReturnType]
        return torch.mkldnn_convolution(input, self.weight, self.bias, padding, self.stride, self.dilation, self.groups)


Network = TypeVar("Network", bound=nn.Module)


def plain_copy(network: Network) -> Network:
    """A copy whose 3D convolutions are PyTorch's own, which exporters know; the same to rounding."""
    copied = copy.deepcopy(network)
    for layer in copied.modules():
        if type(layer) is Conv3d:
            layer.__class__ = nn.Conv3d  # pyright: ignore[reportAttributeAccessIssue]
    return copied


class _OneImage(torch.autograd.Function):
    """3 x 3 x 3 convolution of a batch of 1, padded by 1, whose backward pass is fast too."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(image, weight)
        ctx.has_bias = bias is not None
        return torch.mkldnn_convolution(image, weight, bias, ONE, ONE, ONE, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None]:
        image, weight = ctx.saved_tensors
        to_image = None
        if ctx.needs_input_grad[0]:
            mirrored = weight.transpose(0, 1).flip((2, 3, 4))
            to_image = torch.mkldnn_convolution(gradients[0], mirrored, None, ONE, ONE, ONE, 1)
        return to_image, *_weight_gradient(image, gradients[0], weight, ctx.has_bias)


def _weight_gradient(image: Tensor, gradient: Tensor, weight: Tensor, has_bias: bool) -> tuple[Tensor, Tensor | None]:
    """Gradients to weight and bias; a small image goes in as a batch of its two halves, which oneDNN gets."""
    padding = ONE
    if image[0, ..., 0].numel() <= PLAIN_LOOP_VALUES:
        padding = (0, 1, 1)
        odd = image.shape[2] % 2
        half = (image.shape[2] + odd) // 2
        image = functional.pad(image, (0, 0, 0, 0, 1, 1 + odd))
        gradient = functional.pad(gradient, (0, 0, 0, 0, 0, odd))
        image = torch.cat([image[:, :, : half + 2], image[:, :, half:]])
        gradient = torch.cat([gradient[:, :, :half], gradient[:, :, half:]])
    _, to_weight, to_bias = torch.ops.aten.convolution_backward(
        gradient,
        image,
        weight,
        [len(weight)] if has_bias else None,
        ONE,
        padding,
        ONE,
        False,
        (0, 0, 0),
        1,
        (False, True, has_bias),
    )
    return to_weight, to_bias
