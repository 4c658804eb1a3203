"""The stream of crops: each item is decided by the seed and its number, and lies where its ROI says."""

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hngtv.cases.intensity import window
from hngtv.cases.store import PreparedCase
from hngtv.config import AugmentSettings, IntensitySettings, RoiSettings
from hngtv.training.roi_data import (
    CropRules,
    ResumableSampler,
    RoiCropDataModule,
    TrainingCrops,
    crop_size,
    roi_slices,
)
from hngtv.volume.box import Box
from hngtv.volume.components import bounding_slices

INTENSITY = IntensitySettings(ct_windows_hu=((-160.0, 240.0),), pet_max_suv=20.0, pet_scale="linear")


def no_augment(**changes: Any) -> AugmentSettings:
    plain: dict[str, Any] = {
        "affine_probability": 0, "rotation_deg": 0, "scale": 0, "flip_axes": (), "intensity_probability": 0,
        "ct_shift_hu": 0, "ct_contrast": 0, "ct_noise_hu": 0, "pet_gain": 0, "pet_gamma": 0, "pet_noise": 0,
        "blur_probability": 0,
    }  # fmt: skip
    return AugmentSettings(**(plain | changes))


def rules(augment: AugmentSettings | None = None, **changes: Any) -> CropRules:
    plain: dict[str, Any] = {"margin_mm": 0, "jitter_mm": 0, "crop_voxels": (12, 12, 8), "foreground_share": 0}
    roi = RoiSettings(**(plain | changes))
    assert roi.jitter_mm != "matched"
    return CropRules("fine", roi, INTENSITY, augment or no_augment(), 4, roi.jitter_mm)


def whole(cases: list[PreparedCase]) -> dict[str, list[Box]]:
    return {case.case_id: [case.grid("fine").bounds()] for case in cases}


def around_tumour(cases: list[PreparedCase]) -> dict[str, list[Box]]:
    boxes = {case.case_id: case.target_box("fine") for case in cases}
    return {case_id: [box] for case_id, box in boxes.items() if box is not None}


def stream(
    cases: list[PreparedCase], rois: Mapping[str, list[Box]], crop_rules: CropRules, seed: int = 0, n: int = 30
) -> TrainingCrops:
    return TrainingCrops(cases, rois, crop_rules, seed, n)


def test_item_depends_on_seed_and_number_alone(prepared: list[PreparedCase]) -> None:
    strong = no_augment(affine_probability=1, rotation_deg=20, scale=0.2, intensity_probability=1, ct_noise_hu=20)
    chosen = rules(strong, foreground_share=0.5, jitter_mm=10)
    one = stream(prepared, whole(prepared), chosen)
    other = stream(prepared[::-1], whole(prepared), chosen, n=1000)
    forwards = [one[item] for item in (0, 1, 7)]
    backwards = [other[item] for item in (7, 1, 0)][::-1]
    for (image, target), (image_again, target_again) in zip(forwards, backwards, strict=True):
        assert torch.equal(image, image_again)
        assert torch.equal(target, target_again)
    assert not torch.equal(one[0][0], stream(prepared, whole(prepared), chosen, seed=1)[0][0])
    assert not torch.equal(one[0][0], one[3][0])


