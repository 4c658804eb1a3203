"""Augmentation: reproducible, on image and labels alike, and no change at all when switched off."""

from typing import Any

import numpy as np
import pytest
import torch

from hngtv.config import AugmentSettings
from hngtv.training.augment import Augmentation

SIZE = (8, 6, 4)


def augmentation(**changes: Any) -> Augmentation:
    plain: dict[str, Any] = {
        "affine_probability": 0, "rotation_deg": 0, "scale": 0, "flip_axes": (), "intensity_probability": 0,
        "noise": 0, "shift": 0, "gain": 0, "gamma": 0,
    }  # fmt: skip
    return Augmentation(AugmentSettings(**(plain | changes)), SIZE)


def crop(margin: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = tuple(n + 2 * margin for n in SIZE)
    image = rng.uniform(0, 1, (2, *shape)).astype(np.float32)
    return image, rng.integers(0, 3, (1, *shape)).astype(np.uint8)


EVERYTHING: dict[str, Any] = {
    "affine_probability": 1, "rotation_deg": 20, "scale": 0.2, "flip_axes": ("x", "y"), "intensity_probability": 1,
    "noise": 0.1, "shift": 0.1, "gain": 0.2, "gamma": 0.3,
}  # fmt: skip


def test_switched_off_it_only_takes_the_middle() -> None:
    image, target = crop()
    changed, labels = augmentation()(image, target, seed=3)
    np.testing.assert_allclose(changed.numpy(), image[:, 2:-2, 2:-2, 2:-2], atol=1e-5)
    np.testing.assert_array_equal(labels.numpy(), target[:, 2:-2, 2:-2, 2:-2])


def test_same_seed_same_change() -> None:
    transform = augmentation(**EVERYTHING)
    first = transform(*crop(), seed=5)
    transform(*crop(), seed=6)
    again, other = transform(*crop(), seed=5), augmentation(**EVERYTHING)(*crop(), seed=5)
    for found in (again, other):
        assert torch.equal(first[0], found[0])
        assert torch.equal(first[1], found[1])
    assert not torch.equal(first[0], transform(*crop(), seed=6)[0])


def test_shape_labels_and_input_are_kept() -> None:
    image, target = crop()
    before = image.copy(), target.copy()
    changed, labels = augmentation(**EVERYTHING)(image, target, seed=1)
    assert changed.shape == (2, *SIZE)
    assert labels.shape == (1, *SIZE)
    assert changed.dtype == torch.float32
    assert changed.isfinite().all()
    assert set(np.unique(labels)) <= {0, 1, 2}
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(target, before[1])


@pytest.mark.parametrize(("axis", "dim"), [("x", 1), ("y", 2), ("z", 3)])
def test_flips_turn_image_and_labels_about_the_named_axis(axis: str, dim: int) -> None:
    image, target = crop()
    plain = augmentation()(image, target, seed=0)
    seen = set()
    for seed in range(12):
        changed, labels = augmentation(flip_axes=(axis,))(image, target, seed=seed)
        is_flipped = torch.allclose(changed, plain[0].flip(dim), atol=1e-5)
        assert is_flipped or torch.allclose(changed, plain[0], atol=1e-5)
        assert torch.equal(labels, plain[1].flip(dim) if is_flipped else plain[1])
        seen.add(is_flipped)
    assert seen == {True, False}


def test_image_and_labels_move_together() -> None:
    target = np.zeros((1, 12, 10, 8), dtype=np.uint8)
    target[0, 4:8, 3:7, 2:6] = 1
    image = np.repeat(target, 2, axis=0).astype(np.float32)
    for seed in range(8):
        changed, labels = augmentation(affine_probability=1, rotation_deg=20, scale=0.2)(image, target, seed=seed)
        shown, outlined = changed[0] > 0.5, labels[0] > 0
        assert 2 * (shown & outlined).sum() / (shown.sum() + outlined.sum()) > 0.8


def test_intensity_changes_leave_labels_alone() -> None:
    image, target = crop()
    changed, labels = augmentation(intensity_probability=1, noise=0.1, shift=0.2, gain=0.2, gamma=0.3)(image, target, 2)
    np.testing.assert_array_equal(labels.numpy(), target[:, 2:-2, 2:-2, 2:-2])
    assert not np.allclose(changed.numpy(), image[:, 2:-2, 2:-2, 2:-2], atol=0.01)


@pytest.mark.parametrize("seed", range(4))
def test_gamma_leaves_the_ends_of_each_channel_s_window(seed: int) -> None:
    """No uptake must stay no uptake: gamma bends a channel between its lowest and highest value."""
    image = np.zeros((2, *SIZE), dtype=np.float32)
    image[0] = np.linspace(-1, 1, image[0].size).reshape(SIZE)
    image[1, 4:] = 0.8
    changed, _ = augmentation(intensity_probability=1, gamma=0.5)(image, np.zeros((1, *SIZE), np.uint8), seed=seed)
    assert changed[1, :4].abs().max() < 1e-3
