"""Files are read whole or refused with a reason, and masks go back onto the grid they came from."""

import gzip
import hashlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from hngtv.errors import InputError
from hngtv.volume.nifti import read_image, write_labels_like
from tests.tiny_cases import write_nifti

SHAPE = (5, 6, 7)
ORIENTATIONS = ["RAS", "LPS", "LAS", "SPR", "AIL", "IRP"]


def oblique_affine(codes: str) -> np.ndarray:
    """An affine near the given axis codes, tilted by 10 degrees, with spacings 1, 2 and 3 mm."""
    straight = np.zeros((3, 3))
    for column, code in enumerate(codes):
        row = next(i for i, pair in enumerate(("LR", "PA", "IS")) if code in pair)
        straight[row, column] = 1 if code in "RAS" else -1
    tilt = np.deg2rad(10)
    turn = np.array([[np.cos(tilt), 0, np.sin(tilt)], [0, 1, 0], [-np.sin(tilt), 0, np.cos(tilt)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ straight * (1, 2, 3)
    affine[:3, 3] = (-50, 20, 700)
    return affine


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 3, SHAPE).astype(np.int16)


@pytest.mark.parametrize("codes", ORIENTATIONS)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_every_voxel_keeps_its_world_position(tmp_path: Path, values: np.ndarray, codes: str, suffix: str) -> None:
    path = tmp_path / f"image{suffix}"
    affine = oblique_affine(codes)
    write_nifti(path, values, affine)
    image = read_image(path)
    assert nib.orientations.aff2axcodes(image.grid.matrix) == ("R", "A", "S")
    assert image.values.dtype == np.int16
    index = (1, 4, 2)
    found = np.rint(image.grid.to_index(affine[:3, :3] @ index + affine[:3, 3])).astype(int)
    assert image.values[tuple(found)] == values[index]


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_labels_written_like_a_file_match_it_voxel_by_voxel(tmp_path: Path, values: np.ndarray, codes: str) -> None:
    source, mask = tmp_path / "source.nii.gz", tmp_path / "mask.nii.gz"
    write_nifti(source, values, oblique_affine(codes))
    write_labels_like(mask, read_image(source).values.astype(np.uint8), source)
    original, written = nib.Nifti1Image.from_filename(source), nib.Nifti1Image.from_filename(mask)
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), values)
    np.testing.assert_array_equal(written.affine, original.affine)
    assert written.get_data_dtype() == np.uint8
    for code in ("qform_code", "sform_code"):
        assert written.header[code] == original.header[code]
    np.testing.assert_array_equal(written.header["pixdim"], original.header["pixdim"])


def test_scale_factors_of_the_source_do_not_reach_the_mask(tmp_path: Path, values: np.ndarray) -> None:
    source, mask = tmp_path / "source.nii.gz", tmp_path / "mask.nii.gz"
    image = nib.Nifti1Image(values, np.eye(4))
    image.header.set_slope_inter(0.5, -1024)
    image.set_sform(np.eye(4), 1)
    nib.save(image, source)
    write_labels_like(mask, np.full(SHAPE, 2, np.uint8), source)
    assert (read_image(mask).values == 2).all()


def test_scaled_values_are_read(tmp_path: Path) -> None:
    path = tmp_path / "ct.nii"
    image = nib.Nifti1Image(np.full(SHAPE, 24, np.int16), np.eye(4))
    image.header.set_slope_inter(2, -1024)
    image.set_sform(np.eye(4), 1)
    nib.save(image, path)
    raw = path.read_bytes()
    stored = np.frombuffer(raw[352:354], np.int16)[0]
    assert read_image(path).values.flat[0] == stored * 2 - 1024


def test_four_axes_with_one_frame_are_three(tmp_path: Path, values: np.ndarray) -> None:
    path = tmp_path / "image.nii.gz"
    write_nifti(path, values[..., None], np.eye(4))
    assert read_image(path).values.shape == SHAPE


def packed(values: np.ndarray, sform: np.ndarray | None = None, codes: tuple[int, int] = (0, 1)) -> bytes:
    """A gzipped NIfTI file with an identity qform, any sform, and the codes of the two."""
    image = nib.Nifti1Image(values, np.eye(4))
    content = bytearray(image.to_bytes())
    content[252:256] = np.array(codes, np.int16).tobytes()
    content[280:328] = (np.eye(4) if sform is None else sform)[:3].astype(np.float32).tobytes()
    return gzip.compress(bytes(content))


VOXELS = np.ones(SHAPE, np.int16)
MOVED = np.eye(4) + np.array([0, 0, 0, 5]) * [[1], [1], [1], [0]]
SHEAR = np.array([[1, 0.2, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
FLAT = np.diag([1.0, 1.0, 0.0, 1.0])
NOISE = np.random.default_rng(0).integers(0, 1000, SHAPE).astype(np.int16)

BAD_FILES = {
    "truncated gzip": (packed(NOISE)[:-100], "damaged or cut short"),
    "gzip without its checksum": (packed(NOISE)[:-8], "damaged or cut short"),
    "flipped bit in gzip": (
        bytes([*packed(NOISE)[:-8], 0, 0, 0, 0, *packed(NOISE)[-4:]]),
        "damaged or cut short",
    ),
    "text": (b"PatientID,Age\nP01,57\n", "not a NIfTI file"),
    "long text": (b"PatientID,Age\nP01,57\n" * 50, "not a NIfTI file"),
    "gzipped text": (gzip.compress(b"hello"), "not a NIfTI file"),
    "empty": (b"", "not a NIfTI file"),
    "voxels cut": (gzip.compress(gzip.decompress(packed(NOISE))[:-50]), "cut short"),
    "4-D": (packed(np.ones((*SHAPE, 3), np.int16)), "4-D"),
    "2-D": (packed(np.ones((5, 6), np.int16)), "three axes"),
    "single slice": (packed(np.ones((5, 6, 1), np.int16)), "single slice"),
    "complex": (packed(np.ones(SHAPE, np.complex64)), "real numbers"),
    "shear": (packed(VOXELS, SHEAR), "sheared"),
    "nan affine": (packed(VOXELS, np.full((4, 4), np.nan)), "unusable affine"),
    "flat affine": (packed(VOXELS, FLAT), "unusable affine"),
    "qform against sform": (packed(VOXELS, MOVED, codes=(1, 1)), "qform and an sform"),
    "no place": (packed(VOXELS, codes=(0, 0)), "neither qform nor sform"),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_refused_in_one_line_that_names_them(tmp_path: Path, name: str) -> None:
    content, reason = BAD_FILES[name]
    path = tmp_path / "bad.nii.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_image(tmp_path / "none.nii.gz")
    with pytest.raises(InputError, match="cannot be read"):
        read_image(tmp_path)


def test_the_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "image.nii.gz"
    write_nifti(path, VOXELS, np.eye(4))
    assert read_image(path).digest == hashlib.sha256(path.read_bytes()).hexdigest()
