"""A folder that one command at a time writes into, always with the same settings."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hngtv.config import plain
from hngtv.errors import InputError
from hngtv.run_folder import RunFolder, make_folder, provenance, read_json, write_json


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
    lock = FileLock(folder.root / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(f"{root} is in use by another run; choose another run_dir or wait for it") from None
    with lock, logging_to(folder.log):
        _write_or_check(folder, plain(settings), may_differ)
        yield folder


def _write_or_check(folder: RunFolder, wanted: dict[str, Any], may_differ: Collection[str]) -> None:
    if folder.settings.is_file():
        found = read_json(folder.settings)
        changed = [key for key in wanted if key not in may_differ and found.get(key) != wanted[key]]
        if changed:
            raise InputError(
                f"{folder.root} holds a run with other settings ({', '.join(changed)} differ); "
                "choose another run_dir, or delete this one"
            )
        return
    write_json(folder.provenance, provenance())
    write_json(folder.settings, wanted)
