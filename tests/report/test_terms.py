from pathlib import Path
from typing import Any

import pytest

from hngtv.commands.compare import build_comparison
from hngtv.commands.entry import compose, conf_folder
from hngtv.config import RunSettings, parse_settings, plain
from hngtv.report.runs import find_runs, read_run
from hngtv.report.tables import Comparison
from hngtv.report.terms import unequal_budgets, unequal_terms
from hngtv.run_folder import RunFolder, write_json
from tests.score_rows import run_with, write_sweep


@pytest.fixture(scope="module")
def comparison(fake_runs: Path) -> Comparison:
    return build_comparison(*find_runs(fake_runs), reference=None, metric="dice")


def test_equal_arms_give_no_warning(comparison: Comparison) -> None:
    assert unequal_terms(comparison.runs) == []


@pytest.mark.parametrize(
    ("settings", "case_ids", "expected"),
    [
        ({"budget": {"steps": 9}}, ("a",), "Different budget: one has 5 steps; two has 9 steps (fold 0)."),
        ({"fold": "1"}, ("a",), "Different folds or seeds: one lacks fold 1 seed 0; two lacks fold 0 seed 0."),
        ({"seed": 4}, ("a",), "Different folds or seeds: one lacks fold 0 seed 4; two lacks fold 0 seed 0."),
        ({}, ("a", "b"), "Different cases: one has 1; two has 2 (fold 0)."),
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
        "Different budget: one has 5 steps; two has 9 steps (fold 0 and 1 more).",
        "Different cases: one has 1; two has 1 (fold 0 and 1 more).",
    ]


def test_what_a_sweep_names_its_arms_by_is_their_own_choice() -> None:
    one, two = ({"network": {"name": "unet", "fusion": fusion}} for fusion in ("early", "stems"))
    assert unequal_terms([run_with("u network.fusion=early", one), run_with("u network.fusion=stems", two)]) == []
    assert unequal_terms([run_with("u", one), run_with("v", two)]) != []


def test_budgets_are_compared_between_seeds_too() -> None:
    one = run_with("one", {"fold": "0", "seed": 0, "budget": {"steps": 100}})
    two = run_with("two", {"fold": "0", "seed": 1, "budget": {"steps": 10_000}})
    assert unequal_budgets([one, two]) == ["Different budget: one has 100 steps; two has 10000 steps (fold 0)."]


def test_the_same_folds_and_seeds_in_other_pairs_are_not_the_same() -> None:
    places = {"one": (("0", 0), ("1", 1)), "two": (("0", 1), ("1", 0))}
    runs = [run_with(arm, {"fold": f, "seed": s}) for arm, pairs in places.items() for f, s in pairs]
    assert unequal_terms(runs)[0].startswith("Different folds or seeds: one lacks fold 0 seed 1, fold 1 seed 0; two")


def test_the_shipped_arms_are_equal() -> None:
    """All but the published system and the arm for whole scans, which are trained on their own terms."""
    own_terms = {"zhu2020", "two_stage_ag_long"}
    names = sorted({file.stem for file in (conf_folder() / "experiment").glob("*.yaml")} - own_terms)
    trees = [compose("run", [f"experiment={name}", f"run_dir=runs/{name}", "data.root=cases"]) for name in names]
    settings = [plain(parse_settings(RunSettings, tree)) for tree in trees]
    assert len(settings) == 6
    assert unequal_terms([run_with(tree["arm"], tree) for tree in settings]) == []


def test_what_an_arm_is_may_differ_without_a_warning() -> None:
    runs = [run_with("one", {}), run_with("two", {"network": {"name": "attention_unet"}, "roi": {"margin_mm": 3}})]
    assert unequal_terms(runs) == []


def test_budgets_within_the_tolerance_are_equal() -> None:
    runs = [run_with(arm, {"budget": {"steps": steps}}) for arm, steps in (("one", 100), ("two", 110))]
    assert unequal_budgets(runs) == []
    assert unequal_budgets(runs, tolerance=0.09) != []
    nothing = [run_with(arm, {}) for arm in ("one", "two")]
    assert unequal_budgets(nothing) == []
    assert unequal_budgets([*nothing[:1], *runs[1:]]) == [
        "Different budget: one has an unknown one; two has 110 steps (fold 0)."
    ]


def test_what_was_used_counts_more_than_what_was_given(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"single_stage_ag": 0.7, "two_stage_unet": 0.7}, n_cases=3)
    folders = [RunFolder(tmp_path / arm / "seed0") for arm in ("single_stage_ag", "two_stage_unet")]
    assert unequal_budgets([read_run(folder.root) for folder in folders]) == []
    write_json(folders[1].costs, {"train_cpu_s": 700.0, "train_steps": 50})
    assert unequal_budgets([read_run(folder.root) for folder in folders]) == [
        "Different budget: single_stage_ag has 600 s; two_stage_unet has 700 s (fold 0)."
    ]
    folders[1].costs.unlink()
    assert unequal_budgets([read_run(folder.root) for folder in folders]) == []


def test_steps_count_where_an_arm_was_given_no_seconds(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"single_stage_ag": 0.7, "two_stage_unet": 0.7}, n_cases=3)
    folder = RunFolder(tmp_path / "two_stage_unet" / "seed0")
    write_json(folder.costs, {"train_cpu_s": 700.0, "train_steps": 52})
    settings = dict(read_run(folder.root).settings)
    write_json(folder.settings, settings | {"budget": {"steps": 52, "cpu_s": None}})
    runs, _ = find_runs(tmp_path)
    assert unequal_budgets(runs) == []
    assert unequal_budgets(runs, tolerance=0.03)[0].startswith("Different budget: single_stage_ag has 50 steps; two")
