"""DICOM SEG: masks of segments, taken over onto the CT grid voxel by voxel."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hngtv.cases.dicom.geometry import grid_of_lps
from hngtv.cases.dicom.outlines import Drawn, OutlineFile
from hngtv.cases.dicom.read import items_of, read_whole, text_of, value_of
from hngtv.errors import InputError
from hngtv.volume.grid import Grid

OFF_GRID_VOXELS = 0.1
"""Largest shift, in voxels, at which a segment counts as on the CT grid. Source: our choice."""
INSIDE = 0.5
"""A fractional segment holds a voxel from this value on. Source: our choice."""


@dataclass(frozen=True)
class Seg(OutlineFile):
    """A DICOM segmentation."""

    def draw(self, number: int, grid: Grid, frame: str) -> Drawn:
        values, own = _read_segment(self.path, number)
        indices = np.argwhere(values >= INSIDE)
        there = grid.to_index(own.to_world(indices))
        nearest = np.rint(there).astype(int)
        off = float(np.abs(there - nearest).max(initial=0.0))
        if off > OFF_GRID_VOXELS or not np.allclose(sorted(own.spacing_mm), sorted(grid.spacing_mm), rtol=0.01):
            raise InputError(
                f"lies on another grid than the CT, {off:.2f} voxels off, spacing {_text(own)} against {_text(grid)} "
                "mm; expected the CT grid, so it was drawn on another series"
            )
        if (nearest < 0).any() or (nearest >= grid.shape).any():
            raise InputError("lies partly outside the CT; expected the CT grid, so it was drawn on another series")
        voxels = np.zeros(grid.shape, dtype=bool)
        voxels[tuple(nearest.T)] = True
        return Drawn(voxels, "SEG")


def read_seg(path: Path) -> Seg:
    """Read the names of segments and what they refer to; masks are read when drawn.

    Raises:
        InputError: The file is damaged.
    """
    header = read_whole(path)
    names = {
        int(item.SegmentNumber): text_of(item, "SegmentLabel")
        for item in items_of(header, "SegmentSequence")
        if value_of(item, "SegmentNumber") is not None
    }
    series = {text_of(item, "SeriesInstanceUID") for item in items_of(header, "ReferencedSeriesSequence")}
    frame = text_of(header, "FrameOfReferenceUID")
    return Seg(
        path=path,
        kind="SEG",
        uid=text_of(header, "SOPInstanceUID"),
        frames=frozenset({frame} - {""}),
        series=frozenset(series - {""}),
        names=names,
    )


def _read_segment(path: Path, number: int) -> tuple[NDArray, Grid]:
    """Values of one segment, and their grid; frames that were left out as empty are 0."""
    from highdicom.seg import segread

    try:
        volume = segread(path).get_volume(segment_numbers=[number])
    except Exception as error:  # highdicom and its decoders raise nearly anything on a damaged file
        text = " ".join(str(error).split())[:120]
        raise InputError(f"cannot be read ({type(error).__name__}: {text}); export it again") from None
    values = np.asarray(volume.array)[..., 0]
    # The array may be turned in any way; the affine that comes with it says how.
    return values, grid_of_lps(values.shape, volume.affine)


def _text(grid: Grid) -> str:
    return " x ".join(f"{value:.2f}" for value in grid.spacing_mm)
