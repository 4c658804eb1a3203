"""The CT series that a mask was made on, and the tags that what is written about it takes over."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, RTStructureSetStorage, SegmentationStorage, generate_uid

from hngtv.cases.checks import GRID_TOLERANCE_VOXELS, corner_shift
from hngtv.cases.dicom.find import Series
from hngtv.cases.dicom.geometry import Stack, stack_series
from hngtv.cases.dicom.read import quiet_pydicom, tag_name, text_of, value_of
from hngtv.errors import InputError
from hngtv.volume.grid import Grid
from hngtv.volume.nifti import as_ras, from_ras

COLOURS = {1: (255, 0, 0), 2: (255, 176, 0)}
"""Red, green and blue of each label. Source: our choice."""
RESEARCH_USE = "for research use, not a medical device"
MAX_TEXT = 64
"""Letters of a long string (LO). Source: DICOM PS3.5, 6.2."""
PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
STUDY = ("StudyInstanceUID", "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber")
"""Tags that every object of the study has, be they empty."""
SERIES_NUMBERS = {RTStructureSetStorage: 9001, SegmentationStorage: 9002}
"""High, to stand behind the series of the scanner. Source: our choice."""
AXIAL = 0.999
"""From this cosine on, a slice counts as axial. Source: our choice."""


@dataclass(frozen=True)
class Maker:
    """What made a mask: the arm, the version of hngtv, and the digest of the weights."""

    arm: str
    version: str
    digest: str

    @property
    def description(self) -> str:
        """For a series, short enough for its tag, the end of a long arm's name being cut."""
        end = f" {self.digest[:8]}, research use"
        return f"hngtv {self.version} {self.arm}"[: MAX_TEXT - len(end)] + end


@dataclass(frozen=True)
class Original:
    """The slices of a CT in order, and its frame of reference."""

    stack: Stack
    frame: str

    @property
    def header(self) -> Dataset:
        """Tags of the first slice."""
        return self.stack.slices[0].header

    @property
    def is_axial(self) -> bool:
        matrix = self.stack.grid.matrix[:3, :3]
        return bool(abs(matrix[2, 2]) / np.linalg.norm(matrix[:, 2]) > AXIAL)

    def turned(self, values: NDArray, grid: Grid) -> NDArray:
        """Values (X, Y, Z) in RAS order, turned to (columns, rows, slices) of the series.

        Raises:
            InputError: They do not lie on the grid of the series.
        """
        own = self.stack.grid
        if values.shape != as_ras(own).shape or corner_shift(grid, as_ras(own)) > GRID_TOLERANCE_VOXELS:
            raise InputError(f"a mask of shape {values.shape} does not lie on its CT series, {own.shape}")
        return from_ras(values, own.matrix)


def load_original(ct: Series) -> Original:
    """Read the headers of a CT series.

    Raises:
        InputError: A slice is missing or damaged, or lacks what objects that refer to it need.
    """
    with quiet_pydicom():
        stack = stack_series(ct.paths)
    for one in stack.slices:
        for keyword in ("SOPClassUID", "SOPInstanceUID"):
            if not text_of(one.header, keyword):
                raise InputError(f"{one.name} lacks {tag_name(keyword)}, so no outline can refer to it")
    return Original(stack, ct.frame)


def new_object(sop_class: UID, original: Original, maker: Maker, now: datetime) -> FileDataset:
    """A new object of the patient and study of a CT, in a series of its own, not to be taken for a person's work."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = sop_class, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid(prefix=None)
    new = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    new.SOPClassUID, new.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    if characters := value_of(original.header, "SpecificCharacterSet"):
        new.SpecificCharacterSet = characters
    new.InstanceCreationDate, new.InstanceCreationTime = date_and_time(now)
    with quiet_pydicom():  # what the scanner wrote is taken over as it is
        for keyword in (*PATIENT, *STUDY):
            setattr(new, keyword, value_of(original.header, keyword) or "")
    new.SeriesInstanceUID, new.SeriesNumber = generate_uid(prefix=None), SERIES_NUMBERS[sop_class]
    new.SeriesDescription = maker.description
    new.Manufacturer, new.ManufacturerModelName, new.SoftwareVersions = "hngtv", maker.arm[:MAX_TEXT], maker.version
    return new


def date_and_time(now: datetime) -> tuple[str, str]:
    """As DICOM writes them."""
    return now.strftime("%Y%m%d"), now.strftime("%H%M%S")
