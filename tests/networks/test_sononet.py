"""SonoNet: published counts and cost, the gate's equation in NumPy, each aggregation by hand, bad settings."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from hngtv.networks.attention_gate import AttentionGate, normalise_by_sum
from hngtv.networks.build import count_parameters
from hngtv.networks.sononet import MIN_SIDE, ClassifierOutput, SonoNet, classification_loss

AGGREGATIONS = ("concat", "mean", "deep_supervision", "ft")
N_CLASSES = 3
PUBLISHED = {
    (8, False): (162_954, 0.163),
    (16, False): (647_914, 0.648),
    (32, False): (2_583_978, 2.584),
    (8, True): (177_670, 0.178),
    (16, True): (701_318, 0.701),
    (32, True): (2_788_486, 2.788),
}
"""(width, gated) to the exact count and the millions that the paper prints."""


def seeded_network(**changes: Any) -> SonoNet:
    torch.manual_seed(0)
    arguments: dict[str, Any] = {"n_classes": N_CLASSES} | changes
    return SonoNet(**arguments).double().eval()


def seeded_images(n: int = 2, sides: tuple[int, int] = (48, 56), channels: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, channels, *sides, generator=generator, dtype=torch.float64)


def seeded_gate(**changes: Any) -> AttentionGate:
    torch.manual_seed(0)
    return AttentionGate(3, 5, "sononet", spatial_dims=2, inner_channels=6, **changes).double()


def vectors_of(network: SonoNet, images: Tensor) -> list[Tensor]:
    """Weighted averages of blocks 3 and 4, and the average of block 5, from the attention that the network returns."""
    attention = network.run(images).attention
    features = []
    for number, block in enumerate(network.blocks):
        images = block(functional.max_pool2d(images, 2) if number else images)
        features.append(images)
    third = (features[2] * attention["gate3"]).sum(dim=(2, 3))
    fourth = (features[3] * attention["gate4"]).sum(dim=(2, 3))
    return [third, fourth, features[4].mean(dim=(2, 3))]


@pytest.mark.parametrize(("width", "gated"), PUBLISHED)
def test_parameter_counts_are_the_published_ones(width: int, gated: bool) -> None:
    exact, millions = PUBLISHED[width, gated]
    with torch.device("meta"):
        network = SonoNet(1, 14, width, gated, "ft")
    assert count_parameters(network) == exact
    assert round(exact / 1e6, 3) == millions


@pytest.mark.parametrize(
    ("width", "gated", "wanted"),
    [(8, False, 0.298), (16, False, 1.183), (32, False, 4.717), (8, True, 0.310), (16, True, 1.233), (32, True, 4.913)],
)
def test_multiplications_of_the_released_networks(width: int, gated: bool, wanted: float) -> None:
    """Giga-multiplications of the convolutions at 208 x 272, counted in the released code."""
    counted = []

    def count(layer: nn.Module, _: Any, output: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d)
        counted.append(layer.weight.numel() * output[0, 0].numel())

    with torch.device("meta"):
        network = SonoNet(1, 14, width, gated).eval()
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                layer.register_forward_hook(count)
        network(torch.zeros(1, 1, 208, 272))
    assert round(sum(counted) / 1e9, 3) == wanted


def test_blocks_and_gates_have_the_released_form() -> None:
    network = SonoNet(2, width=16)
    blocks = [[layer for layer in block.modules() if isinstance(layer, nn.Conv2d)] for block in network.blocks]
    assert [len(block) for block in blocks] == [3, 3, 3, 2, 2]
    assert [block[-1].out_channels for block in blocks] == [16, 32, 64, 128, 128]
    assert blocks[0][0].in_channels == 2
    for name, channels in (("gate3", 64), ("gate4", 128)):
        gate = network.gates[name]
        assert isinstance(gate, AttentionGate)
        assert gate.theta.weight.shape == (128, channels, 1, 1)
        assert gate.phi.weight.shape == (128, 128, 1, 1)
        assert gate.theta.bias is None
        assert gate.phi.bias is None
        assert gate.psi.bias is not None


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("sides", [(16, 16), (17, 31), (40, 63), (208, 272)])
def test_any_size_from_the_least_on(sides: tuple[int, int], gated: bool) -> None:
    network = SonoNet(2, N_CLASSES, gated=gated).eval()
    logits = network(torch.randn(2, 2, *sides))
    assert logits.shape == (2, N_CLASSES)
    assert logits.isfinite().all()


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("sides", [(16, 16), (50, 71)])
def test_attention_sums_to_one_with_least_value_zero(aggregation: str, sides: tuple[int, int]) -> None:
    logits, attention = seeded_network(aggregation=aggregation)(seeded_images(2, sides), return_attention=True)
    assert logits.shape == (2, N_CLASSES)
    assert {name: alpha.shape for name, alpha in attention.items()} == {
        "gate3": (2, 1, sides[0] // 4, sides[1] // 4),
        "gate4": (2, 1, sides[0] // 8, sides[1] // 8),
    }
    for alpha in attention.values():
        assert alpha.requires_grad
        assert (alpha.amin(dim=(1, 2, 3)) == 0).all()
        assert alpha.max() <= 1
        torch.testing.assert_close(alpha.sum(dim=(1, 2, 3)), torch.ones(2, dtype=torch.float64))


def resized(values: NDArray, size: tuple[int, ...]) -> NDArray:
    """Bilinear interpolation of (N, C, X, Y), corners not aligned, one axis after the other."""
    for axis, n in zip((2, 3), size, strict=True):
        old = values.shape[axis]
        place = np.clip((np.arange(n) + 0.5) * old / n - 0.5, 0, None)
        lower = np.floor(place).astype(int)
        share = (place - lower).reshape([-1 if a == axis else 1 for a in range(4)])
        upper = np.minimum(lower + 1, old - 1)
        values = (1 - share) * np.take(values, lower, axis) + share * np.take(values, upper, axis)
    return values


def equations(gate: AttentionGate, skip: NDArray, gating: NDArray) -> tuple[NDArray, NDArray]:
    """alpha x and alpha."""
    w = {name: value.detach().numpy() for name, value in gate.state_dict().items()}
    x = np.einsum("fc,nc...->nf...", w["theta.weight"][..., 0, 0], skip)
    g = np.einsum("fc,nc...->nf...", w["phi.weight"][..., 0, 0], gating)
    summed = np.maximum(x + resized(g, skip.shape[2:]), 0)
    q = np.einsum("fc,nc...->nf...", w["psi.weight"][..., 0, 0], summed) + w["psi.bias"][0]
    above = q - q.min(axis=(2, 3), keepdims=True)
    alpha = above / above.sum(axis=(2, 3), keepdims=True)
    return alpha * skip, alpha


@pytest.mark.parametrize(
    ("fine", "coarse"), [((8, 12), (2, 3)), ((12, 8), (6, 4)), ((11, 5), (2, 1)), ((4, 4), (1, 1))]
)
def test_gate_is_the_equation(fine: tuple[int, int], coarse: tuple[int, int]) -> None:
    gate = seeded_gate()
    skip, gating = seeded_images(2, fine, 3), seeded_images(2, coarse, 5)
    wanted, wanted_alpha = equations(gate, skip.numpy(), gating.numpy())
    weighted, alpha = gate(skip, gating)
    np.testing.assert_allclose(alpha.detach().numpy(), wanted_alpha, rtol=0, atol=1e-10)
    np.testing.assert_allclose(weighted.detach().numpy(), wanted, rtol=0, atol=1e-10)


def test_gate_has_the_gradient_of_its_equation() -> None:
    gate = seeded_gate()
    skip, gating = seeded_images(2, (6, 4), 3).requires_grad_(), seeded_images(2, (3, 2), 5).requires_grad_()
    assert torch.autograd.gradcheck(gate, (skip, gating))


@pytest.mark.parametrize("level", [0.0, 1e-300, -7.25, 1e6])
@pytest.mark.parametrize("noise", [0.0, 1e-15])
def test_constant_scores_give_a_uniform_map(level: float, noise: float) -> None:
    scores = level * (1 + noise * seeded_images(2, (5, 6)).sign())
    alpha = normalise_by_sum(scores.requires_grad_())
    assert (alpha == 1 / 30).all()
    (alpha * seeded_images(2, (5, 6))).sum().backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()


def test_a_constant_map_leaves_the_others_of_its_batch_alone() -> None:
    scores = seeded_images(3, (5, 6))
    scores[1] = 4.0
    scores.requires_grad_()
    alpha = normalise_by_sum(scores)
    assert (alpha[1] == 1 / 30).all()
    torch.testing.assert_close(alpha[::2], normalise_by_sum(scores[::2]))
    alpha.square().sum().backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()
    assert (scores.grad[::2] != 0).any()


def test_narrow_scores_are_normalised_in_float32() -> None:
    scores = seeded_images(2, (64, 64)).half()
    alpha = normalise_by_sum(scores)
    assert alpha.dtype == torch.float32
    torch.testing.assert_close(alpha, normalise_by_sum(scores.float()))


def test_gates_of_constant_features_average() -> None:
    network = seeded_network(aggregation="concat")
    for gate in network.gates.values():
        assert isinstance(gate, AttentionGate)
        nn.init.zeros_(gate.psi.weight)
    output = network.train().run(seeded_images())
    assert (output.attention["gate3"] == 1 / (12 * 14)).all()
    output.logits.sum().backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("gated", [False, True])
def test_constant_images_give_finite_logits_and_gradients(value: float, gated: bool) -> None:
    network = SonoNet(1, N_CLASSES, gated=gated)
    loss = classification_loss(network.run(torch.full((2, 1, 40, 40), value)), torch.tensor([0, 1]))
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_gradient_reaches_every_parameter(aggregation: str) -> None:
    network = seeded_network(aggregation=aggregation).train()
    classification_loss(network.run(seeded_images()), torch.tensor([0, 2])).backward()
    check_gradients(network, idle=("gates.gate3.psi.bias", "gates.gate4.psi.bias"))


def test_gradient_reaches_every_parameter_of_the_plain_network() -> None:
    network = seeded_network(gated=False).train()
    classification_loss(network.run(seeded_images()), torch.tensor([0, 2])).backward()
    check_gradients(network, idle=())


def check_gradients(network: SonoNet, idle: tuple[str, ...]) -> None:
    """None is missing, and none is zero but where a later mean or minimum is subtracted: `idle`, and before a norm."""
    before_norm = {
        f"{name}.{number}.bias"
        for name, chain in network.named_modules()
        if isinstance(chain, nn.Sequential)
        for number, layer in enumerate(chain)
        if isinstance(layer, nn.Conv2d)
    }
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        if name not in before_norm and name not in idle:
            assert parameter.grad.abs().max() > 1e-12, name
    assert set(idle) <= dict(network.named_parameters()).keys()


def test_plain_network_averages_class_maps() -> None:
    network, images = seeded_network(gated=False), seeded_images()
    features = images
    for number, block in enumerate(network.blocks):
        features = block(functional.max_pool2d(features, 2) if number else features)
    output = network.run(images)
    torch.testing.assert_close(output.logits, network.adaptation(features).mean(dim=(2, 3)))
    assert network.adaptation(features).min() < 0
    assert (len(output.heads), output.weights, output.attention) == (1, (1.0,), {})


def test_concat_classifies_all_vectors_at_once() -> None:
    network, images = seeded_network(aggregation="concat"), seeded_images()
    output, vectors = network.run(images), torch.cat(vectors_of(network, images), dim=1)
    assert vectors.shape == (2, 32 + 64 + 64)
    torch.testing.assert_close(output.logits, vectors @ network.classifier.weight.T + network.classifier.bias)
    assert output.heads == (output.logits,)
    assert output.weights == (1.0,)
    assert len(network.heads) == 0


def by_head(network: SonoNet, images: Tensor) -> list[Tensor]:
    return [head(vector) for head, vector in zip(network.heads, vectors_of(network, images), strict=True)]


def test_mean_averages_the_probabilities_of_three_heads() -> None:
    network, images = seeded_network(aggregation="mean"), seeded_images()
    output, separate = network.run(images), by_head(network, images)
    wanted = sum(logits.softmax(1) for logits in separate) / 3
    torch.testing.assert_close(output.logits.exp(), wanted)
    torch.testing.assert_close(output.logits.softmax(1), wanted)
    torch.testing.assert_close(list(output.heads), separate)
    assert output.weights == (1.0, 1.0, 1.0)
    assert not hasattr(network, "classifier")


def test_mean_is_finite_where_a_probability_is_zero() -> None:
    network = SonoNet(1, N_CLASSES, aggregation="mean").eval()
    for head in network.heads:
        nn.init.constant_(head.bias[:1], 1e4)  # pyright: ignore[reportArgumentType, reportIndexIssue]
    assert network(torch.randn(2, 1, 32, 32)).isfinite().all()


def test_deep_supervision_answers_by_the_first_of_four_heads() -> None:
    network, images = seeded_network(aggregation="deep_supervision"), seeded_images()
    output = network.run(images)
    together = network.classifier(torch.cat(vectors_of(network, images), dim=1))
    torch.testing.assert_close(list(output.heads), [together, *by_head(network, images)])
    assert output.logits is output.heads[0]
    assert output.weights == (1.0, 0.1, 0.1, 0.1)


def test_ft_classifies_the_logits_of_three_heads() -> None:
    network, images = seeded_network(aggregation="ft"), seeded_images()
    output = network.run(images)
    assert network.classifier.weight.shape == (N_CLASSES, 3 * N_CLASSES)
    torch.testing.assert_close(output.logits, network.classifier(torch.cat(by_head(network, images), dim=1)))
    assert output.heads == (output.logits,)
    assert output.weights == (1.0,)


def test_fine_tuning_goes_on_from_the_mean_network() -> None:
    first, images = seeded_network(aggregation="mean"), seeded_images()
    second = first.fine_tuned()
    assert (first.aggregation, second.aggregation) == ("mean", "ft")
    assert second.classifier.weight.dtype == torch.float64
    torch.testing.assert_close(by_head(second, images), by_head(first, images))
    assert not {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}
    assert all(parameter.requires_grad for parameter in second.parameters())
    restored = seeded_network(aggregation="ft")
    restored.load_state_dict(second.state_dict())
    torch.testing.assert_close(restored(images), second(images))


def test_fine_tuning_needs_a_mean_network() -> None:
    for wrong in (seeded_network(aggregation="ft"), seeded_network(gated=False, aggregation="mean")):
        with pytest.raises(ValueError, match=r"got .* to fine-tune.*SonoNet\(aggregation='mean'\) first"):
            wrong.fine_tuned()


def test_loss_is_the_weighted_sum_of_cross_entropies() -> None:
    heads = tuple(torch.randn(4, N_CLASSES, generator=torch.Generator().manual_seed(n)) for n in range(4))
    labels, weights = torch.tensor([0, 2, 1, 2]), (1.0, 0.1, 0.1, 0.1)
    by_hand = 0.0
    for weight, logits in zip(weights, heads, strict=True):
        shares = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(axis=1, keepdims=True)
        by_hand += weight * -np.log(shares[np.arange(4), labels.numpy()]).mean()
    found = classification_loss(ClassifierOutput(heads[0], heads, weights, {}), labels)
    assert found.item() == pytest.approx(by_hand, rel=1e-6)


def test_gradients_of_the_heads_have_the_weights() -> None:
    output = seeded_network(aggregation="deep_supervision").run(seeded_images())
    found = torch.autograd.grad(classification_loss(output, torch.tensor([0, 2])), output.heads)
    for gradient, logits, weight in zip(found, output.heads, (1, 0.1, 0.1, 0.1), strict=True):
        truth = functional.one_hot(torch.tensor([0, 2]), N_CLASSES)
        torch.testing.assert_close(gradient, weight * (logits.softmax(1) - truth) / 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 7}, "width: got 7, allowed are 8, 16, 32"),
        ({"aggregation": "max"}, "aggregation: got 'max', allowed are concat, mean, deep_supervision, ft"),
        ({"aggregation": "max", "gated": False}, "aggregation: got 'max'"),
        ({"in_channels": 0}, "in_channels: got 0, allowed are 1 and more"),
        ({"n_classes": 1}, "n_classes: got 1, allowed are 2 and more"),
    ],
)
def test_bad_settings(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SonoNet(**changes)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 1, MIN_SIDE, MIN_SIDE - 1), r"got images of shape \(1, 1, 16, 15\), allowed are sides of 16 .*: pad"),
        ((1, 2, 32, 32), r"got images of shape \(1, 2, 32, 32\), expected \(N, 1, X, Y\): reshape"),
        ((1, 32, 32), r"expected \(N, 1, X, Y\)"),
    ],
)
def test_bad_images(shape: tuple[int, ...], message: str, gated: bool) -> None:
    with pytest.raises(ValueError, match=message):
        SonoNet(gated=gated).eval()(torch.zeros(shape))


def test_one_small_image_cannot_train_batch_normalisation() -> None:
    network = SonoNet()
    with pytest.raises(ValueError, match="give more images, or a side of at least 32"):
        network(torch.zeros(1, 1, 31, 31))
    assert network(torch.zeros(1, 1, 16, 32)).isfinite().all()
    assert network(torch.zeros(2, 1, 16, 16)).isfinite().all()


def test_attention_of_a_plain_network_is_an_error() -> None:
    with pytest.raises(ValueError, match="no gates: build it with gated=True"):
        SonoNet(gated=False).eval()(torch.zeros(1, 1, 32, 32), return_attention=True)
