"""Patients of a DICOM tree written as cases, each whole or not at all."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from hngtv.cases.dicom.choose import Scan, choose_scan, find_split_patients, lone_outlines
from hngtv.cases.dicom.find import NO_PATIENT, Series, Tree, find_series
from hngtv.cases.dicom.geometry import Stack, check_ct_whole, check_pet_whole, read_values, stack_series
from hngtv.cases.dicom.names import DicomChoices, OutlinePatterns, case_id_of
from hngtv.cases.dicom.outlines import draw_target
from hngtv.cases.dicom.read import quiet_pydicom, shown
from hngtv.cases.dicom.rtstruct import read_rtstruct
from hngtv.cases.dicom.seg import read_seg
from hngtv.cases.dicom.suv import find_suv
from hngtv.cases.findings import Finding
from hngtv.cases.manifest import RawCase, if_file
from hngtv.errors import InputError
from hngtv.run_folder import atomic_folder, make_folder, read_json, sha256_of, sweep_temporaries, write_json
from hngtv.volume.nifti import write_nifti

CONVERT_VERSION = 3
"""Raised whenever the same files give other values, so that older cases are converted again."""
RECORD_NAME = "dicom.json"
FILES = {"ct": "ct", "pet": "pet", "target": "gtv"}
"""Names of the images by the part of the record that is about each."""
READERS = {"rtstruct": read_rtstruct, "seg": read_seg}


@dataclass(frozen=True)
class Converted:
    """A finished case.

    Attributes:
        case: Its files.
        scan: The series it was made of.
        suv: What its record says of how the PET became SUV; None without a PET.
        warnings: What is odd about the series.
    """

    case: RawCase
    scan: Scan
    suv: Mapping[str, Any] | None
    warnings: tuple[str, ...]


def convert_patients(
    source: Path, out: Path, choices: DicomChoices | None = None
) -> tuple[list[RawCase], list[Finding]]:
    """See `hngtv.cases.dicom.convert_patients`."""
    converted, findings = convert_scans(source, out, choices)
    return [one.case for one in converted], findings


def convert_scans(
    source: Path, out: Path, choices: DicomChoices | None = None
) -> tuple[list[Converted], list[Finding]]:
    """As `convert_patients`, with the series of each case."""
    choices = choices or DicomChoices()
    with quiet_pydicom():
        tree = find_series(source, out.resolve())
        patients = _without_outlines(tree.patients) if choices.without_outlines else tree.patients
        if not patients:
            passed_over = [finding.text for finding in tree.findings]
            damaged = [line for lines in tree.damaged.values() for line in lines]
            what = [f"no CT, PET or outlines found in {shown(source)}", *damaged, *passed_over]
            raise InputError("; ".join(what[:2]))
        sweep_temporaries(make_folder(out))
        ids = _case_ids(patients, choices.hide_ids)
        faults = find_split_patients(patients, ids)
        converted, findings, told = [], list(tree.findings), set()
        for patient in tqdm(patients, desc="converting", unit="patient", disable=None):
            series, case_id = patients[patient], ids[patient]
            try:
                _check_beside(tree, series, told)
                if patient in faults:
                    raise InputError(faults[patient])
                one = _convert(series, out / case_id, choices)
            except InputError as error:
                findings.append(Finding(case_id, "error", f"case {case_id}: {error}"))
            except (OSError, MemoryError) as error:
                findings.append(Finding(case_id, "error", f"case {case_id}: {type(error).__name__}: {error}"))
            else:
                converted.append(one)
                findings += [Finding(case_id, "warning", f"case {case_id}: {line}") for line in one.warnings]
        untold = [line for folder, damaged in tree.damaged.items() if folder not in told for line in damaged]
    return converted, findings + [Finding("", "error", line) for line in untold]


def _without_outlines(patients: Mapping[str, list[Series]]) -> dict[str, list[Series]]:
    images = {patient: [one for one in series if one.kind not in READERS] for patient, series in patients.items()}
    return {patient: series for patient, series in images.items() if series}


def _case_ids(patients: Sequence[str] | dict[str, Any], hide: bool) -> dict[str, str]:
    """Case id by patient id; those that differ only by capitals are told apart, for file systems that do not."""
    ids = {patient: case_id_of(patient, hide or patient.startswith(NO_PATIENT)) for patient in patients}
    counts = Counter(case_id.lower() for case_id in ids.values())
    return {
        patient: case_id if counts[case_id.lower()] == 1 else f"{case_id}-{case_id_of(patient, True).split('-')[1]}"
        for patient, case_id in ids.items()
    }


def _check_beside(tree: Tree, series: Sequence[Series], told: set[Path]) -> None:
    """Raise InputError if a damaged file lies among a patient's own, and note its folder in `told`."""
    for folder in sorted({path.parent for one in series for path in one.paths} & tree.damaged.keys()):
        told.add(folder)
        first, *others = tree.damaged[folder]
        more = f" (and {len(others)} more)" if others else ""
        raise InputError(f"a file beside its own may be one of its slices: {first}{more}")