def test_every_turn_sees_every_case_once(prepared: list[PreparedCase], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    read = PreparedCase.read_crop

    def noting(case: PreparedCase, *arguments: Any) -> Any:
        seen.append(case.case_id)
        return read(case, *arguments)

    monkeypatch.setattr(PreparedCase, "read_crop", noting)
    crops = stream(prepared, whole(prepared), rules())
    for item in range(9):
        crops[item]
    names = sorted(case.case_id for case in prepared)
    assert [sorted(seen[turn : turn + 3]) for turn in (0, 3, 6)] == [names] * 3


def test_crop_is_windowed_ct_and_pet_with_labels(prepared: list[PreparedCase]) -> None:
    """Without augmentation a crop of the whole image is the image."""
    case = prepared[0]
    x, y, z = case.grid("fine").shape
    size = tuple(-(-n // 4) * 4 for n in (x, y, z))
    image, target = stream([case], whole([case]), rules(crop_voxels=size))[0]
    assert image.dtype == torch.float32
    assert image.shape == (2, *size)
    assert target.shape == (1, *size)
    starts = [(n - side) // 2 for n, side in zip((x, y, z), size, strict=True)]
    a, b, c = (slice(start, start + side) for start, side in zip(starts, size, strict=True))
    values, labels = case.read_crop("fine", (a, b, c))
    np.testing.assert_allclose(image.numpy(), window(values, INTENSITY), atol=1e-4)
    np.testing.assert_array_equal(target.numpy()[0], labels)
    assert set(np.unique(target)) == {0, 1, 2}


def test_crops_hold_tumour_if_asked(prepared: list[PreparedCase]) -> None:
    crops = stream(prepared, whole(prepared), rules(foreground_share=1.0, crop_voxels=(4, 4, 4)))
    assert all(crops[item][1].any() for item in range(len(crops)))
    assert {int(label) for item in range(len(crops)) for label in crops[item][1].unique()} == {0, 1, 2}
    free = stream(prepared, whole(prepared), rules(foreground_share=0.0, crop_voxels=(4, 4, 4)))
    assert not all(free[item][1].any() for item in range(len(free)))


def test_crop_lies_inside_a_larger_roi(prepared: list[PreparedCase]) -> None:
    chosen = rules(foreground_share=0.5, crop_voxels=(4, 4, 4))
    rois = {case_id: [box.expand(20)] for case_id, (box,) in around_tumour(prepared).items()}
    crops, case = stream(prepared, rois, chosen), prepared[0]
    roi = roi_slices(case, rois[case.case_id][0], chosen)
    for number in range(50):
        starts = crops._starts(case, np.random.default_rng(number))
        assert all(r.start <= s and s + 4 <= r.stop for r, s in zip(roi, starts, strict=True))


def test_crop_is_centred_on_a_smaller_roi(prepared: list[PreparedCase]) -> None:
    case = prepared[0]
    middle = case.grid("fine").to_world(np.array([10, 12, 7]))
    box = Box.from_corners(middle - 4, middle + 4)
    chosen = rules(crop_voxels=(16, 16, 12))
    starts = stream([case], {case.case_id: [box]}, chosen)._starts(case, np.random.default_rng(0))
    for start, size, found in zip(starts, (16, 16, 12), roi_slices(case, box, chosen), strict=True):
        assert abs((start + size / 2) - (found.start + found.stop) / 2) <= 0.5


def test_crop_around_a_small_roi_shows_the_image_and_no_padding(prepared: list[PreparedCase]) -> None:
    case = prepared[0]
    grid = case.grid("fine")
    corner = Box.from_corners(grid.bounds().lower_mm, np.add(grid.bounds().lower_mm, 12.0))
    crops = stream([case], {case.case_id: [corner]}, rules(jitter_mm=0, crop_voxels=(8, 8, 8)))
    assert crops._starts(case, np.random.default_rng(0)) == [0, 0, 0]
    huge = stream([case], {case.case_id: [corner]}, rules(jitter_mm=0, crop_voxels=(64, 64, 64)))
    assert huge._starts(case, np.random.default_rng(0)) == [(n - 64) // 2 for n in grid.shape]


def test_jitter_moves_crops_and_no_further_than_asked(prepared: list[PreparedCase]) -> None:
    case, boxes = prepared[0], around_tumour(prepared)
    still, moved = (
        [stream(prepared, boxes, rules(jitter_mm=mm))._starts(case, np.random.default_rng(n)) for n in range(30)]
        for mm in (0.0, 12.0)
    )
    assert len(set(map(tuple, still))) == 1
    offsets_mm = (np.array(moved) - still[0]) * (5, 5, 6)
    assert len(set(map(tuple, moved))) > 10
    assert np.abs(offsets_mm).max() <= 12 + 2 * 6


def test_box_outside_the_image_still_gives_a_crop(prepared: list[PreparedCase]) -> None:
    case = prepared[0]
    image, target = stream([case], {case.case_id: [Box((900, 900, 900), (950, 950, 950))]}, rules())[0]
    assert image.shape == (2, 12, 12, 8)
    assert not target.any()


def test_crop_size_is_the_largest_roi_in_multiples(prepared: list[PreparedCase]) -> None:
    rois = {case.case_id: [Box((0, -30, 290), (20, -5, 290 + 10 * n))] for n, case in enumerate(prepared, start=1)}
    chosen = rules(crop_voxels=None, margin_mm=5)
    sizes = [[s.stop - s.start for s in roi_slices(case, rois[case.case_id][0], chosen)] for case in prepared]
    found = crop_size(prepared, rois, chosen)
    assert all(n % 4 == 0 for n in found)
    assert all(largest <= n < largest + 4 for largest, n in zip(np.max(sizes, axis=0), found, strict=True))
    assert crop_size(prepared, rois, rules(crop_voxels=(5, 8, 9))) == (8, 8, 12)


def test_crop_of_a_network_of_slices_has_as_many_slices_as_set(prepared: list[PreparedCase]) -> None:
    by_axis = replace(rules(crop_voxels=(5, 8, 3)), multiple=(4, 8, 1))
    crops = stream(prepared, whole(prepared), by_axis)
    assert crops.size == (8, 8, 3)
    assert crops[0][0].shape == (2, 8, 8, 3)


@given(st.integers(0, 20), st.integers(1, 5), st.integers(0, 20))
def test_sampler_goes_on_where_it_was(n_steps: int, batch_size: int, done: int) -> None:
    n_items = n_steps * batch_size
    whole_stream = list(ResumableSampler(0, batch_size, n_items))
    resumed = ResumableSampler(min(done, n_steps), batch_size, n_items)
    assert whole_stream[min(done, n_steps) * batch_size :] == list(resumed)
    assert len(resumed) == n_items


@given(st.integers(0, 9), st.integers(1, 3), st.integers(1, 4), st.integers(0, 9))
def test_shares_of_all_processes_are_the_batches_of_one(n_steps: int, share: int, n_processes: int, done: int) -> None:
    batch_size = share * n_processes
    n_items = n_steps * batch_size
    shares = [list(ResumableSampler(done, batch_size, n_items, rank, n_processes)) for rank in range(n_processes)]
    joined = [item for step in range(len(shares[0]) // share) for own in shares for item in own[step * share :][:share]]
    assert joined == list(ResumableSampler(done, batch_size, n_items))


def test_resumed_datamodule_serves_the_same_batches(prepared: list[PreparedCase]) -> None:
    crops = stream(prepared, whole(prepared), rules(), n=8)
    unbroken = list(RoiCropDataModule(crops, 2, 0, 0).train_dataloader())
    resumed = list(RoiCropDataModule(crops, 2, 3, 0).train_dataloader())
    assert (len(unbroken), len(resumed)) == (4, 1)
    assert torch.equal(unbroken[3][0], resumed[0][0])


def test_coarse_level_reads_the_coarse_store(prepared: list[PreparedCase]) -> None:
    coarse = CropRules("coarse", rules(crop_voxels=(8, 8, 8)).roi, INTENSITY, no_augment(), 4)
    rois = {case.case_id: [case.grid("coarse").bounds()] for case in prepared}
    image, _ = stream(prepared, rois, coarse)[0]
    assert image.shape == (2, 8, 8, 8)


def lesions(case: PreparedCase) -> list[Box]:
    """The boxes of GTVp and of GTVn."""
    grid, (_, target) = case.grid("fine"), case.read_whole("fine")
    slices = [bounding_slices(target == label) for label in (1, 2)]
    return [grid.box_of(found) for found in slices if found is not None]


def test_crops_of_several_rois_come_from_each_of_them(prepared: list[PreparedCase]) -> None:
    case = prepared[0]
    bounds = case.grid("fine").bounds()
    low = Box.from_corners(bounds.lower_mm, np.add(bounds.lower_mm, 20.0))
    high = Box.from_corners(np.subtract(bounds.upper_mm, 20.0), bounds.upper_mm)
    chosen = rules(crop_voxels=(4, 4, 4))
    crops = stream([case], {case.case_id: [low, high]}, chosen)
    starts = [tuple(crops._starts(case, np.random.default_rng(number))) for number in range(200)]
    rois = [roi_slices(case, box, chosen) for box in (low, high)]
    shares = [
        np.mean([all(r.start <= s and s + 4 <= r.stop for r, s in zip(roi, start, strict=True)) for start in starts])
        for roi in rois
    ]
    assert sum(shares) == pytest.approx(1)
    assert min(shares) > 0.4


def test_one_roi_draws_the_same_crops_as_a_single_box_did(prepared: list[PreparedCase]) -> None:
    """Which of several ROIs a crop is about is drawn only where there are several."""
    case, chosen = prepared[0], rules(jitter_mm=10, foreground_share=0.5, crop_voxels=(4, 4, 4))
    box = case.grid("fine").bounds()
    one = stream([case], {case.case_id: [box]}, chosen)
    for number in range(20):
        draws, again = np.random.default_rng(number), np.random.default_rng(number)
        starts = one._starts(case, draws)
        jitter = again.uniform(-1, 1, size=3) * 10
        roi = roi_slices(case, box.shift(jitter), chosen)
        assert all(r.start <= s and s + 4 <= r.stop for r, s in zip(roi, starts, strict=True))
        seeds = case.foreground_voxels("fine")
        anchor = seeds[again.integers(len(seeds))] if again.random() < 0.5 else None
        for axis, (r, s) in enumerate(zip(roi, starts, strict=True)):
            slack = r.stop - r.start - 4
            if anchor is None:
                assert s == r.start + again.integers(slack + 1)
            else:
                assert s == np.clip(int(anchor[axis]) - int(again.integers(4)), r.start, r.stop - 4)


def test_crops_that_aim_at_tumour_aim_at_that_of_their_roi(prepared: list[PreparedCase]) -> None:
    """ROIs larger than a crop: one that aimed at the tumour of the other ROI would be stopped at its edge."""
    case = prepared[0]
    rois = [box.expand(5) for box in lesions(case)]
    crops = stream([case], {case.case_id: rois}, rules(crop_voxels=(4, 4, 4), foreground_share=1.0), n=60)
    found = [set(crops[item][1].unique().tolist()) - {0} for item in range(len(crops))]
    assert all(found)
    assert sum(1 in labels for labels in found) > 15
    assert sum(2 in labels for labels in found) > 15


def test_share_of_crops_that_aim_at_tumour_is_kept_among_many_rois_without(prepared: list[PreparedCase]) -> None:
    case = prepared[0]
    corner = np.array(case.grid("fine").bounds().lower_mm)
    empty = [Box.from_corners(corner, corner + 20)] * 20
    rois = {case.case_id: [*empty, *lesions(case)]}
    crops = stream([case], rois, rules(crop_voxels=(4, 4, 4), foreground_share=0.5), n=60)
    assert 15 <= sum(bool(crops[item][1].any()) for item in range(len(crops))) <= 45


def test_crops_that_aim_at_nothing_come_from_all_of_every_roi(prepared: list[PreparedCase]) -> None:
    """Of a ROI with tumour and one without: those that aim lie in the first, the others in either."""
    case = prepared[0]
    bounds = case.grid("fine").bounds()
    empty = Box.from_corners(bounds.lower_mm, np.add(bounds.lower_mm, (30, 30, 30)))
    in_empty = {}
    for share in (0.0, 0.5, 1.0):
        chosen = rules(crop_voxels=(4, 4, 4), foreground_share=share)
        crops = stream([case], {case.case_id: [empty, lesions(case)[0]]}, chosen)
        starts = [tuple(crops._starts(case, np.random.default_rng(number))) for number in range(200)]
        in_empty[share] = [start for start in starts if max(start) <= 2]
    every_place = set(itertools.product(range(3), range(3), range(2)))
    assert set(in_empty[0.0]) == every_place, "6, 6 and 5 voxels"
    assert len(in_empty[0.0]) == pytest.approx(100, abs=25)
    assert len(in_empty[0.5]) == pytest.approx(50, abs=20)
    assert not in_empty[1.0]


def test_tumour_that_the_localiser_missed_is_still_learnt_from(prepared: list[PreparedCase]) -> None:
    """Crops that aim at tumour find it outside the ROIs; the others stay inside."""
    case = prepared[0]
    bounds = case.grid("fine").bounds()
    empty = [
        Box.from_corners(bounds.lower_mm, np.add(bounds.lower_mm, 20.0)),
        Box.from_corners(np.subtract(bounds.upper_mm, 20.0), bounds.upper_mm),
    ]
    for boxes in (empty, empty[:1]):
        with_tumour = {
            share: sum(bool(crops[item][1].any()) for item in range(40))
            for share in (0.0, 0.5, 1.0)
            for crops in [
                stream([case], {case.case_id: boxes}, rules(crop_voxels=(4, 4, 4), foreground_share=share), n=40)
            ]
        }
        assert with_tumour[0.0] == 0
        assert 10 <= with_tumour[0.5] <= 30
        assert with_tumour[1.0] == 40


def test_crop_size_is_that_of_the_largest_of_all_rois(prepared: list[PreparedCase]) -> None:
    case, chosen = prepared[0], rules(crop_voxels=None)
    several = [Box((0, -30, 290), (20, -5, 300)), Box((0, -30, 270), (5, -25, 340))]
    sizes = [crop_size([case], {case.case_id: rois}, chosen) for rois in (several[:1], several[1:], several)]
    assert sizes[2] == tuple(np.maximum(sizes[0], sizes[1]))
