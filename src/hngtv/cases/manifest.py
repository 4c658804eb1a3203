"""The manifest `cases.csv`: which files belong to which case."""

import logging
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hngtv.config import DataSettings
from hngtv.errors import InputError
from hngtv.run_folder import read_csv, write_csv

MANIFEST_NAME = "cases.csv"
MANIFEST_COLUMNS = ("case_id", "centre", "ct", "pet", "target", "pet_unit", "pet_factor", "split")
OFFSET_COLUMN = "ct_offset"
"""Written only where a case has one."""
PET_UNITS = ("SUV", "BQML")
SPLITS = ("train", "test")
CASE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""Case ids become file names, so they are plain."""

logger = logging.getLogger(__name__)


class NoCaseError(InputError):
    """A folder in which no file is named like a CT."""


@dataclass(frozen=True)
class RawCase:
    """The files of one patient.

    Attributes:
        case_id: Unique, also the stem of file names.
        centre: Where it was scanned; empty if unknown.
        ct: CT in HU.
        pet: PET; None for a case that lacks it (it is then reported, not used).
        target: Mask with 0 background, 1 GTVp, 2 GTVn; None for a case to predict.
        pet_unit: "SUV", or "BQML" with `pet_factor` turning Bq/mL into SUV.
        pet_factor: What PET values are multiplied by to become SUV.
        split: "train" (used in folds) or "test" (never trained on).
        ct_offset: What is added to CT values to become HU, -1024 for a CT whose rescale intercept was not applied.
        extra: Further columns, such as clinical data, kept as they are.
    """

    case_id: str
    centre: str
    ct: Path
    pet: Path | None
    target: Path | None
    pet_unit: str = "SUV"
    pet_factor: float = 1.0
    split: str = "train"
    ct_offset: float = 0.0
    extra: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class FolderLayout:
    """Where a folder of cases keeps its files; `{case}` stands for the case id, also inside a file name."""

    ct: str = "{case}/ct.nii.gz"
    pet: str = "{case}/pet.nii.gz"
    target: str = "{case}/gtv.nii.gz"

    @classmethod
    def of(cls, data: DataSettings) -> "FolderLayout":
        return cls(data.ct, data.pet, data.target)


def find_cases(root: Path, layout: FolderLayout | None = None) -> list[RawCase]:
    """List the cases of a folder, sorted by id; a case without a PET or target file has None there.

    Raises:
        InputError: The folder is missing or no CT in it fits the layout.
    """
    layout = layout or FolderLayout()
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; expected a folder of cases such as CASE/ct.nii.gz")
    pattern = re.compile(_as_expression(layout.ct))
    cases = []
    for path in sorted(root.glob(layout.ct.replace("{case}", "*"))):
        match = pattern.fullmatch(path.relative_to(root).as_posix())
        if match is None:
            continue
        case_id = match["case"]
        pet, target = (root / name.replace("{case}", case_id) for name in (layout.pet, layout.target))
        cases.append(RawCase(case_id, "", path, if_file(pet), if_file(target)))
    if not cases:
        raise NoCaseError(f"no case found in {root}: expected files like {layout.ct} (set data.ct to your naming)")
    check_ids(cases, root)
    return cases


def read_manifest(path: Path) -> list[RawCase]:
    """Read a `cases.csv`; paths in it are relative to it, and columns not known here become `extra`.

    Raises:
        InputError: Missing columns, duplicate or unusable ids, unknown units, splits or numbers.
    """
    cases = [_parse_row(path, number, row) for number, row in enumerate(read_csv(path, ("case_id", "ct")), start=2)]
    if not cases:
        raise InputError(f"{path} lists no case")
    check_ids(cases, path)
    return cases


def load_cases(source: Path, layout: FolderLayout | None = None) -> list[RawCase]:
    """Cases of a manifest, of a folder with a `cases.csv`, of a folder by its naming, or of a known tree.

    Raises:
        InputError: Nothing that is known, or files that must be imported first (DICOM, 4D images).
    """
    from hngtv.cases.layouts import recognise_written  # the layouts are made of what stands here

    found = recognise_written(source, layout)
    for note in found.notes:
        logger.warning("%s", note)
    return list(found.cases)


def write_manifest(path: Path, cases: Sequence[RawCase]) -> None:
    """Write a `cases.csv` with paths relative to it; further columns of the cases stand at its end."""
    offset = (OFFSET_COLUMN,) if any(case.ct_offset for case in cases) else ()
    further = tuple(dict.fromkeys(column for case in cases for column in case.extra))
    rows = ({**case.extra, **_as_row(case, path.parent)} for case in cases)
    known = (*MANIFEST_COLUMNS, *offset)
    write_csv(path, (*known, *further), ({k: v for k, v in row.items() if k in known + further} for row in rows))


def check_ids(cases: Sequence[RawCase], source: Path) -> None:
    """Raise InputError for duplicate ids or ids that cannot be file names."""
    counts = Counter(case.case_id for case in cases)
    duplicates = sorted(case_id for case_id, n in counts.items() if n > 1)
    if duplicates:
        raise InputError(f"{source} has duplicate case ids: {', '.join(duplicates)}; every id must occur once")
    unusable = [case.case_id for case in cases if not CASE_ID.fullmatch(case.case_id)]
    if unusable:
        raise InputError(
            f"{source} has case ids that cannot be file names: {', '.join(map(repr, unusable))}; "
            "use letters, digits, dot, dash and underscore"
        )


def _as_expression(name: str) -> str:
    first, *rest = (re.escape(part) for part in name.split("{case}"))
    if not rest:
        raise InputError(f"data.ct is {name!r}; expected {{case}} in it, as in {{case}}/ct.nii.gz")
    return first + r"(?P<case>[^/]+)" + r"(?P=case)".join(rest)


def if_file(path: Path) -> Path | None:
    return path if path.is_file() else None


def _parse_row(path: Path, number: int, row: dict[str, str]) -> RawCase:
    where = f"{path} line {number}"

    def file_of(column: str) -> Path | None:
        return path.parent / row[column] if row.get(column) else None

    unit, split = row.get("pet_unit") or "SUV", row.get("split") or "train"
    if unit not in PET_UNITS:
        raise InputError(f"{where}: pet_unit is {unit!r}; expected one of {', '.join(PET_UNITS)}")
    if split not in SPLITS:
        raise InputError(f"{where}: split is {split!r}; expected one of {', '.join(SPLITS)}")
    try:
        factor = float(row.get("pet_factor") or 1.0)
    except ValueError:
        raise InputError(f"{where}: pet_factor is {row['pet_factor']!r}; expected a number") from None
    if not 0 < factor < float("inf"):
        raise InputError(f"{where}: pet_factor is {factor}; expected a positive number")
    if unit == "BQML" and factor == 1.0:
        raise InputError(f"{where}: pet_unit is BQML but pet_factor is 1; give the factor from Bq/mL to SUV")
    ct = file_of("ct")
    if not row["case_id"] or ct is None:
        raise InputError(f"{where}: case_id and ct must not be empty")
    centre, known = row.get("centre") or "", {*MANIFEST_COLUMNS, OFFSET_COLUMN}
    extra = {column: value or "" for column, value in row.items() if column and column not in known}
    offset = _parse_offset(where, row.get(OFFSET_COLUMN) or "0")
    return RawCase(row["case_id"], centre, ct, file_of("pet"), file_of("target"), unit, factor, split, offset, extra)


def _parse_offset(where: str, text: str) -> float:
    try:
        offset = float(text)
    except ValueError:
        offset = float("nan")
    if not abs(offset) < float("inf"):
        raise InputError(f"{where}: {OFFSET_COLUMN} is {text!r}; expected a number of HU such as -1024")
    return offset


def _as_row(case: RawCase, folder: Path) -> dict[str, object]:
    def name_of(path: Path | None) -> str:
        return "" if path is None else Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()

    return {
        "case_id": case.case_id,
        "centre": case.centre,
        "ct": name_of(case.ct),
        "pet": name_of(case.pet),
        "target": name_of(case.target),
        "pet_unit": case.pet_unit,
        "pet_factor": case.pet_factor,
        "split": case.split,
        OFFSET_COLUMN: case.ct_offset or "",
    }
