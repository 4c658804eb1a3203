"""From a mask of one slice to closed lines, holes included as keyholes.

A line runs half-way between the centres of voxels inside and outside, so every reader that asks whether a centre lies
inside gets the mask back. A hole is part of the line around it: the line runs to the hole, around it, and back the same
way. Of all encodings of holes this is the one that every reader understood that was tried.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import find_contours

OFF_CENTRE = 0.25
"""Where on its first line a hole is left: not at a corner, so that the way to it meets no centre. Our choice."""


def trace(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Closed lines (N, 2) in voxels around a mask (X, Y), one for each piece, the last point not the first again.

    Pieces that touch at a corner alone are two. At the border of the image, the line lies half a voxel outside.
    """
    pieces = np.zeros(mask.shape, np.int32)
    ndimage.label(mask, output=pieces)  # 4 neighbours, as `find_contours` sees them
    return [_trace_piece(pieces == number) for number in range(1, pieces.max(initial=0) + 1)]


def _trace_piece(piece: NDArray[np.bool_]) -> NDArray[np.float64]:
    lines = [line[:-1] - 1 for line in find_contours(np.pad(piece, 1).astype(float), 0.5)]
    outer, *holes = sorted(lines, key=_area, reverse=True)
    # From right to left: then whatever lies to the right of a hole is part of the line already.
    for hole in sorted(holes, key=lambda line: line[:, 0].max(), reverse=True):
        outer = _join_hole(outer, hole)
    return outer


def _join_hole(outer: NDArray[np.float64], hole: NDArray[np.float64]) -> NDArray[np.float64]:
    """One line around both: to the right from the hole's rightmost end until it meets the outer line, and back."""
    start = int(hole[:, 0].argmax())
    there = (1 - OFF_CENTRE) * hole[start] + OFF_CENTRE * hole[(start + 1) % len(hole)]
    edge, here = _first_met(outer, there)
    around = np.roll(hole, -start - 1, axis=0)  # begins after the point `there`
    return np.concatenate([outer[: edge + 1], [here, there], around, [there, here], outer[edge + 1 :]])


def _first_met(line: NDArray[np.float64], point: NDArray[np.float64]) -> tuple[int, NDArray[np.float64]]:
    """The edge of a line that is met first to the right of a point, by the number of its first end, and where."""
    ends = np.roll(line, -1, axis=0)
    crosses = (line[:, 1] > point[1]) != (ends[:, 1] > point[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        x = line[:, 0] + (point[1] - line[:, 1]) / (ends[:, 1] - line[:, 1]) * (ends[:, 0] - line[:, 0])
    x[~crosses | (x <= point[0])] = np.inf
    edge = int(x.argmin())
    return edge, np.array([x[edge], point[1]])


def _area(line: NDArray[np.float64]) -> float:
    """Enclosed by a line (N, 2), without its sign."""
    x, y = line.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2
