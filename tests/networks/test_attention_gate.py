"""The attention gate against its equations, written once more in NumPy and float64."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hngtv.networks.attention_gate import OPEN_BIAS, AttentionGate, MultiAttentionGate, Variant

F_X, F_G = 3, 5
"""Channels of the skip and of the gating features."""
FINE, COARSE = 4, 2
"""Sides of their grids."""


def seeded_gate(variant: Variant = "paper", spatial_dims: int = 3, open_start: bool = False) -> AttentionGate:
    torch.manual_seed(0)
    return AttentionGate(F_X, F_G, variant, "instance", spatial_dims, open_start).double()


def features(spatial_dims: int = 3, n: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    skip = torch.randn(n, F_X, *[FINE] * spatial_dims, generator=generator, dtype=torch.float64)
    gating = torch.randn(n, F_G, *[COARSE] * spatial_dims, generator=generator, dtype=torch.float64)
    return skip.requires_grad_(), gating.requires_grad_()


Size = tuple[int, ...]
GRIDS: list[tuple[Size, Size, Size]] = [
    ((2, 2), (6, 4), (3, 2)),
    ((2, 1), (6, 3), (3, 3)),
    ((2, 2), (7, 4), (4, 2)),
    ((2, 2, 2), (4, 4, 4), (2, 2, 2)),
    ((2, 2, 1), (6, 4, 3), (3, 2, 3)),
    ((2, 2, 1), (7, 5, 3), (4, 3, 3)),
]
"""Stride, grid of the skip and grid of the gating features; odd sides are those of a pooling that rounds up."""


def resized(values: NDArray, size: Size) -> NDArray:
    """Linear interpolation of (N, C, ...), corners not aligned, one axis after the other; the edge is repeated."""
    for axis, (old, new) in enumerate(zip(values.shape[2:], size, strict=True), start=2):
        weights = np.zeros((new, old))
        for i in range(new):
            place = max((i + 0.5) * old / new - 0.5, 0)
            lower = int(place)
            weights[i, lower] += 1 - (place - lower)
            weights[i, min(lower + 1, old - 1)] += place - lower
        values = np.moveaxis(np.tensordot(values, weights, axes=(axis, 1)), -1, axis)
    return values


def convolved(values: NDArray, weight: NDArray, bias: NDArray | None = None) -> NDArray:
    """Convolution whose kernel (out, in, ...) is as large as its stride; what fills no kernel at the end is dropped."""
    kernel = weight.shape[2:]
    size = tuple(side // step for side, step in zip(values.shape[2:], kernel, strict=True))
    total = np.zeros((len(values), len(weight), *size), dtype=np.result_type(values, weight))
    for place in np.ndindex(*kernel):
        seen = tuple(slice(p, p + n * step, step) for p, n, step in zip(place, size, kernel, strict=True))
        total = total + np.einsum("fc,nc...->nf...", weight[(..., *place)], values[(..., *seen)])
    return total if bias is None else total + per_channel(bias, values.ndim)


def per_channel(vector: NDArray, n_axes: int) -> NDArray:
    return vector.reshape(1, -1, *[1] * (n_axes - 2))


def equations(variant: Variant, v: dict[str, NDArray]) -> tuple[NDArray, NDArray]:
    """What a gate gives, and alpha, from skip, gating and the gate's state; holds for complex numbers too.

    q = psi^T ReLU(W_x^T x + W_g^T g + b_g) + b_psi, on the grid of g (paper) or of W_x^T x (reference), and alpha
    = sigmoid(q) on the grid of x. The reference passes alpha x through a 1 x 1 x 1 convolution and batch normalisation
    with its stored mean and variance.
    """
    skip, n_axes = v["skip"], v["skip"].ndim
    x, g = convolved(skip, v["theta.weight"]), convolved(v["gating"], v["phi.weight"], v["phi.bias"])
    size = (g if variant == "paper" else x).shape[2:]
    summed = resized(x, size) + resized(g, size)
    q = convolved(np.where(np.real(summed) > 0, summed, 0), v["psi.weight"], v["psi.bias"])
    alpha = resized(1 / (1 + np.exp(-q)), skip.shape[2:])
    weighted = alpha * skip
    if variant == "reference":
        mean, scale = v["output.1.running_mean"], v["output.1.weight"] / np.sqrt(v["output.1.running_var"] + 1e-5)
        mixed = convolved(weighted, v["output.0.weight"], v["output.0.bias"])
        weighted = (mixed - per_channel(mean, n_axes)) * per_channel(scale, n_axes)
        weighted = weighted + per_channel(v["output.1.bias"], n_axes)
    return weighted, alpha


def any_gate(variant: Variant, stride: Size) -> AttentionGate:
    """In eval mode, with all weights and stored statistics away from where they start."""
    torch.manual_seed(0)
    gate = AttentionGate(F_X, F_G, variant, "batch", len(stride), open_start=False, inner_channels=4, stride=stride)
    with torch.no_grad():
        for name, value in [*gate.named_parameters(), *gate.named_buffers()]:
            if value.is_floating_point():
                value.copy_(torch.rand_like(value) + 0.5 if name.endswith("running_var") else torch.randn_like(value))
    return gate.double().eval()


@pytest.mark.parametrize(("stride", "fine", "coarse"), GRIDS)
@pytest.mark.parametrize("variant", ["paper", "reference"])
def test_values_and_gradients_are_those_of_the_equations(
    variant: Variant, stride: Size, fine: Size, coarse: Size
) -> None:
    """Derivatives of the equations by complex step: Im f(a + ih) / h, exact to rounding as nothing is subtracted."""
    gate, generator = any_gate(variant, stride), torch.Generator().manual_seed(1)
    skip = torch.randn(2, F_X, *fine, generator=generator, dtype=torch.float64).requires_grad_()
    gating = torch.randn(2, F_G, *coarse, generator=generator, dtype=torch.float64).requires_grad_()
    weighted, alpha = gate(skip, gating)
    weighted.square().sum().backward()
    inputs = {"skip": skip, "gating": gating} | dict(gate.named_parameters())
    values = {name: value.detach().numpy() for name, value in (inputs | dict(gate.named_buffers())).items()}
    wanted, wanted_alpha = equations(variant, values)
    np.testing.assert_allclose(alpha.detach().numpy(), wanted_alpha, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(weighted.detach().numpy(), wanted, rtol=1e-10, atol=1e-10)

    step = 1e-30
    for name, value in inputs.items():
        assert value.grad is not None
        found, flat = value.grad.numpy().reshape(-1), values[name].reshape(-1)
        for place in np.linspace(0, flat.size - 1, min(flat.size, 12)).astype(int):
            moved = flat.astype(complex)
            moved[place] += 1j * step
            loss = (equations(variant, values | {name: moved.reshape(value.shape)})[0] ** 2).sum()
            assert found[place] == pytest.approx(loss.imag / step, rel=1e-10, abs=1e-10), (name, place)


@pytest.mark.parametrize(("variant", "spatial_dims"), [(v, d) for v in ("paper", "reference") for d in (2, 3)])
def test_alpha_is_a_share_on_the_skip_s_grid(variant: Variant, spatial_dims: int) -> None:
    gate = seeded_gate(variant, spatial_dims)
    torch.nn.init.normal_(gate.psi.weight, std=5.0)
    skip, gating = features(spatial_dims)
    weighted, alpha = gate(100 * skip, 100 * gating)
    assert weighted.shape == skip.shape
    assert alpha.shape == (2, 1, *[FINE] * spatial_dims)
    assert alpha.min() >= 0
    assert alpha.max() <= 1
    assert alpha.std() > 0


@pytest.mark.parametrize("variant", ["paper", "reference"])
def test_gates_start_open_if_asked(variant: Variant) -> None:
    skip, gating = features()
    alpha = seeded_gate(variant, open_start=True)(skip, gating)[1]
    assert alpha.min() > 0.9
    torch.testing.assert_close(alpha, torch.full_like(alpha, OPEN_BIAS).sigmoid())
    assert seeded_gate(variant, open_start=False)(skip, gating)[1].min() < 0.9


@pytest.mark.parametrize("variant", ["paper", "reference"])
def test_open_gates_learn_after_one_step(variant: Variant) -> None:
    """While psi's weights are zero no gradient reaches theta and phi; one step of psi opens the way."""
    gate = seeded_gate(variant, open_start=True)
    optimiser = torch.optim.SGD(gate.parameters(), lr=0.1)
    skip, gating = features()
    for step in range(2):
        optimiser.zero_grad()
        (gate(skip.detach(), gating.detach())[1] * skip.detach()).square().sum().backward()
        reached = {
            name: layer.weight.grad is not None and bool(layer.weight.grad.abs().max() > 0)
            for name, layer in (("theta", gate.theta), ("phi", gate.phi), ("psi", gate.psi))
        }
        assert reached == {"theta": step > 0, "phi": step > 0, "psi": True}
        optimiser.step()


