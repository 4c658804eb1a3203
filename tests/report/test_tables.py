import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from hngtv.commands.compare import build_comparison
from hngtv.commands.entry import compose, conf_folder
from hngtv.config import RunSettings, parse_settings, plain
from hngtv.localise.roi_table import read_rois, write_rois
from hngtv.metrics.score import CaseScore
from hngtv.report.runs import Run, find_runs, read_run
from hngtv.report.tables import (
    TABLE_COLUMNS,
    Comparison,
    box_cells,
    box_points,
    failure_rows,
    score_problem,
    shown_classes,
    subgroup_rows,
    table_rows,
    unequal_terms,
)
from hngtv.run_folder import RunFolder


@pytest.fixture(scope="module")
def comparison(fake_runs: Path) -> Comparison:
    return build_comparison(*find_runs(fake_runs), reference=None, metric="dice")


def score(case_id: str, class_name: str, volume_ml: float, **changes: Any) -> CaseScore:
    row = CaseScore(case_id, "x", "0", 0, class_name, 0.5, 0.5, 0.5, 5.0, 2.0, 0.5, volume_ml, volume_ml)
    return dataclasses.replace(row, **changes)


def run_with(arm: str, settings: Mapping[str, Any], case_ids: tuple[str, ...] = ("a",)) -> Run:
    return run_of(arm, [score(case_id, "GTV", 5.0) for case_id in case_ids], settings)


def run_of(arm: str, rows: Sequence[CaseScore], settings: Mapping[str, Any]) -> Run:
    tree = {"arm": arm, "fold": "0", "seed": 0, "localiser": {"name": "whole"}, "network": {"name": "unet"}}
    run = Run(arm, RunFolder(Path(arm)), tree | dict(settings), ())
    scores = tuple(dataclasses.replace(row, arm=arm, fold=run.fold, seed=run.seed) for row in rows)
    return dataclasses.replace(run, scores=scores)


def outlined(case_id: str, dice: float, volume_ml: float, target_volume_ml: float) -> CaseScore:
    return score(case_id, "GTV", volume_ml, dice=dice, target_volume_ml=target_volume_ml)


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


def test_subgroups_average_the_rows_of_a_case_first_and_count_a_missing_one_as_0(uneven: Comparison) -> None:
    *_, largest = subgroup_rows(uneven)
    assert largest["group"].startswith("largest third")
    assert largest["n_cases"] == 2
    assert largest["mean"] == pytest.approx({"one": (0.2 + 0.8) / 2, "two": 0.0})


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
        ({"budget": {"steps": 9}}, ("a",), "Different budget: one has 5 steps; two has 9 steps (fold 0 seed 0)."),
        ({"fold": "1"}, ("a",), "Different folds or seeds: one lacks fold 1 seed 0; two lacks fold 0 seed 0."),
        ({"seed": 4}, ("a",), "Different folds or seeds: one lacks fold 0 seed 4; two lacks fold 0 seed 0."),
        ({}, ("a", "b"), "Different cases: one has 1; two has 2 (fold 0 seed 0)."),
        ({"optimiser": {"learning_rate": 1.0}}, ("a",), "Different settings: optimiser.learning_rate"),
        ({"network": {"name": "unet", "widths": [8]}}, ("a",), "Different settings: network.widths"),
        ({"roi": {"crop_voxels": [8, 8, 8]}}, ("a",), "Different settings: roi.crop_voxels"),
        ({"inference": {"threshold": 0.3}}, ("a",), "Different settings: inference.threshold"),
    ],
    ids=["budget", "folds", "seeds", "cases", "optimiser", "widths", "crop size", "inference"],
)
def test_unequal_terms_are_named(settings: dict[str, Any], case_ids: tuple[str, ...], expected: str) -> None:
    shared = {"budget": {"steps": 5, "cpu_s": None}, "optimiser": {"learning_rate": 0.1}}
    lines = unequal_terms([run_with("one", shared), run_with("two", shared | settings, case_ids)])
    assert len(lines) == 1
    assert lines[0].startswith(expected)


def test_budget_and_cases_are_compared_fold_by_fold() -> None:
    folds: list[dict[str, Any]] = [{"fold": fold, "budget": {"steps": steps}} for fold, steps in (("0", 5), ("1", 9))]
    crossed: list[dict[str, Any]] = [{"fold": "0", "budget": {"steps": 9}}, {"fold": "1", "budget": {"steps": 5}}]
    one = [run_with("one", settings, (case,)) for settings, case in zip(folds, "ab", strict=True)]
    assert unequal_terms([*one, *(run_with("two", s, (c,)) for s, c in zip(folds, "ab", strict=True))]) == []
    assert unequal_terms([*one, *(run_with("two", s, (c,)) for s, c in zip(crossed, "ba", strict=True))]) == [
        "Different budget: one has 5 steps; two has 9 steps (fold 0 seed 0 and 1 more).",
        "Different cases: one has 1; two has 1 (fold 0 seed 0 and 1 more).",
    ]


def test_the_same_folds_and_seeds_in_other_pairs_are_not_the_same() -> None:
    places = {"one": (("0", 0), ("1", 1)), "two": (("0", 1), ("1", 0))}
    runs = [run_with(arm, {"fold": f, "seed": s}) for arm, pairs in places.items() for f, s in pairs]
    assert unequal_terms(runs)[0].startswith("Different folds or seeds: one lacks fold 0 seed 1, fold 1 seed 0; two")


def test_the_shipped_arms_are_equal() -> None:
    """All but the published system, which is trained on its own terms."""
    names = sorted({file.stem for file in (conf_folder() / "experiment").glob("*.yaml")} - {"zhu2020"})
    trees = [compose("run", [f"experiment={name}", f"run_dir=runs/{name}", "data.root=cases"]) for name in names]
    settings = [plain(parse_settings(RunSettings, tree)) for tree in trees]
    assert len(settings) == 6
    assert unequal_terms([run_with(tree["arm"], tree) for tree in settings]) == []


def test_what_an_arm_is_may_differ_without_a_warning() -> None:
    runs = [run_with("one", {}), run_with("two", {"network": {"name": "attention_unet"}, "roi": {"margin_mm": 3}})]
    assert unequal_terms(runs) == []


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


def test_subgroups_by_centre(comparison: Comparison) -> None:
    groups = {row["group"]: row["n_cases"] for row in subgroup_rows(comparison)}
    assert groups == {"centre north": 1, "centre south": 2}
