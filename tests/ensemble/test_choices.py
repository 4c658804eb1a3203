"""Choices are made by the other folds, gain something or stay as they were, and say what they did."""

from dataclasses import replace

import numpy as np
import pytest

from hngtv.config import EnsembleSettings, InferenceSettings
from hngtv.ensemble.choices import Evidence, Judged, candidates, choose, gather, judge, summarise, with_review
from hngtv.ensemble.held_out import SeenCase, load_seen, write_seen
from hngtv.metrics.calibration import count_bins
from hngtv.segmentation import Region
from hngtv.volume.grid import Grid

INFERENCE = InferenceSettings(
    mode="whole_volume", overlap=0, flip_axes=(), threshold=0.5, min_component_ml=0, min_gtvp_share=0
)
SHAPE = (12, 10, 8)
GRID = Grid.from_array(SHAPE, np.diag([5.0, 5.0, 5.0, 1.0]))  # a voxel is an eighth of a millilitre


def settings(**changes) -> EnsembleSettings:
    given = {
        "runs": "runs", "arm": None, "out": "out", "flip_axes": None, "thresholds": (0.3, 0.5),
        "min_component_ml": (0, 1), "min_component_suv": (0, 3), "min_gain": 0.005, "review_share": 0.25,
        "low_dice": 0.6, "n_threads": 1,
    }  # fmt: skip
    return EnsembleSettings(**(given | changes))


def block(x: int, n: int) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[x : x + n, 2:5, 2:5] = True
    return mask


def seen(case_id: str, fold: int, tumour: np.ndarray, truth: np.ndarray, **changes) -> SeenCase:
    """A case with the probability `tumour` of GTVp."""
    suv = np.where(truth, 8.0, 1.0).astype(np.float32)
    x, y, z = (slice(0, n) for n in SHAPE)
    region = Region((x, y, z), GRID, tumour[None].astype(np.float32), None, suv, changes.pop("agreement", 0.9))
    return replace(SeenCase(case_id, fold, region, truth, 0, is_fallback=False), **changes)


def keep(cases, folder):
    return [write_seen(folder / f"{case.case_id}.npz", case, "key") for case in cases]


def with_cold_ghost(number: int) -> SeenCase:
    """Tumour that is found, and beside it as large a piece of tissue without uptake."""
    truth = block(0, 3)
    return seen(f"case_{number}", number % 3, 0.9 * (truth | block(6, 3)), truth, agreement=0.5 + 0.05 * number)


def test_a_case_is_kept_as_it_was_seen(tmp_path):
    case = with_cold_ghost(4)
    (path,) = keep([replace(case, n_outside=7, is_fallback=True)], tmp_path)
    again = load_seen(path)
    assert (again.case_id, again.fold, again.n_outside, again.is_fallback) == ("case_4", 1, 7, True)
    assert again.region.agreement == pytest.approx(case.region.agreement)
    assert again.region.slices == case.region.slices
    np.testing.assert_allclose(again.region.classes, case.region.classes, atol=1e-3)
    np.testing.assert_array_equal(again.truth, case.truth)


def test_tumour_outside_of_the_region_counts_as_missed():
    truth = block(0, 4)
    case = seen("a", 0, 1.0 * truth, truth)
    assert case.dice(truth.astype(np.uint8)) == 1
    assert replace(case, n_outside=int(2 * truth.sum())).dice(truth.astype(np.uint8)) == pytest.approx(0.5)


def test_a_crop_to_what_may_be_tumour_changes_no_dice():
    case = with_cold_ghost(0)
    part = replace(case, truth=case.truth | block(10, 1)).cropped(0.5)
    assert part.truth.size < case.truth.size
    assert part.n_outside == 9
    labels = np.ones(part.truth.shape, np.uint8)
    whole = np.zeros(SHAPE, np.uint8)
    whole[part.region.slices] = 1
    assert part.dice(labels) == pytest.approx(replace(case, truth=case.truth | block(10, 1)).dice(whole))


def test_cold_pieces_are_dropped_where_that_gains(tmp_path):
    options = candidates(INFERENCE, settings())
    assert options[0] == INFERENCE
    assert len(options) == len(set(options)) == 8
    files = keep([with_cold_ghost(number) for number in range(6)], tmp_path)
    chosen, judged = judge(files, gather(files, options), options, settings())
    assert chosen.min_component_suv == 3
    assert [case.dice_before for case in judged] == pytest.approx([2 / 3] * 6)
    assert [case.dice for case in judged] == [1.0] * 6


def test_without_a_gain_the_settings_of_the_runs_stay(tmp_path):
    options = candidates(INFERENCE, settings())
    files = keep([with_cold_ghost(number) for number in range(6)], tmp_path)
    chosen, _ = judge(files, gather(files, options), options, settings(min_gain=0.5))
    assert replace(chosen, temperature=1, logit_shift=0, review_below=0) == INFERENCE


def test_a_fold_has_no_say_in_the_choice_that_it_is_judged_by():
    """In fold 0 the second candidate is best, in the others the third."""
    options = [replace(INFERENCE, threshold=value) for value in (0.5, 0.4, 0.3)]
    folds = np.array([0, 1, 2])
    dice = np.array([[0.5, 0.9, 0.1], [0.5, 0.1, 0.6], [0.5, 0.1, 0.6]])
    logits = [np.ones((2, 160), int)] * 3
    evidence = Evidence(folds, dice, logits, np.array([0.9, 0.5, 0.6]))
    assert choose(evidence, folds != 0, options, 0.01).threshold == 0.3
    assert choose(evidence, folds == 0, options, 0.01).threshold == 0.4


def test_the_rule_flags_the_share_that_agrees_least():
    agreement = np.linspace(0.5, 0.9, 9)
    below = with_review(INFERENCE, agreement, 0.25).review_below
    assert (agreement < below).sum() == 2
    assert with_review(INFERENCE, np.zeros(4), 0.25).review_below > 0, "0 would be no rule"


def judged(dice: float, agreement: float, flagged: bool) -> Judged:
    counts = count_bins(np.array([0.9, 0.9]), np.array([True, False]))
    return Judged("case", 0, 10.0, dice, dice, agreement, flagged, counts, counts)


def test_what_is_said_of_the_rule_is_counted():
    cases = [judged(0.4, 0.5, True), judged(0.5, 0.8, False), judged(0.7, 0.6, True), judged(0.9, 0.9, False)]
    measured = summarise(cases, low_dice=0.6)
    assert (measured["n_low"], measured["n_flagged"], measured["n_low_flagged"]) == (2, 2, 1)
    assert measured["dice_flagged"] == pytest.approx(0.55)
    assert measured["dice_unflagged"] == pytest.approx(0.7)
    assert measured["area_under_curve_of_low"] == pytest.approx(0.75)
    assert measured["rank_correlation"] == pytest.approx(0.8)
    assert measured["calibration_error"] == pytest.approx(0.4)


def test_a_summary_of_cases_that_are_all_alike_says_none():
    measured = summarise([judged(0.9, 0.9, False)] * 3, low_dice=0.6)
    assert measured["rank_correlation"] is None
    assert measured["dice_flagged"] is None
    assert measured["area_under_curve_of_low"] is None
