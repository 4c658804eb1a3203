"""`hngtv search`: validation cases only, killed and continued, shared, and refused before the first trial."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hngtv.cases.folds import make_folds
from hngtv.commands.entry import BAD_INPUT, CASES_FAILED, DONE, compose, run_command
from hngtv.commands.status import last_status, recorded
from hngtv.commands.study import SearchStudy
from hngtv.config import RunSettings, SearchSettings, parse_settings
from hngtv.errors import PrunedError
from hngtv.run_folder import RunFolder, read_csv, read_json
from tests.tiny_cases import write_tiny_cohort
from tests.tiny_run import tiny_run

PROGRAM = "import sys; from hngtv.commands.entry import run_command; sys.exit(run_command(sys.argv[1:]))"


def search(root: Path, folder: Path, *more: str, n_trials: int = 3) -> list[str]:
    # So few steps reach no high probability.
    small = tiny_run(root, folder, "single_stage_ag", budget__steps=8, inference__threshold=0.05)
    words = [word for word in small if not word.startswith("run_dir=")]
    settings = [f"out={folder / 'search'}", f"n_trials={n_trials}", "n_startup_trials=1", "n_validation_folds=2"]
    return ["search", *words[1:], *settings, *more]


def rows_of(folder: Path) -> list[dict[str, str]]:
    return read_csv(folder / "search" / "trials.csv", ("trial", "state", "value"))


def values_of(folder: Path) -> list[tuple[str, ...]]:
    """Settings and value of each trial that was not killed, in their order."""
    dropped = ("trial", "seconds", "run_dir", "reason")
    rows = [row for row in rows_of(folder) if row["state"] != "killed"]
    return [tuple(value for name, value in row.items() if name not in dropped) for row in rows]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cohort")
    write_tiny_cohort(root, 8)
    return root


@pytest.fixture(scope="module")
def searched(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("searched")
    assert run_command(search(cohort, folder)) == DONE
    return folder


def test_each_trial_is_a_run_on_validation_cases(searched: Path) -> None:
    folds = make_folds([(f"tiny_{i:02d}", ("north", "south")[i % 2]) for i in range(8)], 2, 0)
    rows = rows_of(searched)
    assert max(float(row["value"] or 0) for row in rows) > 0
    assert [row["trial"] for row in rows] == ["0", "1", "2"]
    assert {row["state"] for row in rows} <= {"done", "pruned"}
    for row in rows:
        run = searched / "search" / row["run_dir"]
        settings = read_json(run / "settings.json")
        assert settings["optimiser"]["learning_rate"] == float(row["optimiser.learning_rate"])
        if row["state"] != "done":
            continue
        scores = [score for score in read_csv(run / "scores.csv", ("case_id",)) if score["class_name"] == "GTV"]
        validated = {score["case_id"] for score in scores}
        assert {score["fold"] for score in scores} == {"0-validation"}
        assert len(validated) == 2
        assert not validated & {case_id for case_id, fold in folds.items() if fold == 0}, "a test case was looked at"
        assert float(row["value"]) == pytest.approx(sum(float(score["dice"]) for score in scores) / len(scores))
        trained_on = {roi["case_id"] for roi in read_csv(run / "rois.csv", ("case_id",))} - validated
        assert trained_on == {case_id for case_id, fold in folds.items() if fold == 1} - validated
        assert (run / "costs.json").is_file()
    assert len(read_csv(searched / "search" / "results.csv", ("status",))) == 3


def test_best_settings_compose(searched: Path) -> None:
    done = [row for row in rows_of(searched) if row["state"] == "done"]
    best = max(done, key=lambda row: float(row["value"]))
    lines = (searched / "search" / "best.yaml").read_text().splitlines()
    assert f"trial: trial_{int(best['trial']):03d}" in lines
    overrides = [json.loads(line.removeprefix("  - ")) for line in lines if line.startswith("  - ")]
    settings = parse_settings(RunSettings, compose("run", ["run_dir=r", "data.root=c", *overrides]))
    assert settings.optimiser.learning_rate == float(best["optimiser.learning_rate"])
    assert settings.loss.cross_entropy_weight == float(best["loss.cross_entropy_weight"])


def test_again_it_does_nothing_and_fewer_or_other_trials_are_refused(
    searched: Path, cohort: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = values_of(searched)
    assert run_command(search(cohort, searched)) == DONE
    assert values_of(searched) == before
    capsys.readouterr()
    assert run_command(search(cohort, searched, n_trials=2)) == BAD_INPUT
    assert "has 3 finished trials already, but n_trials is 2; set n_trials=3 or more" in capsys.readouterr().err
    assert run_command(search(cohort, searched, "roi.margin_mm=3")) == BAD_INPUT
    assert "other settings (roi differ)" in capsys.readouterr().err


def test_killed_and_shared_search_ends_as_the_unbroken_one(searched: Path, cohort: Path, tmp_path: Path) -> None:
    words = search(cohort, tmp_path, f"work_dir={searched / 'work'}", "trainer.checkpoint_every_s=0.001")
    command = [sys.executable, "-c", PROGRAM, *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (tmp_path / "search/trials/trial_000/fine/last.ckpt").exists():
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline, "no checkpoint in 120 s"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with (tmp_path / "search/journal.log").open("a") as journal:
        journal.write('{"torn')
    assert subprocess.run(command, capture_output=True, check=False).returncode == DONE
    states = [row["state"] for row in rows_of(tmp_path)]
    assert states[0] == "killed"
    assert not (tmp_path / "search/trials/trial_000").exists()
    starts = re.findall(r"training from step (\d+)", (tmp_path / "search/trials/trial_001/log.txt").read_text())
    assert [int(step) > 0 for step in starts] == [False, True]
    assert values_of(tmp_path) == values_of(searched)


def study_of(root: Path, *more: str) -> SearchStudy:
    words = ["experiment=single_stage_ag", "data.root=c", f"out={root}", "n_startup_trials=1", *more]
    return SearchStudy(parse_settings(SearchSettings, compose("search", words)))


@pytest.mark.parametrize(("metric", "better"), [("dice", 0.9), ("hd95_mm", 5.0)])
def test_a_hopeless_trial_is_pruned_after_the_warm_up(metric: str, better: float, tmp_path: Path) -> None:
    study = study_of(tmp_path, f"metric={metric}")
    for _ in range(2):
        trial = study.next_trial()
        assert trial is not None
        for number in range(3):
            study.report(trial, number, 0.8)
        study.complete(trial, better)
    trial = study.next_trial()
    assert trial is not None
    study.report(trial, 0, 0.1)
    with pytest.raises(PrunedError, match=r"Dice 0\.100 after 0\.5 of the training"):
        study.report(trial, 1, 0.1)
    study.prune(trial)
    study.write_tables()
    states = [row["state"] for row in read_csv(tmp_path / "trials.csv", ("state",))]
    assert states == ["done", "done", "pruned"]


def test_a_pruned_trial_is_recorded_as_done(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(PrunedError), recorded(folder):
        raise PrunedError("pruned: Dice 0.1")
    status = last_status(folder)
    assert (status.status, status.exit_status, status.reason) == ("done", DONE, "pruned: Dice 0.1")


def test_a_trial_killed_after_its_training_keeps_what_it_told(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    killed = study_of(tmp_path).next_trial()
    assert killed is not None
    killed.report(0.8, 0)
    study = study_of(tmp_path)
    again = study.next_trial()
    assert again is not None
    study.report(again, 0, 0.8)  # where the training goes on from a checkpoint
    study.complete(again, 0.9)
    study.write_tables()
    rows = read_csv(tmp_path / "trials.csv", ("state",))
    assert [(row["state"], row["dice_at_0.25"]) for row in rows] == [("killed", "0.8"), ("done", "0.8")]
    assert not [warning for warning in recwarn if "ignored" in str(warning.message)]


def test_a_kill_while_a_trial_is_lined_up_does_not_try_it_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of(tmp_path, "n_trials=3")
    assert study.next_trial() is not None
    monkeypatch.setattr(study.study, "tell", _stop)
    with pytest.raises(KeyboardInterrupt):
        study.next_trial()
    assert study_of(tmp_path, "n_trials=3").next_trial() is not None
    assert [trial.state.name for trial in study.study.get_trials()] == ["FAIL", "RUNNING"]


def _stop(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_smaller_distance_is_better(tmp_path: Path) -> None:
    study = study_of(tmp_path, "metric=hd95_mm")
    for value in (9.0, 4.0, 6.0):
        trial = study.next_trial()
        assert trial is not None
        study.complete(trial, value)
    assert "trial_001: hd95_mm of GTV 4.0000" in study.summary()


def test_two_commands_draw_different_trials_and_no_more_than_asked_for(tmp_path: Path) -> None:
    first, second = study_of(tmp_path, "n_trials=3"), study_of(tmp_path, "n_trials=3")
    drawn = []
    for study in (first, second, first):
        trial = study.next_trial()
        assert trial is not None
        study.folder(trial.number).root.mkdir(parents=True)
        drawn.append(trial.params["optimiser.learning_rate"])
        study.complete(trial, 0.5)
    assert len(set(drawn)) == 3
    assert second.next_trial() is None


def test_settings_that_do_not_go_together_fail_their_trial_alone(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = ["+space.loss.cross_entropy_weight.choices=[0]", "+space.loss.dice_weight.choices=[0]"]
    assert run_command(search(cohort, tmp_path, *weights, n_trials=2)) == CASES_FAILED
    assert "trial_001 failed: settings: loss: dice_weight and cross_entropy_weight" in capsys.readouterr().err
    assert [row["state"] for row in rows_of(tmp_path)] == ["failed", "failed"]
    assert not (tmp_path / "search" / "best.yaml").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["+space.optimiser.lerning_rate={low:1,high:2}"],
            "unknown key optimiser.lerning_rate; did you mean",
        ),
        (["space.roi.foreground_share.high=2"], "space.roi.foreground_share allows 2.0, but roi.foreground_share"),
        (["space.optimiser.learning_rate.low=1"], "space.optimiser.learning_rate needs low < high"),
        (["+space.network.norm.choices=[group,bach]"], "space.network.norm allows 'bach', but network.norm"),
        (["+space.network.norm={low:0,high:1}"], "space.network.norm allows"),
        (["+space.seed={low:0,high:9}"], "space.seed is the same for all trials"),
        (["+space.network.n_gates.choices=3"], "space.network.n_gates.choices is 3; expected a list"),
        (["+space.network.n_gates={low:1,high:2,step:0}"], "space.network.n_gates needs step > 0"),
        (["+space.loss.dice_weight={low:1,high:2,step:-1}"], "space.loss.dice_weight needs step > 0"),
        (["+space.network.n_gates={low:1,high:2,step:0.5}"], "space.network.n_gates takes whole numbers"),
        (["+space.network.n_gates={low:1.2,high:1.9}"], "space.network.n_gates takes whole numbers"),
        (["+space.network.n_gates=3"], "space.network.n_gates is 3; expected a range"),
        (["space={}", "space.loss=null", "space.optimiser=null", "space.roi=null"], "space is empty"),
        (["moments=[0.5,0.25]"], "moments must rise"),
        (["moments=[1.5]"], "moments"),
        (["trainer=ddp", "optimiser.batch_size=2"], "a trial trains in one process"),
        (["metric=dise"], "metric"),
    ],
)
def test_a_mistake_is_told_before_the_first_trial(
    words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["search", "experiment=single_stage_ag", "data.root=c", f"out={tmp_path / 'out'}", *words]
    assert run_command(command) == BAD_INPUT
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1, error
    assert not (tmp_path / "out").exists()
