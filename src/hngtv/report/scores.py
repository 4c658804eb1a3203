"""From prediction files to score rows, and the file `scores.csv`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hngtv.cases.manifest import RawCase
from hngtv.errors import InputError
from hngtv.metrics.score import RANKING_COLUMNS, SCORE_COLUMNS, CaseScore, score_case, score_missing
from hngtv.run_folder import read_csv, write_csv
from hngtv.volume.grid import Grid
from hngtv.volume.nifti import read_image

GRID_TOLERANCE_MM = 0.05
"""Largest shift of any corner between two grids taken as one. Source: our choice, far below a voxel."""

VALIDATION = "-validation"
"""How the fold of rows ends that are about validation cases, not the test cases of that fold."""
LabelArray = NDArray[np.generic]


@dataclass(frozen=True)
class CaseFailure:
    """A case without a usable prediction, and why."""

    case_id: str
    reason: str

    def __str__(self) -> str:
        return f"case {self.case_id}: {self.reason}"


def score_predictions(
    cases: Iterable[RawCase], predictions_dir: Path, arm: str, fold: str | int, seed: int
) -> tuple[list[CaseScore], list[CaseFailure]]:
    """Score `predictions_dir/<case_id>.nii.gz` against the target of every case.

    Args:
        cases: The cases that were to be predicted, each with a target. One whose prediction is missing, unreadable or
            on another grid than its target gets the worst score and is listed.
        predictions_dir: Folder of label maps (0 background, 1 GTVp, 2 GTVn).
        arm: Written into every row.
        fold: Written into every row.
        seed: Written into every row.
    Returns:
        One row per case and class, and the failures. A case whose target cannot be read has a failure and no row.
    """
    scores: list[CaseScore] = []
    failures: list[CaseFailure] = []
    for case in cases:
        try:
            metrics, reason = _score_files(case, predictions_dir / f"{case.case_id}.nii.gz")
        except InputError as error:
            failures.append(CaseFailure(case.case_id, f"not scored, its target is unusable: {error}"))
            continue
        if reason:
            failures.append(CaseFailure(case.case_id, f"scored as missing: {reason}"))
        scores += [
            CaseScore(case.case_id, arm, str(fold), seed, class_name, **values)
            for class_name, values in metrics.items()
        ]
    return scores, failures


def write_scores(path: Path, scores: Iterable[CaseScore]) -> None:
    write_csv(path, SCORE_COLUMNS, (asdict(score) for score in scores))


def read_scores(path: Path) -> list[CaseScore]:
    """Read a `scores.csv`; one that was scored before `RANKING_COLUMNS` were has NaN there.

    Raises:
        InputError: The file is missing, lacks a column, or holds a value of a wrong type.
    """
    required = [name for name in SCORE_COLUMNS if name not in RANKING_COLUMNS]
    try:
        return [CaseScore.from_row(row) for row in read_csv(path, required)]
    except InputError as error:
        message = str(error)
        raise error if str(path) in message else InputError(f"{path}: {message}") from None


def read_prediction(path: Path, target_grid: Grid) -> LabelArray:
    """Labels (X, Y, Z) of a prediction, which must lie on the given grid.

    Raises:
        InputError: The file is missing, not a readable image, or on another grid.
    """
    if not path.is_file():
        raise InputError(f"no prediction file {path.name}")
    image = read_image(path)
    difference = grid_difference(image.grid, target_grid)
    if difference:
        raise InputError(f"{path.name} is on another grid than the target ({difference}); write it on the CT grid")
    return image.values


def grid_difference(grid: Grid, other: Grid) -> str:
    """How two grids differ, in words; empty if they are the same within `GRID_TOLERANCE_MM` at every corner."""
    if grid.shape != other.shape:
        return f"{_times(grid.shape)} voxels against {_times(other.shape)}"
    ends = np.array([(0, n - 1) for n in grid.shape])
    corners = np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, 3)
    shift_mm = float(np.linalg.norm(grid.to_world(corners) - other.to_world(corners), axis=1).max())
    return f"shifted by up to {shift_mm:.2f} mm" if shift_mm > GRID_TOLERANCE_MM else ""


def _score_files(case: RawCase, prediction: Path) -> tuple[Mapping[str, Mapping[str, float]], str]:
    """Metrics per class, and why the prediction counts as missing (empty if it does not)."""
    if case.target is None:
        raise InputError("the case has no target file")
    target = read_image(case.target)
    spacing_mm = target.grid.spacing_mm
    try:
        return score_case(read_prediction(prediction, target.grid), target.values, spacing_mm), ""
    except InputError as error:
        return score_missing(target.values, spacing_mm), str(error)


def _times(shape: Sequence[int]) -> str:
    return " x ".join(str(n) for n in shape)
