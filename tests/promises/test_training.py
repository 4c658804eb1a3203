"""Promises about training: it learns, it repeats itself, it survives a kill, and it loses no case."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hngtv.commands.entry import BAD_INPUT, CASES_FAILED, DONE, INTERRUPTED, run_command
from hngtv.localise.roi_table import read_rois
from hngtv.volume.nifti import read_image
from tests.tiny_cases import rewrite, write_tiny_case, write_tiny_cohort
from tests.tiny_run import tiny_run


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cohort")
    write_tiny_cohort(root, 4)
    return root


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    stages = [path for path in folder.rglob("model.pt") if "work" not in path.parts]
    assert stages, f"no weights below {folder}"
    return {
        f"{path.relative_to(folder)}:{name}": value
        for path in sorted(stages)
        for name, value in torch.load(path, weights_only=True).items()
    }


def assert_equal_weights(first: Path, second: Path) -> None:
    one, other = weights_of(first), weights_of(second)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def dice_by_case(scores: Path) -> dict[str, float]:
    with scores.open(newline="") as stream:
        return {row["case_id"]: float(row["dice"]) for row in csv.DictReader(stream) if row["class_name"] == "GTV"}


def test_overfits_one_case(tmp_path: Path) -> None:
    write_tiny_case(tmp_path / "cases", "only", has_nodes=False)
    arguments = tiny_run(
        tmp_path / "cases", tmp_path, "single_stage_ag", fold="all", budget__steps=150, augment="none",
        optimiser__learning_rate=0.005, optimiser__ema_decay=0.9, roi__foreground_share=1,
        network__widths="[8, 16, 16]",
    )  # fmt: skip
    assert run_command(arguments) == DONE
    predicted = [
        "predict",
        f"model={tmp_path / 'run'}",
        f"cases={tmp_path / 'cases'}",
        f"out={tmp_path / 'out'}",
    ]
    assert run_command(predicted) == DONE
    target = read_image(tmp_path / "cases/only/gtv.nii.gz").values > 0
    mask = read_image(tmp_path / "out/only.nii.gz").values > 0
    assert 2 * (target & mask).sum() / (target.sum() + mask.sum()) > 0.9


def test_same_seed_gives_the_same_weights_and_another_seed_others(cohort: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert run_command(tiny_run(cohort, tmp_path / name, seed=seed)) == DONE
    assert_equal_weights(tmp_path / "a", tmp_path / "b")
    a, c = weights_of(tmp_path / "a"), weights_of(tmp_path / "c")
    assert any(not torch.equal(a[name], c[name]) for name in a)


LONG_ENOUGH_TO_KILL: dict[str, Any] = {"budget__steps": 60, "trainer__checkpoint_every_s": 0.01}


@pytest.fixture(scope="module")
def unbroken(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    assert run_command(tiny_run(cohort, folder, **LONG_ENOUGH_TO_KILL)) == DONE
    return folder


@pytest.mark.parametrize(
    ("stage", "how", "status"),
    [("coarse", signal.SIGKILL, -signal.SIGKILL), ("fine", signal.SIGKILL, -signal.SIGKILL),
     ("fine", signal.SIGTERM, INTERRUPTED), ("fine", signal.SIGINT, INTERRUPTED)],
)  # fmt: skip
def test_stopped_training_ends_where_the_unbroken_one_does(
    stage: str, how: signal.Signals, status: int, cohort: Path, unbroken: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "killed"
    checkpoints = folder / ("work/coarse/*/inner_1" if stage == "coarse" else "run/fine")
    program = "import sys; from hngtv.commands.entry import run_command; sys.exit(run_command(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", program, *tiny_run(cohort, folder, **LONG_ENOUGH_TO_KILL)], stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not list(folder.glob(str(checkpoints.relative_to(folder) / "last.ckpt"))):
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline, "no checkpoint in 120 s"
        time.sleep(0.01)
    process.send_signal(how)
    assert process.wait() == status
    assert not (folder / "run/scores.csv").exists()
    assert run_command(tiny_run(cohort, folder, **LONG_ENOUGH_TO_KILL)) == DONE
    assert_equal_weights(folder, unbroken)
    label = "coarse_1" if stage == "coarse" else "fine"
    starts = re.findall(rf"{label}: training from step (\d+)", (folder / "run/log.txt").read_text())
    assert [int(step) > 0 for step in starts] == [False, True]
    assert dice_by_case(folder / "run/scores.csv") == dice_by_case(unbroken / "run/scores.csv")


def test_stage_2_trains_on_boxes_of_models_that_never_saw_the_case(cohort: Path, tmp_path: Path) -> None:
    assert run_command(tiny_run(cohort, tmp_path)) == DONE
    rois = {roi.case_id: roi for roi in read_rois(tmp_path / "run/rois.csv")}
    assert sorted(rois) == [f"tiny_{i:02d}" for i in range(4)]
    tested = set(dice_by_case(tmp_path / "run/scores.csv"))
    assert {case_id for case_id, roi in rois.items() if roi.fold == "ensemble"} == tested
    assert {roi.fold for case_id, roi in rois.items() if case_id not in tested} == {"0", "1"}


def test_bad_case_is_named_and_the_others_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = write_tiny_cohort(tmp_path / "cases", 5)
    rewrite(cases[4].pet, lambda values: np.where(values > 1, np.nan, values))
    assert run_command(tiny_run(tmp_path / "cases", tmp_path, "single_stage_unet")) == CASES_FAILED
    error = capsys.readouterr().err
    assert "tiny_04" in error
    assert "NaN" in error
    assert len(dice_by_case(tmp_path / "run/scores.csv")) == 2


def test_empty_target_is_a_valid_case(tmp_path: Path) -> None:
    cases = write_tiny_cohort(tmp_path / "cases", 4)
    for case in cases[:2]:
        rewrite(case.target, np.zeros_like)
    assert run_command(tiny_run(tmp_path / "cases", tmp_path)) == DONE


def test_nothing_is_found_follows_on_empty(cohort: Path, tmp_path: Path) -> None:
    never: dict[str, Any] = {"localiser__thresholds": "[1.0]"}
    assert run_command(tiny_run(cohort, tmp_path / "rule", **never)) == DONE
    assert all(roi.reason.startswith("fallback:pet_rule") for roi in read_rois(tmp_path / "rule/run/rois.csv"))
    assert run_command(tiny_run(cohort, tmp_path / "fail", localiser__on_empty="fail", **never)) == BAD_INPUT


def test_other_settings_do_not_overwrite_a_run(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(tiny_run(cohort, tmp_path, "single_stage_ag")) == DONE
    before = (tmp_path / "run/scores.csv").read_bytes()
    assert run_command(tiny_run(cohort, tmp_path, "single_stage_ag", budget__steps=13)) == BAD_INPUT
    assert "budget" in capsys.readouterr().err
    assert (tmp_path / "run/scores.csv").read_bytes() == before


def test_seconds_become_steps_that_fit_the_budget(cohort: Path, tmp_path: Path) -> None:
    started = time.process_time()
    arguments = tiny_run(cohort, tmp_path, "single_stage_ag", budget__steps="null", budget__cpu_s=4)
    assert run_command(arguments) == DONE
    record = json.loads((tmp_path / "run/fine/training.json").read_text())
    assert record["cpu_s"] <= min(4.5, time.process_time() - started)
    assert record["steps"] > 0


def test_unwritable_run_folder_is_one_message(cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    assert run_command(tiny_run(cohort, tmp_path, run_dir=tmp_path / "file/run")) == BAD_INPUT
    assert capsys.readouterr().err.count("\n") == 1
    assert os.listdir(tmp_path) == ["file"]
