"""How a phantom patient is scanned: centres, grids, noise, metal streaks and the couch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from hngtv.cases.phantom_anatomy import rotation
from hngtv.cases.phantom_paint import BodyMap, Finish, Grid, Organ, paint
from hngtv.cases.phantom_shapes import Ellipsoid
from hngtv.cases.phantom_tissue import AIR_HU

FWHM_PER_SIGMA = 2.3548


@dataclass(frozen=True)
class Centre:
    """How one hospital scans. Source: our choice."""

    name: str
    ct_zoom_small_mm: tuple[float, float]  # in plane, along z
    ct_zoom_full_mm: tuple[float, float]
    ct_noise_hu: float
    ct_noise_grain: float  # correlation, sigma in voxels
    contrast: bool
    pet_zoom_mm: tuple[float, float]
    pet_fwhm_mm: float
    pet_noise: float
    orientations: tuple[str, ...]


CENTRES = (
    Centre("north", (2.4, 2.5), (0.98, 2.5), 9.0, 0.5, True, (4.0, 4.0), 6.0, 0.10, ("LPS", "LAS")),
    Centre("south", (2.7, 3.0), (1.17, 3.0), 13.0, 0.8, False, (4.07, 3.0), 5.5, 0.16, ("RAS", "LPS")),
    Centre("east", (2.2, 2.8), (0.98, 2.0), 7.0, 0.7, True, (3.65, 3.27), 6.5, 0.12, ("RPS", "LPI")),
    Centre("west", (2.9, 2.9), (1.37, 3.27), 16.0, 0.4, False, (4.3, 4.25), 7.0, 0.20, ("LAS", "PSR")),
)


@dataclass(frozen=True)
class ScanPlan:
    """What is scanned where.

    Attributes:
        centre: the hospital.
        size: `small` or `full`.
        long: down to the heart, not only head and neck.
        oblique: axes a few degrees off the world's.
    """

    centre: Centre
    size: str
    long: bool
    oblique: bool


@dataclass(frozen=True)
class Filling:
    """A metal tooth filling and the streaks around it."""

    place: tuple[float, float, float]
    rays: np.ndarray  # streak strength [HU] over 256 directions


def draw_grids(rng: np.random.Generator, plan: ScanPlan, body: BodyMap) -> tuple[Grid, Grid]:
    """Draw the CT and the PET grid, both around the patient, neither quite in the middle."""
    centre, size = plan.centre, plan.size
    bottom, top = (-330.0, 165.0) if plan.long else (rng.uniform(-130.0, -112.0), rng.uniform(130.0, 168.0))
    flat, tall = centre.ct_zoom_small_mm if size == "small" else centre.ct_zoom_full_mm
    if size == "small" and plan.long:
        flat, tall = 1.25 * flat, 1.25 * tall
    width = {"small": 330.0 if plan.long else 262.0, "full": 512 * flat}[size]
    ct_box = np.array([width, width, top - bottom])
    pet_box = ct_box + ([36.0, 36.0, 10.0] if size == "small" else [100.0, 100.0, 30.0])
    middle = body.to_world(np.array([0.0, -8.0, 0.5 * (bottom + top)]))
    ct_middle = middle + rng.uniform(-6.0, 6.0, 3)
    pet_middle = middle + rng.uniform(-8.0, 8.0, 3)
    ct_turn = _draw_turn(rng) if plan.oblique else np.eye(3)
    pet_turn = ct_turn if rng.random() < 0.5 else np.eye(3)
    ct = make_grid(ct_middle, ct_box, (flat, flat, tall), str(rng.choice(centre.orientations)), ct_turn)
    pet_flat, pet_tall = centre.pet_zoom_mm
    pet = make_grid(pet_middle, pet_box, (pet_flat, pet_flat, pet_tall), str(rng.choice(centre.orientations)), pet_turn)
    return ct, pet


def _draw_turn(rng: np.random.Generator) -> np.ndarray:
    degrees = rng.uniform(2.0, 6.0, 3) * rng.choice([-1.0, 1.0], 3)
    return (
        rotation(0, np.deg2rad(degrees[0])) @ rotation(1, np.deg2rad(degrees[1])) @ rotation(2, np.deg2rad(degrees[2]))
    )


def make_grid(middle: np.ndarray, box_mm: np.ndarray, zooms: tuple, orientation: str, turn: np.ndarray) -> Grid:
    """Make the grid about a middle point (3,) [mm] that fills a box (3,) of the world's x, y, z [mm].

    Args:
        middle: world mm (RAS).
        box_mm: sizes along world x, y, z before the turn.
        zooms: voxel sizes along world x, y, z [mm].
        orientation: axis codes of the array, such as `LPS`.
        turn: (3, 3) rotation of the whole grid.
    """
    directions = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
    shape, linear = [], np.zeros((3, 3))
    for column, letter in enumerate(orientation):
        axis, sign = directions[letter]
        shape.append(round(box_mm[axis] / zooms[axis]))
        linear[axis, column] = sign * zooms[axis]
    affine = np.eye(4)
    affine[:3, :3] = turn @ linear
    affine[:3, 3] = middle - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return (shape[0], shape[1], shape[2]), affine


def draw_fillings(rng: np.random.Generator) -> list[Filling]:
    """Draw two to four fillings in the back teeth."""
    fillings = []
    for _ in range(int(rng.integers(2, 5))):
        angle = np.deg2rad(rng.uniform(15.0, 75.0)) * rng.choice([-1.0, 1.0])
        place = (25.5 * np.sin(angle), 16.0 + 52.0 * np.cos(angle), float(rng.choice([-5.0, 6.0])))
        rays = gaussian_filter(rng.standard_normal(256), 2.5, mode="wrap")
        fillings.append(Filling(place, (rays / rays.std() * 200.0).astype(np.float32)))
    return fillings


def metal_of(fillings: list[Filling]) -> list[Organ]:
    """The fillings themselves, as organs without uptake."""
    return [Organ("filling", Ellipsoid(filling.place, (3.5, 3.5, 3.0)), 3000.0, None) for filling in fillings]


def _streak(fillings: list[Filling]) -> Finish:
    def finish(values: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> None:
        for filling in fillings:
            height = z - np.float32(filling.place[2])
            if np.abs(height).min() > 12.0:
                continue
            across, along = x - np.float32(filling.place[0]), y - np.float32(filling.place[1])
            turn = (np.arctan2(along, across) + np.float32(np.pi)) * np.float32(255.99 / (2 * np.pi))
            away = np.hypot(across, along) * np.float32(1 / 38.0) + height * height * np.float32(1 / 16.0)
            values += filling.rays.take(turn.astype(np.int32)) * np.exp(-away)

    return finish


def image_ct(
    rng: np.random.Generator,
    grid: Grid,
    body: BodyMap,
    organs: list[Organ],
    fillings: list[Filling],
    centre: Centre,
) -> tuple[np.ndarray, np.ndarray]:
    """Make the CT (X, Y, Z) int16 [HU] and the target (X, Y, Z) uint8 on its grid."""
    values, target = paint(grid, body, organs, "hu", AIR_HU, _streak(fillings) if fillings else None)
    _add_couch(values, grid[1], body)
    noise = rng.standard_normal(values.shape, dtype=np.float32)
    gaussian_filter(noise, centre.ct_noise_grain, output=noise, truncate=2.5, mode="wrap")
    noise *= np.float32(centre.ct_noise_hu / noise[:: max(1, len(noise) // 40)].std())
    values += noise
    np.clip(values, -1024.0, 3071.0, out=values)
    return np.rint(values, out=values).astype(np.int16), target


def _add_couch(values: np.ndarray, affine: np.ndarray, body: BodyMap) -> None:
    rows = [affine[1, axis] * np.arange(n, dtype=np.float32) for axis, n in enumerate(values.shape)]
    depth = (rows[0][:, None, None] + rows[1][None, :, None] + rows[2]).astype(np.float32)
    depth += np.float32(affine[1, 3] - (body.origin_mm[1] - 130.0 * body.scale[1]))
    air = values < -900.0
    values[air & (np.abs(depth + 1.5) < 1.5)] = -250.0
    values[air & (depth < -3.0) & (depth > -28.0)] = -940.0


def image_pet(rng: np.random.Generator, grid: Grid, body: BodyMap, organs: list[Organ], centre: Centre) -> np.ndarray:
    """Make the PET (X, Y, Z) float32 [SUV]: activity, blur, and noise that grows with it."""
    values, _ = paint(grid, body, organs, "suv", 0.0)
    zooms = np.linalg.norm(grid[1][:3, :3], axis=0)
    sigma = centre.pet_fwhm_mm / FWHM_PER_SIGMA / zooms
    gaussian_filter(values, sigma, output=values)
    noise = gaussian_filter(rng.standard_normal(values.shape, dtype=np.float32), 0.7 * sigma, mode="wrap")
    values += noise * np.float32(centre.pet_noise / noise.std()) * np.sqrt(values + np.float32(0.05))
    return np.maximum(values, np.float32(0.0), out=values)
