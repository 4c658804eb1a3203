"""The shift of a PET against its CT."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hngtv.cases.checks import CheckedImages, check_case
from hngtv.cases.registration import Shift, body_overlap, estimate_shift
from hngtv.errors import InputError
from hngtv.volume.box import Box
from hngtv.volume.grid import Grid
from hngtv.volume.nifti import Image, read_image, write_moved
from tests.tiny_cases import write_tiny_case

pytest.importorskip("SimpleITK", reason="the extra registration is not installed")

OFFSET_MM = (14.0, -10.0, 8.0)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> CheckedImages:
    return check_case(write_tiny_case(tmp_path_factory.mktemp("raw"), "P1"))


def moved(pet: Image, offset_mm: tuple[float, ...]) -> Image:
    matrix = pet.grid.matrix
    matrix[:3, 3] += offset_mm
    return replace(pet, grid=Grid.from_array(pet.grid.shape, matrix))


def test_no_shift_is_small_and_a_known_one_is_found(images: CheckedImages) -> None:
    still = estimate_shift(images.ct, images.pet)
    assert still.length_mm < 3
    shift = estimate_shift(images.ct, moved(images.pet, OFFSET_MM))
    np.testing.assert_allclose(shift.offset_mm, np.negative(OFFSET_MM), atol=3)
    assert shift.information[1] > shift.information[0]
    assert shift.is_confirmed
    assert shift == estimate_shift(images.ct, moved(images.pet, OFFSET_MM))
    assert "mm (right -1" in str(shift)


def test_a_shift_is_confirmed_by_much_information_and_by_the_bodies() -> None:
    assert not Shift((9.0, 0.0, 0.0), (0.5, 0.7), (0.9, 0.9)).is_confirmed
    assert not Shift((9.0, 0.0, 0.0), (0.5, 0.6), (0.9, 0.91)).is_confirmed
    assert Shift((9.0, 0.0, 0.0), (0.5, 0.7), (0.9, 0.91)).is_confirmed


def test_the_overlap_of_the_bodies_speaks_against_a_wrong_shift() -> None:
    grid = Grid.axis_aligned(Box((0.0, 0.0, 0.0), (40.0, 40.0, 40.0)), (4.0, 4.0, 4.0))
    body = np.zeros(grid.shape, bool)
    body[3:7, 3:7, 3:7] = True
    pet = Image(body.astype(np.float32), grid, "")
    still, off = (body_overlap(body, grid, pet, np.array([x, 0.0, 0.0])) for x in (0.0, 8.0))
    assert (still, off) == (1.0, 0.5)  # two of the four voxels along x are shared
    assert not Shift((8.0, 0.0, 0.0), (0.5, 0.9), (still, off)).is_confirmed


def test_a_pet_beside_the_ct_is_told(images: CheckedImages) -> None:
    with pytest.raises(InputError, match="share too little"):
        estimate_shift(images.ct, moved(images.pet, (500.0, 0.0, 0.0)))


def test_a_corrected_pet_keeps_its_voxels(images: CheckedImages, tmp_path: Path) -> None:
    case = write_tiny_case(tmp_path, "P1")
    assert case.pet is not None
    motion = np.eye(4)
    motion[:3, 3] = OFFSET_MM
    write_moved(tmp_path / "moved.nii.gz", case.pet, motion)
    before, after = read_image(case.pet), read_image(tmp_path / "moved.nii.gz")
    np.testing.assert_array_equal(before.values, after.values)
    np.testing.assert_allclose(after.grid.matrix, motion @ before.grid.matrix)
