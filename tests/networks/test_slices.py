"""A slice classifier on whole images: each slice for itself, maps on the grid of the image."""

import numpy as np
import pytest
import torch

from hngtv.networks.slices import classify_slices, enlarge, merge_attention
from hngtv.networks.sononet import ClassifierOutput, SonoNet


def network(seed: int = 0, gated: bool = True) -> SonoNet:
    torch.manual_seed(seed)
    return SonoNet(2, 2, 8, gated, "mean").eval()


@pytest.mark.parametrize("zoom", [1, 2])
def test_slices_are_classified_each_for_itself(zoom: int) -> None:
    image = torch.randn(2, 20, 33, 19)
    tumour, attention = classify_slices([network()], image, zoom, "mean")
    assert tumour.shape == (19,)
    assert attention is not None
    assert attention.shape == (20, 33, 19)
    expected = network()(enlarge(image[..., 7][None], zoom))
    assert isinstance(expected, torch.Tensor)
    torch.testing.assert_close(tumour[7], expected.softmax(dim=1)[0, 1])
    torch.testing.assert_close(attention.amax(dim=(0, 1)), torch.ones(19))
    assert attention.min() >= 0


def test_networks_are_averaged() -> None:
    image = torch.randn(2, 20, 20, 3)
    one, _ = classify_slices([network(1)], image, 1, "mean")
    two, _ = classify_slices([network(2)], image, 1, "mean")
    both, _ = classify_slices([network(1), network(2)], image, 1, "mean")
    torch.testing.assert_close(both, (one + two) / 2)


def test_plain_network_has_no_attention() -> None:
    assert classify_slices([network(gated=False)], torch.randn(2, 20, 20, 3), 1, "mean")[1] is None


def test_small_slices_grow_to_what_the_network_can_take() -> None:
    assert enlarge(torch.zeros(1, 2, 5, 40), 2).shape == (1, 2, 16, 80)
    tumour, attention = classify_slices([network()], torch.randn(2, 5, 7, 2), 1, "max")
    assert tumour.shape == (2,)
    assert attention is not None
    assert attention.shape == (5, 7, 2)


@pytest.mark.parametrize(("merge", "wanted"), [("mean", [0.75, 0.5]), ("max", [1.0, 1.0]), ("product", [0.5, 0.0])])
def test_maps_merge_by_their_largest_values(merge: str, wanted: list[float]) -> None:
    coarse = torch.tensor([[[[2.0, 0.0]]]])
    other = torch.tensor([[[[0.25, 0.25]]]]) * torch.tensor([1.0, 2.0])
    merged = merge_attention([coarse, other], torch.Size((1, 2)), merge)  # pyright: ignore[reportArgumentType]
    np.testing.assert_allclose(merged.ravel().numpy(), wanted)


def test_attention_lies_where_it_looked_in_slices_that_pooling_does_not_divide() -> None:
    class Looks(SonoNet):
        """Attention is the first channel, pooled as a network pools it."""

        def run(self, images: torch.Tensor) -> ClassifierOutput:
            logits = torch.zeros(len(images), 2)
            maps = {f"gate{n}": torch.nn.functional.avg_pool2d(images[:, :1], 4 * n) for n in (1, 2)}
            return ClassifierOutput(logits, (logits,), (1.0,), maps)

    image = torch.zeros(2, 27, 30, 1)
    image[0, 12:16, 12:16] = 1
    _, attention = classify_slices([Looks(2, 2, 8, True, "mean")], image, 2, "product")
    assert attention is not None
    along_x = attention[:, 14, 0]
    assert float((along_x * torch.arange(27)).sum() / along_x.sum()) == pytest.approx(13.5, abs=0.3)
