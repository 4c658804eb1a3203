"""`hngtv import`: a bad input gets one line and the right exit status; good cases still reach the manifest."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hngtv.cases.manifest import RawCase, read_manifest
from hngtv.commands.entry import run_command
from tests.tiny_cases import rewrite, write_tiny_case


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a good case and one to spoil."""
    write_tiny_case(tmp_path / "raw", "good")
    write_tiny_case(tmp_path / "raw", "spoilt", seed=1)
    return tmp_path / "raw"


def run_import(root: Path, *more: str) -> int:
    return run_command(["import", f"data.root={root}", *more])


def listed(manifest: Path) -> list[str]:
    return [case.case_id for case in read_manifest(manifest)]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-60])


def far_away(affine: np.ndarray) -> np.ndarray:
    affine[2, 3] += 5000
    return affine


def half_a_voxel_off(affine: np.ndarray) -> np.ndarray:
    affine[0, 3] += 2.5
    return affine


def with_nan(values: np.ndarray) -> np.ndarray:
    values = values.astype(np.float32)
    values[1, 2, 3] = np.nan
    return values


def with_infinity(values: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(with_nan(values)), np.inf, values).astype(np.float32)


def swap(folder: Path) -> None:
    (folder / "ct.nii.gz").rename(folder / "was_ct.nii.gz")
    (folder / "pet.nii.gz").rename(folder / "ct.nii.gz")
    (folder / "was_ct.nii.gz").rename(folder / "pet.nii.gz")


BAD_INPUTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated gzip": (lambda f: cut(f / "ct.nii.gz"), "ct.nii.gz is damaged or cut short"),
    "text named nii.gz": (
        lambda f: (f / "pet.nii.gz").write_text("see mail"),
        "pet.nii.gz is not a NIfTI file",
    ),
    "NaN in the CT": (lambda f: rewrite(f / "ct.nii.gz", with_nan), "ct.nii.gz has 1 voxels that are NaN"),
    "infinity in the PET": (
        lambda f: rewrite(f / "pet.nii.gz", with_infinity),
        "pet.nii.gz has 1 voxels that are NaN",
    ),
    "CT and PET swapped": (swap, "CT and PET seem swapped"),
    "PET in Bq/mL": (
        lambda f: rewrite(f / "pet.nii.gz", lambda v: v * 5000),
        "set pet_unit=BQML and pet_factor",
    ),
    "PET misses the CT": (lambda f: rewrite(f / "pet.nii.gz", affine=far_away), "lies outside"),
    "4-D PET": (lambda f: rewrite(f / "pet.nii.gz", lambda v: np.stack([v, v], -1)), "pet.nii.gz is 4-D"),
    "single slice": (lambda f: rewrite(f / "ct.nii.gz", lambda v: v[:, :, :1]), "a single slice"),
    "target on another grid": (lambda f: rewrite(f / "gtv.nii.gz", affine=half_a_voxel_off), "off the CT"),
    "target of another shape": (lambda f: rewrite(f / "gtv.nii.gz", lambda v: v[1:]), "on the CT grid"),
    "target of 255": (lambda f: rewrite(f / "gtv.nii.gz", lambda v: v * 255), "gtv.nii.gz has values"),
    "no PET": (lambda f: (f / "pet.nii.gz").unlink(), "no PET file beside"),
}


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_a_bad_case_gets_one_line_and_status_1_and_the_good_one_is_listed(
    root: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, reason = BAD_INPUTS[name]
    spoil(root / "spoilt")
    assert run_import(root) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(lines) == 2, lines
    assert lines[0].startswith("case spoilt: ")
    assert reason in lines[0]
    assert lines[1] == "hngtv: 1 of 2 cases are bad (listed above)"
    assert listed(root / "cases.csv") == ["good"]


def test_good_cases_empty_targets_and_missing_targets_are_listed(root: Path, capsys: pytest.CaptureFixture) -> None:
    rewrite(root / "spoilt" / "gtv.nii.gz", lambda mask: mask * 0)
    write_tiny_case(root, "untold")
    (root / "untold" / "gtv.nii.gz").unlink()
    assert run_import(root) == 0
    assert capsys.readouterr().out.strip() == f"3 of 3 cases are good; wrote {root / 'cases.csv'}"
    assert [(c.case_id, c.target is None) for c in read_manifest(root / "cases.csv")] == [
        ("good", False), ("spoilt", False), ("untold", True),
    ]  # fmt: skip


def test_no_manifest_is_written_if_no_case_is_good(root: Path) -> None:
    for case_id in ("good", "spoilt"):
        (root / case_id / "pet.nii.gz").unlink()
    assert run_import(root) == 1
    assert not (root / "cases.csv").exists()


def test_own_file_names_are_given_on_the_command_line(tmp_path: Path) -> None:
    write_tiny_case(tmp_path, "P1")
    for old, new in (("ct", "P1__CT"), ("pet", "P1__PT"), ("gtv", "P1")):
        (tmp_path / "P1" / f"{old}.nii.gz").rename(tmp_path / f"{new}.nii.gz")
    names = ['data.ct="{case}__CT.nii.gz"', 'data.pet="{case}__PT.nii.gz"', 'data.target="{case}.nii.gz"']
    assert run_import(tmp_path, *names) == 0
    (case,) = read_manifest(tmp_path / "cases.csv")
    assert case.target is not None
    assert case.target.name == "P1.nii.gz"


def test_an_edited_manifest_is_checked_and_left_alone(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_import(root) == 0
    manifest = root / "cases.csv"
    edited = manifest.read_text().replace("good,,", "good,north,")
    manifest.write_text(edited)
    write_tiny_case(root, "later")
    capsys.readouterr()
    assert run_import(root) == 0
    output = capsys.readouterr()
    assert "the file was left as it is" in output.out
    assert "1 case(s) of" in output.err
    assert "later" in output.err
    assert manifest.read_text() == edited


def test_another_manifest_at_out_is_never_overwritten(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "lists" / "cases.csv"
    assert run_import(root, f"out={out}") == 0
    assert run_import(root, f"out={out}") == 0
    edited = out.read_text().replace("train", "test")
    out.write_text(edited)
    capsys.readouterr()
    assert run_import(root, f"out={out}") == 2
    assert "delete it, or give another file with out=FILE" in capsys.readouterr().err
    assert out.read_text() == edited


def test_duplicate_ids_of_a_manifest_are_bad_input(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "cases.csv").write_text("case_id,ct,pet\nP1,a,b\nP1,c,d\n")
    assert run_import(root) == 2
    assert "duplicate case ids: P1" in capsys.readouterr().err


def test_an_output_folder_that_cannot_be_written_is_told_before_any_check(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def check_case(case: RawCase) -> None:
        raise AssertionError(f"{case.case_id} was read")

    monkeypatch.setattr("hngtv.cases.inspect.check_case", check_case)
    in_the_way = root / "good" / "ct.nii.gz"
    assert run_import(root, f"out={in_the_way}/cases.csv") == 2
    assert "out=FILE" in capsys.readouterr().err


def test_missing_folder_empty_folder_and_missing_root_are_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_import(tmp_path / "nowhere") == 2
    assert "is not a folder" in capsys.readouterr().err
    assert run_import(tmp_path) == 2
    assert "no case found" in capsys.readouterr().err
    assert run_command(["import"]) == 2
    assert "root" in capsys.readouterr().err


def test_help_says_what_and_how(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["import", "--help"]) == 0
    output = capsys.readouterr().out
    assert "hngtv import data.root=DIR" in output
    assert "Exit status" in output
