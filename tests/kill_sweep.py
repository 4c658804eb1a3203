"""A sweep that is killed again and again ends with the scores of an unbroken one, bit by bit.

    python -m tests.kill_sweep OUT [N_KILLS [STEPS]]

The whole of it: four arms on three folds of the demo's phantoms, killed at 10 random times. Takes hours on two cores;
the same command goes on with the unbroken sweep. The small one is in `tests/promises/test_killed_sweep.py`.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from hngtv.commands.entry import BAD_INPUT, DONE
from hngtv.commands.results import SCORE_COLUMNS
from hngtv.commands.status import read_status
from hngtv.run_folder import RunFolder, read_csv

PROGRAM = "import sys; from hngtv.commands.entry import main; main()"
FOLDS, SEED = "0,1,2", 0
MAX_STARTS = 5
"""After the last kill."""


class Sweep:
    """A sweep in a process of its own."""

    def __init__(self, words: Sequence[str], root: Path) -> None:
        self.root = root
        self.process = subprocess.Popen([sys.executable, "-c", PROGRAM, *words])

    def jobs_at_work(self) -> Iterator[int]:
        """Processes of jobs that somebody works on."""
        for path in self.root.glob("*/*/status.json"):
            status = read_status(RunFolder(path.parent))
            if status.status == "running" and status.pid is not None:
                yield status.pid

    def kill(self, with_sweep: bool) -> bool:
        """SIGKILL for the job at work, after the sweep itself if asked for; whether there was one."""
        jobs = list(self.jobs_at_work())
        if with_sweep:
            self.process.kill()
            self.process.wait()
        for pid in jobs:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return bool(jobs)

    def end(self) -> int:
        """Wait for its end; its exit status.

        Raises:
            RuntimeError: It was given bad input, which another start does not mend.
        """
        status = self.process.wait()
        if status == BAD_INPUT:
            raise RuntimeError(f"the sweep in {self.root} was refused; its output says why")
        return status


def scores_of(root: Path) -> list[list[str]]:
    """Job, status and scores of every row of a sweep's table."""
    names = ("arm", "fold", "seed", "status", "n_cases", *SCORE_COLUMNS)
    return [[row[name] for name in names] for row in read_csv(root / "results.csv", names)]


def walk_with_kills(words: Sequence[str], root: Path, pauses_s: Sequence[float], seed: int) -> int:
    """Kill a sweep, or its job alone, after each of these pauses, start it again, and let it end.

    Returns:
        Kills that met a job at work.
    """
    rng = random.Random(seed)
    sweep, n_met = Sweep(words, root), 0
    for pause_s in pauses_s:
        with contextlib.suppress(subprocess.TimeoutExpired):
            sweep.process.wait(pause_s)
        if sweep.process.poll() is None:
            n_met += sweep.kill(with_sweep=rng.random() < 0.5)
        if sweep.process.poll() is not None:
            sweep = Sweep(words, root)
    for _ in range(MAX_STARTS):  # jobs that were killed alone are missing still
        if sweep.end() == DONE:
            return n_met
        sweep = Sweep(words, root)
    raise RuntimeError(f"the sweep in {root} did not end well in {MAX_STARTS} more starts")


def main(out: Path, n_kills: int = 10, steps: int = 200) -> None:
    from hngtv.commands.entry import run_command

    cohort = out / "cohort"
    if not (cohort / "cases.csv").is_file():
        assert run_command(["phantom", f"out={cohort}", "n_cases=24"]) == 0

    def words(name: str) -> list[str]:
        return [
            "run", "-m", "sweep=arms", f"fold={FOLDS}", "data=phantom", f"data.root={cohort}", "data.n_folds=4",
            f"hydra.sweep.dir={out / name}", f"work_dir={out / name / 'work'}", f"budget.steps={steps}",
            "network.widths=[8,16,32,64]", "roi.crop_voxels=[32,32,32]", "augment=upright", "logger=csv",
            "trainer.deterministic=true", "trainer.checkpoint_every_s=5",
        ]  # fmt: skip

    if Sweep(words("unbroken"), out / "unbroken").end() != DONE:
        sys.exit("the unbroken sweep failed; its results.csv says why")
    took_s = sum(float(row["seconds"]) for row in read_csv(out / "unbroken" / "results.csv", ("seconds",)))
    rng = random.Random(SEED)
    pauses_s = [rng.uniform(0, 1.5 * took_s / n_kills) for _ in range(n_kills)]
    n_met = walk_with_kills(words("killed"), out / "killed", pauses_s, SEED)
    equal = scores_of(out / "unbroken") == scores_of(out / "killed")
    print(f"{n_met} of {n_kills} kills met a job at work; scores {'are bit-equal' if equal else 'DIFFER'}")
    sys.exit(not equal or n_met == 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), *map(int, sys.argv[2:]))
