"""Whole trees of files, tidy and otherwise, converted to cases."""

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import RTPlanStorage

from hngtv.cases.dicom import convert_patients, holds_dicom
from hngtv.cases.dicom.names import DicomChoices, OutlinePatterns
from hngtv.cases.findings import Finding
from hngtv.cases.manifest import RawCase
from hngtv.errors import InputError
from hngtv.volume.grid import Grid
from hngtv.volume.nifti import read_image
from tests.tiny_dicom import AXIAL, CT_SCAN, PET_SCAN, Place, Scan, ramp, uid_of, write_ct, write_pet, write_rtstruct

BOX = np.array([(1.5, 1.5, 2.0), (5.5, 1.5, 2.0), (5.5, 4.5, 2.0), (1.5, 4.5, 2.0)])
"""A contour, in voxels, around 4 x 3 of them in slice 2."""
AFTER_ONE_HOUR = 70_000 / (3.5e8 * 2 ** (-3600 / 6586.2))


def contour(first: int = 0, z: int = 2) -> tuple[np.ndarray, str]:
    return AXIAL.to_lps(np.add(BOX, (first, 0, z - 2))), "CLOSED_PLANAR"


def write_patient(folder: Path, patient: str = "P1") -> Path:
    """CT, PET and an RTSTRUCT of one patient, all in one folder."""
    write_ct(folder, scan=Scan(patient))
    write_pet(folder, scan=Scan(patient, series="pet"))
    write_rtstruct(folder / "rs.dcm", [("Body", []), ("GTVp", [contour()])], Scan(patient))
    return folder


def one_case(source: Path, out: Path, choices: DicomChoices | None = None) -> tuple[RawCase, list[Finding]]:
    cases, findings = convert_patients(source, out, choices)
    assert len(cases) == 1, findings
    return cases[0], findings


def only_error(source: Path, out: Path) -> str:
    """The one line of a tree from which no case comes."""
    cases, (finding,) = convert_patients(source, out)
    assert cases == []
    assert finding.severity == "error"
    assert "\n" not in finding.text
    return finding.text


def test_a_case(tmp_path: Path) -> None:
    case, findings = one_case(write_patient(tmp_path / "in"), tmp_path / "out")
    folder = tmp_path / "out" / "P1"
    assert case == RawCase("P1", "", folder / "ct.nii.gz", folder / "pet.nii.gz", folder / "gtv.nii.gz")
    assert findings == []
    ct = nib.Nifti1Image.from_filename(case.ct)
    assert ct.get_data_dtype() == np.int16
    assert np.array_equal(np.asanyarray(ct.dataobj), ramp())
    grid = Grid.from_array(ct.shape, np.asarray(ct.affine))
    assert np.allclose(grid.to_world(np.array([1, 2, 3])), AXIAL.to_lps((1, 2, 3)) * (-1, -1, 1))
    stored = np.linspace(0, 9000, 9 * 7 * 5).astype(np.int16).reshape(9, 7, 5)
    pet = nib.Nifti1Image.from_filename(folder / "pet.nii.gz")
    assert np.allclose(pet.get_fdata(), stored * (1 + np.arange(5) / 4) * AFTER_ONE_HOUR, rtol=1e-6)
    labels = np.asanyarray(nib.Nifti1Image.from_filename(folder / "gtv.nii.gz").dataobj)
    expected = np.zeros((9, 7, 5))
    expected[2:6, 2:5, 2] = 1
    assert np.array_equal(labels, expected)


def test_the_grid_reads_as_ras(tmp_path: Path) -> None:
    case, _ = one_case(write_patient(tmp_path / "in"), tmp_path / "out")
    image = read_image(case.ct)
    assert image.grid.is_axis_aligned
    assert np.array_equal(image.values, ramp()[::-1, ::-1])


def test_the_record_holds_every_input(tmp_path: Path) -> None:
    case, _ = one_case(write_patient(tmp_path / "in"), tmp_path / "out")
    record = json.loads((case.ct.parent / "dicom.json").read_text())
    assert record["ct"]["series_instance_uid"] == CT_SCAN.series_uid
    suv = record["pet"]["suv"]
    assert suv["factor"] == pytest.approx(AFTER_ONE_HOUR)
    assert {"Units", "DecayCorrection", "PatientWeight", "RadionuclideTotalDose", "RadionuclideHalfLife"} <= set(
        suv["inputs"]
    )
    (outline,) = record["target"]["outlines"]
    assert outline["name"] == "GTVp"
    assert outline["volume_ml"] == pytest.approx(12 * 2 * 1.5 * 3 / 1000)
    assert record["target"]["not_used"] == ["Body"]


