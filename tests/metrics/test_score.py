"""The score of a case: the policy for empty masks, missing predictions, lesions and classes."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from hngtv.errors import InputError
from hngtv.metrics import score
from hngtv.metrics.score import CLASS_NAMES, SCORE_COLUMNS, CaseScore

SPACING_MM = (1.0, 1.0, 3.0)
SHAPE = (12, 12, 8)
DIAGONAL_MM = math.sqrt(12**2 + 12**2 + 24**2)
BEST = {"dice": 1.0, "precision": 1.0, "recall": 1.0, "hd95_mm": 0.0, "msd_mm": 0.0, "surface_dice_2mm": 1.0}
WORST = {
    "dice": 0.0,
    "precision": 0.0,
    "recall": 0.0,
    "hd95_mm": DIAGONAL_MM,
    "msd_mm": DIAGONAL_MM,
    "surface_dice_2mm": 0.0,
}
METRIC_COLUMNS = SCORE_COLUMNS[SCORE_COLUMNS.index("dice") :]

label_maps = arrays(np.uint8, (4, 3, 3), elements={"min_value": 0, "max_value": 2})


def labels(gtvp=False, gtvn=False):
    volume = np.zeros(SHAPE, np.uint8)
    volume[2:5, 2:5, 2:5] = 1 if gtvp else 0
    volume[7:10, 7:10, 2:5] = 2 if gtvn else 0
    return volume


def row(class_name="GTVp", volume_ml=1.0, target_volume_ml=1.0, dice=0.5):
    return CaseScore("case", "arm", "0", 0, class_name, dice, 0.5, 0.5, 3.0, 1.0, 0.5, volume_ml, target_volume_ml)


def metrics_only(scores):
    return {name: scores[name] for name in BEST}


def lesions(scores):
    return tuple(scores[name] for name in ("n_lesions", "n_lesions_found", "n_lesions_false"))


def test_perfect_prediction():
    scores = score.score_case(labels(True, True), labels(True, True), SPACING_MM)
    assert tuple(scores) == CLASS_NAMES
    for name, n_voxels in (("GTVp", 27), ("GTVn", 27), ("GTV", 54)):
        assert metrics_only(scores[name]) == BEST
        assert scores[name]["volume_ml"] == scores[name]["target_volume_ml"] == pytest.approx(n_voxels * 0.003)


def test_both_empty_is_perfect_and_one_empty_is_the_worst():
    scores = score.score_case(labels(gtvn=True), labels(), SPACING_MM)
    assert metrics_only(scores["GTVp"]) == BEST
    assert metrics_only(scores["GTVn"]) == pytest.approx(WORST)
    assert metrics_only(scores["GTV"]) == pytest.approx(WORST)
    assert scores["GTVn"]["volume_ml"] > scores["GTVn"]["target_volume_ml"] == 0.0
    scores = score.score_case(labels(), labels(gtvp=True), SPACING_MM)
    assert metrics_only(scores["GTVp"]) == pytest.approx(WORST)
    assert metrics_only(scores["GTVn"]) == BEST
    assert metrics_only(score.score_case(labels(), labels(), SPACING_MM)["GTV"]) == BEST


def test_confused_labels_cost_both_classes_but_not_their_union():
    target = labels(True, True)
    confused = np.choose(target, (0, 2, 1)).astype(np.uint8)
    scores = score.score_case(confused, target, SPACING_MM)
    assert scores["GTVp"]["dice"] == scores["GTVn"]["dice"] == 0.0
    assert scores["GTVp"]["hd95_mm"] < DIAGONAL_MM  # both masks exist, so the distance is a real one
    assert metrics_only(scores["GTV"]) == BEST


@pytest.mark.parametrize("target", [labels(True, True), labels(True), labels()])
def test_missing_prediction_is_the_worst_even_where_the_target_is_empty(target):
    scores = score.score_missing(target, SPACING_MM)
    assert tuple(scores) == CLASS_NAMES
    for name in CLASS_NAMES:
        assert metrics_only(scores[name]) == pytest.approx(WORST)
        assert scores[name]["volume_ml"] == 0.0
        assert scores[name]["target_volume_ml"] == pytest.approx(score.class_mask(target, name).sum() * 0.003)


def test_scores_make_rows_and_rows_come_back_from_text():
    for scores in (
        score.score_case(labels(True), labels(True, True), SPACING_MM),
        score.score_missing(labels(), SPACING_MM),
    ):
        for name, metrics in scores.items():
            assert tuple(metrics) == METRIC_COLUMNS
            case_score = CaseScore(case_id="a", arm="b", fold="0", seed=1, class_name=name, **metrics)
            text = {key: str(value) for key, value in dataclasses.asdict(case_score).items()}
            assert CaseScore.from_row(text | {"extra": "ignored"}) == case_score


def test_lesions_are_counted_and_those_of_a_missing_prediction_are_missed():
    target = labels(True, True)
    target[10:, :2, :2] = 2
    scores = score.score_case(labels(True, True), target, SPACING_MM)
    assert [lesions(scores[name]) for name in CLASS_NAMES] == [(1, 1, 0), (2, 1, 0), (3, 2, 0)]
    scores = score.score_case(labels(True), labels(gtvn=True), SPACING_MM)
    assert [lesions(scores[name]) for name in CLASS_NAMES] == [(0, 0, 1), (1, 0, 0), (1, 0, 1)]
    scores = score.score_missing(target, SPACING_MM)
    assert [lesions(scores[name]) for name in CLASS_NAMES] == [(1, 0, 0), (2, 0, 0), (3, 0, 0)]


def test_distance_of_2021_is_0_for_an_empty_prediction_and_infinite_for_a_missing_one():
    target = labels(True)
    assert score.score_case(labels(), target, SPACING_MM)["GTVp"]["hd95_2021_mm"] == 0.0
    assert score.score_missing(target, SPACING_MM)["GTVp"]["hd95_2021_mm"] == math.inf


def test_rows_from_before_the_rankings_are_read_and_know_nothing_of_them():
    text = {key: str(value) for key, value in dataclasses.asdict(row()).items()}
    older = CaseScore.from_row({key: value for key, value in text.items() if key not in score.RANKING_COLUMNS})
    assert older.dice == 0.5
    assert all(math.isnan(getattr(older, name)) for name in score.RANKING_COLUMNS)


def test_bad_rows_name_the_column():
    text = {key: str(value) for key, value in dataclasses.asdict(row()).items()}
    with pytest.raises(InputError, match=r"column 'dice' is 'high'"):
        CaseScore.from_row(text | {"dice": "high"})
    del text["hd95_mm"]
    with pytest.raises(InputError, match="column 'hd95_mm' is missing"):
        CaseScore.from_row(text)


def test_only_the_asked_classes_are_scored():
    assert tuple(score.score_case(labels(), labels(), SPACING_MM, ("GTVp",))) == ("GTVp",)
    with pytest.raises(InputError, match=r"'GTVx'.*GTVp, GTVn, GTV"):
        score.score_case(labels(), labels(), SPACING_MM, ("GTVx",))


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="shape"):
        score.score_case(np.zeros((2, 2, 2)), np.zeros((2, 2, 3)), SPACING_MM)
    with pytest.raises(InputError, match="prediction holds the labels 3"):
        score.score_case(np.full(SHAPE, 3), labels(), SPACING_MM)
    with pytest.raises(InputError, match=r"target holds the labels 0\.5"):
        score.score_missing(np.full(SHAPE, 0.5), SPACING_MM)
    with pytest.raises(InputError, match="spacing"):
        score.score_case(labels(), labels(), (1.0, 1.0, 0.0))


def test_a_class_without_any_volume_is_not_present():
    rows = [row("GTV"), row("GTVp"), row("GTVn", 0.0, 0.0, dice=1.0)]
    assert score.classes_present(rows) == ("GTVp", "GTV")
    assert score.classes_present([*rows, row("GTVn", 0.2, 0.0, dice=0.0)]) == CLASS_NAMES
    assert score.classes_present([]) == ()


@settings(max_examples=25, deadline=None)
@given(label_maps, label_maps)
def test_every_score_lies_in_its_range_and_padding_changes_no_overlap(prediction, target):
    scores = score.score_case(prediction, target, SPACING_MM)
    padded = score.score_case(np.pad(prediction, 2), np.pad(target, 2), SPACING_MM)
    diagonal_mm = score.image_diagonal_mm(target.shape, SPACING_MM)
    for name, metrics in scores.items():
        for share in ("dice", "precision", "recall", "surface_dice_2mm"):
            assert 0.0 <= metrics[share] <= 1.0
            assert metrics[share] == padded[name][share]
        assert 0.0 <= metrics["hd95_mm"] <= diagonal_mm
        equal = np.array_equal(score.class_mask(prediction, name), score.class_mask(target, name))
        assert (metrics["dice"] == 1.0) == equal
