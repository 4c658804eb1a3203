"""Boxes from the peaks of a heat map, after CenterNet (Zhou et al. 2019, Objects as Points)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hngtv.config import HeatMapLocaliser
from hngtv.localise.finding import FOUND, Finding
from hngtv.localise.rules import fall_back
from hngtv.volume.box import Box
from hngtv.volume.grid import Grid


@dataclass(frozen=True)
class HeatMaps:
    """What a heat-map network says of a case.

    Attributes:
        heat: (X, Y, Z) in [0, 1]: that a lesion's box has its centre here.
        sides_mm: (3, X, Y, Z): the side lengths of that box along x, y and z, if it does.
    """

    heat: NDArray[np.float32]
    sides_mm: NDArray[np.float32]


def find_peak_boxes(
    maps: HeatMaps, pet_suv: NDArray, grid: Grid, threshold: float, settings: HeatMapLocaliser, case_id: str
) -> Finding:
    """A box for each peak that reaches the threshold: the side lengths said there, about the centre of its voxel.

    Sides are a voxel at least and the image's at most; a box may reach beyond the image.

    Args:
        maps: Of the whole case.
        pet_suv: (X, Y, Z) SUV on the same grid, for the fallback.
        grid: Their grid, axis-aligned.
        threshold: Of the heat; see `choose_threshold`.
        settings: How far apart peaks are, how many are taken, and what to do when there is none.
        case_id: For messages.
    Raises:
        InputError: Nothing is found and `settings.on_empty` is "fail".
    """
    peaks = find_peaks(maps.heat, grid.spacing_mm, threshold, settings.window_mm, settings.max_peaks)
    if len(peaks) == 0:
        return fall_back(f"no peak of heat {threshold:g}", pet_suv, grid, settings.on_empty, case_id)
    at_peaks = tuple(peaks.T)
    sides_mm = np.clip(maps.sides_mm[:, *at_peaks].T, grid.spacing_mm, grid.bounds().size_mm)
    boxes = tuple(map(Box.about, grid.to_world(peaks), sides_mm))
    return Finding(boxes, float(np.mean(maps.heat[at_peaks])), FOUND)


def find_peaks(
    heat: NDArray, spacing_mm: tuple[float, float, float], threshold: float, window_mm: float, max_peaks: int
) -> NDArray[np.intp]:
    """Voxels (N, 3), hottest first, that reach the threshold and are hottest in a window about them.

    Args:
        heat: (X, Y, Z).
        spacing_mm: Of a voxel.
        threshold: Least heat.
        window_mm: Side length of the window; at least the 26 neighbours are in it. Of several voxels in one window
            that are equally hot, one is a peak.
        max_peaks: The hottest are kept.
    """
    reach = np.maximum(window_mm / 2 // np.array(spacing_mm), 1).astype(int)
    hottest = ndimage.maximum_filter(heat, size=tuple(2 * reach + 1), mode="nearest")
    candidates = np.argwhere((heat == hottest) & (heat >= threshold))
    hottest_first = candidates[np.argsort(-heat[tuple(candidates.T)], kind="stable")]
    peaks: list[NDArray[np.intp]] = []
    for voxel in hottest_first:
        if all((np.abs(voxel - peak) > reach).any() for peak in peaks):
            peaks.append(voxel)
        if len(peaks) == max_peaks:
            break
    return np.array(peaks, dtype=np.intp).reshape(-1, 3)
