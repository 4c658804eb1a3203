"""A mask, or a probability, as DICOM SEG on the slices of the CT."""

from pathlib import Path

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import Segmentation, SegmentationTypeValues, SegmentDescription
from numpy.typing import NDArray
from pydicom.sr.codedict import codes
from pydicom.uid import SegmentationStorage, generate_uid

from hngtv.cases.dicom.original import COLOURS, RESEARCH_USE, SERIES_NUMBERS, Maker, Original
from hngtv.cases.dicom.read import quiet_pydicom, text_of
from hngtv.errors import InputError
from hngtv.run_folder import atomic_path
from hngtv.volume.grid import Grid
from hngtv.volume.labels import LABEL_NAMES

TYPES = {1: codes.SCT.NeoplasmPrimary, 2: codes.SCT.NeoplasmSecondary}
"""What each label is. Source: DICOM PS3.16, context group 7159."""
REGIONS = {1: codes.SCT.HeadAndNeck, 2: codes.SCT.LymphNodeOfHeadAndNeck}
"""Where it is, so that one in a node is told from one elsewhere. Source: SNOMED CT."""

MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "ReferringPhysicianName",
    "StudyID", "StudyDate", "StudyTime",
)  # fmt: skip
"""Tags that a DICOM object must have and may leave empty. Source: DICOM PS3.3, patient and general study modules."""


def write_seg(path: Path, labels: NDArray[np.uint8], grid: Grid, original: Original, maker: Maker) -> None:
    """Write the labels of a mask that are not empty, as binary segments GTVp and GTVn.

    Args:
        path: The file.
        labels: (X, Y, Z) in RAS order, 1 GTVp, 2 GTVn.
        grid: Of `labels`.
        original: The CT series that the segments refer to.
        maker: Named as the algorithm.
    Raises:
        InputError: The mask does not lie on the grid of the series, whose headers lack what a SEG needs.
    """
    turned = original.turned(labels, grid)
    numbered, segments = np.zeros_like(turned), []
    for number, label in enumerate((label for label in LABEL_NAMES if (turned == label).any()), start=1):
        numbered[turned == label] = number
        segments.append(_segment(number, LABEL_NAMES[label], label, maker))
    _write(path, numbered, SegmentationTypeValues.BINARY, segments, original, maker)


def write_seg_of_probability(
    path: Path, probability: NDArray[np.float32], grid: Grid, original: Original, maker: Maker
) -> None:
    """Write the probability of tumour (X, Y, Z) in RAS order, in [0, 1], as one fractional segment of 255 steps."""
    segments = [_segment(1, "GTV", None, maker)]
    turned = np.clip(original.turned(probability, grid), 0, 1)
    _write(path, turned, SegmentationTypeValues.FRACTIONAL, segments, original, maker)


def _segment(number: int, name: str, label: int | None, maker: Maker) -> SegmentDescription:
    algorithm = AlgorithmIdentificationSequence(
        name=f"hngtv {maker.arm}"[:64],
        family=codes.cid7162.ArtificialIntelligence,
        version=f"{maker.version} {maker.digest[:12]}",
    )
    return SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Neoplasm if label is None else TYPES[label],
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
        anatomic_regions=[codes.SCT.HeadAndNeck if label is None else REGIONS[label]],
        display_color=None if label is None else CIELabColor.from_rgb(*COLOURS[label]),
    )


def _write(
    path: Path,
    values: NDArray,
    kind: SegmentationTypeValues,
    segments: list[SegmentDescription],
    original: Original,
    maker: Maker,
) -> None:
    """Write values (columns, rows, slices) of the series."""
    headers = [one.header for one in original.stack.slices]
    with quiet_pydicom():
        for header in headers:
            for keyword in MAY_BE_EMPTY:
                header.setdefault(keyword, "")
        try:
            seg = Segmentation(
                source_images=headers,
                pixel_array=np.ascontiguousarray(values.transpose(2, 1, 0)),
                segmentation_type=kind,
                segment_descriptions=segments,
                series_instance_uid=generate_uid(prefix=None),
                series_number=SERIES_NUMBERS[SegmentationStorage],
                sop_instance_uid=generate_uid(prefix=None),
                instance_number=1,
                manufacturer="hngtv",
                manufacturer_model_name=maker.arm[:64],
                software_versions=maker.version,
                device_serial_number=maker.digest[:12],
                content_label="RESEARCH_USE",
                content_description=f"Automatic, not reviewed; {RESEARCH_USE}"[:64],
                series_description=maker.description,
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            name, text = text_of(original.header, "SeriesInstanceUID"), " ".join(str(error).split())[:120]
            raise InputError(f"CT series {name} cannot be referred to by a SEG ({text}); export it again") from None
        with atomic_path(path) as temporary:
            seg.save_as(temporary)
