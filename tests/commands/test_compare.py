import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hngtv.commands.compare import build_comparison
from hngtv.commands.entry import run_command
from hngtv.metrics.score import RANKING_COLUMNS
from hngtv.report import tables
from hngtv.report.answer import answer_question
from hngtv.report.runs import find_runs
from hngtv.report.tables import TABLE_COLUMNS
from hngtv.report.terms import Conditions
from hngtv.run_folder import write_csv
from tests.score_rows import write_sweep


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
    assert {path.suffix for path in (out / "figures").iterdir()} == {".svg", ".png"}
    assert len((out / "scores.csv").read_text().splitlines()) == 1 + 2 * 3 * 3
    assert (out / "table.tex").read_text().count(r" \\") == 1 + 2 * 3
    differences = list(csv.DictReader((out / "differences.csv").open()))
    assert {row["class_name"] for row in differences} == {"GTV", "GTVp", "GTVn"}
    rankings = list(csv.DictReader((out / "rankings.csv").open()))
    assert [row["rank"] for row in rankings if row["ranking"] == "hecktor_2020"] == ["2", "1"]


def test_a_margin_is_judged_and_an_older_score_file_costs_a_ranking(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = runs / "two_stage_unet" / "fold0-seed0" / "scores.csv"
    rows = list(csv.DictReader(path.open()))
    write_csv(
        path,
        [name for name in rows[0] if name not in RANKING_COLUMNS],
        ({name: value for name, value in row.items() if name not in RANKING_COLUMNS} for row in rows),
    )
    assert compare(runs, tmp_path / "out", "non_inferiority_margin=0.5") == 0
    said = capsys.readouterr().out
    assert "no ranking hecktor_2021_official, hecktor_2025: some scores.csv is from before lesions were counted" in said
    table = list(csv.DictReader((tmp_path / "out" / "table.csv").open()))
    assert [row["verdict"] for row in table if row["class_name"] == "GTV"] == ["", "non-inferior"]
    assert "by the margin of 0.5, cropping is non-inferior to gating" in (tmp_path / "out" / "report.html").read_text()


def test_a_larger_cohort_claims_only_on_equal_budgets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, out = tmp_path / "runs", tmp_path / "out"
    write_sweep(runs, {"single_stage_ag": 0.6, "two_stage_unet": 0.8}, n_cases=24, seeds=(0, 1))
    costs = runs / "two_stage_unet" / "seed1" / "costs.json"
    costs.write_text(costs.read_text().replace("600.0", "700.0"))
    monkeypatch.setattr("hngtv.commands.compare.write_report", lambda path, comparison, charts, n_viewer_cases: None)
    headlines = []
    for change in ("unequal_budgets=false", "unequal_budgets=true", "budget_tolerance=0.2"):
        found = build_comparison(*find_runs(runs), None, "dice", conditions_of(change))
        headlines.append(answer_question(found.arms, found.scores, "dice", found.conditions).headline)
        assert compare(runs, out, change) == 0
    assert headlines == [
        "Nothing is claimed: the arms were trained on unequal budgets.",
        "Crop: two_stage_unet did better on these cases, on unequal training budgets.",
        "Crop: two_stage_unet did better on these cases.",
    ]
    assert capsys.readouterr().out.count("warning: Different budget: single_stage_ag has 600 s") == 2
    row = next(csv.DictReader((out / "table.csv").open()))
    assert [row[name] for name in ("n_parameters", "training_s", "predict_s", "peak_memory_mb")] == [
        "1000", "600", "2", "900"
    ]  # fmt: skip


def conditions_of(change: str) -> Conditions:
    name, value = change.split("=")
    if name == "budget_tolerance":
        return Conditions(budget_tolerance=float(value))
    return Conditions(unequal_budgets=value == "true")


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
    sentence = "Different budget: single_stage_ag has 40 steps; two_stage_unet has 80 steps (fold 0)."
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
        ("non_inferiority_margin=0", "non_inferiority_margin"),
        ("runs=/nowhere", "not a folder"),
    ],
)
def test_bad_input_is_exit_status_2(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str, words: str
) -> None:
    assert compare(runs, tmp_path / "out", change) == 2
    assert words in capsys.readouterr().err
