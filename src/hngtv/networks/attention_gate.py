"""The additive attention gate of Schlemper, Oktay et al. 2019, in the paper's form and in its authors' released form.

With skip features x on a fine grid and gating features g on a coarser one, at each voxel i of the coarser grid:

    q_i     = psi^T ReLU(W_x^T x_i + W_g^T g_i + b_g) + b_psi
    alpha_i = sigmoid(q_i)

alpha is interpolated to the grid of x and multiplies all channels of x. The classifier `SonoNet` has the same q with
another normalisation, `normalise_by_sum`.
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from hngtv.networks.blocks import CONVOLUTIONS, NORM_NAMES, PointwiseBlock, build_norm, resize
from hngtv.networks.checks import check_choice, check_count, check_maps, step_of

Variant = Literal["paper", "reference"]
GateVariant = Literal[Variant, "sononet"]

OPEN_BIAS = 3.0
"""sigmoid(3) = 0.953. Source: the released 2D gate; the paper asks for gates that start open."""

ROUNDING = 64
"""A map whose range is within this many units of rounding of its largest |q| counts as constant. Source: our choice;
the released code divides 0 by 0 there."""


def normalise_by_sum(scores: Tensor) -> Tensor:
    """alpha_i = (q_i - min q) / sum_j (q_j - min q), over the grid of each map: it sums to 1 and its least value is 0.

    A map that is constant up to rounding becomes uniform, and passes no gradient to q.

    Args:
        scores: q, (N, 1, X, Y[, Z]); taken as float32 if it is narrower.
    """
    scores = scores if scores.dtype == torch.float64 else scores.float()
    axes = tuple(range(2, scores.dim()))
    above = scores - scores.amin(axes, keepdim=True)
    limits = torch.finfo(scores.dtype)
    noise = (ROUNDING * limits.eps * scores.abs().amax(axes, keepdim=True)).clamp(min=limits.tiny)
    constant = above.amax(axes, keepdim=True) <= noise
    # Where the map is constant, the quotient is not used, but its gradient must not be 0 x inf.
    total = above.sum(axes, keepdim=True).masked_fill(constant, 1.0)
    return torch.where(constant, 1 / above.shape[2:].numel(), above / total)


class AttentionGate(nn.Module):
    """One gate: skip features in, the same features weighted by alpha out.

    Args:
        skip_channels: Channels of x.
        gating_channels: Channels of g.
        variant: "paper": W_x is 1 x 1 x 1 and the sum is taken after resizing to the grid of g; the output is alpha x.
            "reference": W_x is a strided convolution, 2 x 2 x 2 by default, and the output passes a 1 x 1 x 1
            convolution with normalisation. "sononet": W_x is 1 x 1 x 1, W_g has no bias and is resized to the grid
            of x, alpha is `normalise_by_sum` of q and the output alpha x, as in the released classifier.
        norm: "batch" or "instance", used by the reference variant.
        spatial_dims: 2 or 3.
        open_start: Start with alpha near `sigmoid(OPEN_BIAS)` everywhere (psi weights zero), else PyTorch's default.
            Not for "sononet", whose alpha sums to 1.
        inner_channels: F_int; None for `skip_channels`, as in the released CT networks.
        stride: Of the reference's W_x, a number or one for each axis: from the grid of x to that of g.

    Raises:
        ValueError: A setting is not among those allowed; the message says which are.
    """

    def __init__(
        self,
        skip_channels: int,
        gating_channels: int,
        variant: GateVariant = "reference",
        norm: str = "batch",
        spatial_dims: int = 3,
        open_start: bool = True,
        inner_channels: int | None = None,
        stride: int | tuple[int, ...] = 2,
    ) -> None:
        super().__init__()
        check_choice("spatial_dims", spatial_dims, tuple(CONVOLUTIONS))
        check_choice("variant", variant, get_args(GateVariant))
        check_choice("norm", norm, NORM_NAMES)
        width = skip_channels if inner_channels is None else inner_channels
        check_count("skip_channels", skip_channels, 1, "give the channels of x")
        check_count("gating_channels", gating_channels, 1, "give the channels of g")
        check_count("inner_channels", width, 1, "leave it out for those of x")
        step = step_of(stride, spatial_dims)
        if step is None:
            raise ValueError(
                f"stride: got {stride!r}, allowed are a whole number or {spatial_dims} of them, all 1 or more: "
                "give that of the pooling from the grid of x to that of g"
            )
        convolution = CONVOLUTIONS[spatial_dims]
        self.variant = variant
        self.skip_channels, self.gating_channels, self.spatial_dims = skip_channels, gating_channels, spatial_dims
        side = step if variant == "reference" else 1
        self.theta = convolution(skip_channels, width, kernel_size=side, stride=side, bias=False)
        self.phi = convolution(gating_channels, width, kernel_size=1, bias=variant != "sononet")
        self.psi = convolution(width, 1, kernel_size=1)
        self.output: nn.Module = nn.Identity()
        if variant == "reference":
            self.output = nn.Sequential(
                convolution(skip_channels, skip_channels, kernel_size=1),
                build_norm(norm, skip_channels, spatial_dims),
            )
        if open_start and variant != "sononet":
            nn.init.zeros_(self.psi.weight)
            nn.init.constant_(self.psi.bias, OPEN_BIAS)

    def forward(self, skip: Tensor, gating: Tensor) -> tuple[Tensor, Tensor]:
        """Weight the skip features.

        Args:
            skip: (N, F_x, X, Y, Z).
            gating: (N, F_g, X', Y', Z') on a coarser grid.
        Returns:
            Weighted features, shaped like `skip`, and alpha (N, 1, X, Y, Z) in [0, 1].

        Raises:
            ValueError: The features do not fit the gate.
        """
        check_maps("skip features x", skip, self.skip_channels, self.spatial_dims, "build with other skip_channels")
        check_maps(
            "gating features g", gating, self.gating_channels, self.spatial_dims, "build with other gating_channels"
        )
        projected = self.theta(skip)
        # The reference sums on the grid of theta(x), the paper on that of g: the same for sides that divide by 2.
        size = gating.shape[2:] if self.variant == "paper" else projected.shape[2:]
        summed = torch.relu(resize(projected, size) + resize(self.phi(gating), size))
        normalise = normalise_by_sum if self.variant == "sononet" else torch.sigmoid
        alpha = resize(normalise(self.psi(summed)), skip.shape[2:])
        return self.output(alpha * skip), alpha


class MultiAttentionGate(nn.Module):
    """Several gates on the same skip, fused by a 1 x 1 x 1 convolution, normalisation and ReLU.

    A single gate passes the same fusing block in the reference variant and none in the paper's. Arguments as for
    `AttentionGate`, and `n_gates` >= 1.
    """

    def __init__(
        self,
        skip_channels: int,
        gating_channels: int,
        n_gates: int,
        variant: Variant,
        norm: str,
        spatial_dims: int,
        open_start: bool,
        stride: int | tuple[int, ...] = 2,
    ) -> None:
        super().__init__()
        check_count("n_gates", n_gates, 1, "leave the gate out for none")
        check_choice("variant", variant, get_args(Variant))
        self.gates = nn.ModuleList(
            AttentionGate(skip_channels, gating_channels, variant, norm, spatial_dims, open_start, stride=stride)
            for _ in range(n_gates)
        )
        fused = n_gates > 1 or variant == "reference"
        self.combine = (
            PointwiseBlock(n_gates * skip_channels, skip_channels, norm, spatial_dims) if fused else nn.Identity()
        )

    def forward(self, skip: Tensor, gating: Tensor) -> tuple[Tensor, Tensor]:
        """As `AttentionGate.forward`; alpha is (N, n_gates, X, Y, Z)."""
        weighted, alphas = zip(*(gate(skip, gating) for gate in self.gates), strict=True)
        return self.combine(torch.cat(weighted, dim=1)), torch.cat(alphas, dim=1)
