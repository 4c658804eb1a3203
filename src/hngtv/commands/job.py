"""One job of a sweep: `hngtv run` in a process of its own, so that a crash or a kill ends nothing but the job.

    python -P -m hngtv.commands.job run experiment=two_stage_ag fold=0 run_dir=DIR ...

Started so, a run also ends when the process that started it does.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from hngtv.commands.claim import is_claimed
from hngtv.commands.entry import DONE, INTERRUPTED, main
from hngtv.commands.results import write_results
from hngtv.commands.status import KILLED, Status, ended, last_status, read_status, write_status
from hngtv.run_folder import RunFolder

PROGRAM = ("-P", "-m", "hngtv.commands.job", "run")
"""What Python is to run. -P: modules that lie in the user's folder by chance are not imported."""
POLL_S = 0.5
GRACE_S = 30.0
"""For a job that is asked to stop; then it is made to. Source: our choice."""
STOPPING = threading.Event()
"""Set when the sweep is to stop: jobs at work are ended, and no other begins."""


@dataclass(frozen=True)
class Job:
    """A run of a sweep.

    Attributes:
        arm: Its name, which tells it apart from the other arms of the sweep.
        overrides: Settings of `hngtv run`, the run folder among them.
        root: The sweep folder; absolute, as all paths here.
        run_dir: The run folder.
        cwd: What relative paths in the overrides are relative to.
        error_budget: Whether it is not finished before a run that was asked for its error budget has ended.
        asked: When the command that wants it began, seconds since the epoch.
    """

    arm: str
    fold: int | str
    seed: int
    overrides: tuple[str, ...]
    root: Path
    run_dir: Path
    cwd: Path
    error_budget: bool = False
    asked: float = field(default_factory=time.time)
    program: tuple[str, ...] = field(default_factory=lambda: PROGRAM)

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.run_dir)

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do."""
        status = read_status(self.folder)
        return status.is_finished and (status.error_budget or not self.error_budget)

    def __str__(self) -> str:
        return f"{self.arm} fold {self.fold} seed {self.seed}"


def run_job(job: Job, wait: bool) -> bool:
    """Run a job to its end, whatever that is, in a child process; its run folder then tells how it went.

    Args:
        job: One that is finished is left alone.
        wait: What to do while another process works on it: wait for its end, or leave it.
    Returns:
        False if it was left to another process.
    """
    from filelock import FileLock, Timeout

    while not STOPPING.is_set():
        with suppress(Timeout), FileLock(job.folder.job_lock, timeout=0):
            is_free = not is_claimed(job.folder)
            if is_free and (job.is_finished or _failed_meanwhile(job, wait) or _run_child(job)):
                return True
        if not wait:
            return False
        time.sleep(POLL_S)
    return True


def _failed_meanwhile(job: Job, was_taken: bool) -> bool:
    """Whether another command ran the job since this one began, and it did not end well; once is enough."""
    status = read_status(job.folder)
    if status.exit_status in (None, DONE, INTERRUPTED):
        return False
    return was_taken or (status.started or 0.0) + (status.seconds or 0.0) > job.asked


def _run_child(job: Job) -> bool:
    """Returns False if the child was refused, as a command that is no job is at work in the run folder."""
    folder, started = job.folder, time.time()
    with folder.output.open("ab") as output:
        said_before = output.tell()
        process = subprocess.Popen(
            [sys.executable, *job.program, *job.overrides],
            stdin=subprocess.PIPE,  # closes when this process ends, however it does
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=job.cwd,
            start_new_session=True,  # Ctrl-C reaches the sweep alone, which passes it on once
        )
    with process:
        try:
            while process.poll() is None and not STOPPING.is_set() and last_status(folder).pid != process.pid:
                time.sleep(POLL_S / 5)
            write_results(job.root)
            while process.poll() is None and not STOPPING.is_set():
                _wait(process, POLL_S)
        finally:
            if process.poll() is None:
                process.terminate()
                if not _wait(process, GRACE_S):
                    process.kill()
    with folder.output.open("rb") as output:
        output.seek(said_before)
        said = output.read().decode(errors="replace").splitlines()
    start = Status("running", pid=process.pid, host=os.uname().nodename, started=started)
    had_the_folder = record_end(folder, start, process.returncode, said)
    write_results(job.root)
    return had_the_folder


def _wait(process: subprocess.Popen, seconds: float) -> bool:
    """Whether the process ended within these seconds."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def record_end(folder: RunFolder, start: Status, returncode: int, said: Sequence[str]) -> bool:
    """Write the status of a run whose process could not do so itself.

    Args:
        folder: Its folder.
        start: Process and time.
        returncode: As of `subprocess`: minus the signal for a process that was killed.
        said: Lines of its output.
    Returns:
        False if another process is at work in the folder.
    """
    if is_claimed(folder):
        return False
    last = last_status(folder)
    if last.status != "running" and (last.started or 0.0) >= (start.started or 0.0):
        return True
    if STOPPING.is_set():
        exit_status, reason = INTERRUPTED, "stopped; the same command continues"
    elif returncode < 0:
        name = signal.Signals(-returncode).name
        exit_status, reason = KILLED - returncode, f"killed by signal {-returncode} ({name})"
    else:
        lines = [line for line in said if line.strip() and not line.startswith("hngtv: this is a bug")]
        exit_status, reason = returncode, lines[-1].removeprefix("hngtv: ") if lines else "ended without a word"
    write_status(folder, ended(start, "failed", exit_status, reason))
    return True


def follow_parent() -> None:
    """End this process as SIGTERM does once the one that started it is gone, which closes its standard input."""

    def watch() -> None:
        os.read(0, 1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_S)
        os._exit(KILLED + signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    follow_parent()
    main()
