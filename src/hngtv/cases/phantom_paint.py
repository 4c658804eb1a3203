"""Paints a list of organs on any voxel grid, through the posture of one patient.

A `BodyMap` takes patient world millimetres to the upright atlas frame in which the shapes are drawn, so one
description of a patient can be evaluated on a CT grid, a PET grid, oblique or flipped, and agree with
itself. Grids are painted block by block: a block meets few organs, fits in the cache, and takes its atlas
coordinates from a polynomial through a few exact points.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from hngtv.cases.phantom_shapes import Shape, Waves

Block = tuple[slice, slice, slice]
Grid = tuple[tuple[int, int, int], np.ndarray]
Finish = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]

BLOCK_MM, BLOCK_VOXELS = 100.0, 48  # Source: our choice; a block's arrays stay in the cache.
N_KNOTS = 12  # Source: our choice; a degree-11 polynomial follows a `BodyMap` to well under a voxel.
PROFILE_STEP_MM = 0.25


@dataclass(frozen=True)
class Profile:
    """A value by depth below the surface: `values[i]` at `depths_mm[i]`, linear between, constant beyond."""

    depths_mm: tuple[float, ...]
    values: tuple[float, ...]
    table: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        depths = np.arange(self.depths_mm[0], self.depths_mm[-1] + PROFILE_STEP_MM, PROFILE_STEP_MM)
        table = np.interp(depths, self.depths_mm, self.values).astype(np.float32)
        object.__setattr__(self, "table", table)

    def at(self, distance: np.ndarray) -> np.ndarray:
        row = (distance + np.float32(self.depths_mm[0])) * np.float32(-1.0 / PROFILE_STEP_MM)
        return self.table.take(np.clip(row, 0, len(self.table) - 1).astype(np.int32))


@dataclass(frozen=True)
class Organ:
    """One thing to paint. None leaves a channel as it is; `label` above 0 also writes the target."""

    name: str
    shape: Shape
    hu: float | Profile | None
    suv: float | Profile | None
    label: int = 0


@dataclass(frozen=True)
class BodyMap:
    """Takes world millimetres (RAS) of one patient to the atlas frame.

    Attributes:
        origin_mm: (3,) world position of the atlas origin (the oropharynx).
        tilt: (3, 3) rotation of the whole patient on the couch.
        scale: (3,) patient size over atlas size.
        head_turns_rad: flexion (about x), lean (about y) and turn (about z) of the head on the neck.
        wobbles: three smooth fields that make each patient irregular, one per axis.
        wobble_mm: their standard deviation.
    """

    origin_mm: np.ndarray
    tilt: np.ndarray
    scale: np.ndarray
    head_turns_rad: tuple[float, float, float]
    wobbles: tuple[Waves, Waves, Waves]
    wobble_mm: float

    def to_atlas(self, world: np.ndarray) -> np.ndarray:
        """Map points (..., 3) of world mm to atlas mm, float64."""
        points = (world - self.origin_mm) @ self.tilt / self.scale
        x, y, z = points[..., 0], points[..., 1] + 25.0, points[..., 2] + 15.0  # the head turns about C3
        ramp = np.clip((points[..., 2] + 85.0) / 110.0, 0.0, 1.0)
        bend = ramp * ramp * (3.0 - 2.0 * ramp)
        for axis, angle in enumerate(self.head_turns_rad):
            cos, sin = np.cos(bend * angle), np.sin(bend * angle)
            if axis == 0:
                y, z = cos * y - sin * z, sin * y + cos * z
            elif axis == 1:
                x, z = cos * x - sin * z, sin * x + cos * z
            else:
                x, y = cos * x - sin * y, sin * x + cos * y
        bent = np.stack([x, y - 25.0, z - 15.0], axis=-1)
        ripple = np.stack([wave(*np.moveaxis(points, -1, 0)) for wave in self.wobbles], axis=-1)
        return bent + self.wobble_mm * ripple

    def to_world(self, atlas: np.ndarray) -> np.ndarray:
        """Map atlas points (..., 3) to world mm as if the head were held straight (good to about 2 cm)."""
        return (atlas * self.scale) @ self.tilt.T + self.origin_mm


def iterate_blocks(shape: tuple[int, int, int], zooms_mm: Sequence[float]) -> Iterator[Block]:
    """Cut a grid into boxes of at most about `BLOCK_MM` and `BLOCK_VOXELS` a side."""
    cuts = []
    for n, zoom in zip(shape, zooms_mm, strict=True):
        n_blocks = int(np.ceil(max(n * zoom / BLOCK_MM, n / BLOCK_VOXELS)))
        edges = np.linspace(0, n, n_blocks + 1).round().astype(int)
        cuts.append([slice(int(start), int(stop)) for start, stop in itertools.pairwise(edges)])
    yield from itertools.product(*cuts)


@dataclass(frozen=True)
class AtlasBlock:
    """The atlas coordinates of one block of voxels.

    Attributes:
        axes: atlas x, y and z of every voxel, three (X, Y, Z) float32 arrays.
        lows: per array axis, (n, 3): the lowest atlas coordinates in each of its n planes.
        highs: the same, highest.
    """

    axes: tuple[np.ndarray, np.ndarray, np.ndarray]
    lows: tuple[np.ndarray, ...]
    highs: tuple[np.ndarray, ...]

    def find(self, low: np.ndarray, high: np.ndarray) -> dict[int, Block]:
        """Of n atlas boxes, two (n, 3), those that meet the block, in order: number and part."""
        near = np.flatnonzero(np.all((low <= self.highs[0].max(0)) & (high >= self.lows[0].min(0)), axis=1))
        first, stop = [], []
        for lows, highs in zip(self.lows, self.highs, strict=True):
            meets = np.all((highs >= low[near, None]) & (lows <= high[near, None]), axis=2)  # (near, planes)
            first.append(meets.argmax(axis=1))
            stop.append(np.where(meets.any(axis=1), meets.shape[1] - meets[:, ::-1].argmax(axis=1), 0))
        parts = {}
        for number, starts, stops in zip(near.tolist(), np.transpose(first), np.transpose(stop), strict=True):
            if np.all(stops > starts):
                x, y, z = (slice(int(a), int(b)) for a, b in zip(starts, stops, strict=True))
                parts[number] = (x, y, z)
        return parts


def map_block(body: BodyMap, affine: np.ndarray, block: Block) -> AtlasBlock:
    """Map a block of a grid to the atlas: exactly at `N_KNOTS` points an axis, by a polynomial between."""
    nodes, weights = zip(*(_polynomial(part.stop - part.start) for part in block), strict=True)
    knots = [offsets + part.start for offsets, part in zip(nodes, block, strict=True)]
    index = np.stack(np.meshgrid(*knots, indexing="ij"), axis=-1)
    atlas = body.to_atlas(index @ affine[:3, :3].T + affine[:3, 3])  # (k, k, k, 3)
    lows, highs = [], []
    for axis, weight in enumerate(weights):
        planes = np.tensordot(weight, np.moveaxis(atlas, axis, 0), axes=(1, 0))  # (n, k, k, 3)
        lows.append(planes.min(axis=(1, 2)))
        highs.append(planes.max(axis=(1, 2)))
    x, y, z = (_upsample(atlas[..., axis], weights) for axis in range(3))
    return AtlasBlock((x, y, z), tuple(lows), tuple(highs))


def _upsample(values: np.ndarray, weights: Sequence[np.ndarray]) -> np.ndarray:
    values = np.tensordot(weights[0], values, axes=(1, 0))  # (X, k, k)
    values = np.matmul(weights[1], values)  # (X, Y, k)
    return values.astype(np.float32) @ weights[2].T.astype(np.float32)


@functools.cache
def _polynomial(n_planes: int) -> tuple[np.ndarray, np.ndarray]:
    """Chebyshev nodes over planes 0 .. n - 1 and the weights (n, N_KNOTS) that interpolate from them."""
    nodes = 0.5 * max(n_planes - 1, 1) * (1 - np.cos(np.pi * np.arange(N_KNOTS) / (N_KNOTS - 1)))
    weights = np.ones((n_planes, N_KNOTS))
    for column, node in enumerate(nodes):
        for other in np.delete(nodes, column):
            weights[:, column] *= (np.arange(n_planes) - other) / (node - other)
    return nodes, weights


def mix(values: np.ndarray, distance: np.ndarray, paint: float | Profile, edge_mm: float) -> None:
    """Paint over `values` in place, where `distance` is negative, with an edge `edge_mm` wide."""
    share = np.clip(np.float32(0.5) - distance * np.float32(1.0 / edge_mm), 0.0, 1.0)
    colour = paint.at(distance) if isinstance(paint, Profile) else np.float32(paint)
    values += share * (colour - values)


def paint(
    grid: Grid,
    body: BodyMap,
    organs: Sequence[Organ],
    channel: Literal["hu", "suv"],
    background: float,
    finish: Finish | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Paint one channel of the organs, in order.

    Args:
        grid: shape (X, Y, Z) and affine (4, 4) to world mm.
        body: where the patient is.
        organs: the first is the whole body, and nothing shows outside it; later ones paint over earlier ones.
        channel: which value of an organ to paint.
        background: the value outside the body.
        finish: called as finish(values, x, y, z) on every block, to change its values in place.

    Returns:
        Values (X, Y, Z) float32 and labels (X, Y, Z) uint8 (voxels whose centre is inside a labelled organ).
    """
    shape, affine = grid
    zooms = np.linalg.norm(affine[:3, :3], axis=0)
    edge_mm = float(np.cbrt(np.prod(zooms)))
    low = np.array([organ.shape.low for organ in organs]) - edge_mm
    high = np.array([organ.shape.high for organ in organs]) + edge_mm
    values = np.full(shape, background, dtype=np.float32)
    labels = np.zeros(shape, dtype=np.uint8)
    for block in iterate_blocks(shape, zooms):
        atlas = map_block(body, affine, block)
        part = np.full(values[block].shape, background, dtype=np.float32)
        skin, body_part = None, block
        for number, where in atlas.find(low, high).items():
            if number and skin is None:
                break  # no body in this block
            distance = _paint_organ(organs[number], channel, atlas, where, (part, labels[block]), edge_mm)
            if number == 0:
                skin, body_part = distance, where
        if skin is not None:
            mix(part[body_part], -skin, background, edge_mm)
        if finish is not None:
            finish(part, *atlas.axes)
        values[block] = part
    return values, labels


def _paint_organ(
    organ: Organ,
    channel: str,
    atlas: AtlasBlock,
    where: Block,
    images: tuple[np.ndarray, np.ndarray],
    edge_mm: float,
) -> np.ndarray | None:
    """Paint a part of a block; gives back the distances, or None where the organ is not in that part."""
    values, labels = images
    x, y, z = (np.ascontiguousarray(axis[where]) for axis in atlas.axes)
    distance = organ.shape.distance(x, y, z)
    if distance.min() > 0.5 * edge_mm:
        return None
    colour = getattr(organ, channel)
    if colour is not None:
        mix(values[where], distance, colour, edge_mm)
    if organ.label:
        labels[where][distance <= 0] = organ.label
    return distance
