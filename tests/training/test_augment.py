"""Augmentation: reproducible, on image and labels alike, and no change at all when switched off."""

from typing import Any

import numpy as np
import pytest

from hngtv.config import AugmentSettings
from hngtv.training.augment import SOFT_TISSUE_HU, Augmentation, vary_ct

SIZE = (8, 6, 4)


def augmentation(**changes: Any) -> Augmentation:
    plain: dict[str, Any] = {
        "affine_probability": 0, "rotation_deg": 0, "scale": 0, "flip_axes": (), "intensity_probability": 0,
        "ct_shift_hu": 0, "ct_contrast": 0, "ct_noise_hu": 0, "pet_gain": 0, "pet_gamma": 0, "pet_noise": 0,
        "blur_probability": 0,
    }  # fmt: skip
    return Augmentation(AugmentSettings(**(plain | changes)), SIZE)


def crop(margin: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = tuple(n + 2 * margin for n in SIZE)
    image = rng.uniform(0, 1, (2, *shape)).astype(np.float32)
    return image, rng.integers(0, 3, (1, *shape)).astype(np.uint8)


EVERYTHING: dict[str, Any] = {
    "affine_probability": 1, "rotation_deg": 20, "scale": 0.2, "flip_axes": ("x", "y"), "intensity_probability": 1,
    "ct_shift_hu": 15, "ct_contrast": 0.2, "ct_noise_hu": 20, "pet_gain": 0.4, "pet_gamma": 0.3, "pet_noise": 0.1,
    "blur_probability": 0.5,
}  # fmt: skip
STILL: dict[str, Any] = {"affine_probability": 0, "flip_axes": ()}


def test_switched_off_it_only_takes_the_middle() -> None:
    image, target = crop()
    changed, labels = augmentation()(image, target, seed=3)
    np.testing.assert_allclose(changed, image[:, 2:-2, 2:-2, 2:-2], atol=1e-5)
    np.testing.assert_array_equal(labels, target[:, 2:-2, 2:-2, 2:-2])


def test_same_seed_same_change() -> None:
    transform = augmentation(**EVERYTHING)
    first = transform(*crop(), seed=5)
    transform(*crop(), seed=6)
    again, other = transform(*crop(), seed=5), augmentation(**EVERYTHING)(*crop(), seed=5)
    for found in (again, other):
        assert np.array_equal(first[0], found[0])
        assert np.array_equal(first[1], found[1])
    assert not np.array_equal(first[0], transform(*crop(), seed=6)[0])


def test_turned_about_z_alone_slices_stay_where_they_are() -> None:
    image = np.broadcast_to(np.arange(SIZE[2] + 4, dtype=np.float32), (2, 12, 10, SIZE[2] + 4)).copy()
    target = (image[:1] == 3).astype(np.uint8)
    for seed in range(5):
        changed, labels = augmentation(affine_probability=1, rotation_deg=(0, 0, 180))(image, target, seed=seed)
        np.testing.assert_allclose(changed, image[:, 2:-2, 2:-2, 2:-2], atol=1e-4)
        np.testing.assert_array_equal(labels, target[:, 2:-2, 2:-2, 2:-2])
    turned, _ = augmentation(affine_probability=1, rotation_deg=(180, 0, 0))(image, target, seed=0)
    assert not np.allclose(turned, image[:, 2:-2, 2:-2, 2:-2], atol=0.1)


def test_shape_labels_and_input_are_kept() -> None:
    image, target = crop()
    before = image.copy(), target.copy()
    changed, labels = augmentation(**EVERYTHING)(image, target, seed=1)
    assert changed.shape == (2, *SIZE)
    assert labels.shape == (1, *SIZE)
    assert changed.dtype == np.float32
    assert np.isfinite(changed).all()
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
        is_flipped = np.allclose(changed, np.flip(plain[0], dim), atol=1e-5)
        assert is_flipped or np.allclose(changed, plain[0], atol=1e-5)
        assert np.array_equal(labels, np.flip(plain[1], dim) if is_flipped else plain[1])
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
    changed, labels = augmentation(**(EVERYTHING | STILL))(image, target, seed=2)
    np.testing.assert_array_equal(labels, target[:, 2:-2, 2:-2, 2:-2])
    assert not np.allclose(changed, image[:, 2:-2, 2:-2, 2:-2], atol=0.01)


@pytest.mark.parametrize("seed", range(4))
def test_no_uptake_stays_no_uptake_and_uptake_positive(seed: int) -> None:
    image = np.zeros((2, *SIZE), dtype=np.float32)
    image[1, 4:] = 8.0
    changed, _ = augmentation(**(EVERYTHING | STILL | {"blur_probability": 0}))(image, target_of(image), seed=seed)
    assert np.abs(changed[1, :4]).max() < 1e-5
    assert changed[1, 4:].mean() > 2


def test_ct_changes_have_the_size_that_is_set() -> None:
    draws = np.random.default_rng(0)
    flat = np.full(SIZE, SOFT_TISSUE_HU, dtype=np.float32)
    settings = augmentation(intensity_probability=1, ct_shift_hu=15, ct_contrast=0.25).settings
    shifts = [float(vary_ct(flat, settings, draws).mean()) - SOFT_TISSUE_HU for _ in range(400)]
    assert abs(np.mean(shifts)) < 3
    assert 12 < np.std(shifts) < 20


def test_pet_dropout_takes_the_pet_of_some_crops_and_nothing_else() -> None:
    kept, image_and_target = augmentation(**EVERYTHING), crop()
    dropping = augmentation(**EVERYTHING, pet_dropout=0.4)
    dropped = []
    for seed in range(40):
        (image, labels), (changed, same) = (transform(*image_and_target, seed=seed) for transform in (kept, dropping))
        assert np.array_equal(changed[0], image[0])
        assert np.array_equal(same, labels)
        dropped.append(not changed[1].any())
        assert dropped[-1] or np.array_equal(changed[1], image[1])
    assert 8 <= sum(dropped) <= 24
    assert dropped == [not dropping(*image_and_target, seed=seed)[0][1].any() for seed in range(40)]


@pytest.mark.parametrize("seed", range(4))
def test_pet_dropout_of_1_leaves_no_pet(seed: int) -> None:
    changed, _ = augmentation(**EVERYTHING, pet_dropout=1)(*crop(), seed=seed)
    assert changed[0].any()
    assert not changed[1].any()


def target_of(image: np.ndarray) -> np.ndarray:
    return np.zeros((1, *image.shape[1:]), dtype=np.uint8)
