"""RTSTRUCT: contours in the patient, filled on the slices of the CT.

The rule for a voxel: it belongs to a contour if its centre lies inside. Where centres lie exactly on the line, as when
a planning system draws from centre to centre, those at the far end of an axis are in and those at the near end out.
So a contour of 10 x 10 mm fills 10 x 10 mm, and not one voxel more or less all around.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from skimage.draw import polygon
from skimage.measure import points_in_poly

from hngtv.cases.dicom.geometry import to_ras
from hngtv.cases.dicom.outlines import Drawn, OutlineFile
from hngtv.cases.dicom.read import items_of, number_of, read_whole, shown, tag_name, text_of, value_of
from hngtv.errors import InputError
from hngtv.volume.grid import Grid

PLANAR, XOR = "CLOSED_PLANAR", "CLOSEDPLANAR_XOR"
NUDGE_VOXELS = 1e-6
"""How far contours are moved so that no centre lies on a line. Source: our choice, far below their digits."""
OFF_SLICE = 0.25
"""How far, in slices, a contour may lie from the middle of a slice. Source: our choice."""

MIN_STEPS = 3
"""From so many steps between slices on, they say how an outline was drawn; fewer may be small nodes. Our choice."""


@dataclass(frozen=True)
class Contour:
    """A closed line: its points (N, 2) in voxels along x and y, the slice it lies in, and its DICOM type."""

    points: NDArray[np.float64]
    z: int
    kind: str


@dataclass(frozen=True)
class RtStruct(OutlineFile):
    """An RT structure set; `contours` and `frame_of` by number of the outline."""

    contours: dict[int, list[Dataset]]
    frame_of: dict[int, str]

    def draw(self, number: int, grid: Grid, frame: str) -> Drawn:
        if self.frame_of[number] not in ("", frame):
            raise InputError(f"is drawn in another frame of reference, {self.frame_of[number]}, than the CT, {frame}")
        contours, warnings = _read_contours(self.contours[number], grid)
        _check_every_slice(contours)
        encoding = XOR if any(contour.kind == XOR for contour in contours) else PLANAR
        return Drawn(fill(contours, grid.shape), encoding, warnings)


def read_rtstruct(path: Path) -> RtStruct:
    """Read the names and what they refer to; contours are looked at when drawn.

    Raises:
        InputError: The file is damaged, or two outlines have one number.
    """
    dataset = read_whole(path)
    contours: dict[int, list[Dataset]] = defaultdict(list)
    for item in items_of(dataset, "ROIContourSequence"):
        if (number := _number_in(item, "ReferencedROINumber", path)) is not None:
            contours[number] += items_of(item, "ContourSequence")
    rois: dict[int, Dataset] = {}
    for item in items_of(dataset, "StructureSetROISequence"):
        if (number := _number_in(item, "ROINumber", path)) is None:
            continue
        if number in rois:
            raise InputError(f"{shown(path)} has two outlines of {tag_name('ROINumber')} = {number}; export it again")
        rois[number] = item
    if rois and not contours:
        raise InputError(
            f"{shown(path)} names outlines and lacks {tag_name('ROIContourSequence')}; it may be cut short"
        )
    frame_of = {number: text_of(item, "ReferencedFrameOfReferenceUID") for number, item in rois.items()}
    referenced = items_of(dataset, "ReferencedFrameOfReferenceSequence")
    frames = {text_of(item, "FrameOfReferenceUID") for item in referenced} | set(frame_of.values())
    frames.add(text_of(dataset, "FrameOfReferenceUID"))
    series = {
        text_of(item, "SeriesInstanceUID")
        for frame in referenced
        for study in items_of(frame, "RTReferencedStudySequence")
        for item in items_of(study, "RTReferencedSeriesSequence")
    }
    names = {number: text_of(item, "ROIName") for number, item in rois.items()}
    return RtStruct(
        path=path,
        kind="RTSTRUCT",
        uid=text_of(dataset, "SOPInstanceUID"),
        frames=frozenset(frames - {""}),
        series=frozenset(series - {""}),
        names=names,
        contours={number: contours.get(number, []) for number in names},
        frame_of=frame_of,
    )


def _number_in(item: Dataset, keyword: str, path: Path) -> int | None:
    return None if value_of(item, keyword) is None else int(number_of(item, keyword, shown(path)))


def fill(contours: Sequence[Contour], shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    """Voxels (X, Y, Z) inside contours, each slice for itself.

    If a contour of a slice is of type CLOSEDPLANAR_XOR, voxels inside an odd number of its contours are taken.
    Otherwise contours are joined, but one wholly inside another is a hole in it, and one inside the hole is solid
    again. A keyhole needs no rule: its line runs to the hole and back, and what it goes around is outside.
    """
    voxels = np.zeros(shape, dtype=bool)
    for z in sorted({contour.z for contour in contours}):
        here = [contour for contour in contours if contour.z == z]
        areas = [_fill_one(contour, shape[:2]) for contour in here]
        if any(contour.kind == XOR for contour in here):
            voxels[:, :, z] = np.logical_xor.reduce(areas)
        else:
            voxels[:, :, z] = _join(here, areas)
    return voxels


def _fill_one(contour: Contour, shape: tuple[int, int]) -> NDArray[np.bool_]:
    area = np.zeros(shape, dtype=bool)
    x, y = (contour.points + NUDGE_VOXELS).T
    area[polygon(x, y, shape)] = True
    return area


def _join(contours: Sequence[Contour], areas: Sequence[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """Contours joined, from the outermost to the innermost."""
    depths = [sum(_lies_in(i, k, contours, areas) for k in range(len(areas))) for i in range(len(areas))]
    joined = np.zeros_like(areas[0])
    for depth in range(max(depths) + 1):
        for area in (areas[i] for i in range(len(areas)) if depths[i] == depth):
            joined[area] = depth % 2 == 0
    return joined


def _lies_in(i: int, k: int, contours: Sequence[Contour], areas: Sequence[NDArray[np.bool_]]) -> bool:
    """Whether contour i lies wholly inside contour k.

    Judged by voxels, since a hole may touch the line around it, and by most points, since one that is drawn twice, or
    crosses by less than a voxel, is none.
    """
    n_inner, n_outer = int(areas[i].sum()), int(areas[k].sum())
    if not 0 < n_inner < n_outer or (areas[i] & ~areas[k]).any():
        return False
    return bool(np.mean(points_in_poly(contours[i].points, contours[k].points)) > 0.5)


def _read_contours(items: Sequence[Dataset], grid: Grid) -> tuple[list[Contour], tuple[str, ...]]:
    contours, passed_over = [], Counter()
    for item in items:
        kind = text_of(item, "ContourGeometricType").upper()
        points = _points_of(item)
        if kind not in (PLANAR, XOR) or len(points) < 3:
            passed_over[kind or "unknown"] += 1
        else:
            contours.append(_on_slice(points, kind, grid))
    return contours, tuple(
        f"has {n} contour(s) of type {kind} that enclose nothing; they were passed over"
        for kind, n in sorted(passed_over.items())
    )


def _points_of(item: Dataset) -> NDArray[np.float64]:
    """Points (N, 3) in LPS mm."""
    try:
        values = np.asarray(value_of(item, "ContourData"), dtype=np.float64).reshape(-1, 3)
    except (TypeError, ValueError):
        raise InputError("has a contour whose ContourData (3006,0050) are no points; export it again") from None
    if not np.isfinite(values).all():
        raise InputError("has a contour with points that are no numbers; export it again")
    return values


def _on_slice(points: NDArray[np.float64], kind: str, grid: Grid) -> Contour:
    index = grid.to_index(to_ras(points))
    z = int(np.rint(index[:, 2].mean()))
    off = float(np.abs(index[:, 2] - z).max())
    place = f"at {points[0].round(2).tolist()} mm (DICOM)"
    if off > OFF_SLICE:
        raise InputError(
            f"a contour {place} lies up to {off:.2f} slices off the CT's slices; expected it on one slice, so it was "
            "drawn on another series or in another plane"
        )
    size = np.asarray(grid.shape[:2])
    inside = 0 <= z < grid.shape[2] and (index[:, :2].max(0) > -0.5).all() and (index[:, :2].min(0) < size - 0.5).all()
    if not inside:
        raise InputError(f"a contour {place} lies outside the CT; expected it inside, so it belongs to another series")
    return Contour(index[:, :2], z, kind)


def _check_every_slice(contours: Sequence[Contour]) -> None:
    """Raise InputError if no two contours lie on neighbouring slices, and the planning system fills in between."""
    steps = np.diff(sorted({contour.z for contour in contours}))
    if len(steps) >= MIN_STEPS and steps.min() > 1:
        raise InputError(
            f"contours lie {steps.min()} or more slices apart; expected one on each slice of the CT, so interpolate in "
            "the planning system and export again"
        )
