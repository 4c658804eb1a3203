"""A crop of the store is what the prepared image holds there, padded outside."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hngtv.cases.checks import check_case
from hngtv.cases.manifest import RawCase
from hngtv.cases.prepare import N_FOREGROUND, prepare_cases, prepare_images, prepare_target
from hngtv.cases.store import LEVELS, GridSettings, Level, PreparedCase, folder_name, open_case
from hngtv.errors import InputError
from tests.tiny_cases import rewrite, write_tiny_case

GRIDS = GridSettings((4.0, 4.0, 4.0), (8.0, 8.0, 8.0))


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> RawCase:
    return write_tiny_case(tmp_path_factory.mktemp("raw"), "P01", centre="north")


@pytest.fixture(scope="module")
def case(raw: RawCase, tmp_path_factory: pytest.TempPathFactory) -> PreparedCase:
    return prepare_one(raw, tmp_path_factory.mktemp("store"))


def prepare_one(raw: RawCase, store: Path) -> PreparedCase:
    (prepared,), failures = prepare_cases([raw], store, GRIDS, n_workers=0)
    assert not failures
    return prepared


@pytest.mark.parametrize("level", LEVELS)
def test_whole_level_is_the_prepared_image(raw: RawCase, case: PreparedCase, level: Level) -> None:
    images = check_case(raw)
    volume = prepare_images(images, GRIDS.spacing_of(level))
    image, target = case.read_whole(level)
    assert case.grid(level) == volume.grid
    np.testing.assert_array_equal(image, np.stack([volume.ct, volume.pet]))
    np.testing.assert_array_equal(target, prepare_target(images, volume.grid))
    assert (image.dtype, target.dtype) == (np.float32, np.uint8)


@given(st.sampled_from(LEVELS), st.tuples(*[st.tuples(st.integers(-12, 40), st.integers(1, 12))] * 3))
def test_any_crop_is_the_padded_image(case: PreparedCase, level: Level, ranges: tuple[tuple[int, int], ...]) -> None:
    x, y, z = (slice(start, start + n) for start, n in ranges)
    image, target = case.read_crop(level, (x, y, z))
    (ct, pet), whole_target = case.read_whole(level)
    for found, whole, outside in ((image[0], ct, -1024), (image[1], pet, 0), (target, whole_target, 0)):
        padded = np.pad(whole, ((12, 52),) * 3, constant_values=outside)
        inside = tuple(slice(s.start + 12, s.stop + 12) for s in (x, y, z))
        np.testing.assert_array_equal(found, padded[inside])


def test_a_crop_opens_its_files_as_memory_maps(case: PreparedCase, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    load = np.load
    monkeypatch.setattr(np, "load", lambda path, mmap_mode=None: modes.append(mmap_mode) or load(path, mmap_mode))
    case.read_crop("fine", (slice(0, 2), slice(0, 2), slice(0, 2)))
    assert modes == ["r"] * 3


def test_a_case_is_small_to_send_and_reads_after_it(case: PreparedCase) -> None:
    sent = pickle.dumps(case)
    assert len(sent) < 5000
    again = pickle.loads(sent)
    assert again == case
    np.testing.assert_array_equal(again.read_whole("coarse")[0], case.read_whole("coarse")[0])


@pytest.mark.parametrize("level", LEVELS)
def test_target_box_counts_and_samples_agree_with_the_target(case: PreparedCase, level: Level) -> None:
    _, target = case.read_whole(level)
    box = case.target_box(level)
    assert box is not None
    slices = case.grid(level).slices_of(box)
    assert (target[slices] > 0).sum() == (target > 0).sum() == case.n_target_voxels(level)
    voxels = case.foreground_voxels(level)
    labels = target[tuple(voxels.T)]
    assert [(labels == label).sum() for label in (0, 1, 2)] == [0, N_FOREGROUND, N_FOREGROUND]


def test_target_volume_is_that_of_the_original_grid(raw: RawCase, case: PreparedCase) -> None:
    images = check_case(raw)
    assert images.target is not None
    expected = [(images.target == label).sum() * 5 * 5 * 6 / 1000 for label in (1, 2)]
    np.testing.assert_allclose(case.target_ml, expected)


def test_empty_and_missing_targets_have_no_box(tmp_path: Path) -> None:
    raw = write_tiny_case(tmp_path / "raw", "P01")
    rewrite(raw.target, lambda mask: mask * 0)
    empty = prepare_one(raw, tmp_path / "store")
    missing = prepare_one(RawCase("P01", "", raw.ct, raw.pet, None), tmp_path / "store")
    assert (empty.has_target, missing.has_target) == (True, False)
    for case in (empty, missing):
        assert case.target_box("fine") is None
        assert case.n_target_voxels("fine") == 0
        assert case.foreground_voxels("fine").shape == (0, 3)
        assert not case.read_whole("fine")[1].any()
    assert empty.digest != missing.digest


def test_centre_and_split_come_from_the_manifest(raw: RawCase, case: PreparedCase) -> None:
    moved = RawCase(raw.case_id, "south", raw.ct, raw.pet, raw.target, split="test")
    reopened = open_case(moved, case.folder)
    assert reopened is not None
    assert (reopened.centre, reopened.split, reopened.digest) == ("south", "test", case.digest)


def test_one_id_in_two_cohorts_has_two_folders(raw: RawCase, tmp_path: Path) -> None:
    other = write_tiny_case(tmp_path, raw.case_id, seed=5)
    assert folder_name(other) != folder_name(raw)
    assert folder_name(raw).startswith("P01-")


def test_an_array_lost_after_opening_is_told(tmp_path: Path) -> None:
    case = prepare_one(write_tiny_case(tmp_path / "raw", "P01"), tmp_path / "store")
    (case.folder / "fine_pet.npy").unlink()
    with pytest.raises(InputError, match=r"case P01: .*fine_pet\.npy cannot be read"):
        case.read_whole("fine")


def test_grid_key_depends_on_spacing_alone() -> None:
    assert GRIDS.key == GridSettings((4, 4, 4), (8, 8, 8)).key
    assert GRIDS.key != GridSettings((4, 4, 4), (8, 8, 6)).key
    assert len(GRIDS.key) == 12
