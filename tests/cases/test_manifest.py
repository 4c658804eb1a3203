"""Which files belong to which case."""

from dataclasses import replace
from pathlib import Path

import pytest

from hngtv.cases.manifest import FolderLayout, RawCase, find_cases, load_cases, read_manifest, write_manifest
from hngtv.errors import InputError


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def write_rows(path: Path, text: str) -> Path:
    path.write_text("case_id,centre,ct,pet,target,pet_unit,pet_factor,split\n" + text, encoding="utf-8")
    return path


def test_folder_is_listed_by_its_naming_with_gaps_as_none(tmp_path: Path) -> None:
    for case_id in ("b", "a"):
        touch(tmp_path / case_id / "ct.nii.gz")
    touch(tmp_path / "a" / "pet.nii.gz")
    first, second = find_cases(tmp_path)
    assert (first.case_id, first.pet, first.target) == ("a", tmp_path / "a" / "pet.nii.gz", None)
    assert (second.case_id, second.pet) == ("b", None)


def test_hecktor_names_in_one_flat_or_nested_folder(tmp_path: Path) -> None:
    for name in ("CHUM-001/CHUM-001__CT.nii.gz", "CHUM-001/CHUM-001__PT.nii.gz", "CHUM-001/CHUM-001.nii.gz"):
        touch(tmp_path / name)
    layout = FolderLayout("{case}/{case}__CT.nii.gz", "{case}/{case}__PT.nii.gz", "{case}/{case}.nii.gz")
    (case,) = find_cases(tmp_path, layout)
    assert case.case_id == "CHUM-001"
    assert case.target is not None
    touch(tmp_path / "flat" / "P1_ct.nii.gz")
    assert [c.case_id for c in find_cases(tmp_path / "flat", FolderLayout("{case}_ct.nii.gz"))] == ["P1"]


def test_a_name_must_repeat_its_id(tmp_path: Path) -> None:
    touch(tmp_path / "A" / "B__CT.nii.gz")
    with pytest.raises(InputError, match="no case found"):
        find_cases(tmp_path, FolderLayout("{case}/{case}__CT.nii.gz"))


def test_layout_without_the_id_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected \{case\} in it"):
        find_cases(tmp_path, FolderLayout("ct.nii.gz"))


def test_manifest_comes_back_as_written_from_anywhere(tmp_path: Path) -> None:
    case = RawCase(
        "P1", "north", touch(tmp_path / "raw" / "ct.nii.gz"), touch(tmp_path / "raw" / "pet.nii.gz"), None,
        "BQML", 0.0002, "test",
    )  # fmt: skip
    bare = RawCase("P2", "", touch(tmp_path / "raw" / "ct2.nii.gz"), None, None)
    write_manifest(tmp_path / "lists" / "cases.csv", [case, bare])
    found = read_manifest(tmp_path / "lists" / "cases.csv")
    resolved = [replace(c, ct=c.ct.resolve(), pet=c.pet and c.pet.resolve()) for c in found]
    assert resolved == [case, bare]


def test_manifest_of_a_folder_wins_over_its_naming(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "ct.nii.gz")
    write_rows(tmp_path / "cases.csv", "X,north,a/ct.nii.gz,,,,,\n")
    assert [c.case_id for c in load_cases(tmp_path)] == ["X"]
    assert [c.case_id for c in load_cases(tmp_path / "cases.csv")] == ["X"]


def test_only_id_and_ct_are_needed_and_further_columns_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "cases.csv"
    path.write_text("\ufeffcase_id,ct,age\nP1,ct.nii.gz,57\n", encoding="utf-8")
    (case,) = read_manifest(path)
    assert case == RawCase("P1", "", tmp_path / "ct.nii.gz", None, None, extra={"age": "57"})
    write_manifest(tmp_path / "again.csv", [case, replace(case, case_id="P2", extra={"stage": "T2"})])
    first, second = read_manifest(tmp_path / "again.csv")
    assert dict(first.extra) == {"age": "57", "stage": ""}
    assert dict(second.extra) == {"age": "", "stage": "T2"}
    assert "ct_offset" not in (tmp_path / "again.csv").read_text()


def test_offset_of_a_ct_comes_back(tmp_path: Path) -> None:
    write_manifest(tmp_path / "cases.csv", [RawCase("P1", "", tmp_path / "ct.nii.gz", None, None, ct_offset=-1024)])
    (case,) = read_manifest(tmp_path / "cases.csv")
    assert (case.ct_offset, dict(case.extra)) == (-1024, {})
    (tmp_path / "cases.csv").write_text("case_id,ct,ct_offset\nP1,ct.nii.gz,much\n")
    with pytest.raises(InputError, match="line 2: ct_offset is 'much'; expected a number of HU"):
        read_manifest(tmp_path / "cases.csv")


BAD_ROWS = {
    "duplicate ids": ("P1,,a,b,,,,\nP2,,a,b,,,,\nP1,,c,d,,,,\n", "duplicate case ids: P1"),
    "path as id": ("../P1,,a,b,,,,\n", "cannot be file names"),
    "no id": (",,a,b,,,,\n", "case_id and ct must not be empty"),
    "no ct": ("P1,,,b,,,,\n", "line 2: case_id and ct must not be empty"),
    "unknown unit": ("P1,,a,b,,GML,,\n", "pet_unit is 'GML'; expected one of SUV, BQML"),
    "factor is text": ("P1,,a,b,,BQML,many,\n", "pet_factor is 'many'; expected a number"),
    "factor is zero": ("P1,,a,b,,BQML,0,\n", "expected a positive number"),
    "factor is nan": ("P1,,a,b,,BQML,nan,\n", "expected a positive number"),
    "Bq/mL without factor": ("P1,,a,b,,BQML,,\n", "give the factor"),
    "unknown split": ("P1,,a,b,,,,validation\n", "split is 'validation'"),
    "no rows": ("", "lists no case"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_manifests_are_refused_in_one_line(tmp_path: Path, name: str) -> None:
    rows, reason = BAD_ROWS[name]
    path = write_rows(tmp_path / "cases.csv", rows)
    with pytest.raises(InputError, match=reason) as caught:
        read_manifest(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_manifest_without_its_columns_or_of_binary_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cases.csv"
    path.write_text("id,image\nP1,a\n")
    with pytest.raises(InputError, match="lacks the column"):
        read_manifest(path)
    path.write_bytes(b"\xff\xfe\x00case_id")
    with pytest.raises(InputError, match="not a readable UTF-8 CSV"):
        read_manifest(path)


def test_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        load_cases(tmp_path / "nowhere")
