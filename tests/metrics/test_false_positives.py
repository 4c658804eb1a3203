import numpy as np
import pytest

from hngtv.metrics.false_positives import far_outside_ml, outside_ml
from hngtv.metrics.score import CaseScore, score_case

SPACING_MM = (2.0, 1.0, 4.0)


def cubes() -> tuple[np.ndarray, np.ndarray]:
    """Target of 4 x 4 x 4; prediction of the same with a rim of one voxel, and an island of 5 voxels far away."""
    target, prediction = np.zeros((2, 40, 40, 20), bool)
    target[10:14, 10:14, 8:12] = True
    prediction[9:15, 9:15, 7:13] = True
    prediction[30:35, 30, 15] = True
    return prediction, target


def test_only_the_island_is_far() -> None:
    prediction, target = cubes()
    assert far_outside_ml(prediction, target, SPACING_MM) == pytest.approx(5 * 0.008)
    # The rim's corners are sqrt(2² + 1² + 4²) = 4.58 mm away.
    assert far_outside_ml(prediction, target, SPACING_MM, far_mm=4.5) == pytest.approx((5 + 8) * 0.008)


def test_without_target_all_is_far_and_nothing_is_nothing() -> None:
    prediction, target = cubes()
    assert far_outside_ml(prediction, 0 * target > 0, SPACING_MM) == pytest.approx(prediction.sum() * 0.008)
    assert far_outside_ml(0 * prediction > 0, target, SPACING_MM) == 0
    assert far_outside_ml(0 * prediction > 0, 0 * target > 0, SPACING_MM) == 0


def test_volume_outside_follows_from_the_scores() -> None:
    prediction, target = cubes()
    for predicted, true in ((prediction, target), (prediction, 0 * target), (0 * prediction, target)):
        metrics = score_case(predicted.astype(np.uint8), true.astype(np.uint8), SPACING_MM, ("GTV",))["GTV"]
        score = CaseScore("a", "arm", "0", 0, "GTV", **metrics)
        assert outside_ml(score) == pytest.approx((predicted & ~(true > 0)).sum() * 0.008)
