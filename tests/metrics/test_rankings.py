"""Rankings by hand, and against another way to compute each from label maps, voxel by voxel."""

import numpy as np
import pytest

from hngtv.metrics import rankings
from hngtv.metrics.rankings import ClassResults
from hngtv.metrics.score import score_case, score_missing
from tests.metrics.test_lesions import components_by_flood

SPACING_MM = (1.0, 1.5, 3.0)
N_ARMS, N_CASES = 4, 6


def results(**columns):
    """Results of three arms on two cases; what is not named is the same for all."""
    names = ClassResults.__dataclass_fields__
    return ClassResults(**{name: np.asarray(columns.get(name, np.ones((3, 2))), float) for name in names})


def test_2020_by_hand():
    gtvp = results(dice=[[0.8, 0.6], [0.9, 0.1], [0.5, 0.9]])
    ranking = rankings.rank_2020({"GTVp": gtvp})
    assert ranking.measures["mean_dice"] == pytest.approx([0.7, 0.5, 0.7])
    assert ranking.ranks.tolist() == [1, 3, 1]  # a tie, though 0.8 + 0.6 and 0.5 + 0.9 differ in the last digit


def test_2021_by_hand_in_both_modes():
    gtvp = results(
        dice=[[0.8, 0.7], [0.6, 0.7], [0.9, 0.0]], dice_2021=[[0.8, 0.7], [0.6, 0.7], [0.9, 0.0]],
        hd95_mm=[[4, 4], [3, 3], [5, 200]], hd95_2021_mm=[[4, 4], [3, 3], [5, 0]],
    )  # fmt: skip
    correct = rankings.rank_2021_correct({"GTVp": gtvp})
    assert correct.measures["median_hd95_mm"].tolist() == [4, 3, 102.5]
    assert correct.ranks.tolist() == [1, 1, 3]  # ranks 1 and 2; 2 and 1; 3 and 3
    official = rankings.rank_2021_official({"GTVp": gtvp})
    assert official.measures["median_hd95_mm"].tolist() == [4, 3, 2.5]  # the missed case made it the best
    assert official.ranks.tolist() == [1, 1, 1]  # 1 and 3; 2 and 2; 3 and 1


def test_a_missing_case_is_infinitely_far_in_2021():
    gtvp = results(hd95_2021_mm=[[1, 2], [np.inf, 1], [np.inf, np.inf]])
    assert rankings.rank_2021_official({"GTVp": gtvp}).ranks.tolist() == [1, 2, 2]


def test_2022_by_hand():
    gtvp = results(overlap_twice_ml=[[40, 1], [20, 9], [0, 0]], both_ml=[[50, 10], [50, 10], [50, 10]])
    gtvn = results(overlap_twice_ml=[[4, 0], [8, 0], [5, 0]], both_ml=[[10, 0], [10, 0], [10, 0]])
    ranking = rankings.rank_2022({"GTVp": gtvp, "GTVn": gtvn})
    assert ranking.measures["mean_dscagg"] == pytest.approx([(41 / 60 + 0.4) / 2, (29 / 60 + 0.8) / 2, 0.25])
    assert ranking.ranks.tolist() == [2, 1, 3]


def test_2025_by_hand():
    gtvp = results(dice=[[0.9, 0.9], [0.8, 0.8], [0.7, 0.7]])
    gtvn = results(
        overlap_twice_ml=[[1, 0], [3, 0], [2, 0]], both_ml=[[10, 0], [10, 0], [10, 0]],
        n_lesions=[[2, 2]] * 3, n_lesions_found=[[0, 1], [1, 0], [2, 1]], n_lesions_false=[[0, 0], [3, 0], [0, 1]],
    )  # fmt: skip
    ranking = rankings.rank_2025({"GTVp": gtvp, "GTVn": gtvn})
    assert ranking.measures["f1agg_gtvn"] == pytest.approx([2 / 5, 2 / 8, 6 / 8])
    # GTVn: by DSCagg 3 1 2, by F1agg 2 3 1, sums 5 4 3, so 3 2 1; with GTVp 1 2 3 the sums are 4 4 4
    assert ranking.ranks.tolist() == [1, 1, 1]


def test_borda_of_unlike_ranks():
    assert rankings.borda([np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])]).tolist() == [1.0, 2.5, 2.5]
    assert rankings.borda([np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])], ties="min").tolist() == [1, 2, 2]


def test_2026_by_hand():
    gtvp, gtvn = results(dice=[[1, 0], [0.6, 0.6], [0, 0]]), results(dice=[[1, 1], [0.9, 0.9], [1, 1]])
    ranking = rankings.rank_2026({"GTVp": gtvp, "GTVn": gtvn})
    assert ranking.measures["mean_dice"] == pytest.approx([0.75, 0.75, 0.5])
    assert ranking.ranks.tolist() == [1, 1, 3]


def test_a_cohort_without_nodes_has_the_rankings_of_one_class():
    names = [
        ranking.name for ranking in rankings.rank_all({"GTVp": results(), "GTVn": results(both_ml=np.zeros((3, 2)))})
    ]
    assert names == ["hecktor_2020", "hecktor_2021_official", "hecktor_2021_correct"]
    names = [ranking.name for ranking in rankings.rank_all({"GTVp": results(), "GTVn": results()})]
    assert names[3:] == ["hecktor_2022", "hecktor_2025", "hecktor_2026"]


def test_unknown_lesions_give_no_rank_and_say_so():
    unknown = results(n_lesions=np.full((3, 2), np.nan))
    ranking = rankings.rank_2025({"GTVp": results(), "GTVn": unknown})
    assert np.isnan(ranking.ranks).all()
    assert ranking.note == "not known of every arm: f1agg_gtvn"
    assert rankings.rank_2022({"GTVp": results(), "GTVn": unknown}).note == ""


