from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLosslessSV1, RLELossless

from hngtv.cases.dicom.geometry import check_ct_whole, check_pet_whole, grid_of_lps, read_values, stack_series, to_ras
from hngtv.errors import InputError
from tests.tiny_dicom import AXIAL, OBLIQUE, Place, ramp, write_ct, write_pet

CORONAL = Place(along_columns=(1.0, 0.0, 0.0), along_rows=(0.0, 0.0, -1.0))


def test_lps_becomes_ras() -> None:
    assert to_ras(np.array([1.0, 2.0, 3.0])).tolist() == [-1, -2, 3]
    grid = grid_of_lps((4, 5, 6), AXIAL.lps_affine)
    assert np.allclose(grid.to_world(np.array([1, 2, 3])), [28, 37, 109])


@pytest.mark.parametrize("place", [AXIAL, OBLIQUE, CORONAL])
def test_each_voxel_keeps_its_place_and_value(tmp_path: Path, place: Place) -> None:
    paths = write_ct(tmp_path, place=place)
    stack = stack_series(sorted(paths))
    assert np.array_equal(read_values(stack), ramp())
    corner = np.array([8, 6, 4])
    assert np.allclose(stack.grid.to_world(corner), place.to_lps(corner) * (-1, -1, 1), atol=1e-5)


@pytest.mark.parametrize("place", [AXIAL, OBLIQUE, CORONAL])
def test_another_reader_finds_the_same_grid(tmp_path: Path, place: Place) -> None:
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.ReadImage([str(path) for path in write_ct(tmp_path, place=place)])
    grid = stack_series(sorted(tmp_path.iterdir())).grid
    for index in ((0, 0, 0), (8, 6, 4), (3, 5, 1)):
        lps = np.array(image.TransformIndexToPhysicalPoint(index))
        assert np.allclose(grid.to_world(np.array(index)), lps * (-1, -1, 1), atol=1e-4)


def test_slope_and_intercept_are_those_of_each_slice(tmp_path: Path) -> None:
    def edit(z: int, dataset: Dataset) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = str(0.5 + z), str(-10 * z)

    values = read_values(stack_series(write_ct(tmp_path, edit=edit)))
    z = np.arange(5)
    assert np.allclose(values, (ramp() + 1024.0) * (0.5 + z) - 10 * z)


def test_a_missing_slice_is_named(tmp_path: Path) -> None:
    paths = write_ct(tmp_path)
    with pytest.raises(InputError, match=rf"a slice is missing between .*{paths[1].name}.*{paths[3].name}.*6.00 mm"):
        stack_series([path for path in paths if path != paths[2]])


def test_a_pet_that_lost_its_ends_is_refused(tmp_path: Path) -> None:
    def edit(z: int, dataset: Dataset) -> None:
        dataset.NumberOfSlices, dataset.NumberOfTimeSlices = 10, 2

    paths = write_pet(tmp_path, edit=edit)
    check_pet_whole(stack_series(paths))
    with pytest.raises(InputError, match=r"the PET has 3 slices, and NumberOfSlices \(0054,0081\) = 10"):
        check_pet_whole(stack_series(paths[2:]))


def test_a_ct_that_lost_every_second_slice_is_refused(tmp_path: Path) -> None:
    paths = write_ct(tmp_path)
    assert check_ct_whole(stack_series(paths)) == ()
    with pytest.raises(InputError, match=r"numbered in steps of 2 \(InstanceNumber \(0020,0013\) 1, 3, ...\)"):
        check_ct_whole(stack_series(paths[::2]))


def test_the_spacing_between_slices_goes_before_their_numbers_and_thickness(tmp_path: Path) -> None:
    def edit(z: int, dataset: Dataset) -> None:
        dataset.SpacingBetweenSlices, dataset.InstanceNumber, dataset.SliceThickness = 3, 2 * z, 1

    paths = write_ct(tmp_path, edit=edit)
    assert check_ct_whole(stack_series(paths)) == ()
    with pytest.raises(InputError, match=r"6.00 mm apart, and SpacingBetweenSlices \(0018,0088\) = 3"):
        check_ct_whole(stack_series(paths[::2]))


def test_thin_slices_far_apart_are_worth_a_warning(tmp_path: Path) -> None:
    def edit(z: int, dataset: Dataset) -> None:
        dataset.SliceThickness = 1

    (line,) = check_ct_whole(stack_series(write_ct(tmp_path, edit=edit)))
    assert line == "slices of the CT are 3.00 mm apart and 1 mm thick; look whether some are missing"


