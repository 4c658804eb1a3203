"""A box in the patient, and the share of a mask that it holds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Box:
    """An axis-aligned box in world RAS mm.

    >>> Box((0, 0, 0), (10, 20, 30)).volume_ml
    6.0
    """

    lower_mm: tuple[float, float, float]
    upper_mm: tuple[float, float, float]

    def __post_init__(self) -> None:
        values = (*self.lower_mm, *self.upper_mm)
        if not np.isfinite(values).all() or any(a > b for a, b in zip(self.lower_mm, self.upper_mm, strict=True)):
            raise ValueError(f"a box needs finite corners with lower <= upper, got {self.lower_mm} and {self.upper_mm}")

    @classmethod
    def from_corners(cls, lower_mm: ArrayLike, upper_mm: ArrayLike) -> "Box":
        x0, y0, z0 = (float(v) for v in np.asarray(lower_mm))
        x1, y1, z1 = (float(v) for v in np.asarray(upper_mm))
        return cls((x0, y0, z0), (x1, y1, z1))

    @classmethod
    def about(cls, centre_mm: ArrayLike, size_mm: ArrayLike) -> "Box":
        """The box of the given side lengths about a centre."""
        half = np.asarray(size_mm, dtype=np.float64) / 2
        return cls.from_corners(np.subtract(centre_mm, half), np.add(centre_mm, half))

    @property
    def size_mm(self) -> tuple[float, float, float]:
        x, y, z = (b - a for a, b in zip(self.lower_mm, self.upper_mm, strict=True))
        return x, y, z

    @property
    def centre_mm(self) -> tuple[float, float, float]:
        x, y, z = ((a + b) / 2 for a, b in zip(self.lower_mm, self.upper_mm, strict=True))
        return x, y, z

    @property
    def volume_ml(self) -> float:
        return float(np.prod(self.size_mm)) / 1000

    def expand(self, margin_mm: float) -> "Box":
        """The box grown by a margin on every side."""
        return Box.from_corners(np.subtract(self.lower_mm, margin_mm), np.add(self.upper_mm, margin_mm))

    def grow_to(self, size_mm: ArrayLike) -> "Box":
        """The box grown about its centre to at least the given side lengths."""
        return Box.about(self.centre_mm, np.maximum(np.asarray(size_mm), self.size_mm))

    def scale(self, factor: float) -> "Box":
        """The box with its side lengths times a factor, about its centre."""
        return Box.about(self.centre_mm, np.multiply(factor, self.size_mm))

    def shift(self, offset_mm: ArrayLike) -> "Box":
        return Box.from_corners(np.add(self.lower_mm, offset_mm), np.add(self.upper_mm, offset_mm))

    def move_into(self, other: "Box") -> "Box":
        """The box, moved as little as needed to lie in another; centred on it along axes where it is the longer one."""
        lower, upper = np.asarray(self.lower_mm), np.asarray(self.upper_mm)
        room = np.subtract(other.size_mm, self.size_mm)
        inside = np.clip(lower, other.lower_mm, np.subtract(other.upper_mm, self.size_mm))
        moved = np.where(room < 0, np.add(other.lower_mm, room / 2), inside)
        return Box.from_corners(moved, moved + (upper - lower))

    def intersect(self, other: "Box") -> "Box | None":
        """The common part; None if there is none of positive volume."""
        lower = np.maximum(self.lower_mm, other.lower_mm)
        upper = np.minimum(self.upper_mm, other.upper_mm)
        return Box.from_corners(lower, upper) if (lower < upper).all() else None

    def distance_mm(self, other: "Box") -> float:
        """Shortest distance between two boxes; 0 where they touch or overlap."""
        gaps = np.maximum(np.subtract(self.lower_mm, other.upper_mm), np.subtract(other.lower_mm, self.upper_mm))
        return float(np.linalg.norm(np.maximum(gaps, 0)))


def union_ml(boxes: Sequence[Box]) -> float:
    """Volume that at least one of the boxes holds; 0 for none."""
    edges = [np.unique([corner[axis] for box in boxes for corner in (box.lower_mm, box.upper_mm)]) for axis in range(3)]
    cells = np.zeros([max(len(along) - 1, 0) for along in edges], dtype=bool)
    for box in boxes:
        x, y, z = (
            slice(*np.searchsorted(along, (low, high)))
            for along, low, high in zip(edges, box.lower_mm, box.upper_mm, strict=True)
        )
        cells[x, y, z] = True
    widths = [np.diff(along) for along in edges]
    return float(np.einsum("xyz,x,y,z->", cells, *widths)) / 1000


def hull(boxes: Sequence[Box]) -> Box:
    """The smallest box that holds all of them, at least one."""
    return Box.from_corners(
        np.min([box.lower_mm for box in boxes], axis=0), np.max([box.upper_mm for box in boxes], axis=0)
    )
