"""Synthetic DICOM, a few slices small: CT, PET, RTSTRUCT and SEG as files on disk."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    PositronEmissionTomographyImageStorage,
    RTStructureSetStorage,
    generate_uid,
)

PATIENT_NAME = "Müller^Änne"
"""A name that must never turn up in what is written or said."""


def uid_of(*words: str) -> UID:
    """The same UID for the same words."""
    return generate_uid(entropy_srcs=list(words))


@dataclass(frozen=True)
class Place:
    """Where a volume lies: LPS mm of its first voxel, directions of growing column and row, and steps in mm."""

    origin_mm: tuple[float, float, float] = (-30.0, -40.0, 100.0)
    along_columns: tuple[float, float, float] = (1.0, 0.0, 0.0)
    along_rows: tuple[float, float, float] = (0.0, 1.0, 0.0)
    step_mm: tuple[float, float, float] = (2.0, 1.5, 3.0)

    @property
    def lps_affine(self) -> NDArray[np.float64]:
        """From the indices (column, row, slice) to LPS mm."""
        axes = np.stack([self.along_columns, self.along_rows, np.cross(self.along_columns, self.along_rows)], axis=1)
        affine = np.eye(4)
        affine[:3, :3] = axes * np.asarray(self.step_mm)
        affine[:3, 3] = self.origin_mm
        return affine

    def to_lps(self, indices: ArrayLike) -> NDArray[np.float64]:
        return np.asarray(indices) @ self.lps_affine[:3, :3].T + self.lps_affine[:3, 3]


AXIAL = Place()
OBLIQUE = Place(along_columns=(0.8, 0.6, 0.0), along_rows=(-0.48, 0.64, 0.6))


@dataclass(frozen=True)
class Scan:
    """Who and what a series is of; its UIDs follow from these words."""

    patient: str = "P1"
    study: str = "study"
    frame: str = "frame"
    series: str = "ct"

    @property
    def frame_uid(self) -> UID:
        return uid_of("frame", self.frame)

    @property
    def series_uid(self) -> UID:
        return uid_of("series", self.patient, self.series)


CT_SCAN = Scan()
PET_SCAN = Scan(series="pet")


def ramp(shape: tuple[int, int, int] = (9, 7, 5)) -> NDArray[np.int16]:
    """Values (X, Y, Z) that differ everywhere, from air to tissue."""
    return np.linspace(-1000, 1000, int(np.prod(shape))).round().astype(np.int16).reshape(shape)


def write_ct(
    folder: Path,
    values: NDArray | None = None,
    scan: Scan = CT_SCAN,
    place: Place = AXIAL,
    edit: Callable[[int, Dataset], None] | None = None,
) -> list[Path]:
    """Write a CT, one file a slice; `edit` may change the tags of slice z. Returns the files in order of slices."""
    values = ramp() if values is None else values
    tags = {"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -1024, "ImageType": ["ORIGINAL", "PRIMARY"]}
    return _write_slices(folder, CTImageStorage, values + 1024, scan, place, tags, edit)


PET_TAGS: Mapping[str, Any] = {
    "Modality": "PT",
    "Units": "BQML",
    "DecayCorrection": "START",
    "CorrectedImage": ["DECY", "ATTN", "SCAT"],
    "PatientWeight": "70",
    "AcquisitionDate": "20200102",
    "AcquisitionTime": "110000",
    "SeriesDate": "20200102",
    "SeriesTime": "110000",
    "RescaleIntercept": 0,
}
INJECTION: Mapping[str, Any] = {
    "RadionuclideTotalDose": "350000000",
    "RadionuclideHalfLife": "6586.2",
    "RadiopharmaceuticalStartTime": "100000",
}


def write_pet(
    folder: Path,
    values: NDArray | None = None,
    scan: Scan = PET_SCAN,
    place: Place = AXIAL,
    edit: Callable[[int, Dataset], None] | None = None,
) -> list[Path]:
    """Write a PET of stored values 0 to 9000 with a slope of its own in each slice."""
    values = np.linspace(0, 9000, 9 * 7 * 5).astype(np.int16).reshape(9, 7, 5) if values is None else values

    def set_slope(z: int, dataset: Dataset) -> None:
        dataset.RescaleSlope = str(1 + z / 4)
        injection = Dataset()
        for keyword, value in INJECTION.items():
            setattr(injection, keyword, value)
        dataset.RadiopharmaceuticalInformationSequence = [injection]
        if edit is not None:
            edit(z, dataset)

    return _write_slices(folder, PositronEmissionTomographyImageStorage, values, scan, place, PET_TAGS, set_slope)


def write_rtstruct(
    path: Path,
    outlines: Sequence[tuple[str, Sequence[tuple[ArrayLike, str]]]],
    scan: Scan = CT_SCAN,
    edit: Callable[[Dataset], None] | None = None,
) -> Path:
    """Write an RTSTRUCT that refers to the series and frame of `scan`.

    Args:
        path: The file.
        outlines: Name and contours of each; a contour is its points (N, 3) in LPS mm and its geometric type.
        scan: Patient, frame and series.
        edit: May change the tags.
    """
    dataset = _new(RTStructureSetStorage, scan, path.name)
    dataset.Modality, dataset.StructureSetLabel = "RTSTRUCT", "outlines"
    del dataset.FrameOfReferenceUID
    study = _item(RTReferencedSeriesSequence=[_item(SeriesInstanceUID=scan.series_uid)])
    frame = _item(FrameOfReferenceUID=scan.frame_uid, RTReferencedStudySequence=[study])
    dataset.ReferencedFrameOfReferenceSequence = [frame]
    dataset.StructureSetROISequence, dataset.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(outlines, start=1):
        roi = _item(ROINumber=number, ROIName=name, ReferencedFrameOfReferenceUID=scan.frame_uid)
        dataset.StructureSetROISequence.append(roi)
        items = [_contour(points, kind) for points, kind in contours]
        dataset.ROIContourSequence.append(_item(ReferencedROINumber=number, ContourSequence=items))
    if edit is not None:
        edit(dataset)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def _contour(points: ArrayLike, kind: str) -> Dataset:
    values = np.asarray(points, dtype=np.float64)
    texts = [f"{value:.6f}" for value in values.ravel()]
    return _item(ContourGeometricType=kind, NumberOfContourPoints=len(values), ContourData=texts)


def _item(**tags: Any) -> Dataset:
    item = Dataset()
    for keyword, value in tags.items():
        setattr(item, keyword, value)
    return item


def _new(sop_class: UID, scan: Scan, name: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = sop_class, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = uid_of("instance", scan.patient, scan.series, name)
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName, dataset.PatientID = PATIENT_NAME, scan.patient
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid_of("study", scan.patient, scan.study), scan.series_uid
    dataset.FrameOfReferenceUID = scan.frame_uid
    dataset.StudyDate = dataset.StudyTime = dataset.PatientBirthDate = dataset.PatientSex = ""
    dataset.AccessionNumber = dataset.ReferringPhysicianName = dataset.StudyID = ""
    dataset.SeriesNumber = 1
    return dataset


def _write_slices(
    folder: Path,
    sop_class: UID,
    values: NDArray,
    scan: Scan,
    place: Place,
    tags: Mapping[str, Any],
    edit: Callable[[int, Dataset], None] | None,
) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for z in range(values.shape[2]):
        dataset = _new(sop_class, scan, str(z))
        for keyword, value in tags.items():
            setattr(dataset, keyword, value)
        pixels = np.ascontiguousarray(values[:, :, z].T.astype(np.int16))
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.PixelSpacing = [place.step_mm[1], place.step_mm[0]]
        dataset.ImageOrientationPatient = [*place.along_columns, *place.along_rows]
        dataset.ImagePositionPatient = [f"{value:.6f}" for value in place.to_lps((0, 0, z))]
        dataset.InstanceNumber, dataset.SliceThickness = z + 1, place.step_mm[2]
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
        dataset.PixelData = pixels.tobytes()
        if edit is not None:
            edit(z, dataset)
        # File names in an order that has nothing to do with that of the slices.
        paths.append(folder / f"{scan.series}{(z * 7 + 3) % 11 + 11 * (z // 11):02d}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths
