"""What is measured on every case of a cohort, and which cases lie far from the others."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hngtv.cases.findings import CaseFacts, Finding
from hngtv.cases.registration import BODY_SUV
from hngtv.cases.units import BODY_HU

FENCE = 3.0
"""Interquartile ranges beyond the quartiles, past which a value is far. Source: Tukey, Exploratory Data Analysis."""
MIN_CASES = 8
"""With fewer, none is called far out. Source: our choice."""
MIN_DIFFERENCE = 0.02
"""Share of the median below which a difference is none, though all others are equal. Source: our choice."""
MAX_NAMED = 12
"""Cases named in a line; the rest are counted. Source: our choice."""
HU_EDGES = np.arange(BODY_HU, 501.0, 10.0)
SUV_EDGES = np.round(np.arange(BODY_SUV, 20.01, 0.2), 1)
"""Bins of histograms: what is no body is left out, and what lies beyond is in the last bin. Source: our choice."""
MAX_VOXELS = 1_000_000
"""A larger image is counted on a lattice of about so many of its voxels. Source: our choice."""


@dataclass(frozen=True)
class Quantity:
    """One number for each case, or one for each lesion.

    Attributes:
        name: What is measured.
        unit: "" for none.
        is_ratio: Whether 1 is as far from 2 as 2 from 4; the values are then positive.
        values: Case ids with values; a case may occur several times, or not at all.
        counted: What the values are of.
        least: No value is far out that lies nearer to the median.
    """

    name: str
    unit: str
    is_ratio: bool
    values: tuple[tuple[str, float], ...]
    counted: str = "cases"
    least: float = 0.0

    def write(self, value: float) -> str:
        return f"{value:.3g} {self.unit}".strip()


def list_quantities(facts: Sequence[CaseFacts]) -> list[Quantity]:
    """Spacings, height, uptake and volumes, those without any value left out; empty classes have no volume."""
    ct = [(fact, _numbers(fact.ct_spacing_mm)) for fact in facts]
    pet = [(fact, _numbers(fact.pet_spacing_mm)) for fact in facts]
    lesions = [(fact, ml) for fact in facts for ml in _numbers(f"{fact.lesions_gtvp_ml} {fact.lesions_gtvn_ml}")]
    of_lesions = _quantity("volume of a lesion", "ml", True, [(fact, ml) for fact, ml in lesions if ml > 0])
    found = [
        _quantity("CT voxel size in plane", "mm", False, [(fact, max(mm[:2])) for fact, mm in ct]),
        _quantity("CT slice distance", "mm", False, [(fact, mm[2]) for fact, mm in ct]),
        _quantity("PET voxel size in plane", "mm", False, [(fact, max(mm[:2])) for fact, mm in pet]),
        _quantity("PET slice distance", "mm", False, [(fact, mm[2]) for fact, mm in pet]),
        _quantity("CT height", "mm", True, [(fact, mm[2] * _numbers(fact.ct_shape)[2]) for fact, mm in ct]),
        _quantity("SUVmax", "", True, [(fact, fact.suv_max) for fact in facts]),
        _quantity("GTVp volume", "ml", True, [(fact, fact.gtvp_ml) for fact in facts if fact.gtvp_ml]),
        _quantity("GTVn volume", "ml", True, [(fact, fact.gtvn_ml) for fact in facts if fact.gtvn_ml]),
        replace(of_lesions, counted="lesions"),
    ]
    return [quantity for quantity in found if quantity.values]


def find_outliers(quantity: Quantity) -> list[tuple[str, float]]:
    """Case ids with values far out, the farthest first; none where there are few cases."""
    numbers = np.array([value for _, value in quantity.values])
    if len(numbers) < MIN_CASES:
        return []
    scaled = np.log(numbers) if quantity.is_ratio else numbers
    low, middle, high = np.percentile(scaled, (25, 50, 75))
    least = MIN_DIFFERENCE if quantity.is_ratio else max(MIN_DIFFERENCE * abs(middle), quantity.least)
    reach = FENCE * (high - low)
    beyond = (scaled < min(low - reach, middle - least)) | (scaled > max(high + reach, middle + least))
    order = np.argsort(-np.abs(scaled - middle), kind="stable")
    return [quantity.values[i] for i in order if beyond[i]]


def outlier_finding(quantity: Quantity) -> Finding | None:
    """A note that names the cases far out; None without any."""
    outliers = find_outliers(quantity)
    if not outliers:
        return None
    median = quantity.write(float(np.median([value for _, value in quantity.values])))
    lie = "lies" if len(outliers) == 1 else "lie"
    text = f"{quantity.name}: {name_outliers(quantity, outliers)} {lie} far from the others (median {median})"
    return Finding("", "note", f"{text}; it need not be wrong, so look whether it is so in the patient")


def name_outliers(quantity: Quantity, outliers: Sequence[tuple[str, float]]) -> str:
    named = ", ".join(f"{case_id} ({quantity.write(value)})" for case_id, value in outliers[:MAX_NAMED])
    n_more = len(outliers) - MAX_NAMED
    return f"{named} and {n_more} more" if n_more > 0 else named


def value_shares(values: NDArray, edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of voxels in each bin, of those (X, Y, Z) not below the first edge; all 0 if there is none."""
    step = max(1, math.ceil((values.size / MAX_VOXELS) ** (1 / 3)))
    some = values[::step, ::step, ::step]
    counts, _ = np.histogram(np.minimum(some[some >= edges[0]], edges[-1]), edges)
    return counts / max(int(counts.sum()), 1)


def distance_quantity(name: str, unit: str, shares: Mapping[str, NDArray], edges: NDArray[np.float64]) -> Quantity:
    """How far values would have to be moved, on average, to be spread as the cohort's are.

    The area between the cumulative histogram of a case and the median one (earth mover's distance).

    Args:
        name, unit: Of the quantity. No case is far out within a bin's width of the median one.
        shares: (bin,) for each case.
        edges: (bin + 1,) equally spaced.
    """
    if not shares:
        return Quantity(name, unit, False, ())
    width = float(edges[1] - edges[0])
    sums = np.cumsum(np.stack(list(shares.values())), axis=1)
    distances = np.abs(sums - np.median(sums, axis=0)).sum(axis=1) * width
    return Quantity(name, unit, False, tuple(zip(shares, map(float, distances), strict=True)), least=width)


def _quantity(name: str, unit: str, is_ratio: bool, values: Sequence[tuple[CaseFacts, float]]) -> Quantity:
    return Quantity(name, unit, is_ratio, tuple((fact.case_id, value) for fact, value in values))


def _numbers(text: str) -> list[float]:
    return [float(word) for word in text.split()]
