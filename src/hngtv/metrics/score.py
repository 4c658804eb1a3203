"""The score of a case, and the one policy for empty masks and missing predictions.

=====================  ====  =========  ======  ============  ==================================
prediction and target  Dice  precision  recall  surface Dice  HD95 and mean surface distance
=====================  ====  =========  ======  ============  ==================================
both hold voxels       as ``overlap`` and ``surface`` define them
both empty             1     1          1       1             0
exactly one empty      0     0          0       0             image diagonal
prediction missing     0     0          0       0             image diagonal
=====================  ====  =========  ======  ============  ==================================

Lesions of a missing or empty prediction are all missed. ``hd95_2021_mm`` follows the evaluation of its year
instead: 0 for an empty prediction, infinity for a missing one.

A missing prediction is a failure of the pipeline, so it gets the worst value even where the target is empty
and an empty prediction would have been perfect. The image diagonal is that of the whole grid, edge to edge:
no two voxels lie further apart. Source: our choice; the official code of HECKTOR 2021 gave an empty
prediction the perfect HD95 of 0.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import get_type_hints

import numpy as np
import numpy.typing as npt

from hngtv.errors import InputError
from hngtv.metrics import lesions, overlap, surface
from hngtv.volume.components import bounding_slices
from hngtv.volume.labels import LABEL_NAMES

CLASS_NAMES: tuple[str, ...] = (*LABEL_NAMES.values(), "GTV")
"""The classes that are scored; GTV is both labels together."""

SURFACE_TOLERANCE_MM = 2.0
"""Tolerance of the surface Dice. Source: our choice."""

_LABELS_OF_CLASS = {name: (label,) for label, name in LABEL_NAMES.items()} | {"GTV": tuple(LABEL_NAMES)}
_LABELS = (0, *LABEL_NAMES)


@dataclass(frozen=True)
class CaseScore:
    """One row of ``scores.csv``: how one arm did on one class of one case.

    Distances are in mm (``msd_mm`` is the mean surface distance), volumes in ml, the other metrics in [0, 1]. A
    missing prediction has ``volume_ml`` 0. ``n_lesions`` counts those of the target, ``n_lesions_found`` those of
    them that were found, and ``n_lesions_false`` predicted ones that are none. The columns from ``hd95_2021_mm`` on
    serve the challenge rankings; in a file from before they were scored they are NaN.
    """

    case_id: str
    arm: str
    fold: str
    seed: int
    class_name: str
    dice: float
    precision: float
    recall: float
    hd95_mm: float
    msd_mm: float
    surface_dice_2mm: float
    volume_ml: float
    target_volume_ml: float
    hd95_2021_mm: float = math.nan
    n_lesions: float = math.nan
    n_lesions_found: float = math.nan
    n_lesions_false: float = math.nan

    @classmethod
    def from_row(cls, row: Mapping[str, object]) -> "CaseScore":
        """Reads a row of ``scores.csv``, whose values may still be text; other columns are ignored.

        A row from before ``RANKING_COLUMNS`` were scored has NaN there.

        Raises:
            InputError: A column is missing, or a value is not of its column's type.
        """
        values: dict[str, object] = {}
        for name, read in _COLUMN_TYPES.items():
            if name not in row and name in RANKING_COLUMNS:
                continue
            if name not in row:
                raise InputError(f"scores: column {name!r} is missing, expected {', '.join(SCORE_COLUMNS)}")
            try:
                values[name] = read(row[name])
            except (TypeError, ValueError):
                case_id = row.get("case_id", "?")
                raise InputError(
                    f"scores: case {case_id}, column {name!r} is {row[name]!r}, expected {read.__name__}"
                ) from None
        return cls(**values)  # type: ignore[arg-type]


SCORE_COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(CaseScore))
RANKING_COLUMNS = ("hd95_2021_mm", "n_lesions", "n_lesions_found", "n_lesions_false")
_COLUMN_TYPES: dict[str, type] = get_type_hints(CaseScore)


def score_case(
    prediction: npt.NDArray[np.generic],
    target: npt.NDArray[np.generic],
    spacing_mm: Sequence[float],
    class_names: Sequence[str] = CLASS_NAMES,
) -> dict[str, dict[str, float]]:
    """Scores a predicted label map against the true one.

    Args:
        prediction: Labels (X, Y, Z): 0 background, 1 GTVp, 2 GTVn.
        target: Labels on the same grid.
        spacing_mm: Size of a voxel along x, y, z.
        class_names: The classes to score, out of ``CLASS_NAMES``.

    Returns:
        For each class, the metric columns of ``CaseScore`` (from ``dice`` on); empty masks by
        the policy of this module.

    Raises:
        InputError: The shapes differ, a label is not 0, 1 or 2, a spacing is not positive or a class is
            unknown.
    """
    overlap.check_same_shape(prediction, target)
    _check_labels(prediction, "prediction")
    _check_labels(target, "target")
    diagonal_mm = image_diagonal_mm(target.shape, spacing_mm)
    box = bounding_slices((prediction != 0) | (target != 0)) or (slice(0, 0),) * 3
    prediction, target = prediction[box], target[box]
    return {
        name: _score_masks(class_mask(prediction, name), class_mask(target, name), spacing_mm, diagonal_mm)
        for name in class_names
    }


def score_missing(
    target: npt.NDArray[np.generic], spacing_mm: Sequence[float], class_names: Sequence[str] = CLASS_NAMES
) -> dict[str, dict[str, float]]:
    """Scores a case without a prediction: the worst value of every metric, even where the target is empty.

    Args:
        target: Labels (X, Y, Z): 0 background, 1 GTVp, 2 GTVn.
        spacing_mm: Size of a voxel along x, y, z.
        class_names: The classes to score, out of ``CLASS_NAMES``.

    Returns:
        The same shape of result as ``score_case``, with ``volume_ml`` 0.

    Raises:
        InputError: A label is not 0, 1 or 2, a spacing is not positive or a class is unknown.
    """
    _check_labels(target, "target")
    worst = _worst(image_diagonal_mm(target.shape, spacing_mm))
    scores = {}
    for name in class_names:
        mask = class_mask(target, name)
        scores[name] = worst | {
            "volume_ml": 0.0,
            "target_volume_ml": overlap.volume_ml(mask, spacing_mm),
            "hd95_2021_mm": math.inf,
            "n_lesions": lesions.count_lesions(mask),
            "n_lesions_found": 0,
            "n_lesions_false": 0,
        }
    return scores


def class_mask(labels: npt.NDArray[np.generic], class_name: str) -> overlap.Mask:
    """The voxels of a label map (X, Y, Z) that belong to a class.

    Raises:
        InputError: The class is not one of ``CLASS_NAMES``.
    """
    if class_name not in _LABELS_OF_CLASS:
        raise InputError(f"class is {class_name!r}, expected one of {', '.join(CLASS_NAMES)}")
    return np.isin(labels, _LABELS_OF_CLASS[class_name])


def classes_present(scores: Iterable[CaseScore]) -> tuple[str, ...]:
    """The classes that at least one target or one prediction holds, in the order of ``CLASS_NAMES``.

    A binary cohort has no GTVn anywhere, and the policy then gives Dice 1 to every case, which says nothing
    and lifts every mean. Ask this over the rows of all arms that will be compared and show only the classes
    it returns: asked arm by arm, two arms could be left with different classes.
    """
    found = {row.class_name for row in scores if row.volume_ml > 0 or row.target_volume_ml > 0}
    return tuple(name for name in CLASS_NAMES if name in found)


def image_diagonal_mm(shape: Sequence[int], spacing_mm: Sequence[float]) -> float:
    """Length of the diagonal of a grid, from outer edge to outer edge.

    Raises:
        InputError: The shape or the spacing is not three positive numbers.
    """
    if len(shape) != 3 or len(spacing_mm) != 3 or not all(0 < size < math.inf for size in (*shape, *spacing_mm)):
        raise InputError(
            f"grid has shape {tuple(shape)} and spacing {tuple(spacing_mm)} mm: expected three positive "
            "numbers each, check the image header"
        )
    return math.hypot(*(n_voxels * size for n_voxels, size in zip(shape, spacing_mm, strict=True)))


def _score_masks(
    prediction: overlap.Mask, target: overlap.Mask, spacing_mm: Sequence[float], diagonal_mm: float
) -> dict[str, float]:
    if prediction.any() and target.any():
        metrics = {
            "dice": overlap.dice(prediction, target),
            "precision": overlap.precision(prediction, target),
            "recall": overlap.recall(prediction, target),
            "hd95_mm": surface.hausdorff_95_mm(prediction, target, spacing_mm),
            "msd_mm": surface.mean_surface_distance_mm(prediction, target, spacing_mm),
            "surface_dice_2mm": surface.surface_dice(prediction, target, spacing_mm, SURFACE_TOLERANCE_MM),
        }
    elif prediction.any() or target.any():
        metrics = _worst(diagonal_mm)
    else:
        metrics = {"dice": 1.0, "precision": 1.0, "recall": 1.0, "hd95_mm": 0.0, "msd_mm": 0.0, "surface_dice_2mm": 1.0}
    counts = lesions.match_lesions(prediction, target)
    return metrics | {
        "volume_ml": overlap.volume_ml(prediction, spacing_mm),
        "target_volume_ml": overlap.volume_ml(target, spacing_mm),
        "hd95_2021_mm": surface.hausdorff_95_2021_mm(prediction, target, spacing_mm),
        "n_lesions": counts.n_lesions,
        "n_lesions_found": counts.n_found,
        "n_lesions_false": counts.n_false,
    }


def _worst(diagonal_mm: float) -> dict[str, float]:
    distances = {"hd95_mm": diagonal_mm, "msd_mm": diagonal_mm}
    return {"dice": 0.0, "precision": 0.0, "recall": 0.0, **distances, "surface_dice_2mm": 0.0}


def _check_labels(labels: npt.NDArray[np.generic], name: str) -> None:
    if not np.isin(labels, _LABELS).all():
        found = ", ".join(str(value) for value in np.unique(labels)[:6])
        raise InputError(f"{name} holds the labels {found}, expected only 0 (background), 1 (GTVp), 2 (GTVn)")
