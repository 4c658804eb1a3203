"""Analytic solids in millimetres, the bricks of the phantom.

A shape answers one question: how far outside its surface is a point (negative inside)? The distances are
approximate away from the surface, which is enough for soft edges a voxel wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from scipy.interpolate import PchipInterpolator

TABLE_STEP_MM = 0.25  # Source: our choice; a column's outline is looked up, not interpolated, at this step.
FAR_MM = 1e4


class Shape(Protocol):
    """A solid with a bounding box, in atlas millimetres."""

    @property
    def low(self) -> np.ndarray: ...

    @property
    def high(self) -> np.ndarray: ...

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Approximate signed distance to the surface [mm], negative inside; inputs are never changed."""
        ...


@dataclass(frozen=True)
class Ellipsoid:
    """A (super)ellipsoid along the atlas axes; `power` 2 is an ellipsoid, 3 is boxier."""

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    power: int = 2

    @property
    def low(self) -> np.ndarray:
        return np.subtract(self.centre, self.radii)

    @property
    def high(self) -> np.ndarray:
        return np.add(self.centre, self.radii)

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        total = np.zeros_like(x)
        for axis, centre, radius in zip((x, y, z), self.centre, self.radii, strict=True):
            scaled = (axis - np.float32(centre)) * np.float32(1.0 / radius)
            total += scaled * scaled if self.power == 2 else np.abs(scaled * scaled * scaled)
        rho = np.sqrt(total) if self.power == 2 else np.cbrt(total)
        return (rho - np.float32(1.0)) * np.float32(min(self.radii))


@dataclass(frozen=True)
class Capsule:
    """A straight rod with round ends."""

    start: tuple[float, float, float]
    end: tuple[float, float, float]
    radius: float

    @property
    def low(self) -> np.ndarray:
        return np.minimum(self.start, self.end) - self.radius

    @property
    def high(self) -> np.ndarray:
        return np.maximum(self.start, self.end) + self.radius

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        along = np.subtract(self.end, self.start)
        offsets = [axis - np.float32(start) for axis, start in zip((x, y, z), self.start, strict=True)]
        weights = (along / float(along @ along)).astype(np.float32)
        fraction = offsets[0] * weights[0] + offsets[1] * weights[1] + offsets[2] * weights[2]
        np.clip(fraction, 0.0, 1.0, out=fraction)
        total = np.zeros_like(x)
        for offset, length in zip(offsets, along.astype(np.float32), strict=True):
            offset -= fraction * length
            total += offset * offset
        return np.sqrt(total) - np.float32(self.radius)


@dataclass(frozen=True)
class Column:
    """An upright tube of elliptical section: centre and radii follow z through `knots`.

    Attributes:
        knots: (n, 5) rows of z, x, y, rx, ry [mm] in any order; values between rows follow a monotone cubic.
        period_mm: above 0, the radii swell and vanish with this period along z (a row of vertebrae).
        filled: the part of a period that is solid.
    """

    knots: Sequence[tuple[float, float, float, float, float]]
    period_mm: float = 0.0
    filled: float = 0.8
    table: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        rows = np.array(sorted(self.knots), dtype=np.float64)
        heights = np.arange(rows[0, 0], rows[-1, 0] + TABLE_STEP_MM, TABLE_STEP_MM)
        table = PchipInterpolator(rows[:, 0], rows[:, 1:])(np.minimum(heights, rows[-1, 0]))
        if self.period_mm > 0:
            phase = np.abs(np.mod(heights / self.period_mm, 1.0) - 0.5) / (0.5 * self.filled)
            table[:, 2:] *= np.sqrt(np.clip(1.0 - phase**6, 0.0025, 1.0))[:, None]
        object.__setattr__(self, "table", np.ascontiguousarray(table.T, dtype=np.float32))

    @property
    def low(self) -> np.ndarray:
        return np.array([*(self.table[:2] - self.table[2:]).min(axis=1), min(self.knots)[0]])

    @property
    def high(self) -> np.ndarray:
        return np.array([*(self.table[:2] + self.table[2:]).max(axis=1), max(self.knots)[0]])

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        bottom, top = np.float32(min(self.knots)[0]), np.float32(max(self.knots)[0])
        row = ((z - bottom) * np.float32(1.0 / TABLE_STEP_MM)).astype(np.int32)
        np.clip(row, 0, self.table.shape[1] - 1, out=row)
        thinner = np.minimum(self.table[2], self.table[3])
        across = (x - self.table[0].take(row)) * (1.0 / self.table[2]).take(row)
        along = (y - self.table[1].take(row)) * (1.0 / self.table[3]).take(row)
        rho = np.sqrt(across * across + along * along)
        result = (rho - np.float32(1.0)) * thinner.take(row)
        np.maximum(result, bottom - z, out=result)
        return np.maximum(result, z - top, out=result)


