"""What lies in a tree of files: the series and outlines of each patient."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.uid import UID
from tqdm import tqdm

from hngtv.cases.dicom.read import NotDicomError, read_header, shown, text_of, words_of
from hngtv.cases.findings import Finding
from hngtv.errors import InputError

KINDS = {
    "1.2.840.10008.5.1.4.1.1.2": "ct",
    "1.2.840.10008.5.1.4.1.1.128": "pet",
    "1.2.840.10008.5.1.4.1.1.481.3": "rtstruct",
    "1.2.840.10008.5.1.4.1.1.66.4": "seg",
    "1.2.840.10008.5.1.4.1.1.66.7": "seg",
}
"""By SOP class: CT and PET images, RT structure sets, segmentations and label-map segmentations."""
ENHANCED = {
    "1.2.840.10008.5.1.4.1.1.2.1": "enhanced CT",
    "1.2.840.10008.5.1.4.1.1.2.2": "enhanced CT",
    "1.2.840.10008.5.1.4.1.1.130": "enhanced PET",
    "1.2.840.10008.5.1.4.1.1.128.1": "enhanced PET",
}
"""Volumes of many frames in one file, which are told and not read."""
PROJECTIONS = {"LOCALIZER", "MIP", "MAX_IP", "PROJECTION IMAGE"}
"""Image types that are no slices of the patient."""
NO_PATIENT = "no PatientID, study "
"""What stands, before the study, for a patient id that is empty."""
KEYWORDS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "ImageType",
    "PatientID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "FrameOfReferenceUID",
)


@dataclass(frozen=True)
class Series:
    """The files of one series of CT or PET slices, or one file of outlines.

    Attributes:
        kind: One of the values of `KINDS`.
        frame: Frame of reference; "" where the header's top level has none.
    """

    kind: str
    patient_id: str
    study: str
    uid: str
    frame: str
    number: str
    paths: tuple[Path, ...]

    @property
    def name(self) -> str:
        """The series as a user finds it, without its description, which may name the patient."""
        first, n = self.paths[0], len(self.paths)
        where = shown(first) if n == 1 else f"{n} files in {shown(first.parent)}"
        return f"series {self.number or '?'} ({where})"


@dataclass
class Tree:
    """What was found.

    Attributes:
        patients: All series of each patient id, in order of id.
        damaged: By folder, what is wrong with files in it that belong to some series but cannot be read.
        findings: One for each thing that was passed over; an error where it may have held a patient.
    """

    patients: dict[str, list[Series]] = field(default_factory=dict)
    damaged: dict[Path, list[str]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def find_series(source: Path, leave_out: Path | None = None) -> Tree:
    """Look at each file below a folder; links to folders are not followed.

    Args:
        source: The folder.
        leave_out: A folder not to look into.
    Raises:
        InputError: `source` is not a folder.
    """
    if not source.is_dir():
        raise InputError(f"{shown(source)} is not a folder; expected a folder of DICOM files")
    tree, members, strays = Tree(), {}, Counter()
    first_stray: dict[str, Path] = {}
    for path in tqdm(list(_files_below(source, leave_out, tree)), desc="reading headers", unit="file", disable=None):
        try:
            what = _look_at(path, members)
        except InputError as error:
            tree.damaged.setdefault(path.parent, []).append(str(error))
            continue
        if what:
            strays[what] += 1
            first_stray.setdefault(what, path)
    tree.findings += [
        Finding("", "warning", f"passed over {n} file(s) that are {what} (first: {shown(first_stray[what])})")
        for what, n in sorted(strays.items())
    ]
    for key in sorted(members):
        kind, patient_id, study, uid, frame, number, _ = key
        series = Series(kind, patient_id, study, uid, frame, number, tuple(sorted(members[key])))
        tree.patients.setdefault(patient_id, []).append(series)
    tree.patients = dict(sorted(tree.patients.items()))
    return tree


def _files_below(source: Path, leave_out: Path | None, tree: Tree) -> Iterator[Path]:
    def tell(error: OSError) -> None:
        folder = Path(error.filename or source)
        line = f"{shown(folder)} cannot be opened ({error.strerror}); mend its rights, files in it were not seen"
        tree.findings.append(Finding("", "error", line))

    for folder, folders, names in os.walk(source, onerror=tell):
        folders[:] = sorted(name for name in folders if (Path(folder) / name).resolve() != leave_out)
        yield from (path for name in sorted(names) if os.path.isfile(path := Path(folder) / name))


def _look_at(path: Path, members: dict[tuple[str, ...], list[Path]]) -> str:
    """Put a file with its series; "" if it belongs to one, else what it is."""
    try:
        header = read_header(path, KEYWORDS)
    except NotDicomError:
        if path.suffix.lower() == ".dcm":
            raise InputError(f"{shown(path)} is named .dcm and is none; it is cut short, or remove it") from None
        return "not DICOM"
    sop_class = text_of(header, "SOPClassUID") or str(header.file_meta.get("MediaStorageSOPClassUID", ""))
    if not sop_class:
        raise InputError(f"{shown(path)} is cut short before its SOPClassUID (0008,0016); copy it again")
    if sop_class in ENHANCED:
        return f"{ENHANCED[sop_class]} of many frames, which is not read: export it as classic CT or PET"
    if sop_class not in KINDS:
        return f"{UID(sop_class).name}, which holds no CT, PET or outlines"
    if PROJECTIONS & set(words_of(header, "ImageType")):
        return "scouts or projections"
    kind = KINDS[sop_class]
    if not text_of(header, "SeriesInstanceUID"):
        raise InputError(f"{shown(path)} is cut short before its SeriesInstanceUID (0020,000E); copy it again")
    names = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SeriesNumber")
    # Outlines are single files, so each is a series of its own here; slices belong together by the tags alone.
    single = str(path) if kind in ("rtstruct", "seg") else ""
    patient = text_of(header, "PatientID") or NO_PATIENT + text_of(header, "StudyInstanceUID")
    key = (kind, patient, *(text_of(header, name) for name in names), single)
    members.setdefault(key, []).append(path)
    return ""
