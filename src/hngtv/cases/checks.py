"""What a case must satisfy before it is used: each fault is told in one line with the case and its file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hngtv.cases.manifest import RawCase
from hngtv.cases.units import MIN_SUV, ct_fault, ct_window_note, intercept_fault, pet_fault, suv_notes
from hngtv.errors import InputError
from hngtv.volume.grid import Grid
from hngtv.volume.labels import LABEL_NAMES
from hngtv.volume.nifti import Image, read_image

OUTSIDE_CT_HU = -1024
"""CT value outside the image, and the lowest one kept: scanners pad with anything from -1024 to -3024."""
CT_RANGE_HU = (-4096.0, 32767.0)
"""Values beyond are no CT. Source: our choice; padding reaches -3024, metal a few ten thousand."""
AIR_BELOW_HU = -200.0
"""Every CT of a body part holds air or lung below this. Source: our choice, well below fat (-100 HU)."""
MAX_SUV_PERCENTILE = 99.0
MAX_SUV = 100.0
"""The percentile above stays below this in SUV, and is thousands in Bq/mL.

A percentile and not the maximum, since a full bladder can pass SUV 200 in a few voxels. Source: our choice.
"""
NEGATIVE_SUV = -1.0
"""Reconstruction and interpolation leave small negatives, which become 0; lower is an error. Source: our choice."""
COVERAGE_WARNING = 0.8
"""Share of the CT's volume below which PET cover is worth a warning. Source: our choice."""
COVERAGE_POINTS = 24
"""Points along each CT axis at which PET cover is looked up."""
GRID_TOLERANCE_VOXELS = 0.1
"""Largest shift of a corner, in voxels, at which target and CT count as on one grid. Source: our choice."""
LABELS = (0, *LABEL_NAMES)
"""Background, GTVp, GTVn."""


class NoUptakeError(InputError):
    """A PET without uptake, as one has that was divided twice."""


@dataclass(frozen=True)
class CheckedImages:
    """The images of a case that passed all checks.

    Attributes:
        ct: (X, Y, Z) HU, at least `OUTSIDE_CT_HU`.
        pet: (X, Y, Z) float32 SUV on its own grid, at least 0.
        target: (X, Y, Z) uint8 labels on the grid of `ct`; None for a case without a target file.
        target_digest: SHA-256 of the target file; None without one.
        warnings: What is odd but usable, one line each.
    """

    ct: Image
    pet: Image
    target: NDArray[np.uint8] | None
    target_digest: str | None = None
    warnings: tuple[str, ...] = ()


def check_case(case: RawCase, needs_pet: bool = True) -> CheckedImages:
    """Read the images of a case and check them.

    Args:
        case: Its files.
        needs_pet: If not, the PET of a case without one is SUV 0 on the CT grid, with a warning and an empty digest.
    Raises:
        InputError: One line naming the case, the file, what was found, what was expected and what to do.
    """
    if case.pet is None and needs_pet:
        raise InputError(f"case {case.case_id}: no PET file beside {case.ct}; add it or leave the case out")
    ct = _read(case, case.ct)
    check_finite(case, case.ct, ct.values)
    ct = in_hu(case, ct)
    pet, warnings = _no_pet(case, ct) if case.pet is None else _read_pet(case, case.pet, ct)
    check_ct(case, ct.values)
    if note := ct_window_note(ct.values):
        warnings += (f"case {case.case_id}: {case.ct} {note}",)
    target = None if case.target is None else _read(case, case.target)
    labels = None if target is None else check_target(case, target, ct.grid)
    return CheckedImages(
        Image(np.maximum(ct.values, OUTSIDE_CT_HU), ct.grid, ct.digest),
        pet,
        labels,
        None if target is None else target.digest,
        warnings,
    )


def in_hu(case: RawCase, ct: Image) -> Image:
    """The CT with the offset that `cases.csv` gives it."""
    return Image(ct.values + np.float32(case.ct_offset), ct.grid, ct.digest) if case.ct_offset else ct