def test_a_doubled_slice_is_named(tmp_path: Path) -> None:
    paths = write_ct(tmp_path)
    copy = tmp_path / "copy.dcm"
    copy.write_bytes(paths[2].read_bytes())
    with pytest.raises(InputError, match=r"(copy.dcm.*lie at one place|and .*copy.dcm .*lie at one place)"):
        stack_series([*paths, copy])


def _turn(dataset: Dataset) -> None:
    dataset.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]


def _widen(dataset: Dataset) -> None:
    dataset.PixelSpacing = [3, 3]


def _shrink(dataset: Dataset) -> None:
    dataset.Rows, dataset.PixelData = 6, dataset.PixelData[: 6 * 9 * 2]


def _push(dataset: Dataset) -> None:
    dataset.ImagePositionPatient[0] += 1.0


def _lift(dataset: Dataset) -> None:
    dataset.ImagePositionPatient[2] += 0.5


def _forget_place(dataset: Dataset) -> None:
    del dataset.ImagePositionPatient


def _break_place(dataset: Dataset) -> None:
    dataset.ImagePositionPatient = [1, 2]


def _colour(dataset: Dataset) -> None:
    dataset.PhotometricInterpretation = "RGB"


def _frames(dataset: Dataset) -> None:
    dataset.NumberOfFrames = 2


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_turn, r"ImageOrientationPatient .*4 other slices"),
        (_widen, "PixelSpacing"),
        (_shrink, "Rows/Columns"),
        (_push, "lies 0.50 voxels from where"),
        (_lift, "the slice distance changes between"),
        (_forget_place, r"lacks ImagePositionPatient \(0020,0032\)"),
        (_break_place, r"ImagePositionPatient \(0020,0032\) = \[1.0, 2.0\]; expected 3"),
        (_colour, "is a picture"),
        (_frames, "holds 2 frames"),
    ],
)
def test_a_slice_that_does_not_fit_is_named(tmp_path: Path, spoil, words: str) -> None:
    paths = write_ct(tmp_path)
    dataset = dcmread(paths[2])
    spoil(dataset)
    dataset.save_as(paths[2])
    with pytest.raises(InputError, match=words) as error:
        stack_series(paths)
    assert paths[2].name in str(error.value)


def test_rounded_positions_are_no_gap(tmp_path: Path) -> None:
    def edit(z: int, dataset: Dataset) -> None:
        dataset.ImagePositionPatient[2] = round(100 + 0.625 * z, 1)

    assert stack_series(write_ct(tmp_path, edit=edit)).grid.spacing_mm[2] == pytest.approx(0.625)


def test_a_tilted_gantry_is_refused(tmp_path: Path) -> None:
    def edit(z: int, dataset: Dataset) -> None:
        dataset.ImagePositionPatient[1] += 0.3 * z

    with pytest.raises(InputError, match=r"tilted by 5\.\d\d degrees"):
        stack_series(write_ct(tmp_path, edit=edit))


def test_pixels_cut_short_are_named(tmp_path: Path) -> None:
    paths = write_ct(tmp_path)
    paths[3].write_bytes(paths[3].read_bytes()[:-40])
    with pytest.raises(InputError, match=rf"{paths[3].name}: pixels are damaged or cut short"):
        read_values(stack_series(paths))


def test_packed_pixels(tmp_path: Path) -> None:
    paths = write_ct(tmp_path)
    for path in paths:
        dataset = dcmread(path)
        dataset.compress(RLELossless)
        dataset.save_as(path)
    assert np.array_equal(read_values(stack_series(paths)), ramp())


def test_a_packing_that_nothing_here_reads_is_told(tmp_path: Path) -> None:
    paths = write_ct(tmp_path)
    dataset = dcmread(paths[0])
    dataset.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    dataset.save_as(paths[0])
    with pytest.raises(InputError, match=r"ct03.dcm: pixels are packed as JPEG Lossless.*python-gdcm"):
        read_values(stack_series(paths))


def test_a_missing_slope_is_named(tmp_path: Path) -> None:
    def edit(z: int, dataset: Dataset) -> None:
        del dataset.RescaleSlope

    with pytest.raises(InputError, match=r"lacks RescaleSlope \(0028,1053\)"):
        read_values(stack_series(write_ct(tmp_path, edit=edit)))


def test_one_slice_is_no_volume(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="single slice"):
        stack_series(write_ct(tmp_path)[:1])
