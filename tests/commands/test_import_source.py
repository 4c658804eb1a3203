"""`hngtv import source=`: says what it recognised, settles units, tells findings and writes the manifest."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from hngtv.cases.checks import check_case
from hngtv.cases.inspect import InspectPlan, inspect_case
from hngtv.cases.manifest import read_manifest, write_manifest
from hngtv.cases.registration import Shift
from hngtv.commands.entry import run_command
from tests.tiny_cases import rewrite, write_nifti, write_tiny_case

IDS = ("CHUM-001", "MDA-002")
PLACES: dict[str, tuple[str, str, str]] = {
    "2020": ("hecktor_train/hecktor_nii/{id}/{id}_ct", "hecktor_train/hecktor_nii/{id}/{id}_pt",
             "hecktor_train/hecktor_nii/{id}/{id}_ct_gtvt"),
    "2021": ("hecktor2021_train/hecktor_nii/{id}_ct", "hecktor2021_train/hecktor_nii/{id}_pt",
             "hecktor2021_train/hecktor_nii/{id}_gtvt"),
    "2022": ("hecktor2022_training/imagesTr/{id}__CT", "hecktor2022_training/imagesTr/{id}__PT",
             "hecktor2022_training/labelsTr/{id}"),
    "2025": ("hecktor2025_training/Task 1/{id}/{id}__CT", "hecktor2025_training/Task 1/{id}/{id}__PT",
             "hecktor2025_training/Task 1/{id}/{id}"),
    "2026": ("hecktor2026_training/{id}/{id}__CT", "hecktor2026_training/{id}/{id}__PT",
             "hecktor2026_training/{id}/{id}"),
}  # fmt: skip


@pytest.fixture
def put(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a tree of a year with two cases, whole and real; the second has no GTVn."""

    def write(year: str) -> Path:
        for number, case_id in enumerate(IDS):
            raw = write_tiny_case(tmp_path / "tiny", case_id, seed=number, has_nodes=number == 0)
            for name, source in zip(PLACES[year], (raw.ct, raw.pet, raw.target), strict=True):
                target = tmp_path / "tree" / f"{name.format(id=case_id)}.nii.gz"
                target.parent.mkdir(parents=True, exist_ok=True)
                assert source is not None
                shutil.copy(source, target)
        return tmp_path / "tree"

    return write


