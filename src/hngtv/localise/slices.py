"""A box from axial slices that may hold tumour, as Zhu et al. 2020 keep them, and from the attention inside them."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from hngtv.config import AttentionBoxSettings, SliceLocaliser
from hngtv.localise.finding import FOUND, Finding
from hngtv.localise.rules import fall_back
from hngtv.run_folder import write_csv
from hngtv.volume.box import Box
from hngtv.volume.components import bounding_slices, remove_minor_components
from hngtv.volume.grid import Grid

Slices = tuple[slice, slice, slice]


@dataclass(frozen=True)
class SliceScores:
    """What a slice classifier says of a case.

    Attributes:
        tumour: (Z,) probability that a slice holds tumour.
        attention: (X, Y, Z) merged attention of its gates, each slice with largest value 1; None without gates.
    """

    tumour: NDArray[np.float32]
    attention: NDArray[np.float32] | None


def find_slice_boxes(
    scores: SliceScores, pet_suv: NDArray, grid: Grid, threshold: float, settings: SliceLocaliser, case_id: str
) -> Finding:
    """A slab for each run of kept slices, or the box around the attention inside it.

    Args:
        scores: Of all slices.
        pet_suv: (X, Y, Z) SUV on the same grid, for the fallback.
        grid: Their grid, axis-aligned.
        threshold: Of a slice's probability; see `choose_threshold`.
        settings: How slices are kept, how attention becomes a box, and what to do when no slice is kept.
        case_id: For messages.
    Raises:
        InputError: No slice is kept and `settings.on_empty` is "fail".
    """
    spacing_mm = grid.spacing_mm[2]
    kept, reason = keep_slices(scores.tumour, threshold, spacing_mm, settings), FOUND
    if not kept.any() and settings.top_k:
        kept = _likeliest(_smooth(scores.tumour, spacing_mm, settings), settings.top_k)
        reason = f"fallback:top_{settings.top_k} (no slice of probability {threshold:g})"
    if not kept.any():
        return fall_back(f"no slice of probability {threshold:g}", pet_suv, grid, settings.on_empty, case_id)
    confidence = float(np.mean(scores.tumour[kept])) if reason == FOUND else 0.0
    kept = _widen(kept, round(settings.slice_margin_mm / spacing_mm))
    boxes = [grid.box_of(_box_in(run, scores, grid, settings)) for run in runs_of(kept)]
    return Finding(tuple(boxes), confidence, reason)


def _box_in(run: slice, scores: SliceScores, grid: Grid, settings: SliceLocaliser) -> Slices:
    """The whole slices of a run, or the box around the attention in them."""
    x, y, _ = (slice(0, n) for n in grid.shape)
    if settings.in_plane == "attention":
        assert scores.attention is not None
        region = attention_region(scores.attention[:, :, run], grid.spacing_mm, settings.attention)
        if (found := bounding_slices(region)) is not None:
            x, y, _ = found
    return x, y, run


def keep_slices(tumour: NDArray, threshold: float, spacing_mm: float, settings: SliceLocaliser) -> NDArray[np.bool_]:
    """Slices (Z,) that may hold tumour: smoothed, at the threshold or above, gaps filled, the longest run or all."""
    tumour = _smooth(tumour, spacing_mm, settings)
    kept = _fill_gaps(tumour >= threshold, int(settings.max_gap_mm / spacing_mm))
    if settings.keep == "all" or not kept.any():
        return kept
    runs = runs_of(kept)
    longest = max(runs, key=lambda run: run.stop - run.start)
    only = np.zeros_like(kept)
    only[longest] = True
    return only


def _smooth(tumour: NDArray, spacing_mm: float, settings: SliceLocaliser) -> NDArray:
    """Probabilities (Z,) smoothed along the patient."""
    if settings.smoothing_mm == 0:
        return tumour
    return ndimage.gaussian_filter1d(tumour, settings.smoothing_mm / spacing_mm, mode="nearest")


def _likeliest(tumour: NDArray, n_slices: int) -> NDArray[np.bool_]:
    """The run of slices between the outermost of the `n_slices` likeliest."""
    best = np.argsort(-tumour, kind="stable")[:n_slices]
    kept = np.zeros(len(tumour), dtype=bool)
    kept[best.min() : best.max() + 1] = True
    return kept


def _widen(kept: NDArray[np.bool_], n_slices: int) -> NDArray[np.bool_]:
    """Keep also `n_slices` slices on either side of kept ones."""
    return np.asarray(ndimage.binary_dilation(kept, iterations=n_slices), dtype=bool) if n_slices else kept


def _fill_gaps(kept: NDArray[np.bool_], longest: int) -> NDArray[np.bool_]:
    """Keep also the slices of gaps between kept ones that are not longer than `longest`."""
    filled = kept.copy()
    for gap in runs_of(~kept):
        if gap.start > 0 and gap.stop < len(kept) and gap.stop - gap.start <= longest:
            filled[gap] = True
    return filled


def runs_of(mask: NDArray[np.bool_]) -> list[slice]:
    """The runs of true values in (Z,), in order."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
    return [slice(int(start), int(stop)) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


def true_boxes(target: NDArray, grid: Grid) -> tuple[Box, ...]:
    """A box around the target (X, Y, Z) in each run of slices that hold some; none for an empty target."""
    boxes = []
    for run in runs_of(np.asarray((target > 0).any(axis=(0, 1)))):
        x, y, _ = bounding_slices(target[:, :, run] > 0) or (slice(0, 0),) * 3
        boxes.append(grid.box_of((x, y, run)))
    return tuple(boxes)


def attention_region(attention: NDArray, spacing_mm: ArrayLike, settings: AttentionBoxSettings) -> NDArray[np.bool_]:
    """Where attention is high: smoothed, at a share of its largest value or above, the largest component.

    The paper names these steps for its boxes of image-label localisation, and no values.

    Args:
        attention: (X, Y) of one slice or (X, Y, Z) of several, at least 0.
        spacing_mm: Of each of its axes.
        settings: Width of the smoothing and the share.
    Returns:
        A mask of the same shape; empty where attention is 0 everywhere.
    """
    sigma = np.divide(settings.smoothing_mm, spacing_mm)
    smooth = ndimage.gaussian_filter(np.asarray(attention, dtype=np.float32), sigma)
    largest = float(smooth.max())
    if largest <= 0:
        return np.zeros(smooth.shape, dtype=bool)
    region = smooth >= settings.threshold * largest
    return remove_minor_components(region, min_share=1.0) if settings.largest_component else region


@dataclass(frozen=True)
class SliceBoxScore:
    """How well the attention box of one slice with tumour fits the tumour's box in that slice."""

    case_id: str
    z_mm: float
    tumour_probability: float
    iou: float


def score_attention_boxes(
    scores: SliceScores, target: NDArray, grid: Grid, settings: AttentionBoxSettings, case_id: str
) -> list[SliceBoxScore]:
    """IoU of attention box and true box in each slice that holds tumour.

    Source of the measure: Schlemper, Oktay et al. 2019, who call a box right if its IoU is above 0.5.
    """
    assert scores.attention is not None
    rows = []
    for z in np.flatnonzero((target > 0).any(axis=(0, 1))):
        region = attention_region(scores.attention[:, :, z], grid.spacing_mm[:2], settings)
        z_mm = float(grid.to_world(np.array([0, 0, z]))[2])
        rows.append(SliceBoxScore(case_id, z_mm, float(scores.tumour[z]), _box_iou(region, target[:, :, z] > 0)))
    return rows


def write_slice_boxes(path: Path, boxes: Iterable[SliceBoxScore]) -> None:
    """Write one row for each slice: case_id, z_mm, tumour_probability, iou."""
    rows = (
        {
            "case_id": box.case_id,
            "z_mm": f"{box.z_mm:.2f}",
            "tumour_probability": f"{box.tumour_probability:.4f}",
            "iou": f"{box.iou:.4f}",
        }
        for box in boxes
    )
    write_csv(path, [field.name for field in fields(SliceBoxScore)], rows)


def _box_iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """IoU of the tight boxes of two masks (X, Y); 0 where one is empty."""
    if not one.any() or not other.any():
        return 0.0
    (a0, a1), (b0, b1) = _corners(one), _corners(other)
    common = np.prod(np.maximum(np.minimum(a1, b1) - np.maximum(a0, b0), 0))
    return float(common / (np.prod(a1 - a0) + np.prod(b1 - b0) - common))


def _corners(mask: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    indices = np.argwhere(mask)
    return indices.min(axis=0), indices.max(axis=0) + 1
