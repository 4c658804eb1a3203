"""`hngtv run -m`: the same command over all combinations of comma-separated values and of named sweeps.

All jobs are checked before the first one begins. Each runs in a process of its own; one that fails or is killed does
not stop the others, and the same command again runs what is missing. `results.csv` in the sweep folder has a row for
each job. Which engine runs the jobs, and how many at once, is the launcher's choice (`launch.py`).
"""

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hngtv.commands.claim import is_claimed
from hngtv.commands.job import GRACE_S, POLL_S, STOPPING, Job
from hngtv.commands.launch import Ended, check_engine, launch
from hngtv.commands.results import announce, mean_scores, write_results
from hngtv.commands.status import KILLED, Status, read_status
from hngtv.commands.sweep_jobs import build_jobs, read_words
from hngtv.config import LauncherSettings
from hngtv.run_folder import make_folder

UNKNOWN = KILLED + signal.SIGKILL
"""Exit status of a job that nobody saw end."""


def run_sweep(words: Sequence[str]) -> int:
    """Run the jobs that are not finished and return the worst exit status of all.

    Raises:
        InputError: A mistake in the settings of any job; none has begun then.
        KeyboardInterrupt: Stopped by Ctrl-C or SIGTERM, and the jobs at work with it.
    """
    sweep = read_words(words)
    jobs = build_jobs(sweep)
    check_engine(sweep.launcher)
    for job in jobs:
        announce(make_folder(job.run_dir) and job.folder, job.arm, job.fold, job.seed, job.overrides)
    results = write_results(sweep.root)
    missing = [job for job in jobs if not job.is_finished]
    print(f"{len(jobs)} jobs, {len(jobs) - len(missing)} of them finished: {results}", flush=True)
    try:
        run_jobs(missing, sweep.launcher, n_jobs=len(jobs))
    finally:
        write_results(sweep.root)
    return report(jobs)


def run_jobs(jobs: Sequence[Job], launcher: LauncherSettings, n_jobs: int) -> None:
    """Run jobs and print a line as each ends; those that another process is at work on are waited for at the end.

    Raises:
        KeyboardInterrupt: Stopped.
    """
    counter = iter(range(n_jobs - len(jobs) + 1, n_jobs + 1))
    with _stopped_by_signals():
        left = list(_tell(launch(jobs, launcher, wait=False), counter, n_jobs)) if jobs else []
        if left:
            print(f"waiting for {len(left)} job(s) that another command is at work on", flush=True)
            list(_tell(launch(left, launcher, wait=True), counter, n_jobs))
        if STOPPING.is_set():
            _wait_for_end(jobs)
            raise KeyboardInterrupt


def _wait_for_end(jobs: Sequence[Job]) -> None:
    """Wait for jobs that an engine was asked to stop, up to `GRACE_S`."""
    deadline = time.monotonic() + GRACE_S
    while any(is_claimed(job.folder) for job in jobs) and time.monotonic() < deadline:
        time.sleep(POLL_S)


def report(jobs: Sequence[Job]) -> int:
    """List what is not simply done, and return the worst exit status."""
    statuses = [(job, read_status(job.folder)) for job in jobs]
    for job, status in statuses:
        if not status.is_finished:
            print(f"{job}: {status.status}, {status.reason or 'no reason given'}; see {job.folder.output}")
    return max(UNKNOWN if status.exit_status is None else status.exit_status for _, status in statuses)


def _tell(ended: Iterator[Ended], counter: Iterator[int], n_jobs: int) -> Iterator[Job]:
    """Print a line for each job that ended; yields those that were left to other processes."""
    for job, was_ours in ended:
        if not was_ours:
            yield job
        elif not STOPPING.is_set():
            print(f"[{next(counter)}/{n_jobs}] {job}: {_in_words(job, read_status(job.folder))}", flush=True)


def _in_words(job: Job, status: Status) -> str:
    dice = mean_scores(job.folder).get("GTV_dice")
    words = status.status + ("" if status.seconds is None else f" in {_time_in_words(status.seconds)}")
    words += "" if dice is None else f", Dice {dice:.2f}"
    return words + (f"; {status.reason}" if status.reason else "")


def _time_in_words(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Ctrl-C and SIGTERM set `STOPPING`, so that the jobs at work are ended in good order."""

    def stop(*_: Any) -> None:
        STOPPING.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        STOPPING.clear()
