"""A phantom patient without tumours, scanned from the crown to the upper belly, to set real lesions into.

The drawn anatomy ends about 610 mm below the crown (in patients of average height), which is less than a scan of
200 slices of 3.27 mm. So a full scan takes the length that exists, in 200 slices of about 3 mm.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hngtv.cases.phantom_anatomy import draw_anatomy, draw_body_map
from hngtv.cases.phantom_paint import BodyMap
from hngtv.cases.phantom_paint import Grid as PaintGrid
from hngtv.cases.phantom_scan import CENTRES, Centre, draw_fillings, image_ct, image_pet, make_grid, metal_of
from hngtv.cases.phantom_shapes import Shape
from hngtv.volume.grid import Grid

HOST_SIZES = ("small", "full")
TOP_MM, BOTTOM_MM = 168.0, -435.0
"""Atlas heights of a scan's ends: above the crown, and where a tilted body is still whole. Source: our choice."""
CT_SHAPE = {"full": (512, 512, 200), "small": (128, 128, 100)}
IN_PLANE_MM = {"full": 0.98, "small": 3.92}
"""CT voxels in plane; both sizes show 50 cm. Source: our choice, after the soft-tissue sarcoma cohort."""
SMALL_PET_MM = (7.8, 7.8)
"""PET voxels of a small scan, in plane and along z; a full scan has its centre's. Source: our choice."""
PET_WIDER_MM = (100.0, 100.0, 20.0)
"""By how much the PET is larger than the CT, as in the phantom's full scans."""
ORIENTATION = "LPS"
"""Array axes of host scans, those of files converted from DICOM."""
P_STREAKS, P_BROWN_FAT = 1 / 3, 1 / 12
"""Shares of patients with metal streaks and with hot brown fat, those of the phantom."""


@dataclass(frozen=True)
class Host:
    """A patient without tumours.

    Attributes:
        ct: (X, Y, Z) int16 [HU].
        ct_grid: its grid, along the axes of the world.
        pet: (U, V, W) float32 [SUV].
        pet_grid: its grid, along the axes of the world.
        body: takes world mm to atlas mm.
        surface: of the body, in the atlas.
        facts: plain JSON values saying what was drawn.
    """

    ct: NDArray[np.int16]
    ct_grid: Grid
    pet: NDArray[np.float32]
    pet_grid: Grid
    body: BodyMap
    surface: Shape
    facts: dict[str, Any]

    def depth_mm(self, points_mm: NDArray) -> NDArray[np.float32]:
        """Depth (...) of world points (..., 3) below the body's surface, about right, negative outside."""
        x, y, z = np.moveaxis(self.body.to_atlas(points_mm).astype(np.float32), -1, 0)
        return -self.surface.distance(x, y, z)


def draw_host(rng: np.random.Generator, size: str) -> Host:
    """Draw a patient of any phantom centre; `size` is `full` (512 x 512 x 200) or `small`, 4 and 2 times coarser."""
    centre = CENTRES[int(rng.integers(len(CENTRES)))]
    streaks, brown_fat = bool(rng.random() < P_STREAKS), bool(rng.random() < P_BROWN_FAT)
    body = draw_body_map(rng)
    anatomy = draw_anatomy(rng, contrast=centre.contrast, brown_fat=brown_fat)
    fillings = draw_fillings(rng) if streaks else []
    organs = [*anatomy.organs, *metal_of(fillings)]
    ct_grid, pet_grid = _make_grids(body, centre, size)
    ct, _ = image_ct(rng, ct_grid, body, organs, fillings, centre)
    pet = image_pet(rng, pet_grid, body, organs, centre)
    facts = {"centre": centre.name, "contrast": centre.contrast, "streaks": streaks, "brown_fat": brown_fat}
    return Host(
        ct,
        Grid.from_array(*ct_grid),
        pet,
        Grid.from_array(*pet_grid),
        body,
        anatomy.body,
        facts | {"origin_mm": [round(float(value), 2) for value in body.origin_mm]},
    )


def _make_grids(body: BodyMap, centre: Centre, size: str) -> tuple[PaintGrid, PaintGrid]:
    """The CT and the PET grid, both about the middle of the body."""
    shape, flat_mm = CT_SHAPE[size], IN_PLANE_MM[size]
    tall_mm = (TOP_MM - BOTTOM_MM) * float(body.scale[2]) / shape[2]
    zooms_mm = (flat_mm, flat_mm, tall_mm)
    box_mm = np.multiply(shape, zooms_mm)
    middle_mm = body.to_world(np.array([0.0, -8.0, 0.5 * (TOP_MM + BOTTOM_MM)]))
    pet_flat_mm, pet_tall_mm = centre.pet_zoom_mm if size == "full" else SMALL_PET_MM
    pet_zooms_mm = (pet_flat_mm, pet_flat_mm, pet_tall_mm)
    ct = make_grid(middle_mm, box_mm, zooms_mm, ORIENTATION, np.eye(3))
    return ct, make_grid(middle_mm, box_mm + PET_WIDER_MM, pet_zooms_mm, ORIENTATION, np.eye(3))
