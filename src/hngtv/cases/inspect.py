"""A case on its way into a manifest: checked, its PET unit settled, its shift estimated and, on demand, corrected."""

from dataclasses import dataclass, replace
from pathlib import Path

from hngtv.cases.checks import CheckedImages, NoUptakeError, check_case
from hngtv.cases.findings import CaseFacts, Finding, measure_case
from hngtv.cases.manifest import RawCase
from hngtv.cases.registration import SHIFT_WARNING_MM, Shift, estimate_shift
from hngtv.errors import InputError
from hngtv.volume.nifti import write_moved


@dataclass(frozen=True)
class InspectPlan:
    """What is done beyond the checks.

    Attributes:
        settles_units: Whether a PET that is listed in Bq/mL but already holds SUV may be taken as SUV.
        estimates_shift: Whether the shift of PET against CT is estimated.
        corrected: Folder for PETs moved onto their CT; None to leave them where they are.
    """

    settles_units: bool = True
    estimates_shift: bool = False
    corrected: Path | None = None


@dataclass(frozen=True)
class Inspected:
    """A good case as it goes into the manifest, what was measured on it, and findings."""

    case: RawCase
    facts: CaseFacts
    findings: tuple[Finding, ...]


def inspect_case(case: RawCase, plan: InspectPlan) -> Inspected:
    """Check a case and do what the plan says.

    Raises:
        InputError: The case cannot be used, in one line.
    """
    return inspect_images(case, plan)[0]


def inspect_images(case: RawCase, plan: InspectPlan) -> tuple[Inspected, CheckedImages]:
    """As `inspect_case`, with the images, which are as they were before any correction."""
    case, images, findings = _settle(case) if plan.settles_units else (case, check_case(case), [])
    findings += [Finding(case.case_id, "warning", text) for text in images.warnings]
    shift = None
    if plan.estimates_shift or plan.corrected is not None:
        shift = _shift_of(case, images, findings)
    facts = measure_case(case, images, None if shift is None else shift.length_mm)
    if shift is not None and shift.length_mm >= SHIFT_WARNING_MM:
        case = _correct(case, shift, plan.corrected, findings)
    return Inspected(case, facts, tuple(findings)), images


def _settle(case: RawCase) -> tuple[RawCase, CheckedImages, list[Finding]]:
    """A case with its factor applied, or taken as SUV where the factor was applied before.

    Values that pass as SUV as they are, and hold no uptake at all once multiplied, were multiplied already.
    """
    try:
        return case, check_case(case), []
    except NoUptakeError as error:
        if case.pet_unit == "SUV":
            raise
        as_suv = replace(case, pet_unit="SUV", pet_factor=1.0)
        try:
            images = check_case(as_suv)
        except InputError:
            raise error from None
    text = (
        f"case {case.case_id}: {case.pet} is listed in Bq/mL but holds SUV already; its factor {case.pet_factor:g} was "
        "left out"
    )
    return as_suv, images, [Finding(case.case_id, "warning", text)]


def _shift_of(case: RawCase, images: CheckedImages, findings: list[Finding]) -> Shift | None:
    try:
        return estimate_shift(images.ct, images.pet)
    except InputError as error:
        findings.append(Finding(case.case_id, "warning", f"case {case.case_id}: {error}"))
        return None


def _correct(case: RawCase, shift: Shift, corrected: Path | None, findings: list[Finding]) -> RawCase:
    """The case with a moved PET, or the advice to move it."""
    assert case.pet is not None
    what = f"case {case.case_id}: PET seems to lie off the CT and fits best {shift}"
    if not shift.is_confirmed:
        advice = "but too little speaks for it, so it was left as it is; look at both"
        findings.append(Finding(case.case_id, "warning", f"{what}, {advice}"))
        return case
    if corrected is None:
        advice = "look at both, and import with correct_shift=true if it is so"
        findings.append(Finding(case.case_id, "warning", f"{what}; {advice}"))
        return case
    path = corrected / f"{case.case_id}_pet.nii.gz"
    write_moved(path, case.pet, shift.motion)
    findings.append(Finding(case.case_id, "note", f"{what}; corrected by its affine alone in {path}"))
    return replace(case, pet=path)
