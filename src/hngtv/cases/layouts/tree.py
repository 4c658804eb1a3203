"""The files of a tree, sorted by kind, and paths that stay inside it."""

import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from hngtv.cases.findings import Finding
from hngtv.cases.manifest import RawCase
from hngtv.errors import InputError
from hngtv.run_folder import TEMPORARY_PREFIX
from hngtv.volume.nifti import SUFFIXES, has_nifti_name

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".7z", ".rar")
STRING_OR_TRAILING_COMMA = re.compile(r'"(?:\\.|[^"\\])*"|,(?=\s*[}\]])')
N_SHOWN = 3
JSON_NAMES = {dict: "an object {...}", list: "a list [...]", str: "a text"}
Kind = TypeVar("Kind", dict, list, str)

Writer = Callable[[Path], tuple[list[RawCase], list[Finding]]]
"""Writes the cases of a tree as NIfTI below a folder; returns them, with a finding for each failure or oddity."""


@dataclass(frozen=True)
class Recognised:
    """What a folder was recognised as.

    Attributes:
        layout: Name of the layout, such as "HECKTOR 2022".
        why: What it was recognised by.
        cases: Its cases; none where they must be written first.
        notes: What a user should know, one line each.
        write: For DICOM and 4D images, which no case can name: writes them as NIfTI.
    """

    layout: str
    why: str
    cases: tuple[RawCase, ...] = ()
    notes: tuple[str, ...] = ()
    write: Writer | None = None


@dataclass(frozen=True)
class Tree:
    """Files below a folder, each sorted by path, and the number of all of them; hidden ones are left out.

    `closed` are folders that cannot be opened.
    """

    root: Path
    images: tuple[Path, ...]
    tables: tuple[Path, ...]
    jsons: tuple[Path, ...]
    archives: tuple[Path, ...]
    n_files: int
    closed: tuple[str, ...] = ()

    def inside(self, path: Path) -> Path:
        return path.relative_to(self.root)


def walk_tree(root: Path) -> Tree:
    """List a tree; links to folders are followed no further, so that it ends."""
    files, closed = [], []
    for folder, folders, names in os.walk(root, onerror=lambda error: closed.append(str(error.filename))):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [Path(folder, name) for name in sorted(names) if not name.startswith((".", TEMPORARY_PREFIX))]

    def ending(*suffixes: str) -> tuple[Path, ...]:
        return tuple(path for path in files if path.name.lower().endswith(suffixes))

    images = tuple(path for path in files if has_nifti_name(path))
    return Tree(
        root, images, ending(".csv", ".tsv"), ending(".json"), ending(*ARCHIVE_SUFFIXES), len(files), tuple(closed)
    )


def is_archive(path: Path) -> bool:
    return path.name.lower().endswith(ARCHIVE_SUFFIXES)


def stem_of(path: Path) -> str:
    """Name of a NIfTI file without .nii or .nii.gz."""
    return next((path.name.removesuffix(suffix) for suffix in SUFFIXES if path.name.endswith(suffix)), path.stem)


def key_of(case_id: str) -> str:
    """An id without what its spellings differ in: CHUM-001, CHUM_001 and chum001 are one patient."""
    return re.sub(r"[-_ .]", "", case_id).lower()


def path_inside(root: Path, name: str, where: str) -> Path:
    """The path that a list names, relative to a root which it must not leave.

    Raises:
        InputError: The name is absolute or climbs out with "..".
    """
    relative = PurePosixPath(name.replace("\\", "/"))
    if relative.is_absolute() or ".." in relative.parts or re.match(r"^[A-Za-z]:", name):
        raise InputError(f"{where} names {name!r}, which leaves {root}; expected a path inside that folder")
    return root / relative


def read_json_leniently(path: Path) -> tuple[Any, list[str]]:
    """Value of a JSON file, and a note where commas before a closing bracket had to be ignored.

    Raises:
        InputError: It is no JSON even so.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); expected a JSON file") from None
    try:
        return json.loads(text), []
    except json.JSONDecodeError:
        mended = STRING_OR_TRAILING_COMMA.sub(lambda match: "" if match[0] == "," else match[0], text)
    try:
        return json.loads(mended), [f"{path} is not valid JSON: a comma before a closing bracket was ignored"]
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not valid JSON ({error}); mend it or take it out of the folder") from None


def read_object(path: Path) -> tuple[dict[str, Any], list[str]]:
    """As `read_json_leniently`, of a file that must hold an object.

    Raises:
        InputError: As there, or it holds something else.
    """
    value, notes = read_json_leniently(path)
    return as_kind(value, dict, f"{path}"), notes


def as_kind(value: Any, kind: type[Kind], where: str) -> Kind:
    """A value of a JSON file that must be a dict, list or str.

    Raises:
        InputError: It is something else; the line begins with `where`.
    """
    if isinstance(value, kind):
        return value
    raise InputError(f"{where} is {str(value)[:40]!r}; expected {JSON_NAMES[kind]}, so mend the file")


def listing(names: Sequence[str]) -> str:
    """The first few of some names."""
    shown = ", ".join(names[:N_SHOWN])
    return f"{shown} and {len(names) - N_SHOWN} more" if len(names) > N_SHOWN else shown
