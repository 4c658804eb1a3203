"""RTSTRUCT of a mask: read back by the own reader, by hand, and by a validator where there is one."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from matplotlib.path import Path as Polygon
from pydicom import dcmread
from pydicom.dataset import FileDataset

from hngtv.cases.dicom.names import OutlinePatterns
from hngtv.cases.dicom.original import Maker
from hngtv.cases.dicom.outlines import draw_target
from hngtv.cases.dicom.rtstruct import read_rtstruct
from hngtv.cases.dicom.write_rtstruct import write_rtstruct
from hngtv.errors import InputError
from hngtv.volume.grid import Grid
from tests.tiny_dicom import AXIAL, CT_SCAN, PATIENT_NAME, Place
from tests.tiny_original import MAKER, PLACES, SHAPE, as_mask, labels_of_series, write_original


def write(folder: Path, place: Place = AXIAL, labels: np.ndarray | None = None) -> Path:
    original = write_original(folder / "ct", place)
    mask = as_mask(labels_of_series() if labels is None else labels, original, folder)
    write_rtstruct(folder / "rtstruct.dcm", mask.values, mask.grid, original, MAKER)
    return folder / "rtstruct.dcm"


@pytest.mark.parametrize("name", PLACES)
def test_the_own_reader_gives_the_mask_back(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, PLACES[name])
    grid = write_original(tmp_path / "ct", PLACES[name]).stack.grid
    target = draw_target(read_rtstruct(path), grid, CT_SCAN.frame_uid, OutlinePatterns())
    np.testing.assert_array_equal(target.labels, labels_of_series())
    assert target.warnings == ()


@pytest.mark.parametrize("name", PLACES)
def test_a_reader_made_of_the_tags_alone_gives_the_mask_back(name: str, tmp_path: Path) -> None:
    """Each contour on the image that it refers to, by that image's own tags; points in polygons by matplotlib."""
    images = {}
    found = np.zeros(SHAPE, np.uint8)
    dataset = dcmread(write(tmp_path, PLACES[name]))
    for path in (tmp_path / "ct").iterdir():
        image = dcmread(path)
        images[image.SOPInstanceUID] = image
    for label, roi in enumerate(dataset.ROIContourSequence, start=1):
        for contour in roi.ContourSequence:
            image = images[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
            points = np.reshape(contour.ContourData, (-1, 3)).astype(float) - np.array(
                image.ImagePositionPatient, float
            )
            row, column = np.reshape(image.ImageOrientationPatient, (2, 3)).astype(float)
            assert np.abs(points @ np.cross(row, column)).max() < 1e-3
            x, y = points @ row / image.PixelSpacing[1], points @ column / image.PixelSpacing[0]
            centres = np.argwhere(np.ones(SHAPE[:2], bool))
            inside = Polygon(np.stack([x, y], axis=1)).contains_points(centres).reshape(SHAPE[:2])
            found[:, :, image.InstanceNumber - 1][inside] = label
            assert contour.NumberOfContourPoints == len(points)
    np.testing.assert_array_equal(found, labels_of_series())


def test_what_it_says(tmp_path: Path) -> None:
    dataset: FileDataset = dcmread(write(tmp_path))
    assert (dataset.PatientName, dataset.PatientID, dataset.Modality) == (PATIENT_NAME, "P1", "RTSTRUCT")
    ct = dcmread(next((tmp_path / "ct").iterdir()))
    assert dataset.StudyInstanceUID == ct.StudyInstanceUID
    assert dataset.SeriesInstanceUID != ct.SeriesInstanceUID
    (frame,) = dataset.ReferencedFrameOfReferenceSequence
    (series,) = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence
    assert (frame.FrameOfReferenceUID, series.SeriesInstanceUID) == (ct.FrameOfReferenceUID, ct.SeriesInstanceUID)
    referred = {image.ReferencedSOPInstanceUID for image in series.ContourImageSequence}
    assert referred == {dcmread(path).SOPInstanceUID for path in (tmp_path / "ct").iterdir()}
    assert [roi.ROIName for roi in dataset.StructureSetROISequence] == ["GTVp", "GTVn"]
    assert {roi.ROIGenerationAlgorithm for roi in dataset.StructureSetROISequence} == {"AUTOMATIC"}
    assert {seen.RTROIInterpretedType for seen in dataset.RTROIObservationsSequence} == {"GTV"}
    assert len({tuple(roi.ROIDisplayColor) for roi in dataset.ROIContourSequence}) == 2
    assert dataset.SeriesDescription == "hngtv 0.1.0 two_stage_ag 01234567, research use"
    assert (dataset.StructureSetLabel, dataset.ApprovalStatus) == ("RESEARCH USE", "UNAPPROVED")
    assert "not a medical device" in dataset.StructureSetDescription


def test_a_long_name_of_an_arm_keeps_the_series_description_within_its_tag() -> None:
    description = Maker("arm" * 40, "0.1.0", "f" * 64).description
    assert len(description) == 64
    assert description.endswith("ffffffff, research use")


def test_an_empty_label_has_no_structure(tmp_path: Path) -> None:
    labels = np.where(labels_of_series() == 2, 2, 0).astype(np.uint8)
    dataset = dcmread(write(tmp_path, labels=labels))
    assert [roi.ROIName for roi in dataset.StructureSetROISequence] == ["GTVn"]


def test_a_mask_of_another_grid_is_refused(tmp_path: Path) -> None:
    original = write_original(tmp_path / "ct")
    elsewhere = Grid.from_array(SHAPE, np.diag([2.0, 1.5, 3.0, 1.0]))
    with pytest.raises(InputError, match="does not lie on its CT series"):
        write_rtstruct(tmp_path / "rs.dcm", labels_of_series(), elsewhere, original, MAKER)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy (Debian: dicom3tools)")
def test_a_validator_finds_no_error(tmp_path: Path) -> None:
    answer = subprocess.run(["dciodvfy", write(tmp_path)], capture_output=True, text=True, check=False)
    assert "RTStructureSet" in answer.stderr
    assert [line for line in answer.stderr.splitlines() if line.startswith("Error")] == []