def test_reference_gate_has_a_strided_theta_and_an_output_layer() -> None:
    reference, paper = seeded_gate("reference"), seeded_gate("paper")
    assert reference.theta.weight.shape == (F_X, F_X, 2, 2, 2)
    assert paper.theta.weight.shape == (F_X, F_X, 1, 1, 1)
    for gate in (reference, paper):
        assert gate.theta.bias is None
        assert gate.phi.bias is not None
        assert gate.psi.bias is not None
    skip, gating = features()
    reference.output = torch.nn.Identity()
    weighted, alpha = reference(skip, gating)
    torch.testing.assert_close(weighted, alpha * skip)


@pytest.mark.parametrize(("variant", "n_gates"), [(v, n) for v in ("paper", "reference") for n in (1, 2, 3)])
def test_several_gates_give_an_alpha_each(variant: Variant, n_gates: int) -> None:
    gate = MultiAttentionGate(F_X, F_G, n_gates, variant, "instance", 3, open_start=False).double()
    skip, gating = features()
    fused, alphas = gate(skip, gating)
    assert fused.shape == skip.shape
    assert alphas.shape == (2, n_gates, FINE, FINE, FINE)
    for number, single in enumerate(gate.gates):
        torch.testing.assert_close(alphas[:, number : number + 1], single(skip, gating)[1])
    if variant == "paper" and n_gates == 1:
        torch.testing.assert_close(fused, alphas * skip)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"variant": "papr"}, "variant: got 'papr', allowed are paper, reference, sononet: choose one"),
        ({"norm": "layer"}, "norm: got 'layer', allowed are batch, instance, group: choose one"),
        ({"spatial_dims": 1}, "spatial_dims: got 1, allowed are 2, 3: choose one"),
        ({"skip_channels": 0}, "skip_channels: got 0, allowed are 1 and more: give the channels of x"),
        ({"gating_channels": 2.0}, "gating_channels: got 2.0, allowed are whole numbers, 1 and more: give"),
        ({"inner_channels": 0}, "inner_channels: got 0, allowed are 1 and more: leave it out"),
        ({"stride": (2, 2)}, "stride: got (2, 2), allowed are a whole number or 3 of them, all 1 or more: give"),
        ({"stride": 0}, "stride: got 0, allowed are a whole number or 3 of them"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any], told: str) -> None:
    arguments: dict[str, Any] = {"skip_channels": F_X, "gating_channels": F_G} | changes
    with pytest.raises(ValueError, match=re.escape(told)):
        AttentionGate(**arguments)


