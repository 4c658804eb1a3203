import dataclasses
import shutil
from pathlib import Path

import pytest

from hngtv.commands.compare import build_comparison
from hngtv.localise.roi_table import read_rois, write_rois
from hngtv.metrics.score import CaseScore
from hngtv.report.failures import failure_rows, score_problem
from hngtv.report.runs import Run, find_runs, read_run
from hngtv.report.tables import (
    TABLE_COLUMNS,
    Comparison,
    box_cells,
    box_points,
    cost_cells,
    shown_classes,
    table_rows,
)
from hngtv.run_folder import RunFolder, write_json
from tests.score_rows import outlined, run_of, score


@pytest.fixture(scope="module")
def comparison(fake_runs: Path) -> Comparison:
    return build_comparison(*find_runs(fake_runs), reference=None, metric="dice")


@pytest.fixture
def uneven() -> Comparison:
    """Case a has two seeds in arm one, 4 ml too much and 4 ml too little; arm two lacks case b, the largest."""
    small = [outlined(case_id, 0.6, 2.0, 2.0) for case_id in "cdef"]
    runs = [
        run_of("one", [outlined("a", 0.4, 14.0, 10.0), outlined("b", 0.8, 20.0, 20.0), *small], {}),
        run_of("one", [outlined("a", 0.0, 6.0, 10.0)], {"seed": 1}),
        run_of("two", [outlined("a", 0.0, 0.0, 10.0), *small], {}),
    ]
    return build_comparison(runs, [], None, "dice")


def test_one_row_for_each_arm_and_class_with_known_columns(comparison: Comparison) -> None:
    rows = table_rows(comparison)
    assert [(row["class_name"], row["arm"]) for row in rows] == [
        (class_name, arm) for class_name in ("GTV", "GTVp", "GTVn") for arm in ("single_stage_ag", "two_stage_unet")
    ]
    assert all(set(row) <= set(TABLE_COLUMNS) for row in rows)


def test_numbers_of_a_row_are_those_of_its_scores(comparison: Comparison) -> None:
    row = table_rows(comparison)[0]
    scores = [s for s in comparison.scores if (s.arm, s.class_name) == ("single_stage_ag", "GTV")]
    assert float(row["dice_mean"]) == pytest.approx(sum(s.dice for s in scores) / 3, rel=1e-4)
    error_ml = sum(s.volume_ml - s.target_volume_ml for s in scores) / 3
    assert float(row["volume_error_ml"]) == pytest.approx(error_ml, rel=1e-4)
    assert row["n_dice_zero"] == 1


def test_cases_count_once_and_a_missing_one_is_an_empty_prediction(uneven: Comparison) -> None:
    one, two = table_rows(uneven)
    assert (one["n_dice_zero"], two["n_dice_zero"]) == (0, 2)
    assert (float(one["volume_error_ml"]), float(one["absolute_volume_error_ml"])) == (0.0, pytest.approx(4 / 6, 1e-4))
    assert (float(two["volume_error_ml"]), float(two["absolute_volume_error_ml"])) == (-5.0, 5.0)


def test_only_a_two_stage_arm_has_boxes_and_they_include_the_margin(comparison: Comparison) -> None:
    single, two = table_rows(comparison)[:2]
    assert "box_ml_median" not in single
    assert float(two["box_covered_fraction"]) == pytest.approx((1 + 1 + 0.83) / 3, rel=1e-4)
    found = sorted(roi.box.expand(10.0).volume_ml for run in comparison.runs for roi in run.rois.values())
    assert float(two["box_ml_median"]) == pytest.approx(found[1], rel=1e-4)
    assert two["n_fallbacks"] == 1


def test_fallbacks_are_counted_over_all_boxes(fake_runs: Path, tmp_path: Path) -> None:
    folder = RunFolder(shutil.copytree(fake_runs / "two_stage_unet" / "fold0-seed0", tmp_path / "run"))
    first, *others = read_rois(folder.rois)
    empty = dataclasses.replace(first, covered_fraction=None, reason="fallback:nothing above the threshold")
    write_rois(folder.rois, [empty, *others])
    runs = [read_run(folder.root)]
    assert len(box_points(runs)) == 2
    assert box_cells(runs)["n_fallbacks"] == 2


def test_costs_are_means_over_the_runs_that_know_them(fake_runs: Path, tmp_path: Path) -> None:
    folder = RunFolder(shutil.copytree(fake_runs / "two_stage_unet" / "fold0-seed0", tmp_path / "run"))
    assert cost_cells([read_run(folder.root)]) == {
        "training_steps": 80.0, "training_s": 25.0, "n_parameters": 90_000.0
    }  # fmt: skip
    costs = {"n_parameters": 5, "train_cpu_s": 610.0, "train_steps": 7, "predict_s": None, "peak_memory_mb": 900.0}
    write_json(folder.costs, costs)
    runs = [read_run(folder.root), read_run(fake_runs / "single_stage_ag" / "fold0-seed0")]
    assert cost_cells(runs) == {
        "training_steps": (7 + 40) / 2, "training_s": (610 + 12.5) / 2, "n_parameters": (5 + 90_000) / 2,
        "peak_memory_mb": 900.0,
    }  # fmt: skip


def test_reference_row_has_no_difference(comparison: Comparison) -> None:
    reference, other = table_rows(comparison)[:2]
    assert comparison.reference == "single_stage_ag"
    assert "difference" not in reference
    assert float(other["difference"]) > 0


@pytest.mark.parametrize(
    ("volumes", "expected"),
    [({"GTVp": 5.0, "GTVn": 2.0}, ["GTV", "GTVp", "GTVn"]), ({"GTVp": 5.0, "GTVn": 0.0}, ["GTV"])],
    ids=["two labels", "one label"],
)
def test_a_cohort_with_one_label_shows_it_once(volumes: dict[str, float], expected: list[str]) -> None:
    rows = [score("a", name, volume) for name, volume in volumes.items()]
    assert shown_classes([*rows, score("a", "GTV", sum(volumes.values()))]) == expected


def test_failures_are_listed_with_their_reason(comparison: Comparison) -> None:
    failures = failure_rows(comparison.runs)
    assert ("single_stage_ag/fold0-seed0", "phantom_0002", "no prediction file; scored as the worst") in failures
    assert ("two_stage_unet/fold0-seed0", "phantom_0002", "box by fallback:nothing above the threshold") in failures


@pytest.mark.parametrize(
    ("row", "has_file", "problem"),
    [
        (outlined("a", 0.9, 9.0, 9.0), True, ""),
        (outlined("a", 0.9, 9.0, 9.0), False, "prediction file removed after scoring"),
        (outlined("a", 0.0, 0.0, 9.0), False, "no prediction file; scored as the worst"),
        (outlined("a", 0.0, 3.0, 9.0), False, "prediction does not meet the tumour (9.0 ml missed)"),
        (outlined("a", 0.0, 0.0, 9.0), True, "nothing predicted, or nothing usable (9.0 ml missed)"),
        (outlined("a", 0.0, 3.0, 0.0), True, "3.0 ml predicted where there is no tumour"),
        (outlined("a", 0.0, 0.0, 0.0), True, "no usable prediction; scored as the worst"),
    ],
)
def test_a_problem_is_called_what_it_is(row: CaseScore, has_file: bool, problem: str, tmp_path: Path) -> None:
    run = Run("x", RunFolder(tmp_path), {}, (row,))
    if has_file:
        run.folder.predictions.mkdir(parents=True)
        run.folder.prediction("a").touch()
    assert score_problem(run, row) == problem
