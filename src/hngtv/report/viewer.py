"""A viewer of cases that lives in a page: pictures of axial slices, outlines drawn over them, and a slider.

It needs no server, no library and no network. Without scripts it is a strip of pictures.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from contourpy import contour_generator
from markupsafe import Markup
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image as Picture

from hngtv.report.overlay import CT_WINDOW_HU, PET_WINDOW_SUV, CaseView, central_voxel, view_region
from hngtv.report.words import format_count, format_name, format_number, format_p_cell, format_signed
from hngtv.volume.box import Box
from hngtv.volume.grid import Grid
from hngtv.volume.nifti import Image
from hngtv.volume.resample import resample

N_SLICES = 20
"""Slices of a case at most. Source: our choice, a compromise with the size of the page."""
MAX_SIDE_PIXELS = 256
MAX_HEAT_PIXELS = 128
"""Longest side of a picture of the CT, and of PET or alphas over it. Source: our choice."""
QUALITY = 70
"""Of WebP. Source: our choice."""
TRUTH_COLOUR = "#ffffff"
OUTLINE_COLOURS = ("#6cb8ff", "#ff9a4d", "#3ddc97", "#ff9ade", "#ffd24d", "#a8dcff", "#b79cff", "#cfcfcf")
"""Of the arms: those of `ARM_COLOURS`, lighter, to be seen on a dark scan."""
FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Outline:
    """What one arm made of a case.

    Attributes:
        arm: Its name.
        text: What is said of it beside the pictures.
        labels: (X, Y, Z) on the CT grid; None if there is no prediction.
        boxes: ROIs with their margin, world RAS mm; none where it may outline anywhere.
        gates: Alpha maps in [0, 1] by gate, on grids of their own.
    """

    arm: str
    text: str
    labels: NDArray | None
    boxes: Sequence[Box] = ()
    gates: Mapping[str, Image] = field(default_factory=dict)


def templates() -> jinja2.Environment:
    """The templates of this folder."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": format_number, "signed": format_signed, "count": format_count, "p": format_p_cell}
    environment.filters["name"] = format_name
    return environment


def render_viewer(cases: Sequence[Mapping[str, Any]]) -> str:
    """Cases of `viewer_case` as HTML that stands alone, for a notebook; the first is open."""
    style, script = ((FOLDER / name).read_text(encoding="utf-8") for name in ("viewer.css", "viewer.js"))
    page = templates().get_template("viewer.html.jinja").render(viewer=cases)
    return f"<style>{style}</style>{Markup(page)}<script>{script}</script>"


def viewer_case(
    case_id: str, title: str, view: CaseView, outlines: Sequence[Outline], n_slices: int = N_SLICES
) -> dict[str, Any]:
    """One case as the template wants it.

    Args:
        case_id: Its name.
        title: What is said of it in the line that opens it.
        view: Images and truth; its own prediction and box are not used.
        outlines: Of the arms.
        n_slices: At most.
    """
    labels = [layer for layer in (view.target, *(one.labels for one in outlines)) if layer is not None]
    marked = np.zeros(view.ct.grid.shape, dtype=bool)
    for layer in labels:
        marked |= layer > 0
    together = replace(view, prediction=marked, box=None)
    region, middle = view_region(together), central_voxel(together)[2]
    numbers = pick_slices(np.flatnonzero(marked.any(axis=(0, 1))), middle, view.ct.grid.shape[2], n_slices)
    maps = [alpha for one in outlines for alpha in one.gates.values()]
    return {
        "case_id": case_id,
        "title": title,
        "texts": [one.text for one in outlines],
        "layers": _layers(view, outlines),
        "first": int(np.argmin(np.abs(np.array(numbers) - middle))),
        "slices": [_slice(view, outlines, maps, number, region) for number in numbers],
    }


def _layers(view: CaseView, outlines: Sequence[Outline]) -> list[dict[str, Any]]:
    """What can be switched on and off: key, name, colour, and whether it is off at first."""
    found = [("pet", "PET", "#ff5533", False)] if view.pet is not None else []
    if view.target is not None:
        found.append(("truth", "truth", TRUTH_COLOUR, False))
    found += [(f"arm{i}", one.arm, colour_of(i), False) for i, one in enumerate(outlines)]
    if any(one.boxes for one in outlines):
        found.append(("box", "boxes", "#888888", False))
    gates = [f"{gate} of {one.arm}" for one in outlines for gate in one.gates]
    found += [(f"gate{i}", name, "#35b779", True) for i, name in enumerate(gates)]
    return [dict(zip(("key", "name", "colour", "off"), layer, strict=True)) for layer in found]


def colour_of(number: int) -> str:
    return OUTLINE_COLOURS[number % len(OUTLINE_COLOURS)]


def pick_slices(marked: NDArray[np.integer], middle: int, n_in_image: int, n_slices: int) -> list[int]:
    """Slice numbers, low to high, with the middle one: the marked ones and one beyond each end.

    Where those are too many, evenly chosen among them, so that what lies far from the tumour does not thin it out.
    """
    around = {int(z) + step for z in marked for step in (-1, 0, 1)} or set(range(middle - 8, middle + 9))
    inside = sorted(z for z in around if 0 <= z < n_in_image)
    places = np.unique(np.linspace(0, len(inside) - 1, min(n_slices, len(inside))).round().astype(int))
    return sorted({inside[place] for place in places} | {middle})


