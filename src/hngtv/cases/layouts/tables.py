"""CSV and JSON files about patients that lie beside their images: clinical data, boxes, PET factors, official folds."""

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hngtv.cases.layouts.tree import Tree, key_of, listing, read_json_leniently
from hngtv.cases.manifest import MANIFEST_COLUMNS, OFFSET_COLUMN, RawCase
from hngtv.errors import InputError

ID_COLUMNS = ("patient_id", "patientid", "patient", "pid", "participant_id", "subject_id", "subject", "id")
BOX_COLUMNS = ("x1", "x2", "y1", "y2", "z1", "z2")
FACTOR_COLUMNS = ("bqml_to_suvbw_factor", "suv_factor")
DOSE_COLUMNS = ("dose_for_suv_bq", "decay_corrected_dose_at_scan_bq")
SAME_NAME = {
    "tobacco_consumption": "tobacco",
    "alcohol_consumption": "alcohol",
    "center": "centre_id",
    "centre": "centre_id",
    "centerid": "centre_id",
    "center_id": "centre_id",
    "centreid": "centre_id",
}
"""Columns that the years spell differently."""
FACTOR_TOLERANCE = 1e-3
"""Relative difference at which a factor no longer agrees with weight and dose. Source: our choice."""
EMPTY = ("", "nan", "na", "n/a", "none", "null")
CENTRE_OF_ID = re.compile(r"(?P<centre>[A-Za-z]{2,6})[-_]?\d+")


