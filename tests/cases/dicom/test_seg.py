from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.sr.codedict import codes

from hngtv.cases.dicom import convert_patients
from hngtv.cases.dicom.geometry import stack_series
from hngtv.cases.dicom.seg import read_seg
from hngtv.errors import InputError
from tests.tiny_dicom import AXIAL, CT_SCAN, OBLIQUE, Place, write_ct

SHAPE = (9, 7, 5)


def write_seg(path: Path, slices: list[Path], masks: dict[str, NDArray[np.bool_]]) -> Path:
    """A binary SEG of masks (X, Y, Z) on the grid of slices, which are in order."""
    sources = [dcmread(source) for source in slices]
    algorithm = hd.AlgorithmIdentificationSequence("by hand", codes.DCM.ArtificialIntelligence, "1")
    descriptions = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Neoplasm,
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
        )
        for number, name in enumerate(masks, start=1)
    ]
    seg = hd.seg.Segmentation(
        source_images=sources,
        pixel_array=np.stack(list(masks.values()), axis=-1).transpose(2, 1, 0, 3).astype(np.uint8),
        segmentation_type="BINARY",
        segment_descriptions=descriptions,
        series_instance_uid=hd.UID(),
        series_number=9,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="nobody",
        manufacturer_model_name="none",
        software_versions="1",
        device_serial_number="1",
    )
    seg.save_as(path)
    return path


def two_masks() -> dict[str, NDArray[np.bool_]]:
    """A lopsided primary with a hole, and a node that overlaps nothing."""
    primary, node = np.zeros(SHAPE, dtype=bool), np.zeros(SHAPE, dtype=bool)
    primary[1:5, 2:6, 1:4] = True
    primary[2, 3, 2] = False
    node[7, 1, 3] = node[7, 1, 4] = True
    return {"GTVp": primary, "GTVn": node}


@pytest.mark.parametrize("place", [AXIAL, OBLIQUE])
def test_masks_come_back_voxel_by_voxel(tmp_path: Path, place: Place) -> None:
    slices = write_ct(tmp_path / "ct", place=place)
    masks = two_masks()
    seg = read_seg(write_seg(tmp_path / "seg.dcm", slices, masks))
    grid = stack_series(slices).grid
    assert seg.names == {1: "GTVp", 2: "GTVn"}
    assert seg.series == {CT_SCAN.series_uid}
    assert seg.frames == {CT_SCAN.frame_uid}
    for number, mask in enumerate(masks.values(), start=1):
        assert np.array_equal(seg.draw(number, grid, CT_SCAN.frame_uid).voxels, mask)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (Place(origin_mm=(-29.2, -40.0, 100.0)), "0.40 voxels off"),
        (Place(step_mm=(1.0, 1.5, 3.0)), "lies on another grid"),
        (Place(origin_mm=(-10.0, -40.0, 100.0)), "outside the CT"),
    ],
)
def test_another_grid_is_refused(tmp_path: Path, place: Place, words: str) -> None:
    seg = read_seg(write_seg(tmp_path / "seg.dcm", write_ct(tmp_path / "other", place=place), two_masks()))
    grid = stack_series(write_ct(tmp_path / "ct")).grid
    with pytest.raises(InputError, match=words):
        seg.draw(1, grid, CT_SCAN.frame_uid)


def test_a_patient_with_a_seg(tmp_path: Path) -> None:
    slices = write_ct(tmp_path / "in")
    masks = two_masks()
    write_seg(tmp_path / "in" / "seg.dcm", slices, masks)
    (case,), _ = convert_patients(tmp_path / "in", tmp_path / "out")
    assert case.target is not None
    labels = nib.Nifti1Image.from_filename(case.target).get_fdata()
    assert np.array_equal(labels, masks["GTVp"] + 2 * masks["GTVn"])


@pytest.mark.parametrize("n_bytes", [2, 60])
def test_a_file_cut_short_is_told(tmp_path: Path, n_bytes: int) -> None:
    slices = write_ct(tmp_path / "ct")
    path = write_seg(tmp_path / "seg.dcm", slices, two_masks())
    path.write_bytes(path.read_bytes()[:-n_bytes])
    with pytest.raises(InputError, match=r"seg.dcm is cut short in its tag"):
        read_seg(path)
