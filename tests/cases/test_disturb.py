"""Bad scans: each changes what it says and nothing else."""

from pathlib import Path

import numpy as np
import pytest

from hngtv.cases.checks import CheckedImages, check_case, check_pet
from hngtv.cases.disturb import DISTURBANCES, HEAD_CUT_ABOVE_TARGET_MM
from hngtv.errors import InputError
from hngtv.localise.truth import target_box
from tests.tiny_cases import write_tiny_case


@pytest.fixture
def images(tmp_path: Path) -> CheckedImages:
    return check_case(write_tiny_case(tmp_path, "tiny", seed=3))


@pytest.mark.parametrize("name", DISTURBANCES)
def test_arrays_and_grids_stay_together(images: CheckedImages, name: str) -> None:
    changed = DISTURBANCES[name](images)
    assert changed.target is not None
    assert changed.ct.values.shape == changed.ct.grid.shape == changed.target.shape
    assert changed.pet.values.shape == changed.pet.grid.shape


@pytest.mark.parametrize("name", DISTURBANCES)
def test_the_good_scan_is_left_as_it_was(images: CheckedImages, name: str) -> None:
    ct, pet = images.ct.values.copy(), images.pet.values.copy()
    DISTURBANCES[name](images)
    assert np.array_equal(images.ct.values, ct)
    assert np.array_equal(images.pet.values, pet)


@pytest.mark.parametrize("name", [name for name in DISTURBANCES if name != "no_tumour"])
def test_no_tumour_voxel_is_lost(images: CheckedImages, name: str) -> None:
    assert images.target is not None
    changed = DISTURBANCES[name](images).target
    assert changed is not None
    assert np.count_nonzero(changed) == np.count_nonzero(images.target)


def test_bqml_is_refused_by_the_checks_and_three_times_too_bright_is_not(images: CheckedImages, tmp_path: Path) -> None:
    case = write_tiny_case(tmp_path, "again", seed=3)
    with pytest.raises(InputError, match="too high for SUV"):
        check_pet(case, DISTURBANCES["pet_in_bqml"](images).pet.values)
    check_pet(case, DISTURBANCES["pet_too_bright"](images).pet.values)


def test_head_is_cut_above_the_tumour(images: CheckedImages) -> None:
    assert images.target is not None
    changed = DISTURBANCES["head_cut"](images)
    tumour = target_box(images.target, images.ct.grid)
    assert tumour is not None
    old, new = images.ct.grid.bounds().upper_mm[2], changed.ct.grid.bounds().upper_mm[2]
    room = tumour.upper_mm[2] + HEAD_CUT_ABOVE_TARGET_MM
    assert new <= min(old, room + images.ct.grid.spacing_mm[2])
    assert changed.ct.grid.bounds().lower_mm == pytest.approx(images.ct.grid.bounds().lower_mm)


def test_feet_first_turns_the_patient_about_front_to_back(images: CheckedImages) -> None:
    changed = DISTURBANCES["feet_first"](images)
    for before, after in ((images.ct, changed.ct), (images.pet, changed.pet)):
        assert np.array_equal(before.values, after.values)
        old, new = before.grid.to_world(np.array([1, 2, 3])), after.grid.to_world(np.array([1, 2, 3]))
        middle = np.array(images.ct.grid.bounds().centre_mm)
        assert new - middle == pytest.approx((old - middle) * (-1, 1, -1))


def test_arms_lie_beside_the_old_image(images: CheckedImages) -> None:
    changed = DISTURBANCES["arms_in_view"](images)
    old, new = images.ct.grid.bounds(), changed.ct.grid.bounds()
    assert new.lower_mm[0] < old.lower_mm[0] - 80
    assert new.upper_mm[0] > old.upper_mm[0] + 80
    inside = tuple(
        slice(round(start), round(start) + n)
        for start, n in zip(
            changed.ct.grid.to_index(images.ct.grid.to_world(np.zeros(3))), images.ct.grid.shape, strict=True
        )
    )
    assert np.array_equal(changed.ct.values[inside], images.ct.values)
    left = changed.ct.grid.to_index(np.array([old.lower_mm[0] - 45, *old.centre_mm[1:]])).round().astype(int)
    assert changed.ct.values[tuple(left)] > 300  # bone in the middle of an arm


def test_without_its_uptake_the_tumour_is_as_cold_as_what_surrounds_it(images: CheckedImages) -> None:
    changed = DISTURBANCES["no_tumour"](images)
    assert changed.target is not None
    assert not changed.target.any()
    assert changed.pet.values.max() < 0.5 * images.pet.values.max()
    assert np.array_equal(changed.ct.values, images.ct.values)
