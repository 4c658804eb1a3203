"""`hngtv import` of a DICOM tree: cases are written, checked and listed; a bad patient gets one line."""

from pathlib import Path

import numpy as np
import pytest

from hngtv.cases.manifest import read_manifest
from hngtv.commands.entry import run_command
from tests.tiny_dicom import AXIAL, Scan, write_ct, write_pet, write_rtstruct

BOX = np.array([(1.5, 1.5, 2.0), (5.5, 1.5, 2.0), (5.5, 4.5, 2.0), (1.5, 4.5, 2.0)])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for patient in ("good", "bad"):
        write_ct(tmp_path / "in", scan=Scan(patient, frame=patient))
        write_pet(tmp_path / "in", scan=Scan(patient, series=f"pet_{patient}", frame=patient))
        for path in (tmp_path / "in").glob("ct*"):
            path.rename(tmp_path / "in" / f"{patient}_{path.name}")
    write_rtstruct(
        tmp_path / "in" / "rs.dcm", [("Tumeur", [(AXIAL.to_lps(BOX), "CLOSED_PLANAR")])], Scan("good", frame="good")
    )
    next((tmp_path / "in").glob("bad_ct03*")).unlink()
    next((tmp_path / "in").glob("bad_ct06*")).unlink()
    return tmp_path / "in"


def test_import(source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "cases.csv"
    status = run_command(["import", f"source={source}", f"out={out}", 'outlines.gtvp=["tum.*"]'])
    said = capfd.readouterr()
    assert status == 1
    (case,) = read_manifest(out)
    assert case.case_id == "good"
    assert case.pet is not None
    assert case.target is not None
    assert [line for line in said.err.splitlines() if line.startswith("case bad: a slice is missing between ")]
    assert "1 of 2 cases are bad" in said.err
    assert "DICOM" in said.out


def test_a_broken_pattern_is_told(source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    line = ["import", f"source={source}", f"out={tmp_path / 'new' / 'cases.csv'}", 'outlines.gtvn=["gtv("]']
    assert run_command(line) == 2
    assert "no regular expression" in capfd.readouterr().err


def test_images_of_another_source_are_not_replaced(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "cases.csv"
    run_command(["import", f"source={source}", f"out={out}"])
    before = (tmp_path / "new" / "images" / "good" / "ct.nii.gz").stat().st_mtime_ns
    assert run_command(["import", f"source={source}", f"out={out}", 'outlines.gtvp=["tum.*"]']) == 2
    assert "holds other images already" in capfd.readouterr().err
    assert (tmp_path / "new" / "images" / "good" / "ct.nii.gz").stat().st_mtime_ns == before
