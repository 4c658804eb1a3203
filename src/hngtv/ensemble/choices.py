"""Post-processing, calibration and the rule for review, chosen on held-out cases and judged fold by fold."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from hngtv.config import EnsembleSettings, InferenceSettings
from hngtv.ensemble.held_out import SeenCase, load_seen
from hngtv.metrics.calibration import (
    FLOOR,
    BinCounts,
    add_counts,
    calibrated,
    count_bins,
    count_logits,
    expected_calibration_error,
    fit_calibration,
)
from hngtv.metrics.roc import area_under_curve
from hngtv.segmentation import label_region


@dataclass(frozen=True)
class Judged:
    """A case under choices that were made without its fold.

    Attributes:
        case_id: The case.
        fold: Its fold.
        target_ml: Volume of its tumour.
        dice_before: With the settings of the run.
        dice: With the choice.
        agreement: Of the network with itself, see `Region`.
        flagged: Whether the rule sends it to review.
        before, after: Counts of probability and truth, as it is and calibrated, over the same voxels: those to which
            the network gives at least `FLOOR`.
    """

    case_id: str
    fold: int
    target_ml: float
    dice_before: float
    dice: float
    agreement: float
    flagged: bool
    before: BinCounts
    after: BinCounts


def candidates(inference: InferenceSettings, settings: EnsembleSettings) -> list[InferenceSettings]:
    """The post-processings to choose from, that of the runs first."""
    options = product(settings.thresholds, settings.min_component_ml, settings.min_component_suv)
    made = [
        replace(inference, threshold=threshold, min_component_ml=ml, min_component_suv=suv)
        for threshold, ml, suv in options
    ]
    return [inference, *(option for option in made if option != inference)]


@dataclass(frozen=True)
class Evidence:
    """What is kept of all cases to choose by.

    Attributes:
        folds: (case,) int.
        dice: (case, candidate).
        logits: For each case, see `count_logits`.
        agreement: (case,), see `Region`.
    """

    folds: NDArray[np.intp]
    dice: NDArray[np.float64]
    logits: list[NDArray[np.int64]]
    agreement: NDArray[np.float64]


def gather(files: Sequence[Path], options: Sequence[InferenceSettings]) -> Evidence:
    """Dice of every case with every candidate, and counts for the calibration; one case in memory at a time."""
    folds, dice, logits, agreement = [], [], [], []
    for file in files:
        case = load_seen(file)
        folds.append(case.fold)
        part = case.cropped(min(option.threshold for option in options))
        dice.append([part.dice(label_region(part.region, option)) for option in options])
        logits.append(count_logits(case.region.tumour, case.truth))
        agreement.append(case.region.agreement)
    return Evidence(np.array(folds), np.array(dice), logits, np.array(agreement, dtype=float))


def choose(
    evidence: Evidence, used: NDArray[np.bool_], options: Sequence[InferenceSettings], min_gain: float
) -> InferenceSettings:
    """Post-processing and calibration by some of the cases.

    The settings of the runs stay unless another candidate has a mean Dice that is higher by `min_gain`.

    Args:
        evidence: Of all cases.
        used: (case,) which to choose by.
        options: From `candidates`.
        min_gain: In Dice.
    """
    means = evidence.dice[used].mean(axis=0)
    best = int(means.argmax())
    chosen = options[best if means[best] >= means[0] + min_gain else 0]
    temperature, shift = fit_calibration([evidence.logits[i] for i in np.flatnonzero(used)])
    return replace(chosen, temperature=temperature, logit_shift=shift)


def with_review(inference: InferenceSettings, agreement: NDArray[np.float64], share: float) -> InferenceSettings:
    """The settings with the rule that flags the given share of cases, those with the least agreement."""
    return replace(inference, review_below=float(np.clip(np.quantile(agreement, share), 1e-3, 1)))


def judge(
    files: Sequence[Path], evidence: Evidence, options: Sequence[InferenceSettings], settings: EnsembleSettings
) -> tuple[InferenceSettings, list[Judged]]:
    """The choice by all cases, and each case under the choice by the other folds."""

    def choice(used: NDArray[np.bool_]) -> InferenceSettings:
        chosen = choose(evidence, used, options, settings.min_gain)
        return with_review(chosen, evidence.agreement[used], settings.review_share)

    by_fold = {int(fold): choice(evidence.folds != fold) for fold in np.unique(evidence.folds)}
    judged = [
        _judge_case(load_seen(file), by_fold[int(fold)], float(dice))
        for file, fold, dice in zip(files, evidence.folds, evidence.dice[:, 0], strict=True)
    ]
    return choice(np.ones(len(files), bool)), judged


def _judge_case(case: SeenCase, inference: InferenceSettings, dice_before: float) -> Judged:
    labels, agreement = label_region(case.region, inference), case.region.agreement
    assert agreement is not None
    tumour = case.region.tumour
    is_high = tumour >= FLOOR
    probability, truth = tumour[is_high], case.truth[is_high]
    return Judged(
        case.case_id,
        case.fold,
        (np.count_nonzero(case.truth) + case.n_outside) * case.region.grid.voxel_ml,
        dice_before,
        case.dice(labels),
        agreement,
        case.is_fallback or not labels.any() or agreement < inference.review_below,
        count_bins(probability, truth),
        count_bins(calibrated(probability, inference.temperature, inference.logit_shift), truth),
    )


def is_same_post_processing(one: InferenceSettings, other: InferenceSettings) -> bool:
    """Whether two settings lead to the same masks."""
    return replace(one, temperature=1, logit_shift=0, review_below=0) == replace(
        other, temperature=1, logit_shift=0, review_below=0
    )


def summarise(judged: Sequence[Judged], low_dice: float) -> dict[str, Any]:
    """What the choices did on cases that they were not made on; None where there is nothing to average."""
    dice, agreement = (np.array([getattr(case, name) for case in judged]) for name in ("dice", "agreement"))
    flagged = np.array([case.flagged for case in judged])
    low = dice < low_dice
    differs = len(set(dice)) > 1 and len(set(agreement)) > 1
    return {
        "n_cases": len(judged),
        "dice_before": float(np.mean([case.dice_before for case in judged])),
        "dice": float(dice.mean()),
        "calibration_error_before": _error_of([case.before for case in judged]),
        "calibration_error": _error_of([case.after for case in judged]),
        "rank_correlation": float(np.corrcoef(stats.rankdata(agreement), stats.rankdata(dice))[0, 1])
        if differs
        else None,
        "low_dice": low_dice,
        "n_low": int(low.sum()),
        "area_under_curve_of_low": area_under_curve(-agreement, low),
        "n_flagged": int(flagged.sum()),
        "n_low_flagged": int((low & flagged).sum()),
        "dice_flagged": float(dice[flagged].mean()) if flagged.any() else None,
        "dice_unflagged": float(dice[~flagged].mean()) if not flagged.all() else None,
    }


def _error_of(counts: Sequence[BinCounts]) -> float | None:
    error = expected_calibration_error(add_counts(counts), from_floor=False)
    return None if np.isnan(error) else error
