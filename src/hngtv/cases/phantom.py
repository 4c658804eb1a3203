"""Phantom patients: seeded head-and-neck PET/CT with tumours, for tests and demonstrations.

What is modelled: skull, brain, face with sinuses and teeth, airway from nose to carina, spine, muscles,
fat, vessels, glands, tonsils, larynx, shoulders, ribs, lungs and (in long scans) the heart;
their usual FDG uptake, so that the hottest thing in the image is seldom the tumour; a primary beside the
airway and nodes along the jugular chain, lumpy, of log-normal volume, in part cold or necrotic, in some
patients absent; patients of different size, posture and symmetry; centres with their own voxels, noise,
resolution, contrast agent and orientation; CT and PET on different, shifted, sometimes oblique grids; a
rigid shift of up to a few millimetres between them; the field of view, from head and neck down to
the heart; metal streaks; the couch.

What is not modelled: scanner physics (no projections, no scatter, no reconstruction, no attenuation-
correction artefacts), breathing and other non-rigid motion between CT and PET, treatment effects and
surgery, metastases below the neck, the disagreement of human observers, and the joint statistics of site,
size, uptake and nodal spread of real patients. Scores on it say whether code works, never how good a method
is on people.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hngtv.cases.phantom_anatomy import draw_anatomy, draw_body_map
from hngtv.cases.phantom_lesions import GTVN, GTVP, LesionPlan, draw_lesions
from hngtv.cases.phantom_scan import CENTRES, ScanPlan, draw_fillings, draw_grids, image_ct, image_pet, metal_of
from hngtv.errors import InputError
from hngtv.volume.nifti import write_nifti

PHANTOM_VERSION = 1
BLOCK_OF_CASES = 12  # Cases 0-11, 12-23, ... hold fixed shares of rare features: a small cohort has them all.


@dataclass(frozen=True)
class PhantomCase:
    """One patient as drawn.

    Attributes:
        case_id: `phantom_0007` for index 7.
        centre: name of the centre.
        ct: (X, Y, Z) int16 [HU].
        ct_affine: (4, 4) voxel to world mm (RAS).
        pet: (U, V, W) float32 [SUV], on its own grid.
        pet_affine: (4, 4).
        target: (X, Y, Z) uint8 on the CT grid: 0 background, 1 GTVp, 2 GTVn.
        facts: plain JSON values saying what was drawn.
    """

    case_id: str
    centre: str
    ct: np.ndarray
    ct_affine: np.ndarray
    pet: np.ndarray
    pet_affine: np.ndarray
    target: np.ndarray
    facts: dict[str, Any]


@dataclass(frozen=True)
class _Plan:
    scan: ScanPlan
    lesions: LesionPlan
    streaks: bool
    brown_fat: bool


def make_phantom(seed: int, index: int, size: str = "small", field_of_view: str = "mixed") -> PhantomCase:
    """Draw one patient; the result depends on these and `PHANTOM_VERSION` only.

    Args:
        seed: of the cohort, 0 or more.
        index: of the patient in it, 0 or more.
        size: `small` for CT voxels of 2 to 3 mm, `full` for clinical ones (512 x 512 in plane).
        field_of_view: `mixed` for head and neck, in two of twelve patients down to the heart; `long` in all.

    Raises:
        InputError: for a negative seed or index, an unknown size or field of view.
    """
    if size not in ("small", "full"):
        raise InputError(f"phantom size: got {size!r}, expected small or full")
    if field_of_view not in ("mixed", "long"):
        raise InputError(f"phantom field_of_view: got {field_of_view!r}, expected mixed or long")
    if seed < 0 or index < 0:
        raise InputError(f"phantom seed and index: got {seed} and {index}, expected 0 or more")
    plan = _plan_case(seed, index, size, field_of_view)
    rng = np.random.default_rng([seed, PHANTOM_VERSION, index])
    body = draw_body_map(rng)
    anatomy = draw_anatomy(rng, contrast=plan.scan.centre.contrast, brown_fat=plan.brown_fat)
    lesions, records = draw_lesions(rng, plan.lesions, anatomy)
    fillings = draw_fillings(rng) if plan.streaks else []
    organs = [*anatomy.organs, *metal_of(fillings), *lesions]
    shift_mm = np.clip(rng.normal(0.0, 1.0, 3), -2.5, 2.5)
    ct_grid, pet_grid = draw_grids(rng, plan.scan, body)
    ct, target = image_ct(rng, ct_grid, body, organs, fillings, plan.scan.centre)
    moved = replace(body, origin_mm=body.origin_mm + shift_mm)
    pet = image_pet(rng, pet_grid, moved, organs, plan.scan.centre)
    facts = _facts(plan, records, target, ct_grid[1]) | {
        "seed": seed,
        "index": index,
        "version": PHANTOM_VERSION,
        "size": size,
        "shift_mm": [round(float(v), 3) for v in shift_mm],
        "n_fillings": len(fillings),
    }
    return PhantomCase(f"phantom_{index:04d}", plan.scan.centre.name, ct, ct_grid[1], pet, pet_grid[1], target, facts)


def write_phantom(
    out: Path,
    n_cases: int,
    seed: int,
    size: str = "small",
    field_of_view: str = "mixed",
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Draw a cohort and writes `out/<case_id>/{ct,pet,gtv}.nii.gz`.

    Args:
        out: folder, made if missing.
        n_cases: 1 or more.
        seed: of the cohort.
        size: `small` or `full`.
        field_of_view: `mixed` or `long`.
        progress: called as progress(n_done, n_cases) after each case.

    Returns:
        One manifest row per case, paths relative to `out`; writing `cases.csv` is the caller's.

    Raises:
        InputError: if there is nothing to draw, or for what `make_phantom` refuses.
    """
    if n_cases < 1:
        raise InputError(f"phantom n_cases: got {n_cases}, expected 1 or more")
    rows = []
    for index in range(n_cases):
        rows.append(_write_case(Path(out), make_phantom(seed, index, size, field_of_view)))
        if progress is not None:
            progress(index + 1, n_cases)
    return rows


