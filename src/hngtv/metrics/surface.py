"""Distance between the surfaces of two masks in mm, computed by MONAI on the part of the grid that matters.

MONAI answers NaN for an empty mask and its aggregation then drops the case; here an empty mask is answered
before MONAI is asked, and what it means for a score is decided in ``hngtv.metrics.score``.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hngtv.errors import InputError
from hngtv.metrics.overlap import Mask, check_same_shape
from hngtv.volume.components import bounding_slices

if TYPE_CHECKING:
    import torch

HD_PERCENTILE = 95.0
"""Source: HECKTOR 2021, robust Hausdorff distance."""

TOLERANCE_SLACK_MM = 1e-4
"""Added to the tolerance of the surface Dice. A spacing read from a float32 affine is off by about 1e-7;
without the slack that noise decides whether a surface two voxels of 1 mm away lies within 2 mm. Source: our
choice."""


def hausdorff_95_mm(prediction: Mask, target: Mask, spacing_mm: Sequence[float]) -> float:
    """95 % Hausdorff distance: the larger of the two directed 95th percentiles of the surface distances.

    The surface is the set of mask voxels with a face neighbour outside the mask; the outside of the grid
    counts as background, so a mask cut by the border of the image has a surface there.

    Args:
        prediction: Boolean mask (X, Y, Z).
        target: Boolean mask on the same grid.
        spacing_mm: Size of a voxel along x, y, z.

    Returns:
        Distance in mm, at least 0; NaN where either mask is empty.

    Raises:
        InputError: The shapes differ, or a spacing is not a positive number.
    """
    spacing = _checked_spacing(prediction, target, spacing_mm)
    if not prediction.any() or not target.any():
        return math.nan
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance

    with _without_monai_deprecation():
        distance = compute_hausdorff_distance(
            *_monai_pair(prediction, target),
            include_background=True,  # the mask is the only channel
            percentile=HD_PERCENTILE,
            spacing=spacing,
        )
    return float(distance)


def hausdorff_95_2021_mm(prediction: Mask, target: Mask, spacing_mm: Sequence[float]) -> float:
    """The 95 % Hausdorff distance as the evaluation of HECKTOR 2021 computed it.

    It differs from `hausdorff_95_mm` in three ways. The surface runs between voxels, and the percentile is that of
    its area. The spacing is taken in the wrong order, z for x and x for z. An empty prediction has distance 0, the
    best one.

    Args:
        prediction: Boolean mask (X, Y, Z).
        target: Boolean mask on the same grid.
        spacing_mm: Size of a voxel along x, y, z.

    Returns:
        Distance in mm; 0 where the prediction is empty, infinity where only the target is.

    Raises:
        InputError: The shapes differ, or a spacing is not a positive number.

    Source:
        `segmentation_metrics.py` and `evaluator.py` of the organisers; the ``surface-distance`` package.
    """
    spacing = _checked_spacing(prediction, target, spacing_mm)[::-1]
    if not prediction.any() or not target.any():
        return math.inf if prediction.any() else 0.0
    from monai.metrics.utils import get_edge_surface_distance

    first, second = (mask[0, 0] for mask in _monai_pair(prediction, target))
    with _without_monai_deprecation():
        edges, distances, areas = get_edge_surface_distance(
            first, second, spacing=spacing, use_subvoxels=True, symmetric=True
        )
    directed = [
        _percentile_of_area(mm.numpy(), area[edge].numpy())
        for mm, area, edge in zip(distances, areas, edges, strict=True)
    ]
    return max(directed)


def mean_surface_distance_mm(prediction: Mask, target: Mask, spacing_mm: Sequence[float]) -> float:
    """Mean distance from the voxels of either surface to the other one, both surfaces taken together.

    The surface is that of `hausdorff_95_mm`.

    Args:
        prediction: Boolean mask (X, Y, Z).
        target: Boolean mask on the same grid.
        spacing_mm: Size of a voxel along x, y, z.

    Returns:
        Distance in mm, at least 0; NaN where either mask is empty.

    Raises:
        InputError: The shapes differ, or a spacing is not a positive number.
    """
    spacing = _checked_spacing(prediction, target, spacing_mm)
    if not prediction.any() or not target.any():
        return math.nan
    from monai.metrics.surface_distance import compute_average_surface_distance

    with _without_monai_deprecation():
        distance = compute_average_surface_distance(
            *_monai_pair(prediction, target), include_background=True, symmetric=True, spacing=spacing
        )
    return float(distance)


def surface_dice(prediction: Mask, target: Mask, spacing_mm: Sequence[float], tolerance_mm: float) -> float:
    """Share of both surfaces that lies within a tolerance of the other surface, weighted by area.

    The subvoxel definition: the surface runs between voxels and each element counts with its area in mm².

    Args:
        prediction: Boolean mask (X, Y, Z).
        target: Boolean mask on the same grid.
        spacing_mm: Size of a voxel along x, y, z.
        tolerance_mm: Largest distance that still counts as agreement, at least 0.

    Returns:
        A value in [0, 1]; 0 where exactly one mask is empty, NaN where both are.

    Raises:
        InputError: The shapes differ, or a spacing is not a positive number.

    Source:
        Nikolov et al. 2021, doi:10.2196/26151, and the ``surface-distance`` package published with it.
    """
    spacing = _checked_spacing(prediction, target, spacing_mm)
    if not prediction.any() or not target.any():
        return 0.0 if prediction.any() or target.any() else math.nan
    from monai.metrics.surface_dice import compute_surface_dice

    with _without_monai_deprecation():
        share = compute_surface_dice(
            *_monai_pair(prediction, target),
            class_thresholds=[tolerance_mm + TOLERANCE_SLACK_MM],
            include_background=True,
            spacing=spacing,
            use_subvoxels=True,
        )
    return min(float(share), 1.0)  # float32 sums of areas may exceed their own total in the last digit


def _percentile_of_area(distances_mm: npt.NDArray[np.floating], areas: npt.NDArray[np.floating]) -> float:
    """The smallest distance within which `HD_PERCENTILE` of the area of a surface lies."""
    order = np.argsort(distances_mm)
    shares = np.cumsum(areas[order], dtype=np.float64)
    place = np.searchsorted(shares, shares[-1] * HD_PERCENTILE / 100)
    return float(distances_mm[order][min(place, len(order) - 1)])


def _monai_pair(prediction: Mask, target: Mask) -> tuple["torch.Tensor", "torch.Tensor"]:
    """The masks as MONAI wants them, (batch, channel, x, y, z), cut to their joint box plus a margin.

    Both surfaces lie inside, and only background lies around the box, so the cut changes nothing.
    """
    import torch

    box = bounding_slices(prediction | target)
    return (
        torch.from_numpy(np.pad(prediction[box], 1))[None, None],
        torch.from_numpy(np.pad(target[box], 1))[None, None],
    )


def _checked_spacing(prediction: Mask, target: Mask, spacing_mm: Sequence[float]) -> list[float]:
    check_same_shape(prediction, target)
    spacing = [float(size) for size in spacing_mm]
    if len(spacing) != 3 or not all(math.isfinite(size) and size > 0 for size in spacing):
        raise InputError(f"spacing is {spacing} mm: expected three positive numbers, check the image header")
    return spacing


@contextmanager
def _without_monai_deprecation() -> Iterator[None]:
    """Silences the warning that MONAI 1.6 raises about its own internal call on every distance."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*always_return_as_numpy", category=FutureWarning)
        yield
