"""Recognise a folder of patients, check every case and write the manifest, cases.csv.

    hngtv import source=DIR                     HECKTOR of any year, nnU-Net raw, JSON lists, BIDS, DICOM, folders
    hngtv import source=READ_ONLY_DIR out=lists/cases.csv
    hngtv import source=DIR estimate_shift=true     how far PET lies off CT (needs hngtv[registration])
    hngtv import source=DIR out=new/cases.csv correct_shift=true   and PETs that lie off are moved, into new/corrected
    hngtv import source=DICOM_DIR out=new/cases.csv 'outlines.gtvp=["tumeur.*"]'   other names of outlines
    hngtv import data.root=DIR 'data.ct="{case}_ct.nii"' 'data.pet="{case}_pt.nii"' 'data.target="{case}_gtv.nii"'

It says what the folder was recognised as and why. Every case is read whole and checked: damaged files, CT and PET
swapped or not in HU and SUV, PET elsewhere than the CT, targets on another grid or with labels other than 0, 1 and 2.
Good cases go into DIR/cases.csv, or into the file given by out, with findings.csv and facts.csv beside it; a bad one
gets a line that says what is wrong and what to do. DICOM and 4D images are written as NIfTI into the folder images/
beside cases.csv. In a file name, {case} stands for the case id.

Afterwards edit the manifest freely: centre, split (train or test), pet_unit and pet_factor. A manifest that
exists is checked and never changed; delete it to make a new one.

Exit status: 0 done, 1 some cases are bad (each listed), 2 bad settings or input.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from hngtv.cases.dicom.names import DicomChoices, OutlinePatterns
from hngtv.cases.findings import Finding, centre_lines, cohort_findings, write_findings
from hngtv.cases.inspect import Inspected, InspectPlan, inspect_case
from hngtv.cases.layouts import Recognised, recognise
from hngtv.cases.manifest import MANIFEST_NAME, FolderLayout, RawCase, find_cases, read_manifest, write_manifest
from hngtv.cases.registration import require_library
from hngtv.commands.log import tell
from hngtv.config import ImportSettings
from hngtv.errors import CasesFailedError, InputError
from hngtv.run_folder import make_folder, read_json, sha256_of, write_json

IMAGES_NAME, CORRECTED_NAME = "images", "corrected"
SOURCE_NAME = "source.json"


def run(settings: ImportSettings) -> None:
    """Check the cases and write the manifest.

    Raises:
        InputError: No case found, the manifest cannot be written, or another one stands in its place.
        CasesFailedError: Some cases are bad; each was told in a line of its own.
    """
    data = settings.data
    layout = FolderLayout.of(data)
    found = recognise(data.root, layout, _dicom_choices(settings))
    source = data.root if _is_manifest(data.root) else _folder_of(data.root) / MANIFEST_NAME
    out = settings.out or source
    is_kept = source.is_file() and out.resolve() == source.resolve()
    if not is_kept:
        _check_writable(out)
    if settings.source is not None or found.write is not None or found.notes:
        print(f"{data.root}: {found.layout} ({found.why})")
    plan = _plan_of(settings, out, is_kept)
    made_from = {"source": str(data.root.resolve()), "choices": sha256_of(asdict(_dicom_choices(settings)))}
    cases, findings = _cases_of(found, out, made_from)
    n_cases = len(cases) + sum(finding.severity == "error" for finding in findings)
    inspected, bad = _inspect_all(cases, plan)
    findings += [*bad, *(finding for one in inspected for finding in one.findings)]
    facts = [one.facts for one in inspected]
    for finding in (of_all := cohort_findings(facts)):
        tell(finding)
    if is_kept:
        print(f"{len(inspected)} of {n_cases} cases of {out} are good; the file was left as it is")
        _tell_unlisted(cases, data.root, layout)
    elif inspected:
        _write(out, [one.case for one in inspected])
        write_findings(out.parent, [*findings, *of_all], facts)
        if settings.source is not None:
            print("\n".join(centre_lines(facts)))
        print(f"{len(inspected)} of {n_cases} cases are good; wrote {out}")
    n_bad = n_cases - len(inspected)
    if n_bad:
        raise CasesFailedError(f"{n_bad} of {n_cases} cases are bad (listed above)")


def _dicom_choices(settings: ImportSettings) -> DicomChoices:
    given = {name: patterns for name, patterns in asdict(settings.outlines).items() if patterns is not None}
    return DicomChoices(OutlinePatterns(**given), settings.hide_ids)


def _is_manifest(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() != ".json"


def _folder_of(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _plan_of(settings: ImportSettings, out: Path, is_kept: bool) -> InspectPlan:
    if is_kept and settings.correct_shift:
        raise InputError(f"correct_shift=true changes cases, but {out} is kept as it is; give another out=FILE")
    if settings.estimate_shift or settings.correct_shift:
        require_library()
    corrected = out.parent / CORRECTED_NAME if settings.correct_shift else None
    return InspectPlan(not is_kept, settings.estimate_shift, corrected)


def _cases_of(found: Recognised, out: Path, made_from: dict[str, str]) -> tuple[list[RawCase], list[Finding]]:
    """The cases, written first where they are DICOM or 4D, and what the tree gives to tell."""
    cases, findings = list(found.cases), [Finding("", "note", line) for line in found.notes]
    if found.write is not None:
        cases, more = found.write(_claim_images(out.parent / IMAGES_NAME, made_from))
        findings += more
    for finding in findings:
        tell(finding)
    if not cases:
        raise InputError(f"no case could be written from {found.layout}; the lines above say why")
    return cases, findings


def _claim_images(folder: Path, made_from: dict[str, str]) -> Path:
    """The folder for images that an import writes; it holds those of one source and one set of choices.

    Raises:
        InputError: It holds something else, which a manifest may list.
    """
    record = folder / SOURCE_NAME
    if folder.is_dir() and any(folder.iterdir()) and not (record.is_file() and read_json(record) == made_from):
        raise InputError(f"{folder} holds other images already, which would be replaced; give another out=FOLDER/FILE")
    write_json(make_folder(folder) / SOURCE_NAME, made_from)
    return folder


def _inspect_all(cases: Sequence[RawCase], plan: InspectPlan) -> tuple[list[Inspected], list[Finding]]:
    """The good cases, and why the others are not; all is told on stderr."""
    good, bad = [], []
    for case in tqdm(cases, desc="checking", unit="case", disable=None):
        try:
            inspected = inspect_case(case, plan)
        except InputError as error:
            bad.append(Finding(case.case_id, "error", str(error)))
            tell(bad[-1])
            continue
        good.append(inspected)
        for finding in inspected.findings:
            tell(finding)
    return good, bad


def _check_writable(out: Path) -> None:
    try:
        make_folder(out.parent)
    except InputError as error:
        raise InputError(f"{error}, with out=FILE") from None


def _write(out: Path, cases: Sequence[RawCase]) -> None:
    """Write the manifest unless a different one stands there."""
    if out.is_file() and not _lists(out, cases):
        raise InputError(f"{out} exists and lists other cases or values; delete it, or give another file with out=FILE")
    write_manifest(out, cases)


def _lists(manifest: Path, cases: Sequence[RawCase]) -> bool:
    return _resolved(read_manifest(manifest)) == _resolved(cases)


def _resolved(cases: Sequence[RawCase]) -> set[tuple[object, ...]]:
    return {
        (
            c.case_id,
            c.centre,
            *(p and p.resolve() for p in (c.ct, c.pet, c.target)),
            c.pet_unit,
            c.pet_factor,
            c.split,
            c.ct_offset,
            *sorted(item for item in c.extra.items() if item[1]),
        )
        for c in cases
    }


def _tell_unlisted(listed: Sequence[RawCase], root: Path, layout: FolderLayout) -> None:
    """Say which cases lie in the folder but not in its manifest."""
    try:
        found = find_cases(root, layout)
    except InputError:
        return
    known = {case.ct.resolve() for case in listed}
    missing = [case.case_id for case in found if case.ct.resolve() not in known]
    if missing:
        print(
            f"warning: {len(missing)} case(s) of {root} are not in {MANIFEST_NAME}: {', '.join(missing)}; "
            "add lines for them, or delete it and import again",
            file=sys.stderr,
        )
