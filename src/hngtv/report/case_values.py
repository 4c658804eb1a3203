"""The scores of one class as arrays: one value for each arm and patient, seeds averaged first."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from hngtv.errors import InputError
from hngtv.metrics.score import CaseScore

Values = npt.NDArray[np.float64]

MEASURED = tuple(field.name for field in fields(CaseScore) if field.type is float)
"""The columns of `scores.csv` that are numbers."""
COMPARED = ("dice", "precision", "recall", "surface_dice_2mm", "hd95_mm", "msd_mm")
"""Of these, what every row must know."""


@dataclass(frozen=True)
class CaseValues:
    """Scores of one class, NaN where an arm lacks a patient.

    A patient scored by an arm in several rows (seeds, folds of an ensemble) is one value, the mean of its rows, so
    more seeds do not pretend to be more patients.

    Attributes:
        class_name: The class of all rows.
        arms: In the order in which they first appear among the rows of all classes.
        case_ids: Every patient that any arm has, sorted.
        columns: By name, arrays (arm, case). Those of `CaseScore`; `volume_error_ml` and its size,
            `absolute_volume_error_ml`; `both_ml`, predicted and true volume together; `overlap_twice_ml`, Dice times
            that; and `dice_2021`, 0 wherever the prediction is empty.
    """

    class_name: str
    arms: tuple[str, ...]
    case_ids: tuple[str, ...]
    columns: Mapping[str, Values]

    @property
    def is_missing(self) -> npt.NDArray[np.bool_]:
        """Whether an arm lacks a patient (arm, case)."""
        return np.isnan(self.columns["dice"])

    def filled(self, column: str, missing: float) -> Values:
        """A column (arm, case) with a value where the arm lacks the patient; what no file knows stays NaN."""
        return np.where(self.is_missing, missing, self.columns[column])

    def of_target(self, column: str) -> Values:
        """What is known of a patient whatever the arm (case,), such as the true volume."""
        return np.fmax.reduce(self.columns[column], axis=0)

    def of_cases(self, case_ids: Collection[str]) -> "CaseValues":
        """The same for some of the patients."""
        kept = [place for place, case_id in enumerate(self.case_ids) if case_id in case_ids]
        names = tuple(self.case_ids[place] for place in kept)
        return CaseValues(self.class_name, self.arms, names, {k: v[:, kept] for k, v in self.columns.items()})


def case_values(rows: Iterable[CaseScore], class_name: str) -> CaseValues:
    """Collects the rows of one class.

    Args:
        rows: Score rows of all arms, all classes.
        class_name: The class to keep.

    Raises:
        InputError: No row has the class, an arm lacks it, or a row is double or not a number.
    """
    scores = list(rows)
    arms = tuple(dict.fromkeys(row.arm for row in scores))
    scores = [row for row in scores if row.class_name == class_name]
    _check_rows(scores, arms, class_name)
    case_ids = tuple(sorted({row.case_id for row in scores}))
    place_of_arm = {arm: place for place, arm in enumerate(arms)}
    place_of_case = {case_id: place for place, case_id in enumerate(case_ids)}
    places = np.array([place_of_arm[row.arm] * len(case_ids) + place_of_case[row.case_id] for row in scores])
    measured = {name: np.array([getattr(row, name) for row in scores], float) for name in MEASURED}
    shape = len(arms), len(case_ids)
    columns = {name: _mean_by_place(places, values, shape) for name, values in (measured | _derived(measured)).items()}
    return CaseValues(class_name, arms, case_ids, columns)


def _derived(measured: Mapping[str, Values]) -> dict[str, Values]:
    """Columns that follow from those of a row, and so have to be made before seeds are averaged."""
    both_ml = measured["volume_ml"] + measured["target_volume_ml"]
    error_ml = measured["volume_ml"] - measured["target_volume_ml"]
    return {
        "volume_error_ml": error_ml,
        "absolute_volume_error_ml": np.abs(error_ml),
        "both_ml": both_ml,
        "overlap_twice_ml": measured["dice"] * both_ml,
        "dice_2021": np.where(measured["volume_ml"] > 0, measured["dice"], 0.0),
    }


def _mean_by_place(places: npt.NDArray[np.intp], values: Values, shape: tuple[int, int]) -> Values:
    size = shape[0] * shape[1]
    sums = np.bincount(places, values, minlength=size)
    counts = np.bincount(places, minlength=size)
    return np.divide(sums, counts, out=np.full(size, np.nan), where=counts > 0).reshape(shape)


def _check_rows(scores: Iterable[CaseScore], arms: Iterable[str], class_name: str) -> None:
    seen = set()
    for row in scores:
        key = (row.arm, row.case_id, row.fold, row.seed)
        if key in seen:
            raise InputError(
                f"scores: case {row.case_id} of arm {row.arm} has two rows for {class_name}, "
                f"fold {row.fold}, seed {row.seed}: remove one of them"
            )
        if any(np.isnan(getattr(row, name)) for name in COMPARED):
            raise InputError(f"scores: case {row.case_id} of arm {row.arm} ({class_name}) holds a NaN")
        seen.add(key)
    found = {arm for arm, *_ in seen}
    without = [arm for arm in arms if arm not in found]
    if without or not found:
        raise InputError(f"scores: no row of class {class_name!r} in {', '.join(without) or 'an empty list'}")
