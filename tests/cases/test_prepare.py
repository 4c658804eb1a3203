"""Preparing continues, repairs and lists failures; its grids lie where the images lie."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hngtv.cases import prepare
from hngtv.cases.checks import check_case
from hngtv.cases.manifest import RawCase
from hngtv.cases.prepare import prepare_cases, prepare_images, prepare_target, sample_foreground
from hngtv.cases.store import GridSettings, PreparedCase
from hngtv.errors import InputError
from hngtv.volume.box import Box
from tests.tiny_cases import rewrite, write_tiny_case, write_tiny_cohort

GRIDS = GridSettings((5.0, 5.0, 5.0), (10.0, 10.0, 10.0))


@pytest.fixture
def cohort(tmp_path: Path) -> list[RawCase]:
    return write_tiny_cohort(tmp_path / "raw", 3)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def prepare_all(cases: list[RawCase], store: Path, n_workers: int = 0) -> list[PreparedCase]:
    prepared, failures = prepare_cases(cases, store, GRIDS, n_workers)
    assert not failures
    return prepared


def made_at(cases: list[PreparedCase]) -> list[int]:
    return [(case.folder / "fine_ct.npy").stat().st_mtime_ns for case in cases]


def test_second_run_does_nothing(cohort: list[RawCase], store: Path) -> None:
    first = prepare_all(cohort, store)
    assert [case.case_id for case in first] == ["tiny_00", "tiny_01", "tiny_02"]
    at_first = made_at(first)
    again = prepare_all(cohort, store)
    assert again == first
    assert made_at(again) == at_first


def test_workers_make_the_same_bytes_and_leave_nothing_behind(cohort: list[RawCase], tmp_path: Path) -> None:
    alone, together = (prepare_all(cohort, tmp_path / f"store{n}", n_workers=n) for n in (0, 2))
    for one, other in zip(alone, together, strict=True):
        assert one.digest == other.digest
        for path in one.folder.glob("*.npy"):
            assert path.read_bytes() == (other.folder / path.name).read_bytes()
    assert not list(together[0].folder.parent.glob(".tmp-*"))


def test_a_bad_case_is_listed_and_the_rest_go_on(cohort: list[RawCase], store: Path) -> None:
    assert cohort[1].pet is not None
    cohort[1].pet.write_bytes(b"no image")
    prepared, failures = prepare_cases([*cohort, replace(cohort[0], case_id="lost", pet=None)], store, GRIDS, 0)
    assert [case.case_id for case in prepared] == ["tiny_00", "tiny_02"]
    assert [failure.case_id for failure in failures] == ["tiny_01", "lost"]
    assert "case tiny_01" in failures[0].reason
    assert "no PET file" in failures[1].reason


def test_a_touched_file_is_recognised_and_a_changed_one_prepared_again(cohort: list[RawCase], store: Path) -> None:
    first = prepare_all(cohort, store)
    at_first = made_at(first)
    os.utime(cohort[0].ct, (1, 1))
    touched = prepare_all(cohort, store)
    assert made_at(touched) == at_first
    assert json.loads((first[0].folder / "case.json").read_text())["sources"]["ct"]["mtime_ns"] == 10**9
    rewrite(cohort[1].target, lambda mask: np.roll(mask, 1, axis=0))
    changed = prepare_all(cohort, store)
    assert [a == b for a, b in zip(made_at(changed), at_first, strict=True)] == [True, False, True]
    assert [a.digest == b.digest for a, b in zip(changed, first, strict=True)] == [True, False, True]


def test_another_factor_or_target_has_a_folder_of_its_own(cohort: list[RawCase], store: Path) -> None:
    variants = [
        cohort[0],
        replace(cohort[0], pet_unit="BQML", pet_factor=0.5),
        replace(cohort[0], target=None),
    ]
    first = [prepare_all([case], store)[0] for case in variants]
    at_first = made_at(first)
    assert made_at([prepare_all([case], store)[0] for case in variants]) == at_first
    assert len({case.digest for case in first}) == 3
    whole, halved, bare = first
    pets = [case.read_whole("fine")[0][1] for case in (whole, halved)]
    np.testing.assert_allclose(pets[0], 2 * pets[1], rtol=2e-3, atol=1e-3)
    assert not bare.has_target


DAMAGE = {
    "array missing": lambda folder: (folder / "fine_pet.npy").unlink(),
    "array cut": lambda folder: os.truncate(folder / "coarse_ct.npy", 200),
    "record missing": lambda folder: (folder / "case.json").unlink(),
    "record cut": lambda folder: os.truncate(folder / "case.json", 50),
    "record of another shape": lambda folder: (folder / "case.json").write_text("[]"),
    "record of an older version": lambda folder: (folder / "case.json").write_text('{"version": 0}'),
    "folder empty": lambda folder: (shutil.rmtree(folder), folder.mkdir()),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_entry_is_made_again(cohort: list[RawCase], store: Path, name: str) -> None:
    (first,) = prepare_all(cohort[:1], store)
    expected = first.read_whole("fine")
    DAMAGE[name](first.folder)
    (again,) = prepare_all(cohort[:1], store)
    for found, wanted in zip(again.read_whole("fine"), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_a_store_that_cannot_be_written_is_told(cohort: list[RawCase], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot write into folder"):
        prepare_cases(cohort, tmp_path / "file" / "store", GRIDS, 0)


def test_an_error_while_writing_leaves_no_half_case(
    cohort: list[RawCase], store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prepare, "write_json", full_disk)
    prepared, failures = prepare_cases(cohort[:1], store, GRIDS, 0)
    assert not prepared
    assert "No space left on device" in failures[0].reason
    assert not [path for path in (store / GRIDS.key).iterdir() if "tiny" in path.name]


def test_warnings_travel_with_the_case(cohort: list[RawCase], store: Path, caplog: pytest.LogCaptureFixture) -> None:
    def aside(affine: np.ndarray) -> np.ndarray:
        affine[0, 3] += 70
        return affine

    rewrite(cohort[0].pet, affine=aside)
    (case,) = prepare_all(cohort[:1], store)
    assert case.warnings[0] in caplog.text
    assert "PET covers only" in caplog.text


def test_grid_covers_the_ct_along_the_world_axes(cohort: list[RawCase]) -> None:
    images = check_case(cohort[0])
    volume = prepare_images(images, (4.0, 4.0, 3.0))
    assert volume.grid.is_axis_aligned
    assert volume.grid.spacing_mm == (4.0, 4.0, 3.0)
    assert volume.grid.shape == (30, 30, 32)
    np.testing.assert_allclose(volume.grid.bounds().centre_mm, images.ct.grid.bounds().centre_mm)


def test_tumour_stays_hot_and_in_its_place(cohort: list[RawCase]) -> None:
    images = check_case(cohort[0])
    for spacing_mm in ((3.0, 3.0, 3.0), (6.0, 6.0, 6.0)):
        volume = prepare_images(images, spacing_mm)
        target = prepare_target(images, volume.grid)
        assert volume.pet[target == 1].mean() > 3 * volume.pet[target == 0].mean()
        for label in (1, 2):
            assert images.target is not None
            centres = [
                grid.to_world(np.argwhere(labels == label)).mean(axis=0)
                for grid, labels in ((volume.grid, target), (images.ct.grid, images.target))
            ]
            np.testing.assert_allclose(*centres, atol=1.5)


def test_a_box_gives_that_part_of_the_whole(cohort: list[RawCase]) -> None:
    images = check_case(cohort[0])
    whole = prepare_images(images, (4.0, 4.0, 4.0))
    box = Box.from_corners(np.subtract(whole.grid.bounds().centre_mm, 21), np.add(whole.grid.bounds().centre_mm, 500))
    part = prepare_images(images, (4.0, 4.0, 4.0), box)
    start = np.rint(whole.grid.to_index(part.grid.to_world(np.zeros(3)))).astype(int)
    inside = tuple(slice(a, a + n) for a, n in zip(start, part.grid.shape, strict=True))
    np.testing.assert_array_equal(part.ct, whole.ct[inside])
    np.testing.assert_array_equal(part.pet, whole.pet[inside])


def test_foreground_samples_are_steady_and_cover_a_large_label() -> None:
    target = np.zeros((40, 40, 40), np.uint8)
    target[5:35, 5:35, 5:35] = 1
    target[0, 0, 0] = 2
    samples = sample_foreground(target)
    np.testing.assert_array_equal(samples, sample_foreground(target))
    primary = samples[: prepare.N_FOREGROUND]
    assert len(np.unique(primary, axis=0)) == prepare.N_FOREGROUND
    assert primary.min() < 8
    assert primary.max() > 31
    assert (samples[prepare.N_FOREGROUND :] == 0).all()
    assert sample_foreground(target * 0).shape == (0, 3)


def test_ids_shared_by_two_cohorts_do_not_fight(cohort: list[RawCase], store: Path, tmp_path: Path) -> None:
    other = write_tiny_case(tmp_path / "other", "tiny_00", seed=9)
    first = prepare_all(cohort[:1], store)
    at_first = made_at(first)
    second = prepare_all([other], store)
    assert made_at(prepare_all(cohort[:1], store)) == at_first
    assert first[0].folder != second[0].folder
