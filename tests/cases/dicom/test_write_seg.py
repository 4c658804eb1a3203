"""DICOM SEG of a mask: read back by the own reader and, frame by frame, by its raw tags."""

import shutil
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import FileDataset

from hngtv.cases.dicom.find import find_series
from hngtv.cases.dicom.names import OutlinePatterns
from hngtv.cases.dicom.original import load_original
from hngtv.cases.dicom.outlines import draw_target
from hngtv.cases.dicom.read import quiet_pydicom
from hngtv.cases.dicom.seg import read_seg
from hngtv.cases.dicom.write_seg import write_seg, write_seg_of_probability
from hngtv.errors import InputError
from tests.tiny_dicom import AXIAL, CT_SCAN, Place
from tests.tiny_original import MAKER, PLACES, SHAPE, as_mask, labels_of_series, write_original


def write(folder: Path, place: Place = AXIAL) -> Path:
    original = write_original(folder / "ct", place)
    mask = as_mask(labels_of_series(), original, folder)
    write_seg(folder / "seg.dcm", mask.values, mask.grid, original, MAKER)
    return folder / "seg.dcm"


def raw_frames(dataset: FileDataset, folder: Path) -> NDArray:
    """Values (segments, columns, rows, slices) by the image that each frame refers to."""
    z_of = {(image := dcmread(path)).SOPInstanceUID: image.InstanceNumber - 1 for path in folder.iterdir()}
    values = np.zeros((len(dataset.SegmentSequence), *SHAPE), dtype=dataset.pixel_array.dtype)
    pixels = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    for frame, pixel in zip(dataset.PerFrameFunctionalGroupsSequence, pixels, strict=True):
        (source,) = frame.DerivationImageSequence[0].SourceImageSequence
        holder = frame if "SegmentIdentificationSequence" in frame else dataset.SharedFunctionalGroupsSequence[0]
        segment = holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        values[segment - 1, :, :, z_of[source.ReferencedSOPInstanceUID]] = pixel.T
    return values


@pytest.mark.parametrize("name", PLACES)
def test_the_mask_comes_back(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, PLACES[name])
    grid = write_original(tmp_path / "ct", PLACES[name]).stack.grid
    target = draw_target(read_seg(path), grid, CT_SCAN.frame_uid, OutlinePatterns())
    np.testing.assert_array_equal(target.labels, labels_of_series())
    primary, nodes = raw_frames(dcmread(path), tmp_path / "ct")
    np.testing.assert_array_equal(primary + 2 * nodes, labels_of_series())


def test_what_it_says(tmp_path: Path) -> None:
    dataset = dcmread(write(tmp_path))
    ct = dcmread(next((tmp_path / "ct").iterdir()))
    (series,) = dataset.ReferencedSeriesSequence
    assert (series.SeriesInstanceUID, dataset.FrameOfReferenceUID) == (ct.SeriesInstanceUID, ct.FrameOfReferenceUID)
    assert len(series.ReferencedInstanceSequence) == SHAPE[2]
    assert dataset.SegmentationType == "BINARY"
    assert "research use" in dataset.SeriesDescription
    segments = dataset.SegmentSequence
    assert [segment.SegmentLabel for segment in segments] == ["GTVp", "GTVn"]
    types = [segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning for segment in segments]
    assert types == ["Neoplasm, Primary", "Neoplasm, Secondary"]
    assert segments[1].AnatomicRegionSequence[0].CodeMeaning == "lymph node of head and neck"
    for segment in segments:
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("hngtv two_stage_ag", "0.1.0 0123456789ab")


def test_a_probability_comes_back_to_half_a_step(tmp_path: Path) -> None:
    original = write_original(tmp_path / "ct")
    values = np.random.default_rng(0).random(SHAPE).astype(np.float32)
    image = as_mask(values, original, tmp_path)
    write_seg_of_probability(tmp_path / "seg.dcm", image.values, image.grid, original, MAKER)
    dataset = dcmread(tmp_path / "seg.dcm")
    assert (dataset.SegmentationType, dataset.SegmentationFractionalType) == ("FRACTIONAL", "PROBABILITY")
    (raw,) = raw_frames(dataset, tmp_path / "ct")
    np.testing.assert_allclose(raw / dataset.MaximumFractionalValue, values, atol=0.5 / 255 + 1e-6)


def test_a_series_without_what_may_be_empty_has_a_seg(tmp_path: Path) -> None:
    original = write_original(tmp_path / "ct")
    for one in original.stack.slices:
        del one.header.PatientID
    mask = as_mask(labels_of_series(), original, tmp_path)
    write_seg(tmp_path / "seg.dcm", mask.values, mask.grid, original, MAKER)
    assert dcmread(tmp_path / "seg.dcm").PatientID == ""


def test_a_study_id_that_is_too_long_is_taken_over_without_a_warning(tmp_path: Path) -> None:
    write_original(tmp_path / "ct")
    with quiet_pydicom():
        for path in (tmp_path / "ct").iterdir():
            image = dcmread(path)
            image.StudyID = "HOSPITAL_STUDY_17"
            image.save_as(path)
    ((ct,),) = find_series(tmp_path / "ct").patients.values()
    original = load_original(ct)
    mask = as_mask(labels_of_series(), original, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_seg(tmp_path / "seg.dcm", mask.values, mask.grid, original, MAKER)
    with quiet_pydicom():
        assert dcmread(tmp_path / "seg.dcm").StudyID == "HOSPITAL_STUDY_17"


def test_a_series_that_lacks_what_a_seg_needs_is_told(tmp_path: Path) -> None:
    original = write_original(tmp_path / "ct")
    for one in original.stack.slices:
        del one.header.StudyInstanceUID
    mask = as_mask(labels_of_series(), original, tmp_path)
    with pytest.raises(InputError, match="cannot be referred to by a SEG"):
        write_seg(tmp_path / "seg.dcm", mask.values, mask.grid, original, MAKER)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy (Debian: dicom3tools)")
def test_a_validator_finds_no_error(tmp_path: Path) -> None:
    answer = subprocess.run(["dciodvfy", write(tmp_path)], capture_output=True, text=True, check=False)
    assert "Segmentation" in answer.stderr
    assert [line for line in answer.stderr.splitlines() if line.startswith("Error")] == []
