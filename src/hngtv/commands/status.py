"""What became of a run: `status.json` in its folder, written by the run, or by its sweep where it was killed."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Literal

from hngtv.commands.claim import is_claimed
from hngtv.commands.entry import BAD_INPUT, BUG, CASES_FAILED, DONE, INTERRUPTED
from hngtv.errors import CasesFailedError, InputError, PrunedError
from hngtv.run_folder import RunFolder, read_json, write_json

KILLED = 128
"""A process that a signal ended has this plus the signal, as in a shell."""
MAX_REASON = 300
"""Characters of a reason. Source: our choice."""

State = Literal["waiting", "running", "done", "failed"]


@dataclass(frozen=True)
class Status:
    """Of a run.

    Attributes:
        status: "done" also where some cases failed; then exit_status and reason tell.
        reason: Why it is not simply done, or why a trial was pruned; empty otherwise.
        exit_status: Of the process; None while it runs, and where nobody saw it end.
        pid: Of the process, on its machine.
        seconds: From start to end of the last process that worked on it.
        error_budget: Whether that process was asked for the error budget.
    """

    status: State
    reason: str = ""
    exit_status: int | None = None
    pid: int | None = None
    host: str = ""
    started: float | None = None
    seconds: float | None = None
    error_budget: bool = False

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.exit_status == DONE


@contextmanager
def recorded(folder: RunFolder, error_budget: bool = False) -> Iterator[None]:
    """Keep `status.json` while the body runs in a claimed folder; what the body raises is recorded and raised again."""
    start = Status(
        "running", pid=os.getpid(), host=socket.gethostname(), started=time.time(), error_budget=error_budget
    )
    write_status(folder, start)
    try:
        yield
    except BaseException as error:
        state, exit_status, reason = _end_of(error)
        write_status(folder, ended(start, state, exit_status, reason))
        raise
    write_status(folder, ended(start, "done", DONE, ""))


def ended(start: Status, state: State, exit_status: int | None, reason: str) -> Status:
    """The status of a run that began as `start` and ends now."""
    seconds = None if start.started is None else round(time.time() - start.started, 1)
    words = " ".join(reason.split())[:MAX_REASON]
    return replace(start, status=state, exit_status=exit_status, reason=words, seconds=seconds)


def write_status(folder: RunFolder, status: Status) -> None:
    write_json(folder.status, asdict(status))


def last_status(folder: RunFolder) -> Status:
    """The last word of a run, which may not be true any more; "waiting" where it said none."""
    return Status(**read_json(folder.status)) if folder.status.is_file() else Status("waiting")


def read_status(folder: RunFolder) -> Status:
    """What became of a run; one that says it runs, but that nobody works on, was killed."""
    status = last_status(folder)
    if status.status == "waiting" and is_claimed(folder):
        return Status("running")
    if status.status == "running" and not is_claimed(folder):
        later = last_status(folder)  # it may have ended while we looked
        if later != status:
            return later
        return Status("failed", "killed, or its machine was lost", None, status.pid, status.host, status.started)
    return status


def _end_of(error: BaseException) -> tuple[State, int, str]:
    match error:
        case CasesFailedError():
            return "done", CASES_FAILED, str(error)
        case PrunedError():
            return "done", DONE, str(error)
        case InputError():
            return "failed", BAD_INPUT, str(error)
        case KeyboardInterrupt():
            return "failed", INTERRUPTED, "stopped; the same command continues"
        case _:
            return "failed", BUG, f"{type(error).__name__}: {error}"
