"""`hngtv localise` and `hngtv robustness` on a tiny cohort."""

import csv
import json
from pathlib import Path

import pytest

from hngtv.commands.entry import BAD_INPUT, DONE, run_command
from tests.tiny_cases import write_tiny_cohort
from tests.tiny_run import tiny_run

DISTURBED = "[pet_in_bqml,feet_first,no_tumour]"


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def localise(root: Path, folder: Path, *more: str) -> list[str]:
    return [
        "localise", f"data.root={root}", f"run_dir={folder / 'judged'}", f"work_dir={folder / 'work'}",
        "data.spacing_mm=[5,5,6]", "data.coarse_spacing_mm=[10,10,12]", "data.n_folds=2", "budget.steps=60",
        "localisers.coarse.network.widths=[4,8]", "localisers.coarse.crop_voxels=[12,12,8]", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("localise")
    write_tiny_cohort(folder / "cases", 4)
    command = localise(folder / "cases", folder, "only=[whole,oracle,nvauto,coarse]", f"disturbances={DISTURBED}")
    assert run_command(command) == DONE
    return folder


def test_one_row_for_each_localiser_over_all_patients(judged: Path) -> None:
    rows = {row["localiser"]: row for row in rows_of(judged / "judged" / "localisers.csv")}
    assert list(rows) == ["whole", "oracle", "nvauto", "coarse"]
    assert {row["n_patients"] for row in rows.values()} == {"4"}
    assert float(rows["whole"]["share_all"]) == float(rows["oracle"]["share_all"]) == 1
    assert float(rows["oracle"]["volume_ml_mean"]) < float(rows["whole"]["volume_ml_mean"])
    assert (judged / "judged" / "localisers.png").stat().st_size > 10_000
    assert "<svg" in (judged / "judged" / "localisers.svg").read_text(encoding="utf-8")


def test_each_patient_is_judged_once_by_models_that_never_saw_it(judged: Path) -> None:
    folds = json.loads((judged / "judged" / "folds.json").read_text(encoding="utf-8"))
    rows = [row for row in rows_of(judged / "judged" / "located.csv") if row["disturbance"] == "none"]
    for name in ("nvauto", "coarse"):
        assert {row["case_id"]: int(row["fold"]) for row in rows if row["localiser"] == name} == folds


def test_bad_scans(judged: Path) -> None:
    rows = {(r["disturbance"], r["localiser"]): r for r in rows_of(judged / "judged" / "disturbed.csv")}
    assert {disturbance for disturbance, _ in rows} == {"none", "pet_in_bqml", "feet_first", "no_tumour"}
    assert rows["pet_in_bqml", "coarse"]["n_refused"] == "4"
    assert rows["feet_first", "oracle"]["share_all"] == "1"
    assert rows["no_tumour", "oracle"]["n_fallbacks"] == "4"


def test_again_it_does_nothing_and_a_new_localiser_only_adds(judged: Path) -> None:
    table = judged / "judged" / "fold_0" / "coarse.json"
    before = table.stat().st_mtime_ns
    command = localise(judged / "cases", judged, "only=[hot_spot,coarse]", f"disturbances={DISTURBED}")
    assert run_command(command) == DONE
    assert table.stat().st_mtime_ns == before
    assert [row["localiser"] for row in rows_of(judged / "judged" / "localisers.csv")] == ["hot_spot", "coarse"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("only=[coarse,nvuato]", "only names nvuato; there are"),
        ("folds=[2]", "there are folds 0 to 1"),
        ("disturbances=[upside_down]", "disturbances"),
        ("roi.margin_mm=5", "was made with other settings"),
    ],
)
def test_wrong_settings(judged: Path, capsys: pytest.CaptureFixture[str], wrong: str, message: str) -> None:
    assert run_command(localise(judged / "cases", judged, wrong)) == BAD_INPUT
    assert message in capsys.readouterr().err


def test_robustness_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tiny_cohort(tmp_path / "cases", 4)
    assert run_command(tiny_run(tmp_path / "cases", tmp_path, "oracle_unet", fold=0)) == DONE
    command = [
        "robustness", f"model={tmp_path / 'run'}", f"out={tmp_path / 'off'}", "shifts_mm=[0,400]", "scales=[1.0,1.5]",
    ]  # fmt: skip
    assert run_command(command) == DONE
    rows = rows_of(tmp_path / "off" / "robustness.csv")
    assert len(rows) == 2 * (1 + 6 + 2)
    unchanged = {row["case_id"]: row["dice"] for row in rows if (row["change"], row["amount"]) == ("shift", "0.0")}
    same = {row["case_id"]: row["dice"] for row in rows if (row["change"], row["amount"]) == ("scale", "1.0")}
    assert unchanged == same
    assert (tmp_path / "off" / "robustness.png").stat().st_size > 10_000
    parts = sorted((tmp_path / "off" / "cases").iterdir())
    before = [part.stat().st_mtime_ns for part in parts]
    assert run_command(command) == DONE
    assert [part.stat().st_mtime_ns for part in parts] == before


def test_robustness_needs_test_cases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tiny_cohort(tmp_path / "cases", 4)
    assert run_command(tiny_run(tmp_path / "cases", tmp_path, "single_stage_unet", fold="all")) == DONE
    assert run_command(["robustness", f"model={tmp_path / 'run'}", f"out={tmp_path / 'off'}"]) == BAD_INPUT
    assert "has no test cases" in capsys.readouterr().err