def test_a_folder_of_anything_in_any_order(tmp_path: Path) -> None:
    source = tmp_path / "in" / "Öffentlich 日本"
    for patient in ("P2", "P1"):
        write_patient(source / patient, patient)
    (source / "notes.txt").write_text("not DICOM")
    (source / "empty").touch()
    plan = dcmread(source / "P1" / "rs.dcm")
    plan.SOPClassUID = plan.file_meta.MediaStorageSOPClassUID = RTPlanStorage
    plan.save_as(source / "plan.dcm")
    scout = dcmread(write_ct(source / "scout", scan=Scan("P1", series="scout"))[0])
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    for path in (source / "scout").iterdir():
        path.unlink()
    scout.save_as(source / "scout" / "1")
    cases, findings = convert_patients(tmp_path / "in", tmp_path / "out")
    assert [case.case_id for case in cases] == ["P1", "P2"]
    assert all(case.pet and case.target for case in cases)
    assert all(one.severity == "warning" and one.text.startswith("passed over ") for one in findings)
    assert sorted(one.text.split(" (first")[0].split("that are ")[1] for one in findings) == [
        "RT Plan Storage, which holds no CT, PET or outlines",
        "not DICOM",
        "scouts or projections",
    ]


def test_no_name_of_a_patient_gets_out(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def add(z: int, dataset: Dataset) -> None:
        dataset.SeriesDescription = "Änne's CT"

    write_ct(tmp_path / "in", edit=add)
    write_pet(tmp_path / "in")
    write_rtstruct(tmp_path / "in" / "rs.dcm", [("GTV", [contour()])])
    _, findings = one_case(tmp_path / "in", tmp_path / "out")
    said = "".join([*(one.text for one in findings), *capfd.readouterr()])
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*.json"))
    for secret in ("Müller", "Änne", "M\\u00fcller", "\\u00c4nne"):
        assert secret not in said
        assert secret.encode() not in written
    assert sorted(path.name for path in (tmp_path / "out" / "P1").iterdir()) == [
        "ct.nii.gz",
        "dicom.json",
        "gtv.nii.gz",
        "pet.nii.gz",
    ]


def test_an_id_cannot_leave_the_folder(tmp_path: Path) -> None:
    case, _ = one_case(write_patient(tmp_path / "in", "../../etc/x"), tmp_path / "a" / "b" / "out")
    assert case.ct.resolve().is_relative_to((tmp_path / "a" / "b" / "out").resolve())
    assert case.case_id.startswith("etc-x-")
    assert os.listdir(tmp_path / "a" / "b") == ["out"]


def test_hidden_ids(tmp_path: Path) -> None:
    case, _ = one_case(write_patient(tmp_path / "in", "12345678"), tmp_path / "out", DicomChoices(hide_ids=True))
    assert "12345678" not in case.case_id
    assert b"12345678" not in (case.ct.parent / "dicom.json").read_bytes()


def test_ids_that_differ_by_capitals_only(tmp_path: Path) -> None:
    for number, patient in enumerate(("ab", "AB")):
        write_ct(tmp_path / "in" / str(number), scan=Scan(patient, frame=patient))
    cases, _ = convert_patients(tmp_path / "in", tmp_path / "out")
    assert len({case.case_id.lower() for case in cases}) == 2


def test_a_second_time_nothing_is_written_again(tmp_path: Path) -> None:
    case, _ = one_case(write_patient(tmp_path / "in"), tmp_path / "out")
    before = case.ct.stat().st_mtime_ns
    assert one_case(tmp_path / "in", tmp_path / "out")[0] == case
    assert case.ct.stat().st_mtime_ns == before
    names = DicomChoices(OutlinePatterns(gtvp=("body",)))
    one_case(tmp_path / "in", tmp_path / "out", names)
    assert case.ct.stat().st_mtime_ns != before


@pytest.mark.parametrize("name", ["ct", "pet", "gtv"])
def test_a_deleted_image_is_written_again(tmp_path: Path, name: str) -> None:
    case, _ = one_case(write_patient(tmp_path / "in"), tmp_path / "out")
    (case.ct.parent / f"{name}.nii.gz").unlink()
    assert one_case(tmp_path / "in", tmp_path / "out") == (case, [])


def test_the_source_may_be_read_only(tmp_path: Path) -> None:
    source = write_patient(tmp_path / "in")
    before = sorted(os.listdir(source))
    source.chmod(0o555)
    try:
        one_case(source, tmp_path / "out")
    finally:
        source.chmod(0o755)
    assert sorted(os.listdir(source)) == before


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write into folder"):
        convert_patients(write_patient(tmp_path / "in"), tmp_path / "file" / "out")


def test_a_failed_case_leaves_nothing_and_stops_no_other(tmp_path: Path) -> None:
    write_patient(tmp_path / "in" / "a", "A")
    write_patient(tmp_path / "in" / "b", "B")
    next((tmp_path / "in" / "a").glob("ct*")).unlink()
    cases, findings = convert_patients(tmp_path / "in", tmp_path / "out")
    assert [case.case_id for case in cases] == ["B"]
    assert [(one.case_id, one.severity) for one in findings] == [("A", "error")]
    assert findings[0].text.startswith("case A: ")
    assert os.listdir(tmp_path / "out") == ["B"]


def test_two_pets(tmp_path: Path) -> None:
    def uncorrected(z: int, dataset: Dataset) -> None:
        dataset.CorrectedImage, dataset.SeriesNumber = ["DECY"], 7

    write_patient(tmp_path / "in")
    write_pet(tmp_path / "in" / "z", np.full((9, 7, 5), 5), Scan(series="raw"), edit=uncorrected)
    case, findings = one_case(tmp_path / "in", tmp_path / "out")
    text = (
        "case P1: has 2 PET series, 1 of them uncorrected; took series 1 "
        f"(5 files in {tmp_path / 'in'}), which is corrected for attenuation"
    )
    assert findings == [Finding("P1", "warning", text)]
    record = json.loads((case.ct.parent / "dicom.json").read_text())
    assert record["pet"]["series_instance_uid"] == PET_SCAN.series_uid


@pytest.mark.parametrize(
    ("n_slices", "why"),
    [
        ((5, 4), ", which has most slices"),
        ((5, 5), ", by its UID alone, of 2 with as many slices"),
        ((5, 5, 4), ", by its UID alone, of 2 with as many slices"),
    ],
)
def test_why_one_of_several_corrected_pets(n_slices: tuple[int, ...], why: str, tmp_path: Path) -> None:
    write_ct(tmp_path / "in")
    for number, n in enumerate(n_slices):
        write_pet(tmp_path / "in" / f"pet{number}", np.full((9, 7, n), 5), Scan(series=f"pet{number}"))
    _, findings = one_case(tmp_path / "in", tmp_path / "out")
    (text,) = (one.text for one in findings if "PET series" in one.text)
    assert text.endswith(f"which is corrected for attenuation{why}")


@pytest.mark.parametrize(
    ("n_slices", "why"), [(5, "by its UID alone, of 2 with as many slices"), (6, "which has most slices")]
)
def test_why_one_of_two_cts(n_slices: int, why: str, tmp_path: Path) -> None:
    write_ct(tmp_path / "in")
    write_pet(tmp_path / "in")
    write_ct(tmp_path / "in" / "other", ramp((9, 7, n_slices)), Scan(series="other"))
    _, findings = one_case(tmp_path / "in", tmp_path / "out")
    (text,) = (one.text for one in findings if "CT series" in one.text)
    assert text.endswith(f", {why}")


def test_an_uncorrected_pet_alone(tmp_path: Path) -> None:
    def uncorrected(z: int, dataset: Dataset) -> None:
        dataset.CorrectedImage = ["DECY"]

    write_ct(tmp_path / "in")
    write_pet(tmp_path / "in", edit=uncorrected)
    assert "not corrected for attenuation by CorrectedImage (0028,0051)" in only_error(
        tmp_path / "in", tmp_path / "out"
    )


def test_a_pet_tag_is_missing(tmp_path: Path) -> None:
    def forget(z: int, dataset: Dataset) -> None:
        del dataset.PatientWeight

    write_ct(tmp_path / "in")
    write_pet(tmp_path / "in", edit=forget)
    line = only_error(tmp_path / "in", tmp_path / "out")
    assert line.startswith("case P1: the PET lacks PatientWeight (0010,1030)")


def test_pet_of_another_frame(tmp_path: Path) -> None:
    write_ct(tmp_path / "in")
    write_pet(tmp_path / "in", scan=Scan(series="pet", frame="other"))
    assert "different frames of reference" in only_error(tmp_path / "in", tmp_path / "out")


def test_ct_and_pet_of_different_ids(tmp_path: Path) -> None:
    write_ct(tmp_path / "in", scan=Scan("P1"))
    write_pet(tmp_path / "in", scan=Scan("P-1", series="pet"))
    cases, findings = convert_patients(tmp_path / "in", tmp_path / "out")
    assert cases == []
    assert [one.text.split("; ")[0] for one in findings] == [
        "case P-1: its PET has the frame of reference of the CT of case P1, whose PatientID (0010,0020) differs",
        "case P1: its CT has the frame of reference of the PET of case P-1, whose PatientID (0010,0020) differs",
    ]


def test_outlines_of_another_id(tmp_path: Path) -> None:
    write_ct(tmp_path / "in")
    write_rtstruct(tmp_path / "in" / "rs.dcm", [("GTV", [contour()])], Scan("P2"))
    case, findings = one_case(tmp_path / "in", tmp_path / "out")
    assert case.target is None
    assert findings[1].text.startswith("case P2: has outlines (")


def test_without_a_pet_or_outlines(tmp_path: Path) -> None:
    write_ct(tmp_path / "in")
    case, findings = one_case(tmp_path / "in", tmp_path / "out")
    assert case.pet is None
    assert case.target is None
    text = "case P1: has no PET series in the frame of reference of its CT"
    assert findings == [Finding("P1", "warning", text)]


def test_without_a_ct(tmp_path: Path) -> None:
    write_pet(tmp_path / "in")
    assert "has no CT series" in only_error(tmp_path / "in", tmp_path / "out")


def test_outlines_of_another_frame(tmp_path: Path) -> None:
    write_ct(tmp_path / "in")
    write_pet(tmp_path / "in")
    write_rtstruct(tmp_path / "in" / "rs.dcm", [("GTV", [contour()])], Scan(frame="planning"))
    case, (finding,) = one_case(tmp_path / "in", tmp_path / "out")
    assert case.target is None
    assert finding.severity == "warning"
    assert finding.text.startswith("case P1: RTSTRUCT ")
    assert f"another frame of reference ({uid_of('frame', 'planning')})" in finding.text


def test_outlines_that_refer_to_the_ct_go_first(tmp_path: Path) -> None:
    write_patient(tmp_path / "in")
    write_rtstruct(tmp_path / "in" / "on_pet.dcm", [("GTVp", [contour(2)])], PET_SCAN)
    case, findings = one_case(tmp_path / "in", tmp_path / "out")
    assert findings == []
    assert case.target is not None
    assert nib.Nifti1Image.from_filename(case.target).get_fdata()[2].any()


def test_two_files_of_outlines_for_one_ct(tmp_path: Path) -> None:
    write_patient(tmp_path / "in")
    write_rtstruct(tmp_path / "in" / "rs2.dcm", [("GTVp", [contour(2)])])
    line = only_error(tmp_path / "in", tmp_path / "out")
    assert "2 files hold GTV outlines of one CT" in line
    assert "rs.dcm" in line
    assert "rs2.dcm" in line


@pytest.mark.parametrize(("kind", "n_points"), [("POINT", 1), ("OPEN_PLANAR", 4), ("", 0)])
def test_outlines_that_hold_no_voxel_are_no_empty_target(tmp_path: Path, kind: str, n_points: int) -> None:
    """They do not say that a patient has no tumour."""
    write_ct(tmp_path / "in")
    contours = [(contour()[0][:n_points], kind)] if n_points else []
    write_rtstruct(tmp_path / "in" / "rs.dcm", [("GTVp", contours)])
    case, findings = one_case(tmp_path / "in", tmp_path / "out")
    assert case.target is None
    assert not (tmp_path / "out" / "P1" / "gtv.nii.gz").exists()
    assert "has no target: no outline of its GTV holds a voxel" in findings[-1].text
    assert one_case(tmp_path / "in", tmp_path / "out") == (case, findings)


def test_an_empty_outline_does_not_take_the_place_of_a_drawn_one(tmp_path: Path) -> None:
    """Templates hold structures that nobody drew; "GTV" is the primary if no drawn outline says so."""
    write_ct(tmp_path / "in")
    outlines = [("Primary tumor", []), ("GTV_Mass_CT", [contour()]), ("GTVn", [])]
    write_rtstruct(tmp_path / "in" / "rs.dcm", outlines)
    case, findings = one_case(tmp_path / "in", tmp_path / "out")
    assert case.target is not None
    labels = nib.Nifti1Image.from_filename(case.target).get_fdata()
    assert (labels == 1).sum() == 12
    told = [finding.text for finding in findings[1:]]
    assert told == [f"case P1: outline {name!r} is empty" for name in ("Primary tumor", "GTVn")]


def test_versions_of_one_outline_are_told(tmp_path: Path) -> None:
    write_ct(tmp_path / "in")
    write_rtstruct(tmp_path / "in" / "rs.dcm", [("GTV_CT", [contour()]), ("GTV_PET", [contour(2)])])
    _, findings = one_case(tmp_path / "in", tmp_path / "out")
    assert "2 outlines became one GTVp: 'GTV_CT', 'GTV_PET'; if they are versions of one" in findings[-1].text


@pytest.mark.parametrize("packing", ["told", "explicit", "implicit"])
def test_files_without_a_preamble(tmp_path: Path, packing: str) -> None:
    """As older archives wrote them, with or without the group that tells their packing, beside a patient as usual."""
    write_patient(tmp_path / "in" / "usual")
    for path in write_patient(tmp_path / "in" / "bare", "P2").iterdir():
        if packing == "told":
            path.write_bytes(path.read_bytes()[128 + len("DICM") :])
        else:
            buffer = DicomBytesIO()
            buffer.is_little_endian, buffer.is_implicit_VR = True, packing == "implicit"
            write_dataset(buffer, dcmread(path))
            path.write_bytes(buffer.getvalue())
    assert holds_dicom(tmp_path / "in" / "bare")
    cases, findings = convert_patients(tmp_path / "in", tmp_path / "out")
    assert [case.case_id for case in cases] == ["P1", "P2"], findings
    assert findings == []
    images = [[read_image(path).values for path in (case.ct, case.pet, case.target) if path] for case in cases]
    assert all(np.array_equal(one, other) for one, other in zip(*images, strict=True))


def test_names_that_no_pattern_knows(tmp_path: Path) -> None:
    write_ct(tmp_path / "in")
    write_rtstruct(tmp_path / "in" / "rs.dcm", [("Tumeur été", [contour()])])
    case, findings = one_case(tmp_path / "in", tmp_path / "out")
    assert case.target is None
    assert "no outline whose name says GTV, but 'Tumeur été'" in findings[-1].text
    patterns = OutlinePatterns(gtvp=("tumeur.*",))
    assert one_case(tmp_path / "in", tmp_path / "out", DicomChoices(patterns))[0].target is not None


def test_labels_and_overlap(tmp_path: Path) -> None:
    write_ct(tmp_path / "in")
    outlines = [("GTV", [contour()]), ("GTV_N1", [contour(2)]), ("GTVn 2", [contour(z=4)]), ("GTV+5", [contour()])]
    write_rtstruct(tmp_path / "in" / "rs.dcm", outlines)
    case, findings = one_case(tmp_path / "in", tmp_path / "out")
    assert case.target is not None
    labels = nib.Nifti1Image.from_filename(case.target).get_fdata()
    assert (labels[2:4, 2:5, 2] == 1).all()
    assert (labels[4:8, 2:5, 2] == 2).all()
    assert (labels == 2).sum() == 24
    assert "overlap in 6 voxels" in findings[1].text
    assert "'GTV+5'" in findings[2].text


def test_the_ct_that_the_outlines_refer_to(tmp_path: Path) -> None:
    write_patient(tmp_path / "in")
    write_ct(tmp_path / "in" / "long", ramp((9, 7, 8)), Scan(series="long"))
    case, findings = one_case(tmp_path / "in", tmp_path / "out")
    assert nib.Nifti1Image.from_filename(case.ct).shape == (9, 7, 5)
    assert "has 2 CT series in one frame of reference" in findings[0].text


def test_two_scans_of_one_patient(tmp_path: Path) -> None:
    write_patient(tmp_path / "in")
    write_ct(tmp_path / "in" / "later", scan=Scan(series="ct2", frame="later"))
    write_pet(tmp_path / "in" / "later", scan=Scan(series="pet2", frame="later"))
    case, _ = one_case(tmp_path / "in", tmp_path / "out")
    record = json.loads((case.ct.parent / "dicom.json").read_text())
    assert record["ct"]["series_instance_uid"] == CT_SCAN.series_uid
    (tmp_path / "in" / "rs.dcm").unlink()
    assert "2 scans in different frames of reference, 0 of them" in only_error(tmp_path / "in", tmp_path / "out2")


@pytest.mark.parametrize("n_bytes", [0, 140, 500, 700, 1000])
def test_a_file_cut_short_in_its_header(tmp_path: Path, n_bytes: int) -> None:
    write_patient(tmp_path / "in" / "a", "A")
    write_patient(tmp_path / "in" / "b", "B")
    cut = next((tmp_path / "in" / "a").glob("ct*"))
    cut.write_bytes(cut.read_bytes()[:n_bytes])
    cases, findings = convert_patients(tmp_path / "in", tmp_path / "out")
    assert [case.case_id for case in cases] == ["B"]
    assert any(one.text.startswith("case A: ") and cut.name in one.text for one in findings)


def test_pixels_cut_short(tmp_path: Path) -> None:
    write_ct(tmp_path / "in")
    cut = sorted((tmp_path / "in").iterdir())[2]
    cut.write_bytes(cut.read_bytes()[:-10])
    line = only_error(tmp_path / "in", tmp_path / "out")
    assert "cut short" in line
    assert cut.name in line


def test_outlines_cut_short(tmp_path: Path) -> None:
    path = write_patient(tmp_path / "in") / "rs.dcm"
    path.write_bytes(path.read_bytes()[:-60])
    line = only_error(tmp_path / "in", tmp_path / "out")
    assert line.startswith("case P1: ")
    assert "rs.dcm is cut short in its tag (3006,0039)" in line


def test_private_tags_do_no_harm(tmp_path: Path) -> None:
    def add(z: int, dataset: Dataset) -> None:
        dataset.private_block(0x0029, "SOMEONE", create=True).add_new(0x10, "OB", bytes(range(256)))
        dataset.private_block(0x0009, "ÄNDERES", create=True).add_new(0x01, "UN", b"\xff\xfe")

    write_ct(tmp_path / "in", edit=add)
    case, _ = one_case(tmp_path / "in", tmp_path / "out")
    assert np.array_equal(nib.Nifti1Image.from_filename(case.ct).get_fdata(), ramp())


def test_many_frames_in_one_file_are_told(tmp_path: Path) -> None:
    def enhance(z: int, dataset: Dataset) -> None:
        enhanced = "1.2.840.10008.5.1.4.1.1.2.1"
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = enhanced  # pyright: ignore

    write_ct(tmp_path / "in", edit=enhance)
    with pytest.raises(InputError, match=r"no CT, PET or outlines found .*enhanced CT of many frames"):
        convert_patients(tmp_path / "in", tmp_path / "out")


def test_no_patient_id(tmp_path: Path) -> None:
    case, _ = one_case(write_patient(tmp_path / "in", ""), tmp_path / "out")
    assert case.case_id.startswith("case-")


def test_no_frame_of_reference(tmp_path: Path) -> None:
    def forget(z: int, dataset: Dataset) -> None:
        del dataset.FrameOfReferenceUID

    write_ct(tmp_path / "in", edit=forget)
    assert "lacks FrameOfReferenceUID (0020,0052)" in only_error(tmp_path / "in", tmp_path / "out")


def test_pet_on_a_grid_of_its_own(tmp_path: Path) -> None:
    write_ct(tmp_path / "in")
    write_pet(tmp_path / "in", place=Place(origin_mm=(-32.0, -44.0, 98.0), step_mm=(4.0, 4.0, 5.0)))
    case, _ = one_case(tmp_path / "in", tmp_path / "out")
    assert case.pet is not None
    assert read_image(case.pet).grid.spacing_mm == pytest.approx((4, 4, 5))


def test_whether_a_tree_is_dicom(tmp_path: Path) -> None:
    assert not holds_dicom(tmp_path)
    (tmp_path / "a.txt").write_text("x" * 500)
    (tmp_path / "labels.bin").write_bytes(b"\x08\x00\x00\x00\x01\x00\x00\x00" + bytes(500))
    (tmp_path / "labels").write_bytes(b"\x08\x00\x00\x00" + bytes(500))
    assert not holds_dicom(tmp_path)
    write_ct(tmp_path / "deep" / "er")
    assert holds_dicom(tmp_path)


def test_a_source_that_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        convert_patients(tmp_path / "nowhere", tmp_path / "out")


def test_patients_of_outlines_alone_are_nobody_to_predict(tmp_path: Path) -> None:
    write_patient(tmp_path / "in")
    write_rtstruct(tmp_path / "in" / "lone.dcm", [("GTVp", [contour()])], Scan("P2"))
    case, findings = one_case(tmp_path / "in", tmp_path / "out", DicomChoices(without_outlines=True))
    assert (case.case_id, case.target, findings) == ("P1", None, [])
