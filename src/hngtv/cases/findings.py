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
from hngtv.volume.labels import LABEL_NAMES

FINDINGS_NAME, FACTS_NAME = "findings.csv", "facts.csv"
Severity = Literal["error", "warning", "note"]
FINDING_COLUMNS = ("case_id", "severity", "finding")


@dataclass(frozen=True)
class Finding:
    """One line about a case, or about the cohort where `case_id` is empty; it says what to do where one can."""

    case_id: str
    severity: Severity
    text: str

    @property
    def parts(self) -> tuple[str, str]:
        """What was got, and what was expected or can be done ("" if that is not said), without the name of the case.

        Texts are written so: the case, what was got, a semicolon, the rest.
        """
        got, _, rest = self.text.removeprefix(f"case {self.case_id}: ").partition("; ")
        return got, rest


@dataclass(frozen=True)
class CaseFacts:
    """What was measured on the images of a case; volumes are None without a target.

    Attributes:
        ct_shape, ct_spacing_mm, pet_shape, pet_spacing_mm: As "x y z", in RAS order.
        pet_covers: Share of the CT's volume.
        suv_max: Largest value of the PET.
        gtvp_ml, gtvn_ml: Volume of each class.
        n_gtvp, n_gtvn: Number of its components, voxels that share a corner counted as joined.
        lesions_gtvp_ml, lesions_gtvn_ml: Volume of each component, the largest first.
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
    lesions_gtvp_ml: str = ""
    lesions_gtvn_ml: str = ""
    shift_mm: float | None = None
    contents: tuple[str, str] = field(default=("", ""), repr=False)


def measure_case(case: RawCase, images: CheckedImages, shift_mm: float | None = None) -> CaseFacts:
    """The facts of a case that passed its checks."""
    ct, pet = images.ct, images.pet
    volumes: dict[str, float] = {}
    lesions: dict[str, list[float]] = {}
    for label, name in LABEL_NAMES.items() if images.target is not None else ():
        mask = images.target == label
        volumes[name] = round(float(mask.sum()) * ct.grid.voxel_ml, 3)
        sizes = (int(voxels.sum()) * ct.grid.voxel_ml for _, voxels in components(mask))
        lesions[name] = sorted(sizes, reverse=True)
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
        n_gtvp=len(lesions["GTVp"]) if lesions else None,
        n_gtvn=len(lesions["GTVn"]) if lesions else None,
        lesions_gtvp_ml=" ".join(f"{ml:.3f}" for ml in lesions.get("GTVp", ())),
        lesions_gtvn_ml=" ".join(f"{ml:.3f}" for ml in lesions.get("GTVn", ())),
        shift_mm=None if shift_mm is None else round(shift_mm, 1),
        contents=(_digest(ct.values), _digest(pet.values)),
    )


@dataclass(frozen=True)
class Duplicate:
    """A case with voxels of an earlier one (by id): `kinds` says whether those of CT, PET or both."""

    case_id: str
    first_id: str
    kinds: tuple[str, ...]
    is_across_splits: bool


def find_duplicates(facts: Sequence[CaseFacts]) -> list[Duplicate]:
    """Pairs with the same voxels, whatever their files are named."""
    kinds: dict[tuple[str, str], list[str]] = defaultdict(list)
    ordered = sorted(facts, key=lambda fact: fact.case_id)
    splits = {fact.case_id: fact.split for fact in ordered}
    for place, kind in enumerate(("CT", "PET")):
        same = defaultdict(list)
        for fact in ordered:
            same[fact.contents[place]].append(fact.case_id)
        for first, *others in same.values():
            for other in others:
                kinds[other, first].append(kind)
    return [
        Duplicate(other, first, tuple(found), splits[other] != splits[first]) for (other, first), found in kinds.items()
    ]


def cohort_findings(facts: Sequence[CaseFacts]) -> list[Finding]:
    """Duplicates by content, and classes that are empty in some cases."""
    return [*map(_of_duplicate, find_duplicates(facts)), *_empty_classes(facts)]


def _of_duplicate(pair: Duplicate) -> Finding:
    apart = ", and they are in train and test" if pair.is_across_splits else ""
    got = "has the same voxels as that" if len(pair.kinds) == 1 else "have the same voxels as those"
    text = f"case {pair.case_id}: its {' and '.join(pair.kinds)} {got} of {pair.first_id}{apart}"
    return Finding(pair.case_id, "warning", f"{text}; leave one of them out, or a patient is trained on and tested")


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


@dataclass(frozen=True)
class CentreCounts:
    """Good cases of a centre (empty if unknown): to train on, to test on, and those with a target."""

    centre: str
    n_train: int
    n_test: int
    n_with_target: int


def count_centres(facts: Sequence[CaseFacts]) -> list[CentreCounts]:
    """In alphabetical order."""
    counts = Counter((fact.centre, fact.split) for fact in facts)
    targets = Counter(fact.centre for fact in facts if fact.gtvp_ml is not None)
    centres = sorted({fact.centre for fact in facts})
    return [CentreCounts(name, counts[name, "train"], counts[name, "test"], targets[name]) for name in centres]


def centre_lines(facts: Sequence[CaseFacts]) -> list[str]:
    """A line of text for each centre."""
    rows = count_centres(facts)
    width = max([len(row.centre or "unknown") for row in rows], default=0)
    return [
        f"  {row.centre or 'unknown':<{width}}  train {row.n_train:>4}  test {row.n_test:>4}  "
        f"with target {row.n_with_target:>4}"
        for row in rows
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