def _convert(series: Sequence[Series], folder: Path, choices: DicomChoices) -> Converted:
    files = [READERS[one.kind](one.paths[0]) for one in series if one.kind in READERS]
    if {one.kind for one in series}.isdisjoint(("ct", "pet")):
        raise InputError(lone_outlines(series))
    scan = choose_scan(series, files, choices.patterns)
    paths = _paths_of(scan)
    key = _key(paths, choices)
    record = _read_record(folder)
    if record is None or record.get("key") != key:
        record = _write(scan, folder, choices.patterns, key)
    pet, target = (if_file(folder / f"{name}.nii.gz") for name in ("pet", "gtv"))
    case = RawCase(folder.name, "", folder / "ct.nii.gz", pet, target)
    return Converted(case, scan, record.get("pet", {}).get("suv"), (*scan.warnings, *record["warnings"]))


def _write(scan: Scan, folder: Path, patterns: OutlinePatterns, key: str) -> dict[str, Any]:
    """Write a case and its record; returns the record."""
    record: dict[str, Any] = {"case_id": folder.name, "version": CONVERT_VERSION, "key": key}
    warnings: list[str] = []
    with atomic_folder(folder) as temporary:
        ct = stack_series(scan.ct.paths)
        warnings += check_ct_whole(ct)
        record["ct"] = _facts(scan.ct, ct)
        _write_image(temporary, "ct", _as_hu(read_values(ct)), ct)
        if scan.pet is not None:
            stack = stack_series(scan.pet.paths)
            check_pet_whole(stack)
            suv = find_suv([one.header for one in stack.slices])
            _write_image(temporary, "pet", read_values(stack) * np.float32(suv.factor), stack)
            how = {"factor": suv.factor, "rule": suv.rule, "inputs": suv.inputs}
            record["pet"] = _facts(scan.pet, stack) | {"unit": "SUV by body weight", "suv": how}
            warnings += suv.warnings
        if scan.outlines is not None:
            target = draw_target(scan.outlines, ct.grid, scan.ct.frame, patterns)
            warnings += target.warnings
            if target.labels.any():
                _write_image(temporary, "gtv", target.labels, ct)
                record["target"] = target.facts
            else:
                warnings.append(
                    "has no target: no outline of its GTV holds a voxel, which is not to say that it has none"
                )
        record["warnings"] = warnings
        write_json(temporary / RECORD_NAME, record)
    return record


def _write_image(folder: Path, name: str, values: NDArray, stack: Stack) -> None:
    write_nifti(folder / f"{name}.nii.gz", values, stack.grid.matrix)


def _as_hu(values: NDArray[np.float32]) -> NDArray:
    """HU as int16 where that loses nothing."""
    limits = np.iinfo(np.int16)
    if limits.min <= values.min() and values.max() <= limits.max and np.array_equal(values, np.rint(values)):
        return values.astype(np.int16)
    return values


def _facts(series: Series, stack: Stack) -> dict[str, Any]:
    """What tells a series apart without saying whose it is."""
    return {
        "series_instance_uid": series.uid,
        "study_instance_uid": series.study,
        "frame_of_reference_uid": series.frame,
        "n_slices": len(stack.slices),
        "spacing_mm": [round(value, 6) for value in stack.grid.spacing_mm],
    }


def _paths_of(scan: Scan) -> list[Path]:
    outlines = [scan.outlines.path] if scan.outlines else []
    return [*scan.ct.paths, *(scan.pet.paths if scan.pet else ()), *outlines]


def _key(paths: Sequence[Path], choices: DicomChoices) -> str:
    stamps = [[shown(path), (stat := path.stat()).st_size, stat.st_mtime_ns] for path in paths]
    return sha256_of([CONVERT_VERSION, asdict(choices), stamps])


def _read_record(folder: Path) -> dict[str, Any] | None:
    """The record of a case of which every file is there; None for none."""
    try:
        record = read_json(folder / RECORD_NAME)
    except (InputError, OSError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("warnings"), list):
        return None
    is_whole = all((folder / f"{name}.nii.gz").is_file() for part, name in FILES.items() if part in record)
    return record if is_whole else None