@dataclass
class PatientFiles:
    """What a tree says of its patients, by `key_of` their ids.

    Attributes:
        clinical: Further columns.
        units: PET unit and factor.
        notes: One line for each thing a user should know.
        conflicts: What was left out since another file says otherwise, by file and column.
    """

    clinical: dict[str, dict[str, str]] = field(default_factory=dict)
    units: dict[str, tuple[str, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    conflicts: dict[str, list[str]] = field(default_factory=dict)


def add_patient_files(cases: Sequence[RawCase], tree: Tree) -> tuple[list[RawCase], list[str]]:
    """Cases with what the tables of their tree say of them, and notes.

    Raises:
        InputError: Two boxes, factors or official folds of one patient, or an unusable number.
    """
    files = PatientFiles()
    on_disk = {key_of(case.case_id) for case in cases}
    for path in tree.tables:
        _read_table(path, on_disk, files)
    for path in tree.jsons:
        if path.name.lower() == "splits_final.json":
            _read_splits(path, on_disk, files)
        elif path.name.lower().startswith("ehr") and key_of(path.parent.name) in on_disk:
            _read_ehr(path, files)
    files.notes += [
        f"{column} is not what another file says for {len(told)} patient(s), so it was left out: {listing(told)}"
        for column, told in files.conflicts.items()
    ]
    return [_with_files(case, files) for case in cases], files.notes


def centre_of(case_id: str) -> str:
    """The letters that an id begins with, if digits follow: CHUM of CHUM-001; empty otherwise, as for BIDS' sub-001."""
    match = CENTRE_OF_ID.fullmatch(case_id)
    return match["centre"] if match and match["centre"] != "sub" else ""


def column_name(name: str) -> str:
    """One spelling for a column: `T-stage` and `T_stage` are t_stage, `HPV status (0=-, 1=+)` is hpv_status."""
    plain = re.sub(r"\(.*?\)", "", name).strip().lower()
    plain = re.sub(r"[^0-9a-z]+", "_", plain).strip("_")
    plain = SAME_NAME.get(plain, plain)
    return f"clinical_{plain}" if plain in {*MANIFEST_COLUMNS, OFFSET_COLUMN} else plain


def _with_files(case: RawCase, files: PatientFiles) -> RawCase:
    key = key_of(case.case_id)
    unit, factor = files.units.get(key, (case.pet_unit, case.pet_factor))
    further = files.clinical.get(key, {})
    centre = case.centre or centre_of(case.case_id) or further.get("centre_id", "")
    return replace(case, centre=centre, pet_unit=unit, pet_factor=factor, extra={**case.extra, **further})


def _read_table(path: Path, on_disk: set[str], files: PatientFiles) -> None:
    columns, rows = _rows_of(path)
    id_column = next((name for name in ID_COLUMNS if name in columns), None)
    if id_column is None:
        return
    known, absent = [], []
    for row in rows:
        (known if key_of(row[id_column]) in on_disk else absent).append(row)
    if not known:
        files.notes.append(f"{path} names none of the patients on disk, so it was not used")
        return
    if absent:
        names = [row[id_column] for row in absent]
        files.notes.append(f"{path}: {len(absent)} id(s) have no images here and were left out: {listing(names)}")
    is_factors = any(name in columns for name in FACTOR_COLUMNS)
    for row in known:
        key, where = key_of(row[id_column]), f"{path}: patient {row[id_column]}"
        if is_factors:
            _add_unit(key, row, where, files)
        elif all(name in columns for name in BOX_COLUMNS):
            _add_once(key, _box_in_ras(row, where), where, files)
        else:
            _add_clinical(key, {name: value for name, value in row.items() if name != id_column}, path, files)


def _rows_of(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Column names in one spelling, and the rows with text in them."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        text = path.read_text(encoding="cp1252", errors="replace")
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    lines = list(csv.reader(text.splitlines(), delimiter=delimiter))
    if not lines:
        return [], []
    columns = [column_name(name) or f"column_{number}" for number, name in enumerate(lines[0])]
    rows = [dict(zip(columns, (cell.strip() for cell in line), strict=False)) for line in lines[1:] if any(line)]
    return columns, [{name: row.get(name, "") for name in columns} for row in rows]


def _add_once(key: str, values: Mapping[str, str], where: str, files: PatientFiles) -> None:
    """Add values that geometry or folds rest on; two different ones are an error."""
    known = files.clinical.setdefault(key, {})
    for name, value in values.items():
        before = known[name] = known.get(name) or value
        if not _agree(before, value):
            raise InputError(f"{where}: {name} is {value!r}, but {before!r} elsewhere; expected one value a patient")


def _add_clinical(key: str, values: Mapping[str, str], path: Path, files: PatientFiles) -> None:
    """Join columns; an empty value gives way, and of two different ones the first stays."""
    known = files.clinical.setdefault(key, {})
    for name, value in values.items():
        value, before = "" if value.lower() in EMPTY else value, known.get(name, "")
        if before and value and not _agree(before, value):
            files.conflicts.setdefault(f"{path}: {name}", []).append(f"{key} ({value!r}, not {before!r})")
        known[name] = before or value


def _agree(first: str, second: str) -> bool:
    """Whether two texts are one value: 62 and 62.0 are."""
    try:
        return first == second or float(first) == float(second)
    except ValueError:
        return False


def _box_in_ras(row: Mapping[str, str], where: str) -> dict[str, str]:
    """The official box, given in LPS mm (ITK's world), in the house's RAS mm.

    Source: tag hecktor2020 of the organisers' repository, where boxes are made from ITK's origin and spacing.
    """
    x1, x2, y1, y2, z1, z2 = (_number(row[name], f"{where}: {name}") for name in BOX_COLUMNS)
    box = {"x1": -x2, "x2": -x1, "y1": -y2, "y2": -y1, "z1": z1, "z2": z2}
    return {f"box_{name}_mm": f"{value:g}" for name, value in box.items()}


def _add_unit(key: str, row: Mapping[str, str], where: str, files: PatientFiles) -> None:
    """The unit of a PET and its factor, which must agree with weight and dose where these are given too."""
    unit = row.get("units", "BQML").upper().replace("/", "") or "BQML"
    if unit in ("GML", "SUV"):
        files.units[key] = ("SUV", 1.0)
        return
    if unit != "BQML":
        raise InputError(f"{where}: units is {row['units']!r}; expected BQML or GML, so convert this PET first")
    given = next((row[name] for name in FACTOR_COLUMNS if row.get(name, "").lower() not in EMPTY), "")
    dose = next((row[name] for name in DOSE_COLUMNS if row.get(name, "").lower() not in EMPTY), "")
    weight = row.get("patient_weight_kg", "")
    factor = _number(given, where) if given else math.nan
    if dose and weight.lower() not in EMPTY:
        computed = 1000 * _number(weight, where) / _number(dose, where)
        if given and not math.isclose(factor, computed, rel_tol=FACTOR_TOLERANCE):
            raise InputError(
                f"{where}: the factor {factor:g} does not agree with weight / dose, {computed:g}; mend the table"
            )
        factor = factor if given else computed
    if not 0 < factor < math.inf:
        raise InputError(f"{where}: no factor from Bq/mL to SUV; expected a positive number, or weight and dose")
    if files.units.setdefault(key, ("BQML", factor)) != ("BQML", factor):
        raise InputError(f"{where}: two different factors from Bq/mL to SUV; keep the right one")


def _read_splits(path: Path, on_disk: set[str], files: PatientFiles) -> None:
    """Official folds become the column official_fold; ids without images are left out."""
    folds, notes = read_json_leniently(path)
    files.notes += notes
    absent = set()
    for number, fold in enumerate(folds if isinstance(folds, list) else []):
        listed = fold.get("val") if isinstance(fold, dict) else None
        for case_id in listed if isinstance(listed, list) else []:
            if key_of(str(case_id)) in on_disk:
                _add_once(key_of(str(case_id)), {"official_fold": str(number)}, str(path), files)
            else:
                absent.add(str(case_id))
    if absent:
        files.notes.append(f"{path}: {len(absent)} id(s) are not on disk and were left out: {listing(sorted(absent))}")


def _read_ehr(path: Path, files: PatientFiles) -> None:
    record, notes = read_json_leniently(path)
    files.notes += notes
    if isinstance(record, dict):
        plain = {column_name(str(name)): "" if value is None else str(value) for name, value in record.items()}
        _add_clinical(key_of(path.parent.name), plain, path, files)


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{where} is {text!r}; expected a number") from None