def check_finite(case: RawCase, path: Path, values: NDArray) -> None:
    """Raise InputError if an image holds NaN or infinity."""
    if np.isfinite(values.min()) and np.isfinite(values.max()):
        return
    n_bad = values.size - int(np.isfinite(values).sum())
    raise InputError(f"case {case.case_id}: {path} has {n_bad} voxels that are NaN or infinite; convert it again")


def check_not_swapped(case: RawCase, ct: NDArray, pet: NDArray) -> None:
    """Raise InputError if the PET holds air in HU and the CT does not."""
    if pet.min() < AIR_BELOW_HU <= ct.min():
        raise InputError(
            f"case {case.case_id}: CT and PET seem swapped: {case.ct} has minimum {ct.min():g} and "
            f"{case.pet} {pet.min():g}; expected air near -1000 HU in the CT and no negative SUV, so swap them"
        )


def check_ct(case: RawCase, values: NDArray) -> None:
    """Raise InputError if values (X, Y, Z) are not plausible HU."""
    low, high = float(values.min()), float(values.max())
    if low < CT_RANGE_HU[0] or high > CT_RANGE_HU[1]:
        raise InputError(
            f"case {case.case_id}: {case.ct} has values from {low:g} to {high:g}; "
            f"expected HU within {CT_RANGE_HU[0]:g} and {CT_RANGE_HU[1]:g}, so check that it is a CT"
        )
    if low >= AIR_BELOW_HU and (fault := ct_fault(values)):
        raise InputError(f"case {case.case_id}: {case.ct} {fault}")
    if low >= AIR_BELOW_HU:
        raise InputError(
            f"case {case.case_id}: {case.ct} has minimum {low:g}; expected HU with air near -1000, "
            "so check that it is a CT and that its rescale intercept was applied"
        )
    # Padding of one low value would hide that all else lies above air.
    if not ((values > low) & (values < AIR_BELOW_HU)).any() and (fault := intercept_fault(values[values > low])):
        raise InputError(f"case {case.case_id}: {case.ct} {fault}")


def check_pet(case: RawCase, suv: NDArray[np.float32]) -> None:
    """Raise InputError if values (X, Y, Z), after the case's factor, are not plausible SUV."""
    where = f"case {case.case_id}: {case.pet}"
    low, high = float(suv.min()), float(suv.max())
    if low < AIR_BELOW_HU:
        raise InputError(f"{where} has minimum {low:g}; expected SUV, which is not negative, but this looks like a CT")
    if case.pet_unit == "SUV" and (fault := pet_fault(suv)):
        raise InputError(f"{where} {fault}")
    usual = float(np.percentile(suv, MAX_SUV_PERCENTILE))
    if usual > MAX_SUV:
        raise InputError(
            f"{where} has values up to {high:g}, too high for SUV, as in Bq/mL or counts; {_unit_advice(case)}"
        )
    if low < NEGATIVE_SUV:
        raise InputError(f"{where} has minimum {low:g}; expected SUV, which is not negative; convert it again")
    if high < MIN_SUV:
        raise NoUptakeError(f"{where} has maximum {high:g}, so it holds no uptake in SUV; {_unit_advice(case)}")


def check_target(case: RawCase, target: Image, grid: Grid) -> NDArray[np.uint8]:
    """Labels (X, Y, Z) uint8 of a target on the CT grid; an empty target is valid.

    Raises:
        InputError: The target lies on another grid, or holds values other than 0, 1 and 2.
    """
    where = f"case {case.case_id}: {case.target}"
    if target.grid.shape != grid.shape:
        raise InputError(
            f"{where} has shape {target.grid.shape}, the CT {grid.shape}; expected the target on the CT grid, "
            "so check that it belongs to this CT, or resample it"
        )
    shift = corner_shift(target.grid, grid)
    if shift > GRID_TOLERANCE_VOXELS:
        raise InputError(
            f"{where} lies up to {shift:.1f} voxels off the CT; expected the target on the CT grid, "
            "so check that it belongs to this CT, or resample it"
        )
    check_finite(case, case.target or Path(), target.values)
    values = target.values
    if values.min() >= min(LABELS) and values.max() <= max(LABELS):
        labels = values.astype(np.uint8)
        if np.array_equal(labels, values):
            return labels
    raise InputError(
        f"{where} has values {_some_values(values)}; expected 0 (background), 1 (GTVp) and 2 (GTVn), so map them"
    )


