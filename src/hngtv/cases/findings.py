"""What an import finds out about cases: a fact table, a centre table, and findings, each with what to do."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hngtv.cases.checks import CheckedImages, covered_share
from hngtv.cases.manifest import RawCase
from hngtv.run_folder import write_csv
from hngtv.volume.components import components

FINDINGS_NAME, FACTS_NAME = "findings.csv", "facts.csv"
CLASSES = {"GTVp": 1, "GTVn": 2}
Severity = Literal["error", "warning", "note"]
FINDING_COLUMNS = ("case_id", "severity", "finding")


@dataclass(frozen=True)
class Finding:
    """One line about a case, or about the cohort where `case_id` is empty; it says what to do where one can."""

    case_id: str
    severity: Severity
    text: str


@dataclass(frozen=True)
class CaseFacts:
    """What was measured on the images of a case; volumes are None without a target.

    Attributes:
        ct_shape, ct_spacing_mm, pet_shape, pet_spacing_mm: As "x y z", in RAS order.
        pet_covers: Share of the CT's volume.
        suv_max: Largest value of the PET.
        gtvp_ml, gtvn_ml: Volume of each class.
        n_gtvp, n_gtvn: Number of its components, voxels that share a corner counted as joined.
        shift_mm: How far the PET lies off the CT, where that was estimated.
        contents: Digest of the voxels of CT and PET.
    """

    case_id: str
    centre: str
    split: str
    ct_shape: str
    ct_spacing_mm: str
    pet_shape: str
    pet_spacing_mm: str
    pet_covers: float
    suv_max: float
    gtvp_ml: float | None
    gtvn_ml: float | None
    n_gtvp: int | None
    n_gtvn: int | None
    shift_mm: float | None = None
    contents: tuple[str, str] = field(default=("", ""), repr=False)


def measure_case(case: RawCase, images: CheckedImages, shift_mm: float | None = None) -> CaseFacts:
    """The facts of a case that passed its checks."""
    ct, pet = images.ct, images.pet
    volumes, counts = {}, {}
    for name, label in CLASSES.items() if images.target is not None else ():
        mask = images.target == label
        volumes[name] = round(float(mask.sum()) * ct.grid.voxel_ml, 3)
        counts[name] = len(components(mask))
    return CaseFacts(
        case.case_id,
        case.centre,
        case.split,
        _three(ct.grid.shape),
        _three(ct.grid.spacing_mm),
        _three(pet.grid.shape),
        _three(pet.grid.spacing_mm),
        round(covered_share(ct.grid, pet.grid), 3),
        round(float(pet.values.max()), 2),
        gtvp_ml=volumes.get("GTVp"),
        gtvn_ml=volumes.get("GTVn"),
        n_gtvp=counts.get("GTVp"),
        n_gtvn=counts.get("GTVn"),
        shift_mm=None if shift_mm is None else round(shift_mm, 1),
        contents=(_digest(ct.values), _digest(pet.values)),
    )


def cohort_findings(facts: Sequence[CaseFacts]) -> list[Finding]:
    """Duplicates by content, and classes that are empty in some cases."""
    found = {}
    for place, kind in enumerate(("CT", "PET")):
        same = defaultdict(list)
        for fact in sorted(facts, key=lambda fact: fact.case_id):
            same[fact.contents[place]].append(fact)
        for first, *others in same.values():
            for other in others:
                apart = ", and they are in train and test" if other.split != first.split else ""
                text = (
                    f"case {other.case_id}: its {kind} has the same voxels as that of {first.case_id}{apart}; "
                    "leave one of them out, or a patient is trained on and tested"
                )
                found.setdefault(other.case_id, Finding(other.case_id, "warning", text))
    return [*found.values(), *_empty_classes(facts)]


def _empty_classes(facts: Sequence[CaseFacts]) -> list[Finding]:
    found = []
    with_target = [fact for fact in facts if fact.gtvp_ml is not None]
    for name in ("gtvp_ml", "gtvn_ml"):
        empty = [fact.case_id for fact in with_target if getattr(fact, name) == 0]
        if len(empty) > 0:
            label = "GTVp" if name == "gtvp_ml" else "GTVn"
            text = f"{len(empty)} of {len(with_target)} cases with a target have no {label}; nothing to do, it is valid"
            found.append(Finding("", "note", text))
    return found


def centre_lines(facts: Sequence[CaseFacts]) -> list[str]:
    """A line of text for each centre: training and test cases, and those with a target."""
    rows = sorted({fact.centre for fact in facts})
    counts = Counter((fact.centre, fact.split) for fact in facts)
    targets = Counter(fact.centre for fact in facts if fact.gtvp_ml is not None)
    width = max([len(centre or "unknown") for centre in rows], default=0)
    return [
        f"  {centre or 'unknown':<{width}}  train {counts[centre, 'train']:>4}  test {counts[centre, 'test']:>4}  "
        f"with target {targets[centre]:>4}"
        for centre in rows
    ]


def write_findings(folder: Path, findings: Sequence[Finding], facts: Sequence[CaseFacts]) -> None:
    """Write findings.csv and facts.csv."""
    lines = ((finding.case_id, finding.severity, finding.text) for finding in findings)
    write_csv(
        folder / FINDINGS_NAME, FINDING_COLUMNS, (dict(zip(FINDING_COLUMNS, line, strict=True)) for line in lines)
    )
    columns = [name for name in CaseFacts.__dataclass_fields__ if name != "contents"]
    rows = ({name: getattr(fact, name) for name in columns} for fact in facts)
    write_csv(folder / FACTS_NAME, columns, ({k: "" if v is None else v for k, v in row.items()} for row in rows))


def _three(values: Sequence[float]) -> str:
    return " ".join(f"{value:.4g}" for value in values)


def _digest(values: NDArray) -> str:
    """Of shape and voxels, whatever the file's header and compression."""
    plain = np.ascontiguousarray(values)
    return hashlib.sha256(repr(plain.shape).encode() + plain.astype(np.float32).data).hexdigest()
