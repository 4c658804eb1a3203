from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hngtv.commands.compare import build_comparison
from hngtv.metrics.score import CaseScore
from hngtv.report.runs import Run, find_runs
from hngtv.report.tables import (
    TABLE_COLUMNS,
    Comparison,
    failure_rows,
    shown_classes,
    subgroup_rows,
    table_rows,
    unequal_terms,
)
from hngtv.run_folder import RunFolder


@pytest.fixture(scope="module")
def comparison(fake_runs: Path) -> Comparison:
    return build_comparison(*find_runs(fake_runs), reference=None, metric="dice")


def score(case_id: str, class_name: str, volume_ml: float) -> CaseScore:
    return CaseScore(case_id, "x", "0", 0, class_name, 0.5, 0.5, 0.5, 5.0, 0.5, volume_ml, volume_ml)


def run_with(arm: str, settings: Mapping[str, Any], case_ids: tuple[str, ...] = ("a",)) -> Run:
    tree = {"arm": arm, "fold": "0", "seed": 0, "localiser": {"name": "whole"}, "network": {"name": "unet"}}
    rows = tuple(score(case_id, "GTV", 5.0) for case_id in case_ids)
    return Run(arm, RunFolder(Path(arm)), tree | dict(settings), rows)


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


def test_only_a_two_stage_arm_has_boxes_and_they_include_the_margin(comparison: Comparison) -> None:
    single, two = table_rows(comparison)[:2]
    assert "box_ml_median" not in single
    assert float(two["box_covered_fraction"]) == pytest.approx((1 + 1 + 0.83) / 3, rel=1e-4)
    found = sorted(roi.box.expand(10.0).volume_ml for run in comparison.runs for roi in run.rois.values())
    assert float(two["box_ml_median"]) == pytest.approx(found[1], rel=1e-4)
    assert two["n_fallbacks"] == 1


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


def test_equal_arms_give_no_warning(comparison: Comparison) -> None:
    assert unequal_terms(comparison.runs) == []


@pytest.mark.parametrize(
    ("settings", "case_ids", "expected"),
    [
        ({"budget": {"steps": 9, "cpu_s": None}}, ("a",), "Different budget: one has 5 steps; two has 9 steps."),
        ({"fold": "1"}, ("a",), "Different folds: one has 0; two has 1."),
        ({"seed": 4}, ("a",), "Different seeds: one has 0; two has 4."),
        ({}, ("a", "b"), "Different cases: one has 1; two has 2."),
        ({"optimiser": {"learning_rate": 1.0}}, ("a",), "Different settings: optimiser.learning_rate"),
    ],
    ids=["budget", "folds", "seeds", "cases", "other settings"],
)
def test_unequal_terms_are_named(settings: dict[str, Any], case_ids: tuple[str, ...], expected: str) -> None:
    shared = {"budget": {"steps": 5, "cpu_s": None}, "optimiser": {"learning_rate": 0.1}}
    lines = unequal_terms([run_with("one", shared), run_with("two", shared | settings, case_ids)])
    assert len(lines) == 1
    assert lines[0].startswith(expected)


def test_what_an_arm_is_may_differ_without_a_warning() -> None:
    runs = [run_with("one", {}), run_with("two", {"network": {"name": "attention_unet"}, "roi": {"margin_mm": 3}})]
    assert unequal_terms(runs) == []


def test_failures_are_listed_with_their_reason(comparison: Comparison) -> None:
    failures = failure_rows(comparison.runs)
    assert ("single_stage_ag/fold0-seed0", "phantom_0002", "no prediction file; scored as the worst") in failures
    assert ("two_stage_unet/fold0-seed0", "phantom_0002", "box by fallback:nothing above the threshold") in failures


def test_subgroups_by_centre(comparison: Comparison) -> None:
    groups = {row["group"]: row["n_cases"] for row in subgroup_rows(comparison)}
    assert groups == {"centre north": 1, "centre south": 2}
