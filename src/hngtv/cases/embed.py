"""Real lesions in long scans: a cropped patient set into a phantom patient that has no tumour.

Training sets are often cropped about the tumour, scans are not. Here the tumour of a cropped case, with the tissue
next to it, is laid into a `phantom_host` scan from the crown to the upper belly, whose brain, tonsils, glands and
heart keep their uptake. Both images of the patient are shifted by one and the same vector, never turned or scaled.

The patient's share of a voxel is 1 on the target and within `FULL_MM` of it, and falls along a cosine to 0 over
`FADE_MM` more. It also falls to 0 at the skin, within `SKIN_MM`: at the patient's, so that the air about a limb, its
couch, or the cut of the crop leaves no hole in the host; and at the host's, so that no flesh hangs in the air. Air
directly beside a target is replaced by the host, too; air on the target itself stays. Source: our choice. A target
cut off by the end of its scan ends as abruptly in the host; `target_at_face` in the facts tells.

What this is good for: whether a method still finds its lesion in a scan many times as large as the crops, among
uptake of organs. What it is not: real anatomy about the lesion. The texture of the real tissue, up to 30 mm about
each target, differs from the drawn rest, and a network may learn that.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hngtv.cases.checks import OUTSIDE_CT_HU, CheckedImages
from hngtv.cases.phantom_host import Host
from hngtv.errors import InputError
from hngtv.volume.box import Box
from hngtv.volume.components import bounding_slices
from hngtv.volume.grid import Grid
from hngtv.volume.resample import resample, resample_labels

FULL_MM, FADE_MM = 10.0, 20.0
"""Distance from the target within which the patient alone is seen, and the width of the fading. Source: our choice."""
SKIN_MM = 5.0
"""Depth below either skin at which the patient counts in full. Source: our choice."""
BODY_ABOVE_HU = -400.0
"""Tissue, as opposed to air, lung and most couches. Source: our choice."""
COUCH_MM = 4.0
"""Half of the in-plane thickness up to which what touches the body counts as couch. Source: our choice."""
DEPTH_GRID_MM = (4.0, 4.0, 4.0)
"""Spacing at which the depth in the host is worked out. Source: our choice; the body is smooth."""
FAR_MM = 1e3

REGIONS = {  # lowest and highest corner of the places of a lesion's middle [atlas mm]; its largest width [mm]
    "neck": ((-50.0, -60.0, -115.0), (50.0, 35.0, -30.0), 60.0),
    "shoulders": ((-190.0, -80.0, -220.0), (190.0, 40.0, -110.0), 120.0),
    "trunk": ((-190.0, -110.0, -410.0), (190.0, 90.0, -220.0), np.inf),
}
"""Where lesions may be set; a wider one would leave little of the neck or the shoulders. Source: our choice."""
N_PLACES = 48
"""Places tried, shared out among the regions. Source: our choice; small lesions fit anywhere, so they vary."""
ENOUGH_IN_BODY = 0.98
"""Share of a target in the body that is as good as all of it. Source: our choice."""
N_POINTS = 500
"""Target voxels by which a place is judged."""
SOFT_HU = (-200.0, 300.0)
SOFT_BELOW_SUV = 3.0
"""What the host may lose to a lesion: soft tissue without high uptake. Source: our choice."""


@dataclass(frozen=True)
class Patient:
    """A cropped patient, ready to be set in.

    Attributes:
        ct: (X, Y, Z) [HU].
        ct_grid: its grid.
        pet: (U, V, W) float32 [SUV].
        pet_grid: its grid.
        target: (X, Y, Z) uint8 labels on the CT grid, not empty.
        distance_mm: (X, Y, Z) float32, from the nearest target voxel, 0 on it.
        depth_mm: (X, Y, Z) float32, below the skin or the faces of the crop, 0 outside the body.
    """

    ct: NDArray
    ct_grid: Grid
    pet: NDArray[np.float32]
    pet_grid: Grid
    target: NDArray[np.uint8]
    distance_mm: NDArray[np.float32]
    depth_mm: NDArray[np.float32]

    @property
    def target_box(self) -> Box:
        slices = bounding_slices(self.target > 0)
        assert slices is not None
        return self.ct_grid.box_of(slices)


@dataclass(frozen=True)
class Place:
    """Where a lesion is set.

    Attributes:
        centre_mm: (3,) world place in the host of the middle of the target's box.
        region: key of `REGIONS`.
        in_body: share of the target at least `SKIN_MM` deep in the host's body.
        in_soft: share of the target in soft tissue of the host without high uptake.
    """

    centre_mm: NDArray[np.float64]
    region: str
    in_body: float
    in_soft: float


@dataclass(frozen=True)
class Embedded:
    """A patient set into a host; the grids are the host's.

    Attributes:
        ct: (X, Y, Z) int16 [HU].
        pet: (U, V, W) float32 [SUV].
        target: (X, Y, Z) uint8 on the grid of the CT, labels as in the source.
        facts: plain JSON values saying where and into what.
    """

    ct: NDArray[np.int16]
    ct_grid: Grid
    pet: NDArray[np.float32]
    pet_grid: Grid
    target: NDArray[np.uint8]
    facts: dict[str, Any]


def make_patient(images: CheckedImages) -> Patient:
    """Work out the distances on which the blending depends.

    Raises:
        InputError: The target is missing or empty; the message does not name the case.
    """
    if images.target is None or not images.target.any():
        what = "no target" if images.target is None else "an empty target"
        raise InputError(f"{what}; expected a lesion to set in, so add its target or leave the case out")
    grid = images.ct.grid
    distance_mm = _distance_to(images.target > 0, grid.spacing_mm)
    body = find_body(images.ct.values, images.target > 0, grid.spacing_mm)
    depth_mm = _distance_to(~np.pad(body, 1), grid.spacing_mm)[1:-1, 1:-1, 1:-1]
    return Patient(images.ct.values, grid, images.pet.values, images.pet.grid, images.target, distance_mm, depth_mm)


def find_body(ct: NDArray, target: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> NDArray[np.bool_]:
    """The part of the patient's body (X, Y, Z) that holds the target.

    The couch, another limb and the air about them are outside; gas enclosed in an axial slice is inside.

    Args:
        ct: (X, Y, Z) [HU].
        target: (X, Y, Z), which always belongs to the body.
        spacing_mm: of both.
    """
    tissue = np.asarray(ct > BODY_ABOVE_HU)
    cross = ndimage.generate_binary_structure(3, 1)
    cross[:, :, [0, 2]] = False
    n_steps = max(1, round(COUCH_MM / spacing_mm[0]))
    thick = np.asarray(ndimage.binary_erosion(tissue, cross, n_steps, border_value=1), dtype=bool) | target
    parts = np.zeros(ct.shape, dtype=np.int32)
    ndimage.label(thick, output=parts)
    held = np.isin(parts, np.unique(parts[target]))
    body = np.asarray(ndimage.binary_dilation(held, cross, n_steps, mask=tissue | target), dtype=bool)
    for z in range(body.shape[2]):
        body[..., z] = ndimage.binary_fill_holes(body[..., z])
    return body


def find_place(rng: np.random.Generator, patient: Patient, host: Host) -> Place:
    """Draw places in all regions that are wide enough, and take the best.

    That is the one with most of the target in the body, and of equals the one with most in soft tissue.

    Raises:
        InputError: The target is larger than the host's field of view; the message does not name the case.
    """
    view, box = host.ct_grid.bounds(), patient.target_box
    if any(size > room for size, room in zip(box.size_mm, view.size_mm, strict=True)):
        sizes = " x ".join(f"{size:.0f}" for size in box.size_mm)
        raise InputError(f"the target is {sizes} mm, too large for the field of view of the phantom scan")
    voxels = np.argwhere(patient.target > 0)
    points_mm = patient.ct_grid.to_world(voxels[:: max(1, len(voxels) // N_POINTS)]) - box.centre_mm
    inner = view.expand(-(FULL_MM + FADE_MM))  # what is next to the lesion is in view, too
    regions = [name for name, (_, _, widest_mm) in REGIONS.items() if max(box.size_mm[:2]) <= widest_mm]
    places = []
    for region in regions:
        low, high, _ = REGIONS[region]
        for atlas_mm in rng.uniform(low, high, (max(1, N_PLACES // len(regions)), 3)):
            moved = Box.about(host.body.to_world(atlas_mm), box.size_mm).move_into(inner)
            places.append(_judge(np.asarray(moved.centre_mm), region, points_mm, host))
    order = rng.permutation(len(places))
    return max((places[i] for i in order), key=_fit)


def _fit(place: Place) -> tuple[float, float]:
    return min(round(place.in_body, 2), ENOUGH_IN_BODY), round(place.in_soft, 1)


def _judge(centre_mm: NDArray[np.float64], region: str, points_mm: NDArray, host: Host) -> Place:
    """A place and how well a target fits there, its points (N, 3) given about the middle of its box."""
    world_mm = points_mm + centre_mm
    hu = _look_up(host.ct, host.ct_grid, world_mm)
    suv = _look_up(host.pet, host.pet_grid, world_mm)
    soft = (hu > SOFT_HU[0]) & (hu < SOFT_HU[1]) & (suv < SOFT_BELOW_SUV)
    in_body = host.depth_mm(world_mm) >= SKIN_MM
    return Place(centre_mm, region, float(in_body.mean()), float((soft & in_body).mean()))


def _look_up(values: NDArray, grid: Grid, points_mm: NDArray) -> NDArray:
    """The voxels nearest to world points (N, 3); those outside take the edge's."""
    index = np.clip(np.rint(grid.to_index(points_mm)).astype(int), 0, np.asarray(grid.shape) - 1)
    return values[tuple(index.T)]


