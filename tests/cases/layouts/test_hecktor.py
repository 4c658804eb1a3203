"""HECKTOR trees of each year, with the traps that are known of them."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from hngtv.cases.layouts import Recognised, recognise
from hngtv.cases.manifest import FolderLayout, RawCase, load_cases
from hngtv.errors import InputError

CLINICAL_2026 = (
    "PatientID,CenterID,Age,Gender,Tobacco Consumption,Alcohol Consumption,Performance Status,Treatment,"
    "HPV Status,Relapse,RFS,T-stage,N_stage\n"
)


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def write_2020(root: Path) -> Path:
    for case_id in ("CHGJ007", "CHUM010"):
        folder = f"hecktor_train/hecktor_nii/{case_id}/{case_id}"
        touch(root, f"{folder}_ct.nii.gz", f"{folder}_pt.nii.gz", f"{folder}_ct_gtvt.nii.gz")
    touch(root, "hecktor_test/hecktor_nii_test/CHUP001/CHUP001_ct.nii.gz")
    touch(root, "hecktor_test/hecktor_nii_test/CHUP001/CHUP001_pt.nii.gz")
    (root / "bbox_train.csv").write_text("PatientID,x1,x2,y1,y2,z1,z2\nCHGJ007,-70,74,-20,124,-200,-56\n")
    (root / "bbox_test.csv").write_text("PatientID,x1,x2,y1,y2,z1,z2\nCHUP001,-72,72,0,144,10,154\n")
    return root


def write_2021(root: Path) -> Path:
    for case_id in ("CHMR001", "CHUS003"):
        touch(root, *(f"hecktor2021_train/hecktor_nii/{case_id}_{kind}.nii.gz" for kind in ("ct", "pt", "gtvt")))
    touch(root, *(f"hecktor2021_test/hecktor_nii/CHUV001_{kind}.nii.gz" for kind in ("ct", "pt")))
    folder = root / "hecktor2021_train"
    (folder / "hecktor2021_bbox_training.csv").write_text("PatientID,x1,x2,y1,y2,z1,z2\nCHMR001,0,144,0,144,0,144\n")
    (folder / "hecktor2021_patient_info_training.csv").write_text("PatientID,CenterID,Age\nCHMR001,2,61\nCHUS003,4,\n")
    (folder / "hecktor2021_patient_endpoint_training.csv").write_text("PatientID,Progression\nCHMR001,1\nCHUS003,0\n")
    return root


def write_2022(root: Path) -> Path:
    train, test = root / "hecktor2022_training/hecktor2022", root / "hecktor2022_testing/hecktor2022"
    for case_id in ("CHUM-001", "MDA-002"):
        touch(train, f"imagesTr/{case_id}__CT.nii.gz", f"imagesTr/{case_id}__PT.nii.gz")
    touch(train, "labelsTr/CHUM_001.nii.gz", "labelsTr/MDA-002.nii.gz")
    touch(test, "imagesTs/USZ-009__CT.nii.gz", "imagesTs/USZ-009__PT.nii.gz")
    (train / "hecktor2022_clinical_info_training.csv").write_text(
        'PatientID,"HPV status (0=-, 1=+)"\nCHUM_001,1\nMDA-002,\n'
    )
    (train / "hecktor2022_patient_endpoint_training.csv").write_text("PatientID,RFS\nCHUM-001,512\n")
    return root


def write_2025(root: Path) -> Path:
    for task in (1, 2, 3):
        folder = f"hecktor2025_training/Task {task}/CHUP-003/CHUP-003"
        touch(root, f"{folder}__CT.nii.gz", f"{folder}__PT.nii.gz", f"{folder}.nii.gz")
    touch(root, *(f"hecktor2025_training/Task 2/CHUP-003/CHUP-003__{k}.nii.gz" for k in ("CTPlanning", "RTDOSE")))
    touch(root, *(f"hecktor2025_training/Task 1/MDA-001/MDA-001{kind}.nii.gz" for kind in ("__CT", "__PT", "")))
    training = root / "hecktor2025_training"
    (training / "HECKTOR_2025_Training_Task_1.csv").write_text("PatientID,T_stage\nCHUP-003,T2\nMDA-001,T4\n")
    splits = [{"train": ["MDA-001"], "val": ["CHUP-003", "CHB-007"]}, {"train": [], "val": ["MDA-001", "USZ-001"]}]
    (training / "splits_final.json").write_text(json.dumps(splits))
    return root


def write_2026(root: Path) -> Path:
    for case_id in ("CHUP-014", "HGJ-001"):
        touch(root, *(f"hecktor2026_training/{case_id}/{case_id}{kind}.nii.gz" for kind in ("__CT", "__PT", "")))
    training = root / "hecktor2026_training"
    (training / "hecktor_2026_training_data.csv").write_text(
        CLINICAL_2026 + "CHUP-014,1,60,0,1,0,1,1,1,0,300,T1,N2\nXYZ-1,1,,,,,,,,,,,\n"
    )
    (training / "suv_conversion_tags.csv").write_text(
        "pid,units,patient_weight_kg,dose_for_suv_bq,bqml_to_suvbw_factor\n"
        "CHUP-014,BQML,77,137231850.3,0.000561094\nMDA-410,BQML,77,310929130.7,0.000247645\n"
    )
    (training / "HGJ-001" / "ehr.json").write_text('{"Age": 62, "Performance Status": 1, "note": "a, }",}')
    return root


YEARS = {"2020": write_2020, "2021": write_2021, "2022": write_2022, "2025": write_2025, "2026": write_2026}


def by_id(found: Recognised) -> dict[str, RawCase]:
    return {case.case_id: case for case in found.cases}


@pytest.mark.parametrize("year", YEARS)
def test_the_year_is_recognised_and_every_training_case_is_whole(tmp_path: Path, year: str) -> None:
    found = recognise(YEARS[year](tmp_path / "download"))
    assert found.layout == f"HECKTOR {year}"
    assert found.why
    assert len(found.cases) >= 2
    for case in found.cases:
        assert case.ct.is_file()
        assert case.pet is not None
        assert case.pet.is_file()
        assert (case.target is None) == (case.split == "test")
        assert case.centre == case.case_id.rstrip("0123456789-")
    assert load_cases(tmp_path / "download") == list(found.cases)


def test_2020_boxes_are_turned_from_lps_to_ras(tmp_path: Path) -> None:
    cases = by_id(recognise(write_2020(tmp_path)))
    assert dict(cases["CHGJ007"].extra) == {
        "box_x1_mm": "-74", "box_x2_mm": "70", "box_y1_mm": "-124", "box_y2_mm": "20", "box_z1_mm": "-200",
        "box_z2_mm": "-56",
    }  # fmt: skip
    assert cases["CHUP001"].split == "test"
    assert "box_x1_mm" in cases["CHUP001"].extra
    assert not cases["CHUM010"].extra


def test_2021_tables_are_joined(tmp_path: Path) -> None:
    cases = by_id(recognise(write_2021(tmp_path)))
    extra = cases["CHMR001"].extra
    assert (extra["centre_id"], extra["age"], extra["progression"], extra["box_x1_mm"]) == ("2", "61", "1", "-144")
    assert cases["CHUS003"].extra["age"] == ""
    assert cases["CHUV001"].split == "test"


def test_2022_ids_with_dash_and_underscore_are_one_patient(tmp_path: Path) -> None:
    cases = by_id(recognise(write_2022(tmp_path)))
    target = cases["CHUM-001"].target
    assert target is not None
    assert target.name == "CHUM_001.nii.gz"
    assert cases["CHUM-001"].extra == {"hpv_status": "1", "rfs": "512"}
    assert cases["USZ-009"].split == "test"


def test_2025_takes_a_patient_of_several_tasks_once_and_leaves_ids_that_are_not_on_disk(tmp_path: Path) -> None:
    found = recognise(write_2025(tmp_path))
    cases = by_id(found)
    assert sorted(cases) == ["CHUP-003", "MDA-001"]
    assert "Task 1" in cases["CHUP-003"].ct.parts
    assert "Task 1" in (cases["CHUP-003"].target or Path()).parts
    assert cases["CHUP-003"].extra == {"t_stage": "T2", "official_fold": "0"}
    notes = "\n".join(found.notes)
    assert "2 id(s) are not on disk and were left out: CHB-007, USZ-001" in notes
    assert "1 patient(s) lie in several tasks" in notes
    assert "2 planning CT or dose file(s) are not used" in notes


def test_2026_bqml_gets_its_factor_and_a_trailing_comma_is_forgiven(tmp_path: Path) -> None:
    found = recognise(write_2026(tmp_path))
    cases = by_id(found)
    assert (cases["CHUP-014"].pet_unit, cases["CHUP-014"].pet_factor) == ("BQML", 0.000561094)
    assert cases["HGJ-001"].pet_unit == "SUV"
    assert cases["CHUP-014"].extra["tobacco"] == "1"
    assert cases["CHUP-014"].extra["n_stage"] == "N2"
    assert cases["HGJ-001"].extra == {"age": "62", "performance_status": "1", "note": "a, }"}
    notes = "\n".join(found.notes)
    assert "ehr.json is not valid JSON: a comma" in notes
    assert "1 id(s) have no images here and were left out: XYZ-1" in notes
    assert "left out: MDA-410" in notes


@pytest.mark.parametrize(
    ("names", "year"),
    [
        (["A/P1_ct.nii.gz", "A/P1_pt.nii.gz"], "2021"),
        (["P1/P1_ct.nii.gz", "P1/P1_pt.nii.gz"], "2020"),
        (["imagesTr/P1__CT.nii.gz", "imagesTr/P1__PT.nii.gz", "labelsTr/P1.nii.gz"], "2022"),
        (["Task 1/P1/P1__CT.nii.gz", "Task 1/P1/P1__PT.nii.gz"], "2025"),
        (["P1/P1__CT.nii.gz", "P1/P1__PT.nii.gz", "P1/P1.nii.gz"], "2025 or 2026"),
        (["hecktor2022_training_corrected_v3/P1__CT.nii", "hecktor2022_training_corrected_v3/P1__PT.nii"], "2022"),
    ],
)
def test_a_tree_without_its_name_is_told_by_its_form(tmp_path: Path, names: list[str], year: str) -> None:
    touch(tmp_path / "cohort", *names)
    assert recognise(tmp_path / "cohort").layout == f"HECKTOR {year}"


def test_a_part_of_a_tree_may_be_given(tmp_path: Path) -> None:
    write_2022(tmp_path)
    assert len(recognise(tmp_path / "hecktor2022_training").cases) == 2
    (case,) = recognise(tmp_path / "hecktor2022_testing").cases
    assert case.split == "test"


def test_gaps_stay_gaps(tmp_path: Path) -> None:
    touch(tmp_path, "P1__CT.nii.gz", "P1__PT.nii.gz", "P2__CT.nii.gz", "P3__PT.nii.gz")
    found = recognise(tmp_path)
    assert [(case.case_id, case.pet is None) for case in found.cases] == [("P1", False), ("P2", True)]
    assert found.notes == (
        "2 case(s) are train and 0 test, by the names of their folders",
        "1 PET file(s) have no CT and were left out: p3",
    )


def test_a_prediction_is_no_mask(tmp_path: Path) -> None:
    root = write_2022(tmp_path)
    touch(root, "Predictions/CHUM-001.nii.gz", "Predictions/USZ-009.nii.gz")
    found = recognise(root)
    cases = by_id(found)
    assert (cases["CHUM-001"].target or Path()).parent.name == "labelsTr"
    assert cases["USZ-009"].target is None
    assert any("2 mask(s) lie neither beside their CT" in note for note in found.notes)


@pytest.mark.parametrize("name", ["b/labelsTr/P1.nii.gz", "a/P1_gtvt.nii.gz"])
def test_two_masks_or_pets_of_one_patient_are_refused(tmp_path: Path, name: str) -> None:
    folder = "a" if "gtvt" in name else "labelsTr"
    touch(tmp_path, "a/P1__CT.nii.gz", "a/P1__PT.nii.gz", f"{folder}/P1.nii.gz", name)
    with pytest.raises(InputError, match="patient p1 has more than one mask"):
        recognise(tmp_path)
    touch(tmp_path / "pets", *(f"{part}/P1__{kind}.nii.gz" for part, kind in (("a", "CT"), ("b", "PT"), ("c", "PT"))))
    with pytest.raises(InputError, match="patient p1 has more than one PET"):
        recognise(tmp_path / "pets")


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        ("hecktor2025_latest", "train"),
        ("test/hecktor2025_training", "train"),
        ("hecktor_nii_test", "test"),
        ("hecktor2022_testing", "test"),
        ("HECKTOR 2025 Test Data", "test"),
        ("contest", "train"),
    ],
)
def test_the_split_is_told_by_words_of_folders_below_the_root(tmp_path: Path, folder: str, split: str) -> None:
    touch(tmp_path / "test", f"{folder}/P1/P1__CT.nii.gz", f"{folder}/P1/P1__PT.nii.gz")
    found = recognise(tmp_path / "test")
    assert [case.split for case in found.cases] == [split]
    assert f"{int(split == 'train')} case(s) are train and {int(split == 'test')} test" in "\n".join(found.notes)


BAD_TABLES = {
    "two factors": (
        "pid,bqml_to_suvbw_factor\nCHUP-014,0.0005\nCHUP_014,0.0004\n",
        "two different factors from Bq/mL to SUV",
    ),
    "factor against weight and dose": (
        "pid,patient_weight_kg,dose_for_suv_bq,bqml_to_suvbw_factor\nCHUP-014,77,137231850.3,0.0007\n",
        "does not agree with weight / dose",
    ),
    "no factor": ("pid,units,bqml_to_suvbw_factor\nCHUP-014,BQML,\n", "no factor from Bq/mL to SUV"),
    "counts": ("pid,units,bqml_to_suvbw_factor\nCHUP-014,CNTS,0.1\n", "units is 'CNTS'; expected BQML or GML"),
    "text": ("pid,bqml_to_suvbw_factor\nCHUP-014,many\n", "is 'many'; expected a number"),
    "two boxes": (
        "PatientID,x1,x2,y1,y2,z1,z2\nCHUP-014,0,1,0,1,0,1\nCHUP-014,0,1,0,1,0,2\n",
        "box_z2_mm is '2', but '1' elsewhere",
    ),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_table_that_cannot_be_right_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    text, reason = BAD_TABLES[name]
    root = write_2026(tmp_path)
    (root / "hecktor2026_training/suv_conversion_tags.csv").unlink()
    (root / "hecktor2026_training/table.csv").write_text(text)
    with pytest.raises(InputError, match=reason) as caught:
        recognise(root)
    assert "table.csv: patient CHUP" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_clinical_values_that_differ_are_told_and_the_first_stays(tmp_path: Path) -> None:
    root = write_2026(tmp_path) / "hecktor2026_training"
    (root / "later.csv").write_text("PatientID,Age,Gender,N_stage\nCHUP-014,60.0,NaN,N1\nHGJ-001,NA,None,\n")
    (root / "CHUP-014/ehr.json").write_text('{"Age": null, "Gender": 0, "HPV Status": null}')
    found = recognise(tmp_path)
    extra = by_id(found)["CHUP-014"].extra
    assert (extra["age"], extra["gender"], extra["n_stage"], extra["hpv_status"]) == ("60", "0", "N2", "1")
    assert (by_id(found)["HGJ-001"].extra["age"], by_id(found)["HGJ-001"].extra["gender"]) == ("62", "")
    told = [note for note in found.notes if "is not what another file says" in note]
    assert len(told) == 1
    assert told[0].endswith("later.csv: n_stage is not what another file says for 1 patient(s), so it was left out: "
                            "chup014 ('N1', not 'N2')")  # fmt: skip


def test_a_folder_that_cannot_be_opened_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, real = write_2022(tmp_path), os.scandir

    def scan(path: str) -> Any:
        if str(path).endswith("hecktor2022_testing"):
            raise PermissionError(13, "denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scan)
    found = recognise(root)
    assert len(found.cases) == 2
    assert found.notes[-1].startswith(f"1 folder(s) cannot be opened: {root / 'hecktor2022_testing'}")


def test_factor_follows_from_weight_and_dose(tmp_path: Path) -> None:
    root = write_2026(tmp_path)
    (root / "hecktor2026_training/suv_conversion_tags.csv").write_text(
        "pid;units;patient_weight_kg;dose_for_suv_bq;bqml_to_suvbw_factor\nCHUP-014;BQML;70;350000000;\n"
        "HGJ-001;GML;;;\n"
    )
    cases = by_id(recognise(root))
    assert cases["CHUP-014"].pet_factor == pytest.approx(70_000 / 350e6)
    assert cases["HGJ-001"].pet_unit == "SUV"


def test_a_patient_twice_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{part}/P1__{kind}.nii.gz" for part in ("a", "b") for kind in ("CT", "PT")))
    with pytest.raises(InputError, match="patient p1 has more than one CT"):
        recognise(tmp_path)


def test_broken_json_is_refused_with_its_name(tmp_path: Path) -> None:
    root = write_2026(tmp_path)
    (root / "hecktor2026_training/HGJ-001/ehr.json").write_text('{"Age": }')
    with pytest.raises(InputError, match=r"ehr\.json is not valid JSON"):
        recognise(root)


def test_archives_are_refused_unless_extracted(tmp_path: Path) -> None:
    touch(tmp_path / "zips", "hecktor2022_training.zip", "b.tar.gz")
    with pytest.raises(InputError, match=r"archives \(b\.tar\.gz, hecktor2022_training\.zip\): extract each"):
        recognise(tmp_path / "zips")
    with pytest.raises(InputError, match=r"b\.tar\.gz is an archive; extract it"):
        recognise(tmp_path / "zips" / "b.tar.gz")
    root = write_2022(tmp_path / "both")
    touch(root, "hecktor2022_training.zip")
    found = recognise(root)
    assert len(found.cases) == 3
    assert found.notes[-1].startswith("1 archive(s) were not read: hecktor2022_training.zip")


def test_own_patterns_rule_out_the_known_trees(tmp_path: Path) -> None:
    write_2022(tmp_path)
    with pytest.raises(InputError, match="no case found"):
        recognise(tmp_path, FolderLayout(ct="{case}_ct_hu.nii.gz"))


def test_a_tree_of_nothing_known_says_what_it_holds(tmp_path: Path) -> None:
    touch(tmp_path, "a/scan.nii.gz")
    with pytest.raises(InputError, match=r"which holds a/scan\.nii\.gz: expected"):
        recognise(tmp_path)