@pytest.mark.parametrize(
    ("n_gates", "variant", "told"),
    [
        (0, "paper", "n_gates: got 0, allowed are 1 and more"),
        (1, "sononet", "variant: got 'sononet', allowed are paper, reference"),
    ],
)
def test_gates_that_cannot_be_fused_are_refused(n_gates: int, variant: Any, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        MultiAttentionGate(F_X, F_G, n_gates, variant, "batch", 3, open_start=True)


@pytest.mark.parametrize(
    ("skip", "gating", "told"),
    [
        (
            (1, F_X + 1, 4, 4, 4),
            (1, F_G, 2, 2, 2),
            "got skip features x of shape (1, 4, 4, 4, 4), expected (N, 3, X, Y",
        ),
        (
            (1, F_X, 4, 4, 4),
            (1, F_X, 2, 2, 2),
            "got gating features g of shape (1, 3, 2, 2, 2), expected (N, 5, X, Y, Z)",
        ),
        (
            (1, F_X, 4, 4),
            (1, F_G, 2, 2),
            "got skip features x of shape (1, 3, 4, 4), expected (N, 3, X, Y, Z): reshape",
        ),
        ((1, F_X, 4, 4, 4), (1, F_G, 2, 0, 2), "sides of 1 and more"),
    ],
)
@pytest.mark.parametrize("variant", ["paper", "reference"])
def test_features_that_do_not_fit_are_refused(
    variant: Variant, skip: tuple[int, ...], gating: tuple[int, ...], told: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        AttentionGate(F_X, F_G, variant)(torch.zeros(skip), torch.zeros(gating))
