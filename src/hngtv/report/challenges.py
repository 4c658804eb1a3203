"""The arms of a comparison as the challenges would have ranked them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hngtv.metrics.rankings import ClassResults, Ranking, rank_all
from hngtv.report.case_values import CaseValues
from hngtv.report.tables import Comparison, rounded

RANKING_COLUMNS = (
    "ranking", "arm", "rank", "mean_dice", "median_hd95_mm", "mean_dscagg", "dscagg_gtvp", "dscagg_gtvn",
    "mean_dice_gtvp", "mean_dice_gtvn", "f1agg_gtvn", "note",
)  # fmt: skip


def ranked_arms(comparison: Comparison) -> list[str]:
    """Arms that take part: all but the bounds, which know the true box."""
    return [arm for arm, (run, *_) in comparison.arms.items() if run.localiser != "oracle"]


def find_rankings(comparison: Comparison) -> list[Ranking]:
    """Every ranking that the classes of the cohort allow, over `ranked_arms`; empty without rows of GTVp."""
    arms = ranked_arms(comparison)
    values = comparison.values
    if "GTVp" not in values or not arms:
        return []
    return rank_all({name: _class_results(values[name], arms) for name in ("GTVp", "GTVn") if name in values})


def ranking_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Rows of `rankings.csv`: every challenge and arm, with the rank and what it follows from."""
    return [
        {
            "ranking": ranking.name,
            "arm": arm,
            "rank": "" if np.isnan(ranking.ranks[place]) else int(ranking.ranks[place]),
            "note": ranking.note,
        }
        | {name: rounded(float(values[place])) for name, values in ranking.measures.items()}
        for ranking in find_rankings(comparison)
        for place, arm in enumerate(ranked_arms(comparison))
    ]


def _class_results(values: CaseValues, arms: Sequence[str]) -> ClassResults:
    """What the rankings need of some arms; a patient that an arm lacks has the worst value."""
    places = [values.arms.index(arm) for arm in arms]
    worst = {"dice": 0.0, "dice_2021": 0.0, "hd95_mm": np.inf, "hd95_2021_mm": np.inf, "overlap_twice_ml": 0.0}
    worst |= {"n_lesions_found": 0.0, "n_lesions_false": 0.0}
    columns = {name: values.filled(name, value)[places] for name, value in worst.items()}
    of_target = {"both_ml": "target_volume_ml", "n_lesions": "n_lesions"}
    for name, target in of_target.items():
        columns[name] = np.where(values.is_missing, values.of_target(target), values.columns[name])[places]
    return ClassResults(**columns)
