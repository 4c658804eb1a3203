"""Overlap by hand and by its properties."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from hngtv.errors import InputError
from hngtv.metrics import overlap

SPACING_MM = (1.0, 1.0, 3.0)


@st.composite
def mask_pairs(draw):
    shape = draw(array_shapes(min_dims=3, max_dims=3, max_side=4))
    return draw(arrays(bool, shape)), draw(arrays(bool, shape))


def test_two_cubes_shifted_by_one_voxel():
    prediction, target = np.zeros((2, 8, 8, 8), bool)
    target[2:6, 2:6, 2:6] = True
    prediction[3:7, 2:6, 2:6] = True
    assert overlap.dice(prediction, target) == 0.75
    assert overlap.precision(prediction, target) == 0.75
    assert overlap.recall(prediction, target) == 0.75
    assert overlap.volume_ml(target, SPACING_MM) == pytest.approx(64 * 3 / 1000)


def test_precision_and_recall_differ_when_the_prediction_is_half_the_target():
    prediction, target = np.zeros((2, 4, 4, 4), bool)
    target[:2] = True
    prediction[:1] = True
    assert overlap.precision(prediction, target) == 1.0
    assert overlap.recall(prediction, target) == 0.5
    assert overlap.dice(prediction, target) == pytest.approx(2 / 3)


def test_nothing_divided_by_nothing_is_nan():
    empty, full = np.zeros((2, 2, 2), bool), np.ones((2, 2, 2), bool)
    assert math.isnan(overlap.dice(empty, empty))
    assert math.isnan(overlap.precision(empty, full))
    assert math.isnan(overlap.recall(full, empty))
    assert overlap.dice(empty, full) == overlap.precision(full, empty) == overlap.recall(empty, full) == 0.0
    assert overlap.volume_ml(empty, SPACING_MM) == 0.0


def test_masks_on_two_grids_are_refused():
    with pytest.raises(InputError, match=r"\(2, 2, 2\).*\(2, 2, 3\)"):
        overlap.dice(np.ones((2, 2, 2), bool), np.ones((2, 2, 3), bool))


@settings(max_examples=100, deadline=None)
@given(mask_pairs())
def test_dice_is_symmetric_bounded_and_one_only_for_equal_masks(pair):
    first, second = pair
    value = overlap.dice(first, second)
    if not first.any() and not second.any():
        assert math.isnan(value)
        return
    assert value == overlap.dice(second, first)
    assert 0.0 <= value <= 1.0
    assert (value == 1.0) == np.array_equal(first, second)


@settings(max_examples=100, deadline=None)
@given(mask_pairs())
def test_dice_is_the_harmonic_mean_of_precision_and_recall(pair):
    first, second = pair
    if (first & second).any():
        precision, recall = overlap.precision(first, second), overlap.recall(first, second)
        assert overlap.dice(first, second) == pytest.approx(2 * precision * recall / (precision + recall))