def outline_path(mask: NDArray[np.bool_], spacing_mm: Sequence[float]) -> str:
    """Outlines of a mask (X, Y) as an SVG path in mm, the patient's right on the left, front on top; "" if empty."""
    if not mask.any():
        return ""
    picture = np.pad(_as_seen(mask), 1).astype(float)
    lines = contour_generator(z=picture).lines(0.5)
    return "".join(_path_of(np.asarray(line), spacing_mm) for line in lines)


def _path_of(line: NDArray, spacing_mm: Sequence[float]) -> str:
    """A closed line of (column, row) in a picture with a rim of one pixel, its straight parts joined."""
    points = line[:-1]
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    turns = np.abs(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]) > 1e-9
    corners = (points[turns] - 0.5) * np.asarray(spacing_mm[:2])
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in corners) + "Z"


def _slice(
    view: CaseView,
    outlines: Sequence[Outline],
    gates: Sequence[Image],
    number: int,
    region: tuple[slice, slice, slice],
) -> dict[str, Any]:
    slices = (region[0], region[1], slice(number, number + 1))
    grid = view.ct.grid.crop(slices)
    width, height = (n * mm for n, mm in zip(grid.shape[:2], grid.spacing_mm[:2], strict=True))
    position_mm = grid.to_world((np.array(grid.shape) - 1) / 2)[2]
    lines = [{"layer": "truth", "colour": TRUTH_COLOUR, **path} for path in _paths(view.target, slices, grid)]
    for i, one in enumerate(outlines):
        lines += [{"layer": f"arm{i}", "colour": colour_of(i), **path} for path in _paths(one.labels, slices, grid)]
    heats = [] if view.pet is None else [{"layer": "pet", "url": _pet_url(view.pet, grid), "off": False}]
    heats += [{"layer": f"gate{i}", "url": _gate_url(alpha, grid), "off": True} for i, alpha in enumerate(gates)]
    return {
        "caption": f"axial, z = {position_mm:.0f} mm",
        "width": f"{width:.1f}",
        "height": f"{height:.1f}",
        "ct": _ct_url(view.ct.values[slices][..., 0]),
        "heats": heats,
        "lines": lines,
        "boxes": [
            {"colour": colour_of(i), **corner}
            for i, one in enumerate(outlines)
            for box in one.boxes
            for corner in _rectangle(box, view.ct.grid, slices)
        ],
    }


def _paths(labels: NDArray | None, slices: tuple[slice, slice, slice], grid: Grid) -> list[dict[str, Any]]:
    """Path of each label; that of the nodes is dashed."""
    if labels is None:
        return []
    flat = labels[slices][..., 0]
    paths = ((label, outline_path(flat == label, grid.spacing_mm)) for label in (1, 2))
    return [{"path": path, "dashed": label == 2} for label, path in paths if path]


def _rectangle(box: Box, ct: Grid, slices: tuple[slice, slice, slice]) -> list[dict[str, str]]:
    """Where a box cuts the slice, in mm of the picture; nothing if it does not."""
    cut = ct.slices_of(box)
    if not cut[2].start <= slices[2].start < cut[2].stop:
        return []
    (width, height), (x, y) = (
        [(cut[a].stop - cut[a].start) * ct.spacing_mm[a] for a in (0, 1)],
        [(slices[a].stop - cut[a].stop) * ct.spacing_mm[a] for a in (0, 1)],
    )
    return [{name: f"{mm:.1f}" for name, mm in (("x", x), ("y", y), ("width", width), ("height", height))}]


def _as_seen(flat: NDArray) -> NDArray:
    """A slice (X, Y) as the rows of a picture: front on top, the patient's right on the left."""
    return flat[::-1, ::-1].T


def _ct_url(flat: NDArray) -> str:
    low, high = CT_WINDOW_HU
    grey = np.clip((_as_seen(flat).astype(np.float32) - low) / (high - low), 0, 1)
    return _webp(Picture.fromarray((255 * grey).astype(np.uint8)), MAX_SIDE_PIXELS)


def _pet_url(pet: Image, grid: Grid) -> str:
    low, high = PET_WINDOW_SUV
    suv = resample(pet.values, pet.grid, grid, outside=0.0)[..., 0]
    strength = np.clip((_as_seen(suv) - low) / (high - low), 0, 1)
    return _heat(strength, "hot", np.minimum(1.3 * strength, 0.8))


def _gate_url(alpha: Image, grid: Grid) -> str:
    strength = np.clip(_as_seen(resample(alpha.values, alpha.grid, grid, outside=0.0)[..., 0]), 0, 1)
    return _heat(strength, "viridis", np.full_like(strength, 0.55))


def _heat(strength: NDArray, colours: str, opacity: NDArray) -> str:
    pixels = colormaps[colours](strength, bytes=True)
    pixels[..., 3] = (255 * opacity).astype(np.uint8)
    return _webp(Picture.fromarray(pixels), MAX_HEAT_PIXELS)


def _webp(picture: Picture.Image, max_side: int) -> str:
    picture.thumbnail((max_side, max_side))
    stream = io.BytesIO()
    picture.save(stream, "WEBP", quality=QUALITY)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