def _write_case(out: Path, case: PhantomCase) -> dict[str, Any]:
    files = {name: f"{case.case_id}/{name}.nii.gz" for name in ("ct", "pet", "gtv")}
    write_nifti(out / files["ct"], case.ct, case.ct_affine)
    write_nifti(out / files["pet"], case.pet, case.pet_affine)
    write_nifti(out / files["gtv"], case.target, case.ct_affine)
    return {
        "case_id": case.case_id,
        "centre": case.centre,
        "ct": files["ct"],
        "pet": files["pet"],
        "target": files["gtv"],
        "pet_unit": "SUV",
        "pet_factor": 1.0,
        "split": "train",
    }


def _plan_case(seed: int, index: int, size: str, field_of_view: str) -> _Plan:
    rng = np.random.default_rng([seed, PHANTOM_VERSION, index // BLOCK_OF_CASES, 12])
    slot = index % BLOCK_OF_CASES

    def rank() -> int:
        return int(rng.permutation(BLOCK_OF_CASES)[slot])

    missing = rank()  # 0: no primary, 1 and 2: no nodes
    lesions = LesionPlan(gtvp=missing != 0, gtvn=missing not in (1, 2), cold=rank() < 2, necrotic=rank() < 2)
    centre, reaches_heart = CENTRES[rank() % len(CENTRES)], rank() < 2
    return _Plan(
        scan=ScanPlan(centre, size, long=reaches_heart or field_of_view == "long", oblique=rank() < 4),
        lesions=lesions,
        streaks=rank() < 4,
        brown_fat=rank() < 1,
    )


def _facts(plan: _Plan, records: list[dict], target: np.ndarray, affine: np.ndarray) -> dict[str, Any]:
    voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000.0
    return {
        "gtvp_ml": round(float(np.count_nonzero(target == GTVP)) * voxel_ml, 3),
        "gtvn_ml": round(float(np.count_nonzero(target == GTVN)) * voxel_ml, 3),
        "no_gtvp": not plan.lesions.gtvp,
        "no_gtvn": not plan.lesions.gtvn,
        "n_nodes": sum(record["label"] == GTVN for record in records),
        "cold": any(record["cold"] for record in records),
        "necrotic": any(record["necrotic"] for record in records),
        "lesions": records,
        "long": plan.scan.long,
        "oblique": plan.scan.oblique,
        "streaks": plan.streaks,
        "brown_fat": plan.brown_fat,
        "contrast": plan.scan.centre.contrast,
    }