@pytest.fixture(scope="module")
def label_maps():
    """Targets and predictions by arm; the last arm lacks its last prediction, and one case has no GTVn."""
    rng = np.random.default_rng(5)
    targets, predictions = [], [[] for _ in range(N_ARMS)]
    for case in range(N_CASES):
        target = np.zeros((14, 14, 8), np.uint8)
        target[1:5, 1:5, 1:5] = 1
        if case != 2:
            target[8:11, 2:5, 2:5] = target[8:12, 8:11, 3:6] = 2
        targets.append(target)
        for arm in range(N_ARMS):
            moved = np.roll(target, rng.integers(-arm, arm + 1, 3), (0, 1, 2))
            moved[rng.random(moved.shape) < 0.002 * arm] = 2
            predictions[arm].append(moved)
    predictions[1][3] = np.zeros_like(targets[3])
    predictions[-1][-1] = None
    return targets, predictions


def cohort_of(targets, predictions):
    found = {}
    for name in ("GTVp", "GTVn"):
        rows = [
            [
                (score_missing(t, SPACING_MM) if p is None else score_case(p, t, SPACING_MM))[name]
                for p, t in zip(of_arm, targets, strict=True)
            ]
            for of_arm in predictions
        ]
        columns = {key: np.array([[row[key] for row in of_arm] for of_arm in rows]) for key in rows[0][0]}
        both = columns["volume_ml"] + columns["target_volume_ml"]
        found[name] = ClassResults(
            dice_2021=np.where(columns["volume_ml"] > 0, columns["dice"], 0), both_ml=both,
            overlap_twice_ml=columns["dice"] * both,
            **{key: columns[key] for key in ClassResults.__dataclass_fields__ if key in columns},
        )  # fmt: skip
    return found


def test_every_ranking_is_that_of_another_way_to_compute_it(label_maps):
    """Voxels are counted over all cases together, lesions flooded and paired in a plain loop, places counted."""
    targets, predictions = label_maps
    found = {ranking.name: ranking for ranking in rankings.rank_all(cohort_of(targets, predictions))}
    dice = {label: [mean_dice(of_arm, targets, label) for of_arm in predictions] for label in (1, 2)}
    agg = {label: [pooled_dice(of_arm, targets, label) for of_arm in predictions] for label in (1, 2)}
    f1 = [pooled_f1(of_arm, targets, 2) for of_arm in predictions]
    assert found["hecktor_2020"].measures["mean_dice"] == pytest.approx(dice[1])
    assert found["hecktor_2022"].measures["mean_dscagg"] == pytest.approx(np.mean([agg[1], agg[2]], axis=0))
    assert found["hecktor_2025"].measures["f1agg_gtvn"] == pytest.approx(f1)
    assert found["hecktor_2026"].measures["mean_dice"] == pytest.approx(np.mean([dice[1], dice[2]], axis=0))
    assert found["hecktor_2020"].ranks.tolist() == places(dice[1])
    assert found["hecktor_2022"].ranks.tolist() == places(np.mean([agg[1], agg[2]], axis=0))
    assert found["hecktor_2026"].ranks.tolist() == places(np.mean([dice[1], dice[2]], axis=0))
    nodes = [-(a + b) for a, b in zip(points(agg[2]), points(f1), strict=True)]
    assert found["hecktor_2025"].ranks.tolist() == places(
        [a + b for a, b in zip(points(dice[1]), points([-n for n in nodes]), strict=True)]
    )
    hd95 = found["hecktor_2021_official"].measures["median_hd95_mm"]
    assert found["hecktor_2021_official"].ranks.tolist() == places(
        [a + b for a, b in zip(points(dice[1]), points(-hd95), strict=True)]
    )


def places(values):
    """1 and the number of arms that are better."""
    return [1 + sum(other > value + 1e-9 for other in values) for value in values]


def points(values):
    """Borda's count: one for each arm left behind, a half for a tie."""
    return [sum((v > w + 1e-9) + 0.5 * (abs(v - w) <= 1e-9) for w in values) for v in values]


def mean_dice(of_arm, targets, label):
    found = []
    for prediction, target in zip(of_arm, targets, strict=True):
        if prediction is None:
            found.append(0.0)
            continue
        p, t = set(np.flatnonzero(prediction == label)), set(np.flatnonzero(target == label))
        found.append(2 * len(p & t) / (len(p) + len(t)) if p or t else 1.0)
    return sum(found) / len(found)


def pooled_dice(of_arm, targets, label):
    both = twice = 0
    for prediction, target in zip(of_arm, targets, strict=True):
        p = np.zeros_like(target) if prediction is None else prediction
        both += (p == label).sum() + (target == label).sum()
        twice += 2 * ((p == label) & (target == label)).sum()
    return twice / both


def pooled_f1(of_arm, targets, label):
    tp = fp = fn = 0
    for prediction, target in zip(of_arm, targets, strict=True):
        left = [] if prediction is None else components_by_flood(prediction == label, 26)
        true = components_by_flood(target == label, 26)
        pairs = sorted(
            ((len(p & t) / len(p | t), i, j) for i, p in enumerate(left) for j, t in enumerate(true)), reverse=True
        )
        used_i, used_j = set(), set()
        for iou, i, j in pairs:
            if iou > 0.3 and i not in used_i and j not in used_j:
                used_i.add(i)
                used_j.add(j)
        tp, fp, fn = tp + len(used_i), fp + len(left) - len(used_i), fn + len(true) - len(used_j)
    return 2 * tp / (2 * tp + fp + fn)
