"""From a folder of DICOM files to cases: CT in HU, PET in SUV, outlines on the CT grid.

What each kind of bad input gets stands in docs/dicom.md. pydicom and highdicom come with the extra `dicom`.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from hngtv.cases.findings import Finding
from hngtv.cases.manifest import RawCase
from hngtv.errors import InputError

if TYPE_CHECKING:
    from hngtv.cases.dicom.convert import Converted
    from hngtv.cases.dicom.names import DicomChoices

MAGIC = b"DICM"
MAGIC_AT = 128
BARE_SUFFIXES = (".dcm", ".ima", ".img", "")
"""Files of these names may be DICOM without its preamble, as older archives wrote them."""
BARE_STARTS = (b"\x02\x00\x00\x00", b"\x08\x00\x00\x00", b"\x08\x00\x05\x00", b"\x08\x00\x08\x00", b"\x08\x00\x16\x00")
"""First tag of a file without the preamble: length of group 2 or 8, character set, image type, or SOP class."""
FILES_PER_FOLDER = 3
FOLDERS_LOOKED_AT = 200
"""How far `holds_dicom` looks: enough for a tree of patients with notes beside them. Source: our choice."""


def holds_dicom(folder: Path) -> bool:
    """Whether a few files of a tree show one in DICOM form; reads some bytes of each and needs no library."""
    return any(_is_dicom(path) for path in _first_files(folder))


def convert_patients(
    source: Path, out: Path, choices: "DicomChoices | None" = None
) -> tuple[list[RawCase], list[Finding]]:
    """Convert all patients of a tree, in any order of files; one that fails does not stop the others.

    Writes `out/<case_id>/{ct,pet,gtv}.nii.gz` and `dicom.json`; a case that stands there finished, from the same
    files with the same choices, is not converted again. A case without a PET or outlines lacks that file.

    Returns:
        The finished cases; an error for each failure, and a warning for each thing that is odd but usable.
    Raises:
        InputError: `source` is no folder, `out` cannot be written, or pydicom is not installed.
    """
    return _converter(source).convert_patients(source, out, choices)


def convert_scans(
    source: Path, out: Path, choices: "DicomChoices | None" = None
) -> "tuple[list[Converted], list[Finding]]":
    """As `convert_patients`, with the series of each case."""
    return _converter(source).convert_scans(source, out, choices)


def _converter(source: Path) -> ModuleType:
    """The module that converts, which needs pydicom."""
    try:
        from hngtv.cases.dicom import convert
    except ModuleNotFoundError as error:
        if error.name not in ("pydicom", "highdicom", "skimage"):
            raise
        raise InputError(f"{source} is DICOM, and {error.name} is not installed: pip install 'hngtv[dicom]'") from None
    return convert


def _first_files(folder: Path) -> Iterator[Path]:
    """A few files of each folder, NIfTI passed over."""
    for n_folders, (path, folders, files) in enumerate(os.walk(folder)):
        if n_folders >= FOLDERS_LOOKED_AT:
            return
        folders.sort()
        others = [name for name in sorted(files) if not name.lower().endswith((".nii", ".nii.gz"))]
        yield from (Path(path) / name for name in others[:FILES_PER_FOLDER])


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            start = stream.read(MAGIC_AT + len(MAGIC))
    except OSError:
        return False
    if start[MAGIC_AT:] == MAGIC:
        return True
    kind, length = start[4:6], start[6:8]  # explicit: two capitals; implicit: a length below 2^16
    is_tag = (kind.isalpha() and kind.isupper()) or (length == b"\0\0" and kind != b"\0\0")
    return path.suffix.lower() in BARE_SUFFIXES and start.startswith(BARE_STARTS) and is_tag
