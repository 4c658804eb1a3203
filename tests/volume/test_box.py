"""Boxes grow, move and meet as they should."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hngtv.volume.box import Box
from tests.volume.strategies import boxes, positions_mm


@given(boxes(), st.floats(0, 100))
def test_expanding_adds_the_margin_on_every_side(box: Box, margin_mm: float) -> None:
    grown = box.expand(margin_mm)
    np.testing.assert_allclose(grown.centre_mm, box.centre_mm, atol=1e-6)
    np.testing.assert_allclose(np.subtract(grown.size_mm, box.size_mm), 2 * margin_mm, atol=1e-6)


@given(boxes(), st.tuples(*[st.floats(0.1, 400)] * 3))
def test_growing_to_a_size_never_shrinks_and_keeps_the_centre(box: Box, size_mm: tuple[float, ...]) -> None:
    grown = box.grow_to(size_mm)
    np.testing.assert_allclose(grown.size_mm, np.maximum(box.size_mm, size_mm), rtol=1e-6)
    np.testing.assert_allclose(grown.centre_mm, box.centre_mm, atol=1e-6)


@given(boxes(), boxes())
def test_intersection_is_inside_both_and_symmetric(first: Box, second: Box) -> None:
    common = first.intersect(second)
    assert common == second.intersect(first)
    for box in (first, second) if common else ():
        assert common is not None
        assert common.intersect(box) == common


@given(boxes(), st.tuples(positions_mm, positions_mm, positions_mm))
def test_shifting_keeps_the_volume(box: Box, offset_mm: tuple[float, float, float]) -> None:
    moved = box.shift(offset_mm)
    np.testing.assert_allclose(moved.volume_ml, box.volume_ml, rtol=1e-6)
    np.testing.assert_allclose(np.subtract(moved.centre_mm, box.centre_mm), offset_mm, atol=1e-6)


@given(boxes(), boxes())
def test_a_box_moved_into_another_lies_in_it_or_is_centred_on_it(box: Box, room: Box) -> None:
    moved = box.move_into(room)
    np.testing.assert_allclose(moved.size_mm, box.size_mm, atol=1e-6)
    for axis in range(3):
        if box.size_mm[axis] > room.size_mm[axis]:
            np.testing.assert_allclose(moved.centre_mm[axis], room.centre_mm[axis], atol=1e-6)
        else:
            assert moved.lower_mm[axis] >= room.lower_mm[axis] - 1e-6
            assert moved.upper_mm[axis] <= room.upper_mm[axis] + 1e-6


def test_a_box_moves_no_further_than_needed() -> None:
    room = Box((0, 0, 0), (100, 100, 100))
    assert Box((20, -5, 95), (30, 5, 105)).move_into(room) == Box((20, 0, 90), (30, 10, 100))


def test_boxes_that_only_touch_have_nothing_in_common() -> None:
    assert Box((0, 0, 0), (1, 1, 1)).intersect(Box((1, 0, 0), (2, 1, 1))) is None


@pytest.mark.parametrize("upper", [(-1, 1, 1), (1, np.nan, 1), (1, 1, np.inf)])
def test_impossible_corners_are_refused(upper: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="finite corners"):
        Box((0, 0, 0), upper)
