import csv
from pathlib import Path

import numpy as np
import pytest

from hngtv.cases.manifest import RawCase
from hngtv.commands.entry import run_command
from hngtv.metrics.score import SCORE_COLUMNS
from hngtv.volume.nifti import read_image, write_labels_like
from tests.tiny_cases import write_tiny_cohort


@pytest.fixture
def cases(tmp_path: Path) -> list[RawCase]:
    cases = write_tiny_cohort(tmp_path / "raw", 2)
    for case in cases:
        assert case.target is not None
        labels = read_image(case.target).values.astype(np.uint8)
        write_labels_like(tmp_path / "predictions" / f"{case.case_id}.nii.gz", labels, case.ct)
    return cases


def evaluate(root: Path, *more: str) -> int:
    places = [f"predictions={root / 'predictions'}", f"targets={root / 'raw'}", f"out={root / 'scores.csv'}"]
    return run_command(["evaluate", *places, *more])


def test_writes_a_row_for_each_case_and_class(cases: list[RawCase], tmp_path: Path) -> None:
    assert evaluate(tmp_path, "arm=mine", "fold=all", "seed=5") == 0
    with (tmp_path / "scores.csv").open() as stream:
        reader = csv.DictReader(stream)
        rows = list(reader)
    assert tuple(reader.fieldnames or ()) == SCORE_COLUMNS
    assert [(row["case_id"], row["class_name"]) for row in rows] == [
        (case.case_id, name) for case in cases for name in ("GTVp", "GTVn", "GTV")
    ]
    assert {(row["arm"], row["fold"], row["seed"], float(row["dice"])) for row in rows} == {("mine", "all", "5", 1.0)}


def test_a_numbered_fold_is_written_into_every_row(cases: list[RawCase], tmp_path: Path) -> None:
    assert evaluate(tmp_path, "fold=2") == 0
    with (tmp_path / "scores.csv").open() as stream:
        assert {row["fold"] for row in csv.DictReader(stream)} == {"2"}


def test_a_missing_prediction_is_listed_and_makes_the_exit_status_1(
    cases: list[RawCase], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "predictions" / "tiny_01.nii.gz").unlink()
    assert evaluate(tmp_path) == 1
    shown = capsys.readouterr()
    assert "failed: case tiny_01: scored as missing: no prediction file tiny_01.nii.gz" in shown.out
    assert "1 of 2 cases failed" in shown.err
    assert (tmp_path / "scores.csv").read_text().count("tiny_01") == 3


def test_cases_without_target_and_strange_predictions_are_told(
    cases: list[RawCase], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "predictions" / "tiny_01.nii.gz").rename(tmp_path / "predictions" / "stranger.nii.gz")
    manifest = tmp_path / "raw" / "cases.csv"
    manifest.write_text(manifest.read_text().replace("tiny_01/gtv.nii.gz", ""))
    assert evaluate(tmp_path) == 0
    shown = capsys.readouterr().out
    assert "not scored, no target: tiny_01" in shown
    assert "not scored, no such case in targets: stranger" in shown


def test_no_predictions_folder_and_no_target_are_input_errors(
    cases: list[RawCase], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(tmp_path, f"predictions={tmp_path / 'nowhere'}") == 2
    assert "expected a folder" in capsys.readouterr().err
    manifest = tmp_path / "raw" / "cases.csv"
    manifest.write_text(manifest.read_text().replace("/gtv.nii.gz", "").replace("tiny_00,tiny", "tiny"))
    for case in cases:
        assert case.target is not None
        case.target.unlink()
    manifest.unlink()
    assert evaluate(tmp_path) == 2
    assert "has a target" in capsys.readouterr().err
