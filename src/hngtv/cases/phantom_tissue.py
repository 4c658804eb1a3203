"""Tissue values of the phantom, and organs that come in pairs.

Source: our choice, from usual CT numbers; HU at a venous phase where contrast agent matters.
"""

from __future__ import annotations

import numpy as np

from hngtv.cases.phantom_paint import Organ, Profile
from hngtv.cases.phantom_shapes import Column, Ellipsoid

Point = tuple[float, float, float]
Knots = tuple[tuple[float, float, float, float, float], ...]
Value = float | Profile | None

AIR_HU = -1000.0
FAT_HU = -95.0
MUSCLE_HU = 55.0
BONE = Profile((0.0, 2.0, 4.0), (900.0, 700.0, 350.0))


def make_pair(
    name: str, centre: Point, radii: Point, hu: Value, suv: Value, rng: np.random.Generator, power: int = 2
) -> list[Organ]:
    """A left and a right organ: nearly mirror images, a millimetre and a few per cent apart."""
    organs = []
    for side, word in ((1, "right"), (-1, "left")):
        place = np.array([side * centre[0], *centre[1:]]) + np.clip(rng.normal(0, 0.8, 3), -2, 2)
        size = np.array(radii) * np.clip(rng.normal(1.0, 0.05, 3), 0.88, 1.12)
        heat = suv * float(np.clip(rng.normal(1.0, 0.07), 0.85, 1.15)) if isinstance(suv, float) else suv
        organs.append(Organ(f"{name} {word}", Ellipsoid(tuple(place), tuple(size), power), hu, heat))
    return organs


def make_column_pair(name: str, knots: Knots, hu: Value, suv: Value) -> list[Organ]:
    return [
        Organ(name, Column(tuple((z, side * x, y, rx, ry) for z, x, y, rx, ry in knots)), hu, suv) for side in (1, -1)
    ]
