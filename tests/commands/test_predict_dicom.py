"""`hngtv predict dicom=`: from a scanner's files to files for a planning system, and back."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom.dataset import Dataset

from hngtv.cases.manifest import RawCase
from hngtv.commands.entry import BAD_INPUT, CASES_FAILED, DONE, run_command
from hngtv.run_folder import read_json
from hngtv.volume.nifti import read_image
from tests.tiny_cases import write_tiny_case
from tests.tiny_dicom import PATIENT_NAME, Place, Scan, write_ct, write_pet
from tests.tiny_run import write_untrained_run

MASK = ("mask.json", "mask.nii.gz")
FILES = (*MASK, "probability.nii.gz", "report.pdf", "rtstruct.dcm", "seg.dcm", "seg_probability.dcm")
THRESHOLD = 0.2
ALL = ("formats=nifti,rtstruct,seg,pdf", "probability=true")


@pytest.fixture(scope="module")
def run(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights that outline most of what they look at, as both classes."""
    changes = {"inference__threshold": THRESHOLD, "inference__min_component_ml": 0, "inference__min_gtvp_share": 0}
    return write_untrained_run(tiny_cohort, tmp_path_factory.mktemp("run"), **changes)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> RawCase:
    return write_tiny_case(tmp_path_factory.mktemp("case"), "P1", seed=4)


@pytest.fixture
def source(case: RawCase, tmp_path: Path) -> Path:
    write_dicom(case, tmp_path / "scanner", "P1")
    return tmp_path / "scanner"


def write_dicom(case: RawCase, folder: Path, patient: str) -> None:
    """The images of a case as a scanner writes them, the PET in SUV."""

    def as_suv(_: int, dataset: Dataset) -> None:
        dataset.Units, dataset.RescaleSlope = "GML", "0.01"

    assert case.pet is not None
    for kind, path in (("ct", case.ct), ("pet", case.pet)):
        image = nib.load(path)
        affine, values = image.affine, np.asanyarray(image.dataobj)  # pyright: ignore
        x, y, z = affine[:3, 3]
        step = tuple(float(n) for n in np.abs(np.diag(affine)[:3]))
        place = Place(origin_mm=(-x, -y, z), step_mm=step)  # pyright: ignore[reportArgumentType]
        scan = Scan(patient, frame=patient, series=kind)
        if kind == "ct":
            write_ct(folder / patient / kind, values, scan, place)
        else:
            write_pet(folder / patient / kind, np.rint(values * 100), scan, place, as_suv)


def predict(run: Path, source: Path, out: Path, *more: str) -> int:
    return run_command(["predict", f"model={run}", f"dicom={source}", f"out={out}", *more])


def test_from_dicom_to_dicom_and_back(run: Path, source: Path, case: RawCase, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert predict(run, source, out, *ALL) == DONE
    assert sorted(path.name for path in (out / "P1").iterdir()) == sorted(FILES)
    mask = read_image(out / "P1/mask.nii.gz")
    assert {1, 2} <= set(np.unique(mask.values))
    assert mask.grid.shape == read_image(case.ct).grid.shape
    for name in ("rtstruct.dcm", "seg.dcm"):
        shutil.copy(out / "P1" / name, source / name)
        listed = tmp_path / name / "cases.csv"
        assert run_command(["import", f"source={source}", f"out={listed}"]) == DONE
        back = read_image(tmp_path / name / "images/P1/gtv.nii.gz")
        np.testing.assert_array_equal(back.values, mask.values)
        (source / name).unlink()
    probability = read_image(out / "P1/probability.nii.gz").values
    assert THRESHOLD <= probability[mask.values > 0].min() <= probability.max() <= 1


def test_nothing_but_dicom_names_the_patient(run: Path, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert predict(run, source, out, *ALL, "hide_ids=true") == DONE
    for path in out.rglob("*"):
        if path.suffix in (".json", ".csv", ".pdf"):
            assert not any(word.encode() in path.read_bytes() for word in (PATIENT_NAME, "Änne", "P1/", "(P1)")), path
    (folder,) = out.glob("case-*")
    assert PATIENT_NAME.encode() in (folder / "rtstruct.dcm").read_bytes()


def test_again_writes_what_is_missing_and_nothing_else(
    run: Path, source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert predict(run, source, out, "formats=rtstruct,seg") == DONE
    files = {name: (out / "P1" / name).stat().st_mtime_ns for name in ("mask.nii.gz", "rtstruct.dcm")}
    (out / "P1/seg.dcm").write_bytes(b"cut short")
    assert predict(run, source, out, "formats=rtstruct,seg,pdf") == DONE
    assert "already predicted" in capfd.readouterr().err
    assert files == {name: (out / "P1" / name).stat().st_mtime_ns for name in files}
    assert (out / "P1/seg.dcm").stat().st_size > 1000
    assert set(read_json(out / "P1/mask.json")["files"]) == {"rtstruct.dcm", "seg.dcm", "report.pdf"}


def test_a_new_mask_leaves_nothing_of_the_old_one(run: Path, source: Path, tiny_cohort: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert predict(run, source, out, "formats=rtstruct") == DONE
    other = write_untrained_run(tiny_cohort, tmp_path / "other", inference__threshold=0.6)
    assert predict(other, source, out) == DONE
    assert sorted(path.name for path in (out / "P1").iterdir()) == list(MASK)


def test_nothing_outlined_has_a_page_and_no_structures(
    source: Path, tiny_cohort: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = write_untrained_run(tiny_cohort, tmp_path / "run", inference__min_component_ml=1e6)
    assert predict(run, source, tmp_path / "out", *ALL) == DONE
    assert "nothing is outlined" in capfd.readouterr().err
    names = {path.name for path in (tmp_path / "out/P1").iterdir()}
    assert names == {*MASK, "probability.nii.gz", "report.pdf"}


def test_a_bad_patient_is_named_and_the_others_go_on(
    run: Path, source: Path, case: RawCase, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_dicom(case, source, "P2")
    (source / "notes.txt").write_text("not DICOM")
    sorted((source / "P2/ct").iterdir())[4].unlink()
    assert predict(run, source, tmp_path / "out") == CASES_FAILED
    said = capfd.readouterr().err
    assert "\ncase P2: a slice is missing" in said
    assert "\nwarning: passed over 1 file(s) that are not DICOM" in f"\n{said}"
    assert "1 of 2 case(s) failed" in said
    assert (tmp_path / "out/P1/mask.nii.gz").is_file()


def test_nifti_in_has_a_page_and_no_structures(
    run: Path, case: RawCase, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    line = ["predict", f"model={run}", f"ct={case.ct}", f"pet={case.pet}", f"out={tmp_path / 'm.nii.gz'}"]
    assert run_command([*line, "formats=pdf", "probability=true"]) == DONE
    names = {"m.json", "m.nii.gz", "m_probability.nii.gz", "m_report.pdf"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert run_command([*line, "formats=nifti,rtstruct"]) == BAD_INPUT
    assert "formats=rtstruct refers to the CT series it is made on; give dicom=FOLDER" in capfd.readouterr().err


def test_a_folder_without_dicom_is_told(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert predict(run, tmp_path / "empty", tmp_path / "out") == BAD_INPUT
    assert "no CT, PET or outlines found in" in capfd.readouterr().err
