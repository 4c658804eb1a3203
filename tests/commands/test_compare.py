import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hngtv.commands.entry import run_command
from hngtv.report import tables
from hngtv.report.tables import TABLE_COLUMNS


def compare(runs: Path, out: Path, *more: str) -> int:
    return run_command(["compare", f"runs={runs}", f"out={out}", *more])


@pytest.fixture
def runs(fake_runs: Path, tmp_path: Path) -> Path:
    """A copy without images, so that pictures cost no time."""
    root = tmp_path / "runs"
    shutil.copytree(fake_runs, root, ignore=shutil.ignore_patterns("cases.csv"))
    return root


def test_writes_report_table_and_merged_scores(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert compare(runs, out) == 0
    assert capsys.readouterr().out.strip() == str(out / "report.html")
    with (out / "table.csv").open() as stream:
        reader = csv.DictReader(stream)
        rows = list(reader)
    assert tuple(reader.fieldnames or ()) == TABLE_COLUMNS
    assert len(rows) == 2 * 3
    assert len((out / "scores.csv").read_text().splitlines()) == 1 + 2 * 3 * 3


def test_the_table_is_computed_once(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n_calls = 0

    def count(comparison: tables.Comparison) -> list[dict[str, Any]]:
        nonlocal n_calls
        n_calls += 1
        return table_rows(comparison)

    table_rows = tables.table_rows
    monkeypatch.setattr(tables, "table_rows", count)
    assert compare(runs, tmp_path / "out") == 0
    assert n_calls == 1


def test_its_own_output_below_the_runs_is_no_run(runs: Path) -> None:
    assert compare(runs, runs) == 0
    assert compare(runs, runs) == 0


def test_different_budgets_are_a_loud_warning(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = runs / "two_stage_unet" / "fold0-seed0" / "settings.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"budget": {"steps": None, "cpu_s": 60.0}}))
    assert compare(runs, tmp_path / "out") == 0
    sentence = "Different budget: single_stage_ag has 40 steps; two_stage_unet has 60 s (fold 0 seed 0)."
    assert f"warning: {sentence}" in capsys.readouterr().out
    assert sentence in (tmp_path / "out" / "report.html").read_text()


def test_reference_and_metric_are_chosen(runs: Path, tmp_path: Path) -> None:
    assert compare(runs, tmp_path / "out", "reference=two_stage_unet", "metric=hd95_mm") == 0
    with (tmp_path / "out" / "table.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {(row["reference"], row["metric"]) for row in rows} == {("two_stage_unet", "hd95_mm")}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("reference=nobody", "expected one of the arms found"),
        ("metric=beauty", "metric"),
        ("runs=/nowhere", "not a folder"),
    ],
)
def test_bad_input_is_exit_status_2(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str, words: str
) -> None:
    assert compare(runs, tmp_path / "out", change) == 2
    assert words in capsys.readouterr().err
