"""The loss: by hand, on every level, and defined where there is no tumour."""

import pytest
import torch
from torch import Tensor

from hngtv.config import LossSettings
from hngtv.networks.output import NetworkOutput
from hngtv.training.losses import AUXILIARY_DECAY, SupervisedLoss


def loss_of(
    logits: Tensor, target: Tensor, *auxiliary: Tensor, dice: float = 1, ce: float = 1, absent: float = 0
) -> Tensor:
    loss = SupervisedLoss(LossSettings(dice_weight=dice, cross_entropy_weight=ce, absent_share=absent))
    return loss(NetworkOutput(logits, auxiliary, {}, logits.shape[2:]), target)


def example(n_classes: int = 3, side: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, n_classes, side, side, side, generator=generator)
    return logits, torch.randint(0, n_classes, (2, 1, side, side, side), generator=generator)


def test_dice_and_cross_entropy_by_hand() -> None:
    logits, target = example()
    probabilities, truth = logits.softmax(1), torch.cat([target == label for label in range(3)], dim=1).float()
    dims = (0, 2, 3, 4)
    dice = 2 * (probabilities * truth).sum(dims) / (probabilities.sum(dims) + truth.sum(dims))
    cross_entropy = -(logits.log_softmax(1) * truth).sum(1).mean()
    torch.testing.assert_close(loss_of(logits, target, ce=0), 1 - dice[1:].mean())
    torch.testing.assert_close(loss_of(logits, target, dice=0), cross_entropy)
    torch.testing.assert_close(loss_of(logits, target), 1 - dice[1:].mean() + cross_entropy)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_empty_target_has_a_finite_loss_and_gradient(n_classes: int) -> None:
    logits, target = example(n_classes)
    logits.requires_grad_()
    loss = loss_of(logits, torch.zeros_like(target))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    sure = torch.zeros_like(logits)
    sure[:, 0] = 50
    assert loss_of(sure, torch.zeros_like(target)) < loss


def test_batch_without_tumour_counts_by_its_volume_if_asked() -> None:
    """By hand; where one class is present and the other is not, nothing changes."""
    logits, target = example()
    for present in (target, target.clamp(max=1)):
        assert loss_of(logits, present, absent=0.01) == loss_of(logits, present)
    volume = logits.softmax(1)[:, 1:].sum()
    wanted = volume / (volume + 0.01 * target.numel())
    torch.testing.assert_close(loss_of(logits, torch.zeros_like(target), ce=0, absent=0.01), wanted)


def test_a_tumour_that_coarser_levels_lose_is_not_absent_there() -> None:
    logits, target = example(2)
    target = torch.zeros_like(target)
    target[0, 0, 1, 1, 1] = 1
    coarse = torch.randn(2, 2, 4, 4, 4)
    assert not target[..., ::2, ::2, ::2].any()
    assert loss_of(logits, target, coarse, absent=0.05) == loss_of(logits, target, coarse)


def test_only_then_do_crops_without_tumour_teach_the_dice_loss() -> None:
    gradients = {}
    for absent in (0.0, 0.01):
        logits, target = example(2)
        logits.requires_grad_()
        loss_of(logits, torch.zeros_like(target), ce=0, absent=absent).backward()
        assert logits.grad is not None
        gradients[absent] = float(logits.grad[:, 1].sum())
    assert gradients[0.0] == pytest.approx(0, abs=1e-7)
    assert gradients[0.01] > 1e-3


def test_perfect_prediction_has_almost_no_loss() -> None:
    _, target = example()
    sure = torch.cat([(target == label).float() * 50 for label in range(3)], dim=1)
    assert loss_of(sure, target) < 1e-3


def test_coarser_levels_count_less_and_weights_sum_to_one() -> None:
    logits, target = example()
    coarse = torch.randn(2, 3, 4, 4, 4)
    alone = loss_of(coarse, target[..., ::2, ::2, ::2])
    wanted = (loss_of(logits, target) + AUXILIARY_DECAY * alone) / (1 + AUXILIARY_DECAY)
    torch.testing.assert_close(loss_of(logits, target, coarse), wanted)


def test_boolean_targets_are_labels_of_two_classes() -> None:
    logits, target = example(2)
    torch.testing.assert_close(loss_of(logits, target > 0), loss_of(logits, target))
