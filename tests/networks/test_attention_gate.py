"""The attention gate against its equations, written once more in NumPy and float64."""

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


def weights_of(gate: AttentionGate) -> dict[str, NDArray]:
    """Weights of 1 x 1 x 1 convolutions as matrices, and biases."""
    state = {name: value.detach().numpy() for name, value in gate.state_dict().items()}
    return {name: value.reshape(value.shape[:2]) if value.ndim > 1 else value for name, value in state.items()}


def halved(values: NDArray) -> NDArray:
    """Linear interpolation to half the sides: the mean of 2 x 2 (x 2) voxels."""
    for axis in range(2, values.ndim):
        pairs = np.moveaxis(values, axis, -1)
        values = np.moveaxis((pairs[..., ::2] + pairs[..., 1::2]) / 2, -1, axis)
    return values


def doubled(values: NDArray) -> NDArray:
    """Linear interpolation to twice the sides, corners not aligned: weights 3/4 and 1/4, the edge repeated."""
    for axis in range(2, values.ndim):
        lines = np.moveaxis(values, axis, -1)
        padded = np.concatenate([lines[..., :1], lines, lines[..., -1:]], axis=-1)
        finer = np.empty((*lines.shape[:-1], 2 * lines.shape[-1]))
        finer[..., ::2] = 0.75 * lines + 0.25 * padded[..., :-2]
        finer[..., 1::2] = 0.75 * lines + 0.25 * padded[..., 2:]
        values = np.moveaxis(finer, -1, axis)
    return values


def equations(skip: NDArray, gating: NDArray, w: dict[str, NDArray]) -> tuple[NDArray, NDArray]:
    """alpha x and alpha of the paper's gate."""
    x = halved(np.einsum("fc,nc...->nf...", w["theta.weight"], skip))
    g = np.einsum("fc,nc...->nf...", w["phi.weight"], gating) + w["phi.bias"].reshape(1, -1, *[1] * (skip.ndim - 2))
    q = np.einsum("fc,nc...->nf...", w["psi.weight"], np.maximum(x + g, 0)) + w["psi.bias"][0]
    alpha = doubled(1 / (1 + np.exp(-q)))
    return alpha * skip, alpha


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_forward_is_the_paper_s_equations(spatial_dims: int) -> None:
    gate = seeded_gate(spatial_dims=spatial_dims)
    skip, gating = features(spatial_dims)
    weighted, alpha = gate(skip, gating)
    wanted, wanted_alpha = equations(skip.detach().numpy(), gating.detach().numpy(), weights_of(gate))
    np.testing.assert_allclose(alpha.detach().numpy(), wanted_alpha, atol=1e-12)
    np.testing.assert_allclose(weighted.detach().numpy(), wanted, atol=1e-12)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_gradients_are_those_of_the_equations(spatial_dims: int) -> None:
    gate = seeded_gate(spatial_dims=spatial_dims)
    skip, gating = features(spatial_dims, n=1)
    gate(skip, gating)[0].square().sum().backward()
    gradients = {"skip": skip.grad, "gating": gating.grad} | {n: p.grad for n, p in gate.named_parameters()}
    values = {"skip": skip.detach().numpy(), "gating": gating.detach().numpy()} | weights_of(gate)

    def loss() -> float:
        return float((equations(values["skip"], values["gating"], values)[0] ** 2).sum())

    for name, gradient in gradients.items():
        assert gradient is not None
        flat, found = values[name].reshape(-1), gradient.numpy().reshape(-1)
        for place in np.linspace(0, flat.size - 1, min(flat.size, 6)).astype(int):
            before, step = flat[place], 1e-5
            flat[place] = before + step
            upper = loss()
            flat[place] = before - step
            lower = loss()
            flat[place] = before
            assert found[place] == pytest.approx((upper - lower) / (2 * step), rel=1e-5, abs=1e-7), name


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