def set_in(patient: Patient, host: Host, place: Place) -> Embedded:
    """Blend a patient into a host; the host's arrays are changed and handed on.

    Raises:
        InputError: Nothing of the target is left on the host's grid; the message does not name the case.
    """
    moved = _move(patient, place.centre_mm - np.asarray(patient.target_box.centre_mm))
    zone = moved.target_box.expand(FULL_MM + FADE_MM)
    part = host.ct_grid.clip(host.ct_grid.slices_of(zone))
    target = np.zeros(host.ct_grid.shape, dtype=np.uint8)
    target[part] = resample_labels(moved.target, moved.ct_grid, host.ct_grid.crop(part))
    if not target.any():
        raise InputError("the target is lost on the voxels of the phantom scan; use size=full")
    ct = _blend(host.ct[part], host.ct_grid.crop(part), moved.ct, moved.ct_grid, moved, host)
    host.ct[part] = np.rint(np.clip(ct, OUTSIDE_CT_HU, np.iinfo(np.int16).max))
    part = host.pet_grid.clip(host.pet_grid.slices_of(zone))
    host.pet[part] = _blend(host.pet[part], host.pet_grid.crop(part), moved.pet, moved.pet_grid, moved, host)
    return Embedded(host.ct, host.ct_grid, host.pet, host.pet_grid, target, _facts(patient, host, place, target))


