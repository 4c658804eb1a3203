"""Wilcoxon's signed-rank test of paired differences, its effect size, and Holm's adjustment."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

Values = npt.NDArray[np.float64]

MAX_EXACT = 100
"""Up to so many patients that differ, all ways to flip their signs are counted; beyond, the rank sum is taken as
normal. Source: our choice; at 100 patients the two differ by 0.003 in p at most."""


def signed_rank_p(differences: Values) -> float:
    """Two-sided p value of Wilcoxon's signed-rank test; 1 where nothing differs.

    Zeros are ranked, then left out. Exact, also with ties, up to `MAX_EXACT` differences that are not 0.

    Source:
        Wilcoxon 1945; Pratt 1959, Remarks on zeros and ties. Beyond `MAX_EXACT`: `scipy.stats.wilcoxon`.
    """
    n_different = int(np.count_nonzero(differences))
    if n_different == 0:
        return 1.0
    ranks = stats.rankdata(np.abs(differences))
    if n_different <= MAX_EXACT:
        return _exact_p(ranks, differences)
    # ranks in place of differences: the same test, and an infinite difference is but the last rank
    signed = np.sign(differences) * ranks
    test: Any = stats.wilcoxon(signed, zero_method="pratt", correction=False, method="asymptotic")
    return float(test.pvalue)


def rank_biserial(gains: Values) -> float:
    """Matched-pairs rank-biserial correlation: 1 where every patient that differs gains, -1 where each loses.

    Zeros are ranked, then left out, as in `signed_rank_p`; 0 where nothing differs.

    Source:
        Kerby 2014, The simple difference formula.
    """
    ranks = stats.rankdata(np.abs(gains))
    up, down = ranks[gains > 0].sum(), ranks[gains < 0].sum()
    return float((up - down) / (up + down)) if up + down else 0.0


def holm_adjust(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment of p values, in the order given; an empty list stays empty.

    Source:
        Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    steps = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted.tolist()


def _exact_p(ranks: Values, differences: Values) -> float:
    """Share of all ways to flip the signs whose rank sum is as far from the middle as the one found."""
    # twice the rank, a whole number also in ties
    whole = np.rint(2 * ranks).astype(int)
    smaller = int(min(whole[differences > 0].sum(), whole[differences < 0].sum()))
    chance = np.zeros(smaller + 1)  # of each rank sum up to the one found
    chance[0] = 1.0
    for rank in whole[differences != 0]:
        chance /= 2
        # the right side is read before it is written
        chance[rank:] += chance[: max(len(chance) - rank, 0)].copy()
    return min(1.0, 2 * float(chance.sum()))
