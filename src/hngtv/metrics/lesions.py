"""Lesions found, missed and invented: connected components of two masks, matched one to one by overlap."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage, optimize

from hngtv.errors import InputError
from hngtv.metrics.overlap import Mask, check_same_shape

CONNECTIVITY = 26
"""Voxels that share a corner are one lesion. Source: teams of HECKTOR 2025; the organisers' code is not public."""

MIN_IOU = 0.3
"""A lesion is found where the intersection over union is above this. Source: HECKTOR 2025, detection at IoU > 30 %."""

_RANK_OF_CONNECTIVITY = {6: 1, 18: 2, 26: 3}


@dataclass(frozen=True)
class LesionCounts:
    """Lesions of one class of one case.

    Attributes:
        n_lesions: Of the target.
        n_found: Of the target, matched by a predicted one; as many predicted ones are right.
        n_false: Predicted, but matched by none of the target.
    """

    n_lesions: int
    n_found: int
    n_false: int


def match_lesions(
    prediction: Mask,
    target: Mask,
    connectivity: int = CONNECTIVITY,
    min_iou: float = MIN_IOU,
    matching: Literal["greedy", "hungarian"] = "greedy",
) -> LesionCounts:
    """Counts lesions after matching each predicted one to at most one of the target.

    Below an IoU of 0.5 a lesion may overlap several well enough, and the two ways to match may differ.

    Args:
        prediction: Boolean mask (X, Y, Z).
        target: Boolean mask on the same grid.
        connectivity: Neighbours of a voxel: 6 (faces), 18 (and edges) or 26 (and corners).
        min_iou: An IoU above this, not equal to it, makes a pair possible.
        matching: `greedy` takes the pair of highest IoU first, as teams of HECKTOR 2025 did; `hungarian` makes as
            many pairs as can be, and of these choices takes the one of highest IoU in sum.

    Returns:
        All counts are 0 where both masks are empty.

    Raises:
        InputError: The shapes differ, or the connectivity or matching is unknown.
    """
    check_same_shape(prediction, target)
    if connectivity not in _RANK_OF_CONNECTIVITY or matching not in ("greedy", "hungarian"):
        raise InputError(
            f"lesions: connectivity {connectivity!r} and matching {matching!r}; "
            "expected 6, 18 or 26 and greedy or hungarian"
        )
    iou = _iou_of_components(prediction, target, connectivity)
    n_predicted, n_lesions = iou.shape
    n_found = (_pair_greedily if matching == "greedy" else _pair_all)(iou, min_iou)
    return LesionCounts(n_lesions, n_found, n_predicted - n_found)


def count_lesions(mask: Mask, connectivity: int = CONNECTIVITY) -> int:
    """Number of connected components of a mask (X, Y, Z)."""
    return _label(mask, connectivity)[1]


def aggregated_f1(n_lesions: npt.ArrayLike, n_found: npt.ArrayLike, n_false: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Aggregated F1 of a cohort, 2 TP / (2 TP + FP + FN), over the lesions of all cases together.

    Args:
        n_lesions: Lesions of the target of each case (..., case).
        n_found: Of these, found.
        n_false: Predicted lesions that are none.

    Returns:
        Array of shape (...), without the case axis; NaN where there is no lesion at all.

    Source:
        HECKTOR 2025, F1agg.
    """
    twice_found = 2 * np.asarray(n_found, float).sum(axis=-1)
    both = twice_found / 2 + np.asarray(n_lesions, float).sum(axis=-1) + np.asarray(n_false, float).sum(axis=-1)
    return np.divide(twice_found, both, out=np.full_like(both, np.nan), where=both > 0)


def _iou_of_components(prediction: Mask, target: Mask, connectivity: int) -> npt.NDArray[np.float64]:
    """Intersection over union of every predicted with every true component (predicted, true)."""
    predicted, n_predicted = _label(prediction, connectivity)
    true, n_true = _label(target, connectivity)
    # the background of both is most of an image, and needs no pair
    either = prediction | target
    pairs = predicted[either].astype(np.int64) * (n_true + 1) + true[either]
    counts = np.bincount(pairs, minlength=(n_predicted + 1) * (n_true + 1)).reshape(n_predicted + 1, -1)
    intersection = counts[1:, 1:]
    union = counts[1:].sum(axis=1, keepdims=True) + counts[:, 1:].sum(axis=0, keepdims=True) - intersection
    return intersection / np.maximum(union, 1)


def _label(mask: Mask, connectivity: int) -> tuple[npt.NDArray[np.int32], int]:
    labels = np.zeros(mask.shape, np.int32)
    structure = ndimage.generate_binary_structure(3, _RANK_OF_CONNECTIVITY[connectivity])
    ndimage.label(mask, structure, output=labels)
    return labels, int(labels.max(initial=0))


def _pair_greedily(iou: npt.NDArray[np.float64], min_iou: float) -> int:
    rows, columns = np.nonzero(iou > min_iou)
    best_first = np.argsort(-iou[rows, columns], kind="stable")
    used_rows: set[int] = set()
    used_columns: set[int] = set()
    for row, column in zip(rows[best_first].tolist(), columns[best_first].tolist(), strict=True):
        if row not in used_rows and column not in used_columns:
            used_rows.add(row)
            used_columns.add(column)
    return len(used_rows)


def _pair_all(iou: npt.NDArray[np.float64], min_iou: float) -> int:
    possible = iou > min_iou
    # each pair weighs more than all IoUs together, so their number counts first
    weights = np.where(possible, iou + 1 + min(iou.shape), 0.0)
    rows, columns = optimize.linear_sum_assignment(weights, maximize=True)
    return int(possible[rows, columns].sum())
