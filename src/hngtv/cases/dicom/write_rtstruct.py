"""A mask as RTSTRUCT: contours on the slices of the CT, which a planning system opens as structures."""

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import UID, RTStructureSetStorage

from hngtv.cases.dicom.contours import trace
from hngtv.cases.dicom.geometry import Slice, to_ras
from hngtv.cases.dicom.original import COLOURS, RESEARCH_USE, Maker, Original, date_and_time, new_object
from hngtv.cases.dicom.read import quiet_pydicom
from hngtv.run_folder import atomic_path
from hngtv.volume.grid import Grid
from hngtv.volume.labels import LABEL_NAMES

STUDY_COMPONENT = UID("1.2.840.10008.3.1.2.3.1")
"""The class by which an RTSTRUCT refers to a study. Source: DICOM PS3.3, C.8.8.5."""
LABEL = "RESEARCH USE"
"""Of the structure set, in the 16 letters that it has."""


def write_rtstruct(path: Path, labels: NDArray[np.uint8], grid: Grid, original: Original, maker: Maker) -> None:
    """Write the labels of a mask that are not empty, as structures GTVp and GTVn of type GTV.

    Args:
        path: The file.
        labels: (X, Y, Z) in RAS order, 1 GTVp, 2 GTVn.
        grid: Of `labels`.
        original: The CT series, whose frame and slices the contours refer to.
        maker: Named in the description.
    Raises:
        InputError: The mask does not lie on the grid of the series.
    """
    turned, now = original.turned(labels, grid), datetime.now()
    new = new_object(RTStructureSetStorage, original, maker, now)
    new.Modality, new.OperatorsName = "RTSTRUCT", ""
    new.StructureSetLabel, new.StructureSetName = LABEL, maker.description
    new.StructureSetDescription = f"Automatic outlines, not reviewed; {RESEARCH_USE}. Model {maker.digest}"
    new.StructureSetDate, new.StructureSetTime = date_and_time(now)
    new.FrameOfReferenceUID, new.PositionReferenceIndicator = original.frame, ""
    new.ReferencedFrameOfReferenceSequence = [_references(original)]
    new.StructureSetROISequence, new.ROIContourSequence, new.RTROIObservationsSequence = [], [], []
    for number, label in enumerate((label for label in LABEL_NAMES if (turned == label).any()), start=1):
        roi = _item(ROINumber=number, ReferencedFrameOfReferenceUID=original.frame, ROIName=LABEL_NAMES[label])
        roi.ROIGenerationAlgorithm, roi.ROIGenerationDescription = "AUTOMATIC", maker.description
        new.StructureSetROISequence.append(roi)
        contours = _contours(turned == label, original)
        new.ROIContourSequence.append(
            _item(ReferencedROINumber=number, ROIDisplayColor=list(COLOURS[label]), ContourSequence=contours)
        )
        new.RTROIObservationsSequence.append(
            _item(ObservationNumber=number, ReferencedROINumber=number, RTROIInterpretedType="GTV", ROIInterpreter="")
        )
    new.ApprovalStatus = "UNAPPROVED"
    with atomic_path(path) as temporary, quiet_pydicom():
        new.save_as(temporary, enforce_file_format=True)


def _references(original: Original) -> Dataset:
    """The frame of reference, in it the study, in that the series, and all its slices."""
    series = _item(
        SeriesInstanceUID=original.header.SeriesInstanceUID,
        ContourImageSequence=[_image(one) for one in original.stack.slices],
    )
    study = _item(
        ReferencedSOPClassUID=STUDY_COMPONENT,
        ReferencedSOPInstanceUID=original.header.StudyInstanceUID,
        RTReferencedSeriesSequence=[series],
    )
    return _item(FrameOfReferenceUID=original.frame, RTReferencedStudySequence=[study])


def _contours(mask: NDArray[np.bool_], original: Original) -> list[Dataset]:
    """Of a mask (columns, rows, slices) of the series, from its first slice to its last."""
    items = []
    for z in np.flatnonzero(mask.any(axis=(0, 1))):
        for line in trace(mask[:, :, z]):
            points = np.column_stack([line, np.full(len(line), z)])
            lps = to_ras(original.stack.grid.to_world(points))
            items.append(
                _item(
                    ContourImageSequence=[_image(original.stack.slices[z])],
                    ContourGeometricType="CLOSED_PLANAR",
                    NumberOfContourPoints=len(lps),
                    ContourData=[f"{value:.4f}" for value in lps.ravel()],
                )
            )
    return items


def _image(one: Slice) -> Dataset:
    return _item(ReferencedSOPClassUID=one.header.SOPClassUID, ReferencedSOPInstanceUID=one.header.SOPInstanceUID)


def _item(**tags: Any) -> Dataset:
    item = Dataset()
    for keyword, value in tags.items():
        setattr(item, keyword, value)
    return item