@dataclass(frozen=True)
class Arch:
    """A horseshoe open to the back: an elliptical wall in front of `centre_y`, between two heights."""

    centre_y: float
    radii: tuple[float, float]
    half_thickness: float
    z_range: tuple[float, float]
    n_gaps: int = 0

    @property
    def low(self) -> np.ndarray:
        return np.array([-self.radii[0] - 2 * self.half_thickness, self.centre_y, self.z_range[0]])

    @property
    def high(self) -> np.ndarray:
        reach = 2 * self.half_thickness
        return np.array([self.radii[0] + reach, self.centre_y + self.radii[1] + reach, self.z_range[1]])

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        forward = y - np.float32(self.centre_y)
        across, along = x * np.float32(1 / self.radii[0]), forward * np.float32(1 / self.radii[1])
        rho = np.sqrt(across * across + along * along)
        wall = np.abs(rho - np.float32(1.0)) * np.float32(min(self.radii))
        if self.n_gaps:
            ripple = np.cos(np.arctan2(across, along) * np.float32(2 * self.n_gaps))
            wall += np.float32(1.2) * np.maximum(ripple, np.float32(0.0))
        wall -= np.float32(self.half_thickness)
        for cut in (-forward, np.float32(self.z_range[0]) - z, z - np.float32(self.z_range[1])):
            np.maximum(wall, cut, out=wall)
        return wall


@dataclass(frozen=True)
class Grown:
    """Another shape, thicker by `mm` (thinner if negative)."""

    shape: Shape
    mm: float

    @property
    def low(self) -> np.ndarray:
        return self.shape.low - self.mm

    @property
    def high(self) -> np.ndarray:
        return self.shape.high + self.mm

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        return self.shape.distance(x, y, z) - np.float32(self.mm)


@dataclass(frozen=True)
class Union:
    """Several shapes melted together; `blend_mm` is the radius of the fillet where they meet."""

    shapes: tuple[Shape, ...]
    blend_mm: float

    @property
    def low(self) -> np.ndarray:
        return np.min([shape.low for shape in self.shapes], axis=0) - self.blend_mm

    @property
    def high(self) -> np.ndarray:
        return np.max([shape.high for shape in self.shapes], axis=0) + self.blend_mm

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        low = np.array([x.min(), y.min(), z.min()])
        high = np.array([x.max(), y.max(), z.max()])
        near = [s for s in self.shapes if np.all(s.low - 50 <= high) and np.all(s.high + 50 >= low)]
        if not near:
            return np.full_like(x, FAR_MM)
        result = near[0].distance(x, y, z)
        for shape in near[1:]:
            other = shape.distance(x, y, z)
            overlap = np.maximum(np.float32(self.blend_mm) - np.abs(result - other), np.float32(0.0))
            result = np.minimum(result, other) - overlap * overlap * np.float32(0.25 / self.blend_mm)
        return result


@dataclass(frozen=True)
class Cut:
    """A shape kept inside one solid and out of others."""

    shape: Shape
    inside: tuple[Shape, ...] = ()
    outside: tuple[Shape, ...] = ()

    @property
    def low(self) -> np.ndarray:
        return self.shape.low

    @property
    def high(self) -> np.ndarray:
        return self.shape.high

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        result = self.shape.distance(x, y, z)
        for solid in self.inside:
            np.maximum(result, solid.distance(x, y, z), out=result)
        for solid in self.outside:
            np.maximum(result, -solid.distance(x, y, z), out=result)
        return result


@dataclass(frozen=True)
class Waves:
    """A smooth random field: a sum of plane waves, standard deviation about 1, the same on every grid."""

    directions: np.ndarray  # (n, 3) [rad/mm]
    phases: np.ndarray  # (n,)

    @classmethod
    def draw(cls, rng: np.random.Generator, n_waves: int, shortest_mm: float, longest_mm: float) -> Waves:
        """Draw `n_waves` waves with lengths between the two, in all directions."""
        normals = rng.normal(size=(n_waves, 3))
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        lengths = rng.uniform(shortest_mm, longest_mm, size=(n_waves, 1))
        return cls((2 * np.pi * normals / lengths), rng.uniform(0, 2 * np.pi, n_waves))

    def __call__(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        total = np.zeros_like(x)
        for (kx, ky, kz), phase in zip(self.directions, self.phases, strict=True):
            total += np.sin(x * x.dtype.type(kx) + y * x.dtype.type(ky) + z * x.dtype.type(kz) + x.dtype.type(phase))
        return total * x.dtype.type(np.sqrt(2.0 / len(self.phases)))


@dataclass(frozen=True)
class Blob:
    """An ellipsoid with a lumpy surface: `roughness` is the bump height as a part of the smallest radius."""

    core: Ellipsoid
    bumps: Waves
    roughness: float

    @property
    def low(self) -> np.ndarray:
        return np.array(self.core.centre) - np.array(self.core.radii) * (1 + 2.5 * self.roughness)

    @property
    def high(self) -> np.ndarray:
        return np.array(self.core.centre) + np.array(self.core.radii) * (1 + 2.5 * self.roughness)

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        result = self.core.distance(x, y, z)
        bump = np.clip(self.bumps(x, y, z), -2.0, 2.0)
        result += bump * np.float32(self.roughness * min(self.core.radii))
        return result
