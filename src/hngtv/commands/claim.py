"""A folder that one command at a time writes into, always with the same settings."""

import errno
import fcntl
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hngtv.config import parse_settings, plain
from hngtv.errors import InputError
from hngtv.run_folder import RunFolder, make_folder, provenance, read_json, write_json

LOOK_S = 2.0
"""Longer than another process takes to find out whether the folder is in use. Source: our choice."""


@contextmanager
def claimed(root: Path, settings: Any, may_differ: Collection[str]) -> Iterator[RunFolder]:
    """Lock a run folder, log into it, and write the settings, or check that it holds the same ones.

    Args:
        root: Made if needed.
        settings: A settings group.
        may_differ: Keys that do not change what the folder holds.
    Raises:
        InputError: Another command is at work in it, or it was made with other settings.
    """
    from filelock import FileLock, Timeout

    from hngtv.commands.log import logging_to

    folder = RunFolder(make_folder(root))
    lock = FileLock(folder.lock, timeout=LOOK_S)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(f"{root} is in use by another run; choose another run_dir or wait for it") from None
    with lock, logging_to(folder.log):
        check_settings(folder.settings, settings, may_differ)
        if not folder.settings.is_file():
            write_json(folder.provenance, provenance())
            write_json(folder.settings, plain(settings))
        yield folder


def is_claimed(folder: RunFolder) -> bool:
    """Whether a command is at work in a run folder; on any machine, where they share a file system with locks."""
    if not folder.lock.is_file():
        return False
    with folder.lock.open() as file:
        try:  # a shared lock, so that those who only look are not in each other's way
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            return True
    return False


def check_settings(path: Path, settings: Any, may_differ: Collection[str]) -> None:
    """Raise InputError if a file keeps other settings; those that it does not have yet are as by default."""
    if not path.is_file():
        return
    found, wanted = read_json(path), plain(settings)
    with suppress(InputError):
        found = plain(parse_settings(type(settings), found))
    changed = [key for key in wanted if key not in may_differ and found.get(key) != wanted[key]]
    if changed:
        raise InputError(
            f"{path.parent} was made with other settings ({', '.join(changed)} differ); choose another folder, or "
            "delete this one"
        )