def _move(patient: Patient, offset_mm: NDArray) -> Patient:
    ct_grid, pet_grid = (_shift(grid, offset_mm) for grid in (patient.ct_grid, patient.pet_grid))
    fields = {name: getattr(patient, name) for name in ("ct", "pet", "target", "distance_mm", "depth_mm")}
    return Patient(ct_grid=ct_grid, pet_grid=pet_grid, **fields)


def _shift(grid: Grid, offset_mm: NDArray) -> Grid:
    affine = grid.matrix.copy()
    affine[:3, 3] += offset_mm
    return Grid.from_array(grid.shape, affine)


def _blend(
    under: NDArray, grid: Grid, values: NDArray, values_grid: Grid, patient: Patient, host: Host
) -> NDArray[np.float32]:
    """The host's values (X, Y, Z) on a grid with an image of the moved patient over them.

    Where the patient's image ends, the host's values stay.
    """
    over = resample(values, values_grid, grid, outside=np.nan)
    alpha = patient_share(patient, host, grid)
    return np.where(np.isnan(over), under, under + alpha * (over - under)).astype(np.float32)


def patient_share(patient: Patient, host: Host, grid: Grid) -> NDArray[np.float32]:
    """The moved patient's share (X, Y, Z) in the voxels of a grid: see the top of this file."""
    distance_mm = resample(patient.distance_mm, patient.ct_grid, grid, outside=FAR_MM)
    depth_mm = resample(patient.depth_mm, patient.ct_grid, grid, outside=0.0)
    fade = np.clip((distance_mm - FULL_MM) / FADE_MM, 0.0, 1.0)
    share = 0.5 * (1.0 + np.cos(np.pi * fade))
    share *= np.clip(np.minimum(depth_mm, _host_depth(host, grid)) / SKIN_MM, 0.0, 1.0)
    middle_on_target = resample(patient.target, patient.ct_grid, grid, outside=0.0, order=0) > 0
    share[middle_on_target | (resample_labels(patient.target, patient.ct_grid, grid) > 0)] = 1.0
    return share.astype(np.float32)


def _host_depth(host: Host, grid: Grid) -> NDArray[np.float32]:
    """Depth in the host (X, Y, Z) on a grid, through a coarser one."""
    coarse = Grid.axis_aligned(grid.bounds(), DEPTH_GRID_MM)
    points_mm = coarse.to_world(np.moveaxis(np.indices(coarse.shape), 0, -1))
    return resample(host.depth_mm(points_mm), coarse, grid, outside=0.0)


def _distance_to(mask: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> NDArray[np.float32]:
    distances = ndimage.distance_transform_edt(~mask, sampling=spacing_mm)
    return np.asarray(distances, dtype=np.float32)


def _touches_face(mask: NDArray[np.bool_]) -> bool:
    """Whether a mask (X, Y, Z) reaches a face of its image, so that the lesion may go on beyond."""
    return any(bool(np.take(mask, end, axis).any()) for axis in range(3) for end in (0, -1))


def _facts(patient: Patient, host: Host, place: Place, target: NDArray[np.uint8]) -> dict[str, Any]:
    voxels = np.argwhere(target)
    return {
        "region": place.region,
        "centre_mm": [round(float(value), 2) for value in place.centre_mm],
        "offset_mm": [float(value) for value in place.centre_mm - np.asarray(patient.target_box.centre_mm)],
        "target_size_mm": [round(value, 1) for value in patient.target_box.size_mm],
        "target_at_face": _touches_face(patient.target > 0),
        "share_in_body": round(place.in_body, 3),
        "share_in_soft_tissue": round(place.in_soft, 3),
        "source_ml": round(int(np.count_nonzero(patient.target)) * patient.ct_grid.voxel_ml, 3),
        "target_ml": round(len(voxels) * host.ct_grid.voxel_ml, 3),
        "host": host.facts,
    }
