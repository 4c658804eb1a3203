"""Every fault of a case is found, and told in one line with the case, the file and what to do."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hngtv.cases.checks import check_case, covered_share
from hngtv.cases.manifest import RawCase
from hngtv.errors import InputError
from hngtv.volume.grid import Grid
from tests.tiny_cases import rewrite, write_tiny_case


@pytest.fixture
def case(tmp_path: Path) -> RawCase:
    return write_tiny_case(tmp_path, "P01")


def with_voxel(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(values: np.ndarray) -> np.ndarray:
        values = values.astype(np.float32)
        values[3, 4, 5] = value
        return values

    return change


def moved(x_mm: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(affine: np.ndarray) -> np.ndarray:
        affine[0, 3] += x_mm
        return affine

    return change


def test_a_good_case_passes(case: RawCase) -> None:
    images = check_case(case)
    assert images.ct.values.dtype == np.int16
    assert images.pet.values.dtype == np.float32
    assert images.target is not None
    assert set(np.unique(images.target)) == {0, 1, 2}
    assert images.warnings == ()


def test_a_missing_pet_may_count_as_suv_0(case: RawCase) -> None:
    images, known = check_case(replace(case, pet=None), needs_pet=False), check_case(case)
    assert images.pet.grid == images.ct.grid
    assert images.pet.values.shape == images.ct.values.shape
    assert not images.pet.values.any()
    np.testing.assert_array_equal(images.ct.values, known.ct.values)
    assert [warning for warning in images.warnings if "P01: no PET" in warning and "before use" in warning]
    assert check_case(case, needs_pet=False).pet.digest == known.pet.digest


BAD_IMAGES = {
    "CT with NaN": ("ct", with_voxel(np.nan), "1 voxels that are NaN or infinite"),
    "CT with infinity": ("ct", with_voxel(-np.inf), "1 voxels that are NaN or infinite"),
    "PET with NaN": ("pet", with_voxel(np.nan), "1 voxels that are NaN or infinite"),
    "PET with infinity": ("pet", with_voxel(np.inf), "1 voxels that are NaN or infinite"),
    "CT without its intercept": ("ct", lambda ct: ct + 1024, "rescale intercept"),
    "CT without an intercept of 1000": ("ct", lambda ct: ct + 1000, "set ct_offset=-1000 for this case in cases.csv"),
    "CT without its intercept, advice": ("ct", lambda ct: ct + 1024, "set ct_offset=-1024 for this case in cases.csv"),
    "CT without its intercept, padded": ("ct", lambda ct: np.where(ct < -1010, -2000, ct + 1024), "rescale intercept"),
    "CT of all zeros": ("ct", lambda ct: ct * 0, "expected HU with air"),
    "CT scaled to 0..1": ("ct", lambda ct: (ct.clip(-1000, 1000) + 1000) / np.float32(2000), "as after scaling; HU"),
    "CT as 8-bit grey": ("ct", lambda ct: ((ct.clip(-160, 240) + 160) * 255 / 400).astype(np.uint8), "8-bit grey; HU"),
    "CT windowed": ("ct", lambda ct: ct.clip(-150, 45), "clipped to a window from -150 to 45"),
    "CT beyond HU": ("ct", with_voxel(1e6), "expected HU within"),
    "PET negative": ("pet", with_voxel(-5), "not negative; convert it again"),
    "PET in HU": ("pet", lambda pet: pet * 100 - 1000, "looks like a CT"),
    "PET in Bq/mL": ("pet", lambda pet: pet * 4000, "set pet_unit=BQML and pet_factor"),
    "PET as counts": ("pet", lambda pet: (pet * 900).astype(np.int16), "too high for SUV, as in Bq/mL or counts"),
    "PET scaled to 0..1": (
        "pet",
        lambda pet: pet / pet.max(),
        "some above 1, as after scaling; SUV cannot be got back",
    ),
    "PET scaled to 0..0.97": ("pet", lambda pet: pet / pet.max() * np.float32(0.97), "as after scaling; SUV cannot be"),
    "PET z-scored over the body": (
        "pet",
        lambda pet: (pet - 3) / 3,
        "median of -0.667 in the body, as after z-scoring",
    ),
    "PET as 8-bit grey": ("pet", lambda pet: np.rint(pet / pet.max() * 255).astype(np.uint8), "8-bit grey; SUV"),
    "PET z-scored": ("pet", lambda pet: (pet - pet.mean()) / pet.std(), "as after z-scoring; SUV cannot be got back"),
    "PET of all zeros": ("pet", lambda pet: pet * 0, "no uptake"),
    "target of 255": ("target", lambda mask: mask * 255, "expected 0 .background., 1 .GTVp. and 2 .GTVn."),
    "target of three classes": ("target", lambda mask: np.where(mask == 2, 3, mask), "has values 0, 1, 3"),
    "target with fractions": ("target", lambda mask: mask * np.float32(0.5), "has values 0, 0.5, 1"),
    "target negative": ("target", lambda mask: -mask.astype(np.int8), "has values -2, -1, 0"),
    "target with NaN": ("target", with_voxel(np.nan), "NaN or infinite"),
    "target of another shape": ("target", lambda mask: mask[:-1], "on the CT grid"),
    "target is the PET": ("target", lambda mask: np.zeros((18, 18, 14), np.uint8), "on the CT grid"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_a_bad_image_is_told_with_case_file_and_advice(case: RawCase, name: str) -> None:
    kind, change, reason = BAD_IMAGES[name]
    path = getattr(case, kind)
    rewrite(path, change)
    with pytest.raises(InputError, match=reason) as caught:
        check_case(case)
    message = str(caught.value)
    assert message.startswith(f"case P01: {path} ")
    assert "\n" not in message


def test_swapped_ct_and_pet_are_told(case: RawCase) -> None:
    assert case.pet is not None
    with pytest.raises(InputError, match="CT and PET seem swapped"):
        check_case(replace(case, ct=case.pet, pet=case.ct))


def test_pet_elsewhere_is_an_error_and_pet_of_a_part_a_warning(case: RawCase) -> None:
    rewrite(case.pet, affine=moved(70))
    assert "PET covers only" in check_case(case).warnings[0]
    rewrite(case.pet, affine=moved(2000))
    with pytest.raises(InputError, match="lies outside"):
        check_case(case)


def test_target_off_the_ct_grid_is_told_and_rounding_of_its_affine_is_not(case: RawCase) -> None:
    rewrite(case.target, affine=moved(0.01))
    check_case(case)
    rewrite(case.target, affine=moved(2.5))
    with pytest.raises(InputError, match=r"0\.5 voxels off the CT"):
        check_case(case)


def test_target_flipped_on_disk_but_in_the_right_place_is_fine(case: RawCase) -> None:
    expected = check_case(case).target

    def flipped(affine: np.ndarray) -> np.ndarray:
        affine[:3, 3] += affine[:3, 0] * 23
        affine[:3, 0] *= -1
        return affine

    rewrite(case.target, lambda mask: mask[::-1], flipped)
    np.testing.assert_array_equal(check_case(case).target, expected)


@pytest.mark.parametrize("change", [lambda mask: mask * 0, lambda mask: mask * 0.0, lambda mask: mask.astype(float)])
def test_empty_targets_and_whole_numbers_in_floats_are_valid(
    case: RawCase, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    rewrite(case.target, change)
    images = check_case(case)
    assert images.target is not None
    assert images.target.dtype == np.uint8


def test_case_without_pet_is_bad_and_without_target_is_good(case: RawCase) -> None:
    with pytest.raises(InputError, match="case P01: no PET file beside"):
        check_case(replace(case, pet=None))
    assert check_case(replace(case, target=None)).target is None


def test_bqml_is_turned_into_suv_by_its_factor(case: RawCase) -> None:
    expected = check_case(case).pet.values
    rewrite(case.pet, lambda pet: pet * 4000)
    images = check_case(replace(case, pet_unit="BQML", pet_factor=1 / 4000))
    np.testing.assert_allclose(images.pet.values, expected, rtol=1e-5)


def test_a_ct_without_its_intercept_is_mended_by_its_offset(case: RawCase) -> None:
    expected = check_case(case).ct.values
    rewrite(case.ct, lambda ct: ct + 1024)
    np.testing.assert_array_equal(check_case(replace(case, ct_offset=-1024)).ct.values, expected)


ODD_IMAGES = {
    "PET in kBq/mL": ("pet", lambda pet: pet * 7, "has a median of 7"),
    "PET in whole numbers": ("pet", lambda pet: np.rint(pet), "holds whole numbers only"),
    "CT clipped above air": ("ct", lambda ct: ct.clip(-500, None), "is clipped at -500 HU"),
}


@pytest.mark.parametrize("name", ODD_IMAGES)
def test_an_odd_image_is_used_with_a_warning(case: RawCase, name: str) -> None:
    kind, change, told = ODD_IMAGES[name]
    rewrite(getattr(case, kind), change)
    (warning,) = check_case(case).warnings
    assert warning.startswith(f"case P01: {getattr(case, kind)} {told}")


def test_the_unit_of_a_pet_of_a_part_is_looked_at_too(case: RawCase) -> None:
    rewrite(case.pet, lambda pet: pet * 7, moved(40))
    covers, unit = check_case(case).warnings
    assert "PET covers only" in covers
    assert "has a median of 7" in unit


@pytest.mark.parametrize(("factor", "reason"), [(1e-9, "no uptake"), (0.5, "too high for SUV")])
def test_a_wrong_factor_is_told(case: RawCase, factor: float, reason: str) -> None:
    rewrite(case.pet, lambda pet: pet * 4000)
    with pytest.raises(InputError, match=rf"{reason}.*check pet_factor"):
        check_case(replace(case, pet_unit="BQML", pet_factor=factor))


def test_a_hot_bladder_is_still_suv(case: RawCase) -> None:
    rewrite(case.pet, with_voxel(350.0))
    assert check_case(case).pet.values.max() == 350


def test_noise_below_zero_and_padding_below_air_are_clipped(case: RawCase) -> None:
    rewrite(case.pet, with_voxel(-0.2))
    rewrite(case.ct, with_voxel(-3024))
    images = check_case(case)
    assert images.pet.values.min() == 0
    assert images.ct.values.min() == -1024


@pytest.mark.parametrize("kind", ["ct", "pet", "target"])
def test_an_unreadable_file_is_told_with_its_case(case: RawCase, kind: str) -> None:
    path = getattr(case, kind)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=f"case P01: {path} is damaged or cut short"):
        check_case(case)


def test_covered_share_of_an_oblique_pet() -> None:
    ct = Grid.from_array((40, 40, 40), np.eye(4))
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]]
    turn[:3, 3] = 19.5 - turn[:3, :3] @ [19.5, 19.5, 19.5]
    assert covered_share(ct, ct) == 1
    assert covered_share(ct, ct.crop((slice(0, 20), slice(0, 40), slice(0, 40)))) == 0.5
    assert 0.8 < covered_share(ct, Grid.from_array((40, 40, 40), turn)) < 0.95
