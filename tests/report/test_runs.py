from pathlib import Path
from typing import Any

import pytest

from hngtv.errors import InputError
from hngtv.metrics.score import CaseScore
from hngtv.report.runs import Run, describe_arm, find_runs, first_run, keep_shared_folds, read_run
from hngtv.report.scores import write_scores
from hngtv.run_folder import RunFolder, write_json


def score(case_id: str = "a", class_name: str = "GTV", dice: float = 0.5, **changes: Any) -> CaseScore:
    values = {"arm": "x", "fold": "0", "seed": 0, "precision": dice, "recall": dice, "hd95_mm": 5.0, "msd_mm": 2.0}
    values |= {"surface_dice_2mm": dice, "volume_ml": 10.0, "target_volume_ml": 12.0}
    return CaseScore(case_id=case_id, class_name=class_name, dice=dice, **(values | changes))


def write_run(folder: Path, arm: str = "single_stage_ag", fold: str = "0", seed: int = 0) -> RunFolder:
    run = RunFolder(folder)
    settings = {"arm": arm, "fold": fold, "seed": seed, "localiser": {"name": "whole"}, "network": {"name": "unet"}}
    write_json(run.settings, settings)
    write_scores(run.scores, [score()])
    return run


def test_scores_of_validation_cases_are_on_no_test_fold(tmp_path: Path) -> None:
    run = write_run(tmp_path / "trial")
    write_scores(run.scores, [score(fold="0-validation")])
    found = read_run(run.root)
    assert found.fold == found.scores[0].fold == "0-validation"
    with pytest.raises(InputError, match="share no fold"):
        keep_shared_folds([found, read_run(write_run(tmp_path / "b", arm="other").root)])


def test_finds_runs_at_any_depth_and_names_them_by_their_folder(tmp_path: Path) -> None:
    write_run(tmp_path / "b" / "c", seed=1)
    write_run(tmp_path / "a")
    runs, unfinished = find_runs(tmp_path)
    assert [run.name for run in runs] == ["a", "b/c"]
    assert unfinished == []


def test_rows_take_arm_fold_and_seed_of_the_settings(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "a", arm="two", fold="3", seed=4).root)
    assert [(row.arm, row.fold, row.seed) for row in run.scores] == [("two", "3", 4)]


def test_a_run_without_scores_is_named_as_unfinished(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", seed=1).scores.unlink()
    runs, unfinished = find_runs(tmp_path)
    assert ([run.name for run in runs], unfinished) == (["a"], ["b"])


def test_no_run_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finished run below"):
        find_runs(tmp_path)
    with pytest.raises(InputError, match="not a folder"):
        find_runs(tmp_path / "nowhere")
    with pytest.raises(InputError, match="hngtv demo"):
        first_run(tmp_path)


def test_the_same_run_twice_is_an_input_error_that_names_both(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "b")
    with pytest.raises(InputError, match="a and b"):
        find_runs(tmp_path)


def test_settings_of_something_else_are_an_input_error(tmp_path: Path) -> None:
    write_json(write_run(tmp_path).settings, {"arm": "x"})
    with pytest.raises(InputError, match="lacks fold, seed, localiser, network"):
        read_run(tmp_path)


def test_compares_only_on_folds_that_every_arm_has(tmp_path: Path) -> None:
    for arm, fold in (("a", "0"), ("a", "1"), ("b", "1"), ("b", "2")):
        write_run(tmp_path / f"{arm}{fold}", arm, fold)
    kept, left_out = keep_shared_folds(find_runs(tmp_path)[0])
    assert [run.name for run in kept] == ["a1", "b1"]
    assert [run.name for run in left_out] == ["a0", "b2"]


def test_arms_without_a_common_fold_are_an_input_error(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "a", "0")
    write_run(tmp_path / "b", "b", "1")
    with pytest.raises(InputError, match="share no fold"):
        keep_shared_folds(find_runs(tmp_path)[0])


def test_reads_cases_boxes_and_training_of_a_run(fake_runs: Path) -> None:
    run = read_run(fake_runs / "two_stage_unet" / "fold0-seed0")
    assert set(run.cases) == set(run.rois) == set(run.case_ids)
    assert run.training == {"steps": 80.0, "cpu_s": 25.0, "n_parameters": 90_000.0}
    assert describe_arm(run) == "crop at a box found by a coarse network, no gates"


def test_a_single_stage_run_has_no_box(fake_runs: Path) -> None:
    run: Run = read_run(fake_runs / "single_stage_ag" / "fold0-seed0")
    assert run.rois == {}
    assert describe_arm(run) == "whole image, attention gates"