def covered_share(ct: Grid, pet: Grid) -> float:
    """Share of the CT's volume that lies inside the PET, from a lattice of points; oblique grids included."""
    steps = [(np.arange(COVERAGE_POINTS) + 0.5) / COVERAGE_POINTS * n - 0.5 for n in ct.shape]
    points = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1)
    index = pet.to_index(ct.to_world(points))
    inside = ((index >= -0.5) & (index <= np.asarray(pet.shape) - 0.5)).all(axis=-1)
    return float(inside.mean())


def corner_shift(first: Grid, second: Grid) -> float:
    """Largest distance between corresponding corners of two grids of one shape, in voxels of the second."""
    ends = np.stack(np.meshgrid(*[(0, n - 1) for n in second.shape], indexing="ij"), axis=-1).reshape(-1, 3)
    return float(np.abs(second.to_index(first.to_world(ends)) - ends).max())


def _read(case: RawCase, path: Path) -> Image:
    try:
        return read_image(path)
    except InputError as error:
        raise InputError(f"case {case.case_id}: {error}") from None


def _read_pet(case: RawCase, path: Path, ct: Image) -> tuple[Image, tuple[str, ...]]:
    """The PET in SUV, checked, and warnings."""
    pet = _read(case, path)
    check_finite(case, path, pet.values)
    check_not_swapped(case, ct.values, pet.values)
    suv = pet.values.astype(np.float32) * np.float32(case.pet_factor if case.pet_unit == "BQML" else 1.0)
    check_pet(case, suv)
    covered = covered_share(ct.grid, pet.grid)
    if covered == 0:
        raise InputError(
            f"case {case.case_id}: {path} lies outside {case.ct} in the patient; "
            "expected PET and CT of one examination, so check which files belong together"
        )
    warning = f"case {case.case_id}: PET covers only {covered:.0%} of the CT; the rest is taken as SUV 0"
    warnings = (warning,) if covered < COVERAGE_WARNING else ()
    try:
        notes = suv_notes(suv, ct.values, pet.grid, ct.grid)
    except InputError as error:
        raise InputError(f"case {case.case_id}: {path} {error}") from None
    warnings += tuple(f"case {case.case_id}: {path} {note}" for note in notes)
    return Image(np.maximum(suv, 0.0, out=suv), pet.grid, pet.digest), warnings


def _no_pet(case: RawCase, ct: Image) -> tuple[Image, tuple[str, ...]]:
    """SUV 0 on the CT grid, and a warning."""
    pet = Image(np.zeros(ct.grid.shape, dtype=np.float32), ct.grid, digest="")
    return pet, (f"case {case.case_id}: no PET: it is taken as SUV 0 everywhere; look at this mask before use",)


def _unit_advice(case: RawCase) -> str:
    if case.pet_unit == "BQML":
        return f"check pet_factor ({case.pet_factor:g}) in cases.csv: SUV is Bq/mL * weight in g / dose in Bq"
    return "if it is in Bq/mL, set pet_unit=BQML and pet_factor (SUV per Bq/mL) for this case in cases.csv"


def _some_values(values: NDArray) -> str:
    found = np.unique(values)
    shown = ", ".join(f"{value:g}" for value in found[:6])
    return f"{shown}, ... ({len(found)} different ones)" if len(found) > 6 else shown
