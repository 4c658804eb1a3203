"""Rankings of the HECKTOR challenges by year, of arms that were scored on the same patients.

The measures are the challenges'; the data are not. Theirs of 2020 and 2021 were cut to a box around the pharynx, and
here the whole image counts. A primary tumour, GTVt then, is GTVp here.

Arms that tie share the mean of their ranks inside a Borda count and the better rank at its end. Source: our choice.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from hngtv.metrics.lesions import aggregated_f1

Values = npt.NDArray[np.float64]

TIE_DECIMALS = 12
"""Measures are rounded to this before ranking, so that noise of the last digit breaks no tie."""


@dataclass(frozen=True)
class ClassResults:
    """Scores of one class, arrays (arm, case) without gaps: a patient that an arm lacks has the worst value.

    Attributes:
        dice: By the policy of `score`: 1 where prediction and target are both empty.
        dice_2021: The same, but 0 wherever the prediction is empty.
        hd95_mm: By the policy of `score`.
        hd95_2021_mm: As `surface.hausdorff_95_2021_mm`; infinite for a missing prediction. NaN if unknown.
        overlap_twice_ml: Twice the volume that prediction and target share.
        both_ml: Predicted and true volume together.
        n_lesions, n_lesions_found, n_lesions_false: As in `lesions`. NaN if unknown.
    """

    dice: Values
    dice_2021: Values
    hd95_mm: Values
    hd95_2021_mm: Values
    overlap_twice_ml: Values
    both_ml: Values
    n_lesions: Values
    n_lesions_found: Values
    n_lesions_false: Values

    @property
    def aggregated_dice(self) -> Values:
        """DSCagg of each arm, 2 sum(TP) / sum(P + T); NaN where no case has any volume."""
        total_ml = self.both_ml.sum(axis=-1)
        return np.divide(
            self.overlap_twice_ml.sum(axis=-1), total_ml, out=np.full_like(total_ml, np.nan), where=total_ml > 0
        )

    @property
    def aggregated_f1(self) -> Values:
        """F1agg of each arm; NaN where there is no lesion at all."""
        return aggregated_f1(self.n_lesions, self.n_lesions_found, self.n_lesions_false)


@dataclass(frozen=True)
class Ranking:
    """How one challenge would have ranked the arms.

    Attributes:
        name: Year, and mode where there are several.
        measures: By name, what the ranks follow from (arm,).
        ranks: 1 for the best (arm,); NaN for all where `note` says why there are none.
        note: What the scores lack, or empty.
    """

    name: str
    measures: Mapping[str, Values]
    ranks: Values
    note: str = ""


Cohort = Mapping[str, ClassResults]
"""Results by class, GTVp and GTVn."""


def rank_2020(cohort: Cohort) -> Ranking:
    """HECKTOR 2020: mean Dice over patients."""
    return _by_one("hecktor_2020", {"mean_dice": cohort["GTVp"].dice.mean(axis=-1)})


def rank_2021_official(cohort: Cohort) -> Ranking:
    """HECKTOR 2021 as its evaluation ran, faults and all: see `hausdorff_95_2021_mm`."""
    gtvp = cohort["GTVp"]
    return _rank_2021("hecktor_2021_official", gtvp.dice_2021, gtvp.hd95_2021_mm)


def rank_2021_correct(cohort: Cohort) -> Ranking:
    """HECKTOR 2021 as it was meant: axes in order, and a missed tumour far off."""
    return _rank_2021("hecktor_2021_correct", cohort["GTVp"].dice, cohort["GTVp"].hd95_mm)


def rank_2022(cohort: Cohort) -> Ranking:
    """HECKTOR 2022: the mean of the aggregated Dice of the two classes."""
    gtvp, gtvn = (cohort[name].aggregated_dice for name in ("GTVp", "GTVn"))
    mean = (gtvp + gtvn) / 2
    return _by_one("hecktor_2022", {"mean_dscagg": mean, "dscagg_gtvp": gtvp, "dscagg_gtvn": gtvn})


def rank_2025(cohort: Cohort) -> Ranking:
    """HECKTOR 2025: Borda of the rank on GTVp, by mean Dice, and on GTVn, itself Borda of DSCagg and F1agg."""
    measures = {
        "mean_dice_gtvp": cohort["GTVp"].dice.mean(axis=-1),
        "dscagg_gtvn": cohort["GTVn"].aggregated_dice,
        "f1agg_gtvn": cohort["GTVn"].aggregated_f1,
    }
    gtvp, dscagg, f1agg = (rank(values) for values in measures.values())
    return _checked(Ranking("hecktor_2025", measures, borda([gtvp, borda([dscagg, f1agg])], ties="min")))


def rank_2026(cohort: Cohort) -> Ranking:
    """HECKTOR 2026, segmentation: mean Dice over patients, the two classes averaged."""
    gtvp, gtvn = (cohort[name].dice.mean(axis=-1) for name in ("GTVp", "GTVn"))
    return _by_one("hecktor_2026", {"mean_dice": (gtvp + gtvn) / 2, "mean_dice_gtvp": gtvp, "mean_dice_gtvn": gtvn})


ONE_CLASS: tuple[Callable[[Cohort], Ranking], ...] = (rank_2020, rank_2021_official, rank_2021_correct)
TWO_CLASSES: tuple[Callable[[Cohort], Ranking], ...] = (rank_2022, rank_2025, rank_2026)


def rank_all(cohort: Cohort) -> list[Ranking]:
    """Every ranking that the classes allow, by year; those of two classes only where some case has a GTVn."""
    has_nodes = "GTVn" in cohort and bool((cohort["GTVn"].both_ml > 0).any())
    return [ranking(cohort) for ranking in (*ONE_CLASS, *(TWO_CLASSES if has_nodes else ()))]


def rank(values: Values, higher_is_better: bool = True, ties: str = "average") -> Values:
    """Ranks (arm,) from 1 for the best; `ties` as in `scipy.stats.rankdata`."""
    values = np.round(values, TIE_DECIMALS)
    return stats.rankdata(-values if higher_is_better else values, method=ties)


def borda(ranks: Sequence[Values], ties: str = "average") -> Values:
    """Ranks (arm,) by the sum of several: points for each arm that one leaves behind come to the same order."""
    return rank(np.sum(ranks, axis=0), higher_is_better=False, ties=ties)


def _rank_2021(name: str, dice: Values, hd95_mm: Values) -> Ranking:
    """Mean Dice and median HD95, whose ranks count alike. Source of the latter: our choice."""
    measures = {"mean_dice": dice.mean(axis=-1), "median_hd95_mm": np.median(hd95_mm, axis=-1)}
    ranks = [rank(measures["mean_dice"]), rank(measures["median_hd95_mm"], higher_is_better=False)]
    return _checked(Ranking(name, measures, borda(ranks, ties="min")))


def _by_one(name: str, measures: Mapping[str, Values]) -> Ranking:
    """The first measure decides; the others are shown beside it."""
    return _checked(Ranking(name, measures, rank(next(iter(measures.values())), ties="min")))


def _checked(ranking: Ranking) -> Ranking:
    """The ranking, or none at all where an arm lacks a measure."""
    unknown = [name for name, values in ranking.measures.items() if np.isnan(values).any()]
    if not unknown:
        return ranking
    note = f"not known of every arm: {', '.join(unknown)}"
    return Ranking(ranking.name, ranking.measures, np.full_like(ranking.ranks, np.nan, dtype=float), note)
