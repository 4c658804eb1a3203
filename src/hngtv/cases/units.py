"""In which units a CT or a PET seems to be, told by clear signs only: what shows none is not guessed.

All limits are our choice, made so that a real CT in HU and a real PET in SUV show none of the signs.
"""

import numpy as np
from numpy.typing import NDArray

from hngtv.errors import InputError
from hngtv.volume.grid import Grid

GREY_MAX = 255
EXACT = 1e-6
Z_SCORE_TOLERANCE = 0.01
"""Mean and standard deviation of z-scores are this near to 0 and 1 over the whole image."""
OFFSETS_HU = (1024, 1000)
"""Usual intercepts, with their sign turned."""
AIR_HU, TISSUE_HU = (-1074, -874), (-150, 150)
"""Where air and soft tissue lie, -1000 HU and about 0 HU with noise, beam hardening and contrast."""
MIN_SHARE = 0.02
"""Share of voxels that air, soft tissue, or the edge of a window must hold to count as a sign."""
WINDOW_LOW_HU = -900.0
"""A CT whose air lies above this was clipped."""
BODY_HU = -300.0
"""Above this lies the body."""
USUAL_UPTAKE_SUV = (0.15, 2.0)
"""Median uptake of the body, 0.36 to 1.04 in 30 real patients; kBq/mL is 3 to 10 times as much."""
MIN_SUV = 0.1
"""A PET whose maximum is below this holds no uptake, or was divided twice."""
BELOW_ZERO_SUV = -0.1
"""A median of the body below this is no SUV; noise about 0, where padding counts as body, is nearer."""
LEAST_PEAK_SUV = 1.0
"""The body as a whole has SUV 1, so something in any part of it has more, noise alone included."""
LATTICE_POINTS = 40
"""Points along each axis at which the body is looked up."""


def ct_fault(values: NDArray) -> str | None:
    """Why (X, Y, Z) without any voxel of air in HU is no CT in HU, and what to do; None if no sign is clear."""
    low, high = float(values.min()), float(values.max())
    if low == high:
        return f"holds the value {low:g} alone; expected HU with air near -1000, so give the original CT"
    if low >= -1 and high <= 1 + EXACT:
        return f"has values from {low:g} to {high:g}, as after scaling; HU cannot be got back, so give the original CT"
    if low >= 0 and high <= GREY_MAX and _are_whole(values):
        return f"has whole values from {low:g} to {high:g}, as 8-bit grey; HU cannot be got back, give the original CT"
    if fault := intercept_fault(values):
        return fault
    if _at(values, low) >= MIN_SHARE <= _at(values, high):
        return f"is clipped to a window from {low:g} to {high:g}; its air is lost, so give the original CT in HU"
    return None


def intercept_fault(values: NDArray) -> str | None:
    """Why values without padding are no HU: air and soft tissue both lie higher by the usual intercept; None if not."""
    if not values.size:
        return None
    largest = max(OFFSETS_HU)
    air, tissue = (values[_between(values, low + largest, high + largest)] for low, high in (AIR_HU, TISSUE_HU))
    if min(len(air), len(tissue)) < MIN_SHARE * values.size:
        return None
    inside = air[air > values.min()]  # padding about a round field of view lies lowest
    usual = float(np.median(inside if inside.size else air))
    offset = min(OFFSETS_HU, key=lambda offset: abs(usual - (offset - 1000)))
    return (
        f"has minimum {float(values.min()):g} and soft tissue near {offset}: its rescale intercept was not applied; "
        f"set ct_offset=-{offset} for this case in cases.csv"
    )


def ct_window_note(values: NDArray) -> str | None:
    """A note on a CT in HU that was clipped below: usable, but its air is not air."""
    low = float(values.min())
    if low <= WINDOW_LOW_HU or _at(values, low) < MIN_SHARE:
        return None
    return f"is clipped at {low:g} HU; usable, but better give the original CT"


def pet_fault(values: NDArray) -> str | None:
    """Why (X, Y, Z) are no SUV but were scaled or normalised, and what to do; None if no sign is clear."""
    low, high = float(values.min()), float(values.max())
    advice = "SUV cannot be got back, so give the original PET"
    if low >= -1 and MIN_SUV <= high <= LEAST_PEAK_SUV + EXACT:
        return f"has values from {low:g} to {high:g}, and SUV has some above 1, as after scaling; {advice}"
    if low >= 0 and high == GREY_MAX and _are_whole(values):
        return f"has whole values from {low:g} to {high:g}, as 8-bit grey; {advice}"
    if low < 0:
        mean, spread = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
        if abs(mean) <= Z_SCORE_TOLERANCE and abs(spread - 1) <= Z_SCORE_TOLERANCE:
            return f"has mean {mean:.3f} and standard deviation {spread:.3f}, as after z-scoring; {advice}"
    return None


def suv_notes(suv: NDArray, ct_hu: NDArray, pet_grid: Grid, ct_grid: Grid) -> list[str]:
    """What is odd about a PET that may be SUV: whole numbers only, or an uptake of the body far from 1.

    Args:
        suv: (X, Y, Z) on `pet_grid`.
        ct_hu: (X, Y, Z) on `ct_grid`.
    Raises:
        InputError: The body's uptake is clearly below 0.
    """
    notes = []
    if _are_whole(suv):
        notes.append("holds whole numbers only; check that it is SUV and not counts")
    uptake = body_uptake(suv, ct_hu, pet_grid, ct_grid)
    if uptake is not None and uptake < BELOW_ZERO_SUV:
        raise InputError(f"has a median of {uptake:.3g} in the body, as after z-scoring; give the original PET in SUV")
    low, high = USUAL_UPTAKE_SUV
    if uptake is not None and not low <= uptake <= high:
        notes.append(
            f"has a median of {uptake:.3g} in the body, where SUV is about 1; check its unit (kBq/mL, or scaled?) and "
            "its factor"
        )
    return notes


def body_uptake(suv: NDArray, ct_hu: NDArray, pet_grid: Grid, ct_grid: Grid) -> float | None:
    """Median PET value where the CT is no air, on a lattice of points; None where the two share no body."""
    steps = [(np.arange(LATTICE_POINTS) + 0.5) / LATTICE_POINTS * n - 0.5 for n in ct_grid.shape]
    points = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3)
    ct_index = np.rint(points).astype(int)
    pet_index = np.rint(pet_grid.to_index(ct_grid.to_world(points))).astype(int)
    inside = ((pet_index >= 0) & (pet_index < pet_grid.shape)).all(axis=1)
    ct_index, pet_index = np.clip(ct_index[inside], 0, np.array(ct_grid.shape) - 1), pet_index[inside]
    values = suv[tuple(pet_index.T)][ct_hu[tuple(ct_index.T)] > BODY_HU]
    return float(np.median(values)) if len(values) else None


def _are_whole(values: NDArray) -> bool:
    return values.dtype.kind in "iu" or bool(np.array_equal(values, np.rint(values)))


def _between(values: NDArray, low: float, high: float) -> NDArray[np.bool_]:
    return (values >= low) & (values <= high)


def _at(values: NDArray, value: float) -> float:
    return float(np.mean(values == value))
