"""A tiny CT series on disk and masks on it, for what is written about them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hngtv.cases.dicom.find import find_series
from hngtv.cases.dicom.original import Maker, Original, load_original
from hngtv.volume.nifti import Image, read_image
from tests.tiny_cases import write_nifti
from tests.tiny_dicom import AXIAL, OBLIQUE, Place, write_ct

SHAPE = (20, 16, 7)
PLACES = {
    "axial": AXIAL,
    "flipped": Place(along_columns=(-1.0, 0.0, 0.0), along_rows=(0.0, -1.0, 0.0)),
    "feet first": Place(along_columns=(-1.0, 0.0, 0.0)),
    "sagittal": Place(along_columns=(0.0, 1.0, 0.0), along_rows=(0.0, 0.0, -1.0)),
    "oblique": OBLIQUE,
}
MAKER = Maker("two_stage_ag", "0.1.0", "0123456789abcdef" * 4)


def write_original(folder: Path, place: Place = AXIAL) -> Original:
    """Write a CT of `SHAPE` and read it as what a mask was made on."""
    write_ct(folder, np.zeros(SHAPE, np.int16), place=place)
    ((ct,),) = find_series(folder).patients.values()
    return load_original(ct)


def labels_of_series() -> NDArray[np.uint8]:
    """Labels (columns, rows, slices): holes, an island in one, single voxels, corners, and all borders."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:15, 2:13, 1:4] = 1
    labels[3:9, 3:11, 1:3] = 0
    labels[5:7, 5:8, 1:3] = 2
    labels[11, 5, 1:4] = labels[12, 6, 2] = 0
    labels[0, :, 5] = labels[:, 0, 5] = labels[-1, -1, 6] = 1
    labels[10:, 14:, 5:] = 2
    labels[17, 3, 2] = labels[18, 4, 2] = 2
    return labels


def as_mask(labels: NDArray, original: Original, folder: Path) -> Image:
    """Labels of the series as the mask that a prediction leaves, read in RAS order."""
    write_nifti(folder / "mask.nii.gz", labels, original.stack.grid.matrix)
    return read_image(folder / "mask.nii.gz")
