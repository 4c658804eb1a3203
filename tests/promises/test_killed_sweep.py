"""A sweep killed with SIGKILL and started again has the scores of an unbroken one; see also `tests/kill_sweep.py`."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hngtv.commands.entry import DONE, run_command
from hngtv.commands.results import announce, write_results
from hngtv.run_folder import RunFolder, read_csv, read_json
from tests.kill_sweep import Sweep, scores_of
from tests.tiny_cases import write_tiny_cohort
from tests.tiny_run import tiny_run

ARM = "single_stage_ag"


def words(root: Path, name: str, **changes: object) -> list[str]:
    """A tiny run that lasts long enough to be killed."""
    changes |= {"budget__steps": 60, "trainer__checkpoint_every_s": 0.01, "trainer__deterministic": "true"}
    return tiny_run(root / "cases", root / name, ARM, **changes)


def unbroken_sweep(root: Path) -> Path:
    """The jobs run here, one by one, which spares the imports."""
    folder = root / "unbroken"
    for fold in (0, 1):
        run = RunFolder(folder / f"{ARM}/fold_{fold}_seed_0")
        assert run_command(words(root, "unbroken", fold=fold, run_dir=run.root)) == DONE
        announce(run, ARM, fold, 0, [])
    write_results(folder)
    return folder


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 600
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_killed_sweep_ends_with_the_scores_of_an_unbroken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_tiny_cohort(tmp_path / "cases", 4)
    unbroken, killed = unbroken_sweep(tmp_path), tmp_path / "killed"
    command = [word for word in words(tmp_path, "killed") if not word.startswith("run_dir=")]
    command += ["-m", "fold=0,1", f"hydra.sweep.dir={killed}"]
    checkpoints = [killed / f"{ARM}/fold_{fold}_seed_0/fine/last.ckpt" for fold in (0, 1)]

    sweep = Sweep(command, killed)
    wait_until(checkpoints[0].exists)
    sweep.kill(with_sweep=False)
    wait_until(checkpoints[1].exists)
    status = {row["fold"]: (row["status"], row["reason"]) for row in read_csv(killed / "results.csv", ["fold"])}
    assert status["0"] == ("failed", "killed by signal 9 (SIGKILL)")
    assert status["1"] == ("running", "")
    sweep.kill(with_sweep=True)
    assert sweep.process.returncode == -signal.SIGKILL

    again = Sweep(command, killed)
    assert again.process.wait(600) == DONE
    assert scores_of(killed) == scores_of(unbroken)
    assert [row[3] for row in scores_of(killed)] == ["done", "done"]
    assert not {"multirun", "outputs"} & {path.name for path in tmp_path.iterdir()}
    for fold in (0, 1):
        log = (killed / f"{ARM}/fold_{fold}_seed_0/log.txt").read_text()
        assert log.count("training from step 0,") == 1, "the second time it went on"
        costs = [read_json(root / f"{ARM}/fold_{fold}_seed_0/costs.json") for root in (killed, unbroken)]
        assert costs[0].keys() == costs[1].keys()
        assert costs[0]["train_steps"] == costs[1]["train_steps"] == 60
        assert costs[0]["n_parameters"] == costs[1]["n_parameters"] > 0
        assert all(value > 0 for value in costs[0].values())