def findings_of(out: Path) -> list[dict[str, str]]:
    with (out.parent / "findings.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("year", PLACES)
def test_every_year_by_one_command(
    put: Callable[[str], Path], tmp_path: Path, year: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "lists" / "cases.csv"
    assert run_command(["import", f"source={put(year)}", f"out={out}"]) == 0
    output = capsys.readouterr()
    assert f"HECKTOR {year} (" in output.out
    assert "2 of 2 cases are good" in output.out
    assert [line.split() for line in output.out.splitlines() if "  train" in line] == [
        ["CHUM", "train", "1", "test", "0", "with", "target", "1"],
        ["MDA", "train", "1", "test", "0", "with", "target", "1"],
    ]
    assert [(case.case_id, case.centre) for case in read_manifest(out)] == [("CHUM-001", "CHUM"), ("MDA-002", "MDA")]
    assert "1 of 2 cases with a target have no GTVn; nothing to do" in output.err
    with (out.parent / "facts.csv").open(newline="") as stream:
        first, second = csv.DictReader(stream)
    assert (first["ct_shape"], first["ct_spacing_mm"], first["n_gtvp"]) == ("24 24 16", "5 5 6", "1")
    images = check_case(read_manifest(out)[0])
    assert images.target is not None
    assert float(first["gtvp_ml"]) == pytest.approx((images.target == 1).sum() * 0.15, abs=1e-3)
    assert second["gtvn_ml"] == "0.0"
    files = {path.name for path in (tmp_path / "tree").rglob("*") if path.is_file()}
    assert not files & {"cases.csv", "findings.csv", "facts.csv"}


def test_bqml_is_mended_by_the_table_and_suv_already_is_told(
    put: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = put("2026"), tmp_path / "cases.csv"
    pet = root / "hecktor2026_training/CHUM-001/CHUM-001__PT.nii.gz"
    expected = check_case(write_tiny_case(tmp_path / "tiny", "CHUM-001")).pet.values
    rewrite(pet, lambda values: values / np.float32(0.0004))
    table = root / "hecktor2026_training/suv_conversion_tags.csv"
    table.write_text("pid,units,bqml_to_suvbw_factor\nCHUM-001,BQML,0.0004\nMDA-002,BQML,0.0004\n")
    assert run_command(["import", f"source={root}", f"out={out}"]) == 0
    first, second = read_manifest(out)
    assert (first.pet_unit, first.pet_factor) == ("BQML", 0.0004)
    np.testing.assert_allclose(check_case(first).pet.values, expected, rtol=1e-5)
    assert (second.pet_unit, second.pet_factor) == ("SUV", 1.0)
    line = "is listed in Bq/mL but holds SUV already; its factor 0.0004 was left out"
    assert line in capsys.readouterr().err
    assert [row["severity"] for row in findings_of(out) if line in row["finding"]] == ["warning"]


def test_bqml_without_a_factor_is_refused_and_the_others_go_on(
    put: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = put("2022"), tmp_path / "cases.csv"
    rewrite(root / "hecktor2022_training/imagesTr/CHUM-001__PT.nii.gz", lambda values: values * 5000)
    assert run_command(["import", f"source={root}", f"out={out}"]) == 1
    assert "set pet_unit=BQML and pet_factor" in capsys.readouterr().err
    assert [case.case_id for case in read_manifest(out)] == ["MDA-002"]
    assert [row["case_id"] for row in findings_of(out) if row["severity"] == "error"] == ["CHUM-001"]


def test_clinical_columns_survive_from_the_tree_to_the_manifest(put: Callable[[str], Path], tmp_path: Path) -> None:
    root, out = put("2026"), tmp_path / "cases.csv"
    table = root / "hecktor2026_training/HECKTOR_2026_Training.csv"
    table.write_text("PatientID,Center,T_stage,split\nCHUM_001,3,T2,x\nMDA002,5,,y\n")
    assert run_command(["import", f"source={root}", f"out={out}"]) == 0
    first, second = read_manifest(out)
    assert first.extra == {"centre_id": "3", "t_stage": "T2", "clinical_split": "x"}
    assert (second.extra["t_stage"], second.split) == ("", "train")
    assert run_command(["import", f"source={root}", f"out={out}"]) == 0


def test_a_patient_twice_under_two_names_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = [write_tiny_case(tmp_path, "a"), write_tiny_case(tmp_path, "b")]
    write_manifest(tmp_path / "list.csv", [cases[0], replace(cases[1], split="test")])
    assert run_command(["import", f"source={tmp_path / 'list.csv'}"]) == 0
    error = capsys.readouterr().err
    told = (
        "case b: its CT and PET have the same voxels as those of a, and they are in train and test; leave one of them"
    )
    assert told in error
    assert error.count("case b") == 1


def test_a_shift_is_reported_and_corrected_on_demand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("SimpleITK", reason="the extra registration is not installed")
    case = write_tiny_case(tmp_path / "raw", "P1")

    def moved(affine: np.ndarray) -> np.ndarray:
        affine[:3, 3] += (12, 9, 0)
        return affine

    rewrite(case.pet, affine=moved)
    command = ["import", f"source={tmp_path / 'raw'}"]
    out = tmp_path / "told/cases.csv"
    assert run_command([*command, f"out={out}", "estimate_shift=true"]) == 0
    told = capsys.readouterr().err
    assert "PET seems to lie off the CT and fits best moved by 1" in told
    assert "import with correct_shift=true" in told
    mended = tmp_path / "mended/cases.csv"
    assert run_command([*command, f"out={mended}", "correct_shift=true"]) == 0
    (fixed,) = read_manifest(mended)
    assert fixed.pet is not None
    assert fixed.pet.resolve() == (tmp_path / "mended/corrected/P1_pet.nii.gz").resolve()
    before, after = check_case(case).pet, check_case(fixed).pet
    np.testing.assert_array_equal(before.values, after.values)
    np.testing.assert_allclose(after.grid.matrix[:3, 3] - before.grid.matrix[:3, 3], (-12, -9, 0), atol=3)
    assert run_command(["import", f"source={mended}", "correct_shift=true"]) == 2
    assert "is kept as it is; give another out=FILE" in capsys.readouterr().err


def test_an_unconfirmed_shift_is_told_and_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = write_tiny_case(tmp_path / "raw", "P1")
    shift = Shift((0.0, 0.0, 11.0), (0.5, 0.6), (0.95, 0.94))
    monkeypatch.setattr("hngtv.cases.inspect.estimate_shift", lambda ct, pet: shift)
    inspected = inspect_case(case, InspectPlan(corrected=tmp_path / "corrected"))
    (finding,) = inspected.findings
    assert "fits best moved by 11.0 mm (right +0.0, front +0.0, head +11.0), but too little" in finding.text
    assert (inspected.case, inspected.facts.shift_mm) == (case, 11.0)
    assert not (tmp_path / "corrected").exists()


def test_4d_images_are_written_beside_the_manifest_and_a_bad_one_is_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = write_tiny_case(tmp_path / "tiny", "P1")
    assert raw.target is not None
    ct, target = (nib.Nifti1Image.from_filename(path) for path in (raw.ct, raw.target))
    suv = np.where(target.get_fdata() > 0, 6.5, 0.7)
    source = tmp_path / "msd"
    for part in ("imagesTr", "labelsTr"):
        (source / part).mkdir(parents=True)
    write_nifti(
        source / "imagesTr/P1.nii.gz", np.stack([ct.get_fdata(), suv], -1).astype(np.float32), np.array(ct.affine)
    )
    (source / "imagesTr/P2.nii.gz").write_text("see mail")
    shutil.copy(raw.target, source / "labelsTr/P1.nii.gz")
    training = [{"image": f"./imagesTr/P{i}.nii.gz", "label": f"./labelsTr/P{i}.nii.gz"} for i in (1, 2)]
    (source / "dataset.json").write_text(json.dumps({"modality": {"0": "CT", "1": "PET"}, "training": training}))
    out = tmp_path / "lists/cases.csv"
    assert run_command(["import", f"source={source}", f"out={out}"]) == 1
    output = capsys.readouterr()
    assert "Medical Segmentation Decathlon (4D images) (dataset.json lists 4D images" in output.out
    assert "case P2: " in output.err
    assert "1 of 2 cases are bad" in output.err
    (case,) = read_manifest(out)
    assert case.ct.resolve() == (tmp_path / "lists/images/P1/ct.nii.gz").resolve()
    assert check_case(case).pet.values.max() == pytest.approx(6.5)


def test_source_and_root_together_or_an_archive_are_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["import", f"source={tmp_path}", "data.root=elsewhere"]) == 2
    assert "give either source=DIR or data.root=DIR" in capsys.readouterr().err
    (tmp_path / "cohort.zip").touch()
    assert run_command(["import", f"source={tmp_path / 'cohort.zip'}"]) == 2
    assert "cohort.zip is an archive; extract it" in capsys.readouterr().err


def test_a_lost_library_is_told_once_and_not_as_faults_of_cases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "SimpleITK", None)
    write_tiny_case(tmp_path / "raw", "P1")
    assert run_command(["import", f"source={tmp_path / 'raw'}", "estimate_shift=true"]) == 2
    assert "pip install 'hngtv[registration]'" in capsys.readouterr().err
