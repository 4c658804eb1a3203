"""NIfTI files, read to their last byte and checked, and written on the grid they came from."""

import gzip
import hashlib
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.funcs import as_closest_canonical, squeeze_image
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from hngtv.errors import InputError
from hngtv.run_folder import atomic_path
from hngtv.volume.grid import Grid

SUFFIXES = (".nii.gz", ".nii")
AFFINE_TOLERANCE_MM = 0.01
"""Largest difference of qform and sform entries taken as the same geometry. Source: our choice."""
SHEAR_TOLERANCE = 0.01
"""Largest cosine between two grid axes taken as a right angle. Source: our choice."""


@dataclass(frozen=True)
class Image:
    """A 3D image in RAS order.

    Attributes:
        values: (X, Y, Z), dtype of the file after scaling, axes nearest to +x, +y, +z of the world.
        grid: Where the voxels lie.
        digest: SHA-256 of the file's bytes.
    """

    values: NDArray
    grid: Grid
    digest: str


def has_nifti_name(path: Path) -> bool:
    return path.name.endswith(SUFFIXES)


def file_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_image(path: Path) -> Image:
    """Read a NIfTI file whole, gzip checksum included, and turn it to RAS order.

    Raises:
        InputError: The file is missing, damaged, not NIfTI, not a 3D volume, or of unusable geometry.
    """
    nifti, digest = _load(path)
    canonical = as_closest_canonical(nifti)
    grid = Grid.from_array(canonical.shape, canonical.affine)
    return Image(np.asanyarray(canonical.dataobj), grid, digest)


def write_labels_like(path: Path, labels: NDArray[np.uint8], reference: Path) -> None:
    """Write a mask on the grid of another file, its header and voxel order kept.

    Args:
        path: Ends in .nii.gz or .nii.
        labels: (X, Y, Z) uint8 in RAS order, on the grid of `read_image(reference)`.
        reference: The file whose orientation and header the mask takes.
    """
    _write_like(path, labels.astype(np.uint8, copy=False), reference)


def write_map_like(path: Path, values: NDArray[np.float32], reference: Path) -> None:
    """Write a map of real values, as `write_labels_like` writes a mask; float32."""
    _write_like(path, values.astype(np.float32, copy=False), reference)


def write_image_like(path: Path, values: NDArray, reference: Path) -> None:
    """Write an image, as `write_labels_like` writes a mask; its data type is kept."""
    _write_like(path, values, reference)


def write_moved(path: Path, reference: Path, motion: NDArray[np.float64]) -> None:
    """Write the voxels of another file as they are, elsewhere in the patient.

    Args:
        path: Ends in .nii.gz or .nii.
        reference: The file that is moved.
        motion: 4 x 4 matrix of a rigid motion in world RAS mm.
    """
    source, _ = _load(reference)
    values = np.asanyarray(source.dataobj)
    values = values.astype(np.float32) if values.dtype == np.float64 else values
    header = source.header.copy()
    header.set_data_dtype(values.dtype)
    header.set_slope_inter(1, 0)
    image = nib.Nifti1Image(values, motion @ np.asarray(source.affine), header)
    for place in (image.set_qform, image.set_sform):
        place(image.affine, code=2)
    save_nifti(path, image)


def _write_like(path: Path, values: NDArray, reference: Path) -> None:
    source, _ = _load(reference)
    voxels = from_ras(values, np.asarray(source.affine))
    header = source.header.copy()
    header.set_data_dtype(values.dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"], header["cal_max"] = 0, 0
    save_nifti(path, nib.Nifti1Image(voxels, source.affine, header))


def from_ras(values: NDArray, affine: NDArray) -> NDArray:
    """Values (X, Y, Z) in RAS order, turned to the order of an array with this 4 x 4 affine."""
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.io_orientation(affine)
    )
    return nib.orientations.apply_orientation(values, turn)


def as_ras(grid: Grid) -> Grid:
    """The same voxels in RAS order, as `read_image` gives them."""
    turn = nib.orientations.io_orientation(grid.matrix)
    shape = [0, 0, 0]
    for n, axis in zip(grid.shape, turn[:, 0].astype(int), strict=True):
        shape[axis] = n
    return Grid.from_array(tuple(shape), grid.matrix @ nib.orientations.inv_ornt_aff(turn, grid.shape))


def write_nifti(path: Path, values: NDArray, affine: NDArray) -> None:
    """Write an image (X, Y, Z) with one affine as qform and sform, whole or not at all."""
    image = nib.Nifti1Image(values, affine)
    image.set_qform(affine, code=1)
    image.set_sform(image.get_qform(), code=1)
    image.header.set_xyzt_units("mm")
    save_nifti(path, image)


def save_nifti(path: Path, image: nib.Nifti1Image) -> None:
    """Write a NIfTI image whole or not at all."""
    with atomic_path(path) as temporary:
        nib.save(image, temporary)


def _load(path: Path) -> tuple[nib.Nifti1Image, str]:
    try:
        packed = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}); expected a NIfTI file") from None
    try:
        plain = gzip.decompress(packed) if packed[:2] == b"\x1f\x8b" else packed
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path} is damaged or cut short ({error}); copy it again from its source") from None
    try:
        image = nib.Nifti1Image.from_bytes(plain)
    except (ImageFileError, HeaderDataError, WrapStructError, ValueError, TypeError) as error:
        raise InputError(f"{path} is not a NIfTI file ({_first_line(error)}); expected .nii or .nii.gz") from None
    _check_geometry(path, image)
    start = int(image.dataobj.offset)  # pyright: ignore[reportAttributeAccessIssue]
    needed = start + math.prod(image.shape) * image.header.get_data_dtype().itemsize
    if len(plain) < needed:
        raise InputError(f"{path} is cut short: {len(plain)} bytes, its header asks for {needed}; copy it again")
    return squeeze_image(image), hashlib.sha256(packed).hexdigest()


def _check_geometry(path: Path, image: nib.Nifti1Image) -> None:
    shape = image.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) == 4:
        raise InputError(f"{path} is 4-D {shape}; expected one 3D volume, so split it into frames first")
    if len(shape) != 3:
        raise InputError(f"{path} has shape {shape}; expected three axes x, y, z")
    if min(shape) < 2:
        raise InputError(f"{path} has shape {shape}: a single slice; expected a volume of at least 2 voxels a side")
    if image.header.get_data_dtype().kind not in "iuf":
        raise InputError(f"{path} has data type {image.header.get_data_dtype()}; expected real numbers")
    affine = image.affine
    if affine is None or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        raise InputError(f"{path} has an unusable affine (not finite or singular); convert it again from its DICOM")
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    if np.abs(axes.T @ axes - np.eye(3)).max() > SHEAR_TOLERANCE:
        raise InputError(f"{path} has a sheared affine; expected right angles between its axes, so resample it first")
    qform, sform = image.get_qform(coded=True), image.get_sform(coded=True)
    if qform[1] and sform[1] and np.abs(qform[0] - sform[0]).max() > AFFINE_TOLERANCE_MM:
        raise InputError(
            f"{path} has a qform and an sform that differ by {np.abs(qform[0] - sform[0]).max():.2f}; "
            "readers disagree on such files, so set both to the right one"
        )
    if not qform[1] and not sform[1]:
        raise InputError(f"{path} has neither qform nor sform, so its place in the patient is unknown")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
