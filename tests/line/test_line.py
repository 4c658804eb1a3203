"""The whole line, from raw files to the report, on a tiny cohort; and once more, when nothing is left to do."""

import csv
from pathlib import Path

import pytest

from hngtv.commands.entry import CASES_FAILED, DONE, run_command
from hngtv.metrics.score import SCORE_COLUMNS
from hngtv.volume.nifti import read_image
from tests.tiny_cases import write_tiny_cohort
from tests.tiny_run import tiny_run

REWRITTEN = ("rois.csv", "cases.csv", "scores.csv", "status.json", "costs.json")
ARMS = ("single_stage_ag", "two_stage_ag")


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a cohort and, in runs/, both arms on fold 0."""
    root = tmp_path_factory.mktemp("line")
    write_tiny_cohort(root / "cases", 4)
    for arm in ARMS:
        assert run_command(arguments_of(root, arm)) == DONE
    return root


def arguments_of(root: Path, arm: str) -> list[str]:
    return tiny_run(root / "cases", root, arm, run_dir=root / "runs" / arm)


def test_run_folder_is_complete(walked: Path) -> None:
    folder = walked / "runs/two_stage_ag"
    names = {
        "settings.json",
        "provenance.json",
        "log.txt",
        "cases.csv",
        "folds.json",
        "rois.csv",
        "scores.csv",
        "calibration.csv",
        "status.json",
        "costs.json",
    }
    assert names <= {path.name for path in folder.iterdir()}
    assert (folder / "fine/model.pt").is_file()
    assert (folder / "coarse/inner_0/model.pt").is_file()
    rows = list(csv.DictReader((folder / "scores.csv").open(newline="")))
    assert list(rows[0]) == list(SCORE_COLUMNS)
    assert {row["class_name"] for row in rows} == {"GTVp", "GTVn", "GTV"}
    for case_id in {row["case_id"] for row in rows}:
        mask, ct = folder / f"predictions/{case_id}.nii.gz", walked / f"cases/{case_id}/ct.nii.gz"
        assert read_image(mask).grid == read_image(ct).grid
    assert not list(folder.rglob(".tmp-*"))
    assert not list(folder.rglob("*.ckpt"))


def test_second_walk_changes_nothing(walked: Path) -> None:
    def stamps() -> dict[Path, int]:
        files = [p for p in (walked / "runs").rglob("*") if p.is_file() and p.name not in ("log.txt", ".lock")]
        return {path: path.stat().st_mtime_ns for path in files if path.name not in REWRITTEN}

    before, scores = stamps(), (walked / "runs/two_stage_ag/scores.csv").read_bytes()
    for arm in ARMS:
        assert run_command(arguments_of(walked, arm)) == DONE
    assert stamps() == before
    assert (walked / "runs/two_stage_ag/scores.csv").read_bytes() == scores


def test_evaluate_agrees_with_the_run(walked: Path, tmp_path: Path) -> None:
    folder = walked / "runs/two_stage_ag"
    tested = {row["case_id"] for row in csv.DictReader((folder / "scores.csv").open(newline=""))}
    lines = (walked / "cases/cases.csv").read_text().splitlines()
    subset = walked / "cases/tested.csv"
    subset.write_text("\n".join([lines[0], *(line for line in lines[1:] if line.split(",")[0] in tested)]) + "\n")
    evaluate = [
        "evaluate",
        f"predictions={folder / 'predictions'}",
        f"targets={subset}",
        f"out={tmp_path / 's.csv'}",
    ]
    assert run_command(evaluate) == DONE
    values = [
        [row["dice"] for row in csv.DictReader(path.open(newline=""))]
        for path in (folder / "scores.csv", tmp_path / "s.csv")
    ]
    assert values[0] == values[1]


def test_compare_writes_table_and_report(walked: Path, tmp_path: Path) -> None:
    assert run_command(["compare", f"runs={walked / 'runs'}", f"out={tmp_path}"]) == DONE
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert all(arm in page for arm in ARMS)
    assert 'src="http' not in page
    assert 'href="http' not in page
    assert {row["arm"] for row in csv.DictReader((tmp_path / "table.csv").open(newline=""))} == set(ARMS)


def test_predict_new_patients(walked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, case = f"model={walked / 'runs/two_stage_ag'}", walked / "cases/tiny_00"
    out = tmp_path / "with space/mask.nii.gz"
    single = ["predict", model, f"ct={case / 'ct.nii.gz'}", f"pet={case / 'pet.nii.gz'}", f"out={out}"]
    assert run_command(single) == DONE
    assert read_image(out).grid == read_image(case / "ct.nii.gz").grid
    many = ["predict", model, f"cases={walked / 'cases'}", f"out={tmp_path / 'many'}"]
    assert run_command(many) == DONE
    assert len(list((tmp_path / "many").glob("*.nii.gz"))) == 4
    assert (tmp_path / "many/rois.csv").is_file()
    (tmp_path / "many/tiny_01.nii.gz").unlink()
    capsys.readouterr()
    assert run_command(many) == DONE
    assert capsys.readouterr().err.count("already predicted") == 3


def test_predict_names_what_fails_and_goes_on(walked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tiny_cohort(tmp_path / "new", 3)
    (tmp_path / "new/tiny_01/ct.nii.gz").write_text("not an image")
    many = [
        "predict",
        f"model={walked / 'runs/two_stage_ag'}",
        f"cases={tmp_path / 'new'}",
        f"out={tmp_path / 'out'}",
    ]
    assert run_command(many) == CASES_FAILED
    assert "tiny_01" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz")) == [
        "tiny_00.nii.gz",
        "tiny_02.nii.gz",
    ]
