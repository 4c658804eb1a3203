"""A grid: where the voxels of an image lie in the patient."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hngtv.volume.box import Box


@dataclass(frozen=True)
class Grid:
    """Shape and affine of a 3D image.

    Attributes:
        shape: Number of voxels along x, y, z.
        affine: Rows of the 4 x 4 matrix from voxel indices (voxel centres) to world RAS mm.
    """

    shape: tuple[int, int, int]
    affine: tuple[tuple[float, ...], ...]

    @classmethod
    def from_array(cls, shape: tuple[int, ...], affine: NDArray) -> "Grid":
        x, y, z = (int(n) for n in shape)
        return cls((x, y, z), tuple(tuple(float(value) for value in row) for row in affine))

    @classmethod
    def axis_aligned(cls, box: Box, spacing_mm: tuple[float, float, float]) -> "Grid":
        """The RAS grid with the given spacing whose voxels just cover a box, centred on it."""
        size_mm = np.subtract(box.upper_mm, box.lower_mm)
        shape = np.maximum(np.ceil(size_mm / spacing_mm - 1e-6), 1).astype(int)
        overhang_mm = shape * spacing_mm - size_mm
        affine = np.diag([*spacing_mm, 1.0])
        affine[:3, 3] = np.asarray(box.lower_mm) - overhang_mm / 2 + np.asarray(spacing_mm) / 2
        return cls.from_array(tuple(shape), affine)

    @property
    def matrix(self) -> NDArray[np.float64]:
        return np.asarray(self.affine, dtype=np.float64)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        x, y, z = np.linalg.norm(self.matrix[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def voxel_ml(self) -> float:
        return float(abs(np.linalg.det(self.matrix[:3, :3]))) / 1000

    @property
    def is_axis_aligned(self) -> bool:
        """Whether the axes are +x, +y, +z of the world, as in every prepared case."""
        return bool(np.allclose(self.matrix[:3, :3], np.diag(self.spacing_mm), atol=1e-6))

    def to_world(self, indices: NDArray) -> NDArray[np.float64]:
        """World RAS mm of voxel indices, shape (..., 3)."""
        return np.asarray(indices) @ self.matrix[:3, :3].T + self.matrix[:3, 3]

    def to_index(self, points_mm: NDArray) -> NDArray[np.float64]:
        """Continuous voxel indices of world points, shape (..., 3)."""
        inverse = np.linalg.inv(self.matrix)
        return np.asarray(points_mm) @ inverse[:3, :3].T + inverse[:3, 3]

    def bounds(self) -> Box:
        """The smallest world box that holds all voxels, their outer faces included."""
        ends = np.array([(-0.5, n - 0.5) for n in self.shape])
        corners = np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, 3)
        world = self.to_world(corners)
        return Box.from_corners(world.min(axis=0), world.max(axis=0))

    def crop(self, slices: tuple[slice, slice, slice]) -> "Grid":
        """The grid of `array[slices]`; a start may be negative or a stop beyond the end (padding)."""
        starts = np.array([s.start for s in slices])
        affine = self.matrix.copy()
        affine[:3, 3] = self.to_world(starts)
        return Grid.from_array(tuple(s.stop - s.start for s in slices), affine)

    def slices_of(self, box: Box) -> tuple[slice, slice, slice]:
        """Slices of the voxels touched by a box, not clipped to the image.

        On an oblique grid these are the slices around the box's eight corners, so the result holds the box.
        """
        lower, upper = np.asarray(box.lower_mm), np.asarray(box.upper_mm)
        corners = np.stack(np.meshgrid(*np.stack([lower, upper], axis=1), indexing="ij"), axis=-1).reshape(-1, 3)
        index = self.to_index(corners)
        starts = np.floor(index.min(axis=0) + 0.5 + 1e-6).astype(int)
        stops = np.maximum(np.ceil(index.max(axis=0) + 0.5 - 1e-6).astype(int), starts + 1)
        x, y, z = (slice(int(a), int(b)) for a, b in zip(starts, stops, strict=True))
        return x, y, z

    def box_of(self, slices: tuple[slice, slice, slice]) -> Box:
        """The world box of the voxels in the slices, their outer faces included."""
        return self.crop(slices).bounds()

    def clip(self, slices: tuple[slice, slice, slice]) -> tuple[slice, slice, slice]:
        """The part of the slices that lies in the image; empty slices where nothing does."""
        x, y, z = (
            slice(min(max(s.start, 0), n), max(min(s.stop, n), min(max(s.start, 0), n)))
            for s, n in zip(slices, self.shape, strict=True)
        )
        return x, y, z
