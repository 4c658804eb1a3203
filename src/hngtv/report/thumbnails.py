"""Small pictures of one case: the CT and the PET over it, axial and coronal, through the tumour with its outline."""

import base64
import io

import numpy as np
from contourpy import contour_generator
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from PIL import Image as Picture
from PIL import ImageDraw

from hngtv.report.overlay import (
    CT_WINDOW_HU,
    PET_WINDOW_SUV,
    PLANES,
    TRUTH_COLOURS,
    CaseView,
    central_voxel,
    view_region,
)
from hngtv.volume.resample import resample

PANEL_PIXELS = 200
QUALITY = 60
"""Of WebP; both make about 20 kB a case. Source: our choice."""
FINE = 2
"""Drawn so many times larger and then made small, so that lines are smooth."""


def draw_strip(view: CaseView) -> tuple[str, str]:
    """Data URLs of two pictures, axial and coronal: CT on the left, CT with PET on the right.

    The slices are those with the most tumour; without a target those through the middle of the image. The patient's
    right is on the left.
    """
    return _pair(view, "axial"), _pair(view, "coronal")


def _pair(view: CaseView, plane: str) -> str:
    across, up, through = PLANES[plane]
    slices = list(view_region(view))
    index = central_voxel(view)[through]
    slices[through] = slice(index, index + 1)
    place = (slices[0], slices[1], slices[2])
    grid = view.ct.grid.crop(place)
    grey = colormaps["gray"](_in_window(np.take(view.ct.values[place], 0, axis=through), CT_WINDOW_HU))[..., :3]
    fused = grey
    if view.pet is not None:
        suv = np.take(resample(view.pet.values, view.pet.grid, grid, outside=0.0), 0, axis=through)
        fused = _blend(grey, _in_window(suv, PET_WINDOW_SUV))
    labels = None if view.target is None else np.take(view.target[place], 0, axis=through)
    sides_mm = (grid.shape[across] * grid.spacing_mm[across], grid.shape[up] * grid.spacing_mm[up])
    strip = Picture.new("RGB", (2 * PANEL_PIXELS, PANEL_PIXELS))
    for column, pixels in enumerate((grey, fused)):
        panel = _panel(pixels, labels, sides_mm)
        left, top = ((PANEL_PIXELS - side) // 2 for side in panel.size)
        strip.paste(panel, (column * PANEL_PIXELS + left, top))
    stream = io.BytesIO()
    strip.save(stream, "WEBP", quality=QUALITY)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _in_window(values: NDArray, window: tuple[float, float]) -> NDArray[np.float32]:
    low, high = window
    return np.clip((values.astype(np.float32) - low) / (high - low), 0, 1)


def _blend(grey: NDArray, strength: NDArray) -> NDArray:
    """Heat over grey (A, B, 3), the stronger the higher the SUV."""
    opacity = np.minimum(1.3 * strength, 0.8)[..., None]
    return (1 - opacity) * grey + opacity * colormaps["hot"](strength)[..., :3]


def _panel(pixels: NDArray, labels: NDArray | None, sides_mm: tuple[float, float]) -> Picture.Image:
    """Colours (A, B, 3) and labels (A, B) as a picture whose longer side is `PANEL_PIXELS`."""
    size = [max(1, round(PANEL_PIXELS * side / max(sides_mm))) for side in sides_mm]
    large = (FINE * size[0], FINE * size[1])
    seen = np.ascontiguousarray((255 * _as_seen(pixels)).astype(np.uint8))
    picture = Picture.fromarray(seen).resize(large, Picture.Resampling.BILINEAR)
    if labels is not None:
        _outline(picture, _as_seen(labels))
    return picture.resize((size[0], size[1]), Picture.Resampling.LANCZOS)


def _outline(picture: Picture.Image, labels: NDArray) -> None:
    """Draw the rim of each label (rows, columns); a rim of background closes outlines at the edge."""
    draw = ImageDraw.Draw(picture)
    scale = np.divide(picture.size, labels.shape[::-1])
    for label, colour in TRUTH_COLOURS.items():
        mask = np.pad(labels == label, 1).astype(float)
        if not mask.any():
            continue
        fill = tuple(round(255 * part) for part in to_rgb(colour))
        for line in contour_generator(z=mask).lines(0.5):
            points = [tuple(point) for point in (np.asarray(line) - 0.5) * scale]
            draw.line(points, fill=fill, width=2 * FINE - 1, joint="curve")


def _as_seen(flat: NDArray) -> NDArray:
    """A slice (across, up, ...) as rows of a picture: what is up on top, the patient's right on the left."""
    return flat[::-1, ::-1].swapaxes(0, 1)
