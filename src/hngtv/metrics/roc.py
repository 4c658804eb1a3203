"""How well a score tells two kinds apart."""

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


def area_under_curve(scores: ArrayLike, holds: ArrayLike) -> float | None:
    """Area under the ROC curve: the chance that what holds tumour scores above what does not; None without both.

    It is the Mann-Whitney U over the number of pairs. Source: Hanley and McNeil, Radiology 143 (1982) 29-36.
    """
    scores, holds = np.asarray(scores, dtype=float), np.asarray(holds, dtype=bool)
    with_tumour, without = scores[holds], scores[~holds]
    if not len(with_tumour) or not len(without):
        return None
    u = stats.mannwhitneyu(with_tumour, without, method="asymptotic").statistic
    return float(u) / (len(with_tumour) * len(without))
