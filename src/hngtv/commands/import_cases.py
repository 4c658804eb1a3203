"""Check a folder of cases and write its manifest, cases.csv.

    hngtv import data.root=DIR
    hngtv import data.root=READ_ONLY_DIR out=cases.csv
    hngtv import data.root=DIR 'data.ct="{case}_ct.nii"' 'data.pet="{case}_pt.nii"' 'data.target="{case}_gtv.nii"'

Every case is read whole and checked: damaged files, CT and PET swapped or not in HU and SUV, PET elsewhere than
the CT, targets on another grid or with labels other than 0, 1 and 2. Good cases go into data.root/cases.csv, or
into the file given by out; a bad one gets a line that says what is wrong and what to do. In a file name, {case}
stands for the case id.

Afterwards edit the manifest freely: centre, split (train or test), pet_unit and pet_factor. A manifest that
exists is checked and never changed; delete it to make a new one.

Exit status: 0 done, 1 some cases are bad (each listed), 2 bad settings or input.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from hngtv.cases.checks import check_case
from hngtv.cases.manifest import FolderLayout, RawCase, find_cases, load_cases, read_manifest, write_manifest
from hngtv.config import ImportSettings
from hngtv.errors import CasesFailedError, InputError
from hngtv.run_folder import make_folder

MANIFEST_NAME = "cases.csv"


def run(settings: ImportSettings) -> None:
    """Check the cases and write the manifest.

    Raises:
        InputError: No case found, the manifest cannot be written, or another one stands in its place.
        CasesFailedError: Some cases are bad; each was told in a line of its own.
    """
    data = settings.data
    layout = FolderLayout(data.ct, data.pet, data.target)
    cases = load_cases(data.root, layout)
    source = data.root if data.root.is_file() else data.root / MANIFEST_NAME
    out = settings.out or source
    is_kept = source.is_file() and out.resolve() == source.resolve()
    if not is_kept:
        _check_writable(out)
    good = _check_all(cases)
    if is_kept:
        print(f"{len(good)} of {len(cases)} cases of {out} are good; the file was left as it is")
        _tell_unlisted(cases, data.root, layout)
    elif good:
        _write(out, good)
        print(f"{len(good)} of {len(cases)} cases are good; wrote {out}")
    if len(good) < len(cases):
        raise CasesFailedError(f"{len(cases) - len(good)} of {len(cases)} cases are bad (listed above)")


def _check_all(cases: Sequence[RawCase]) -> list[RawCase]:
    """The good cases; the others, and warnings, are told on stderr."""
    good = []
    for case in tqdm(cases, desc="checking", unit="case", disable=None):
        try:
            warnings = check_case(case).warnings
        except InputError as error:
            tqdm.write(str(error), file=sys.stderr)
            continue
        good.append(case)
        for warning in warnings:
            tqdm.write(f"warning: {warning}", file=sys.stderr)
    return good


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
