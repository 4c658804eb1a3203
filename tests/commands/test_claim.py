"""A folder in use is told from one that others only look at."""

import fcntl
from pathlib import Path

from filelock import FileLock

from hngtv.commands.claim import is_claimed
from hngtv.run_folder import RunFolder


def test_a_command_at_work_is_seen_and_others_who_look_are_not(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert not is_claimed(folder)
    with FileLock(folder.lock):
        assert is_claimed(folder)
    assert not is_claimed(folder)
    with folder.lock.open() as other:
        fcntl.flock(other, fcntl.LOCK_SH)  # what a look holds for a moment
        assert not is_claimed(folder)
