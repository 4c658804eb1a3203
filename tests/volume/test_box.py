"""Boxes grow, move and meet as they should."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hngtv.volume.box import Box, hull, union_ml
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


@given(boxes(), st.tuples(*[st.floats(0, 300)] * 3))
def test_a_box_about_a_centre_has_that_centre_and_size(box: Box, size_mm: tuple[float, float, float]) -> None:
    about = Box.about(box.centre_mm, size_mm)
    np.testing.assert_allclose(about.centre_mm, box.centre_mm, atol=1e-6)
    np.testing.assert_allclose(about.size_mm, size_mm, atol=1e-6)
    np.testing.assert_allclose(Box.about(box.centre_mm, box.size_mm).lower_mm, box.lower_mm, atol=1e-6)


def test_about_by_hand() -> None:
    assert Box.about((1, 2, 3), (2, 4, 0)) == Box((0, 0, 3), (2, 4, 3))


@given(boxes(), st.floats(0, 10))
def test_scaling_keeps_the_centre(box: Box, factor: float) -> None:
    scaled = box.scale(factor)
    np.testing.assert_allclose(scaled.centre_mm, box.centre_mm, atol=1e-6)
    np.testing.assert_allclose(scaled.size_mm, np.multiply(factor, box.size_mm), atol=1e-6)


def test_scaling_by_hand() -> None:
    assert Box((0, 0, 0), (10, 20, 30)).scale(1.2) == Box((-1, -2, -3), (11, 22, 33))


@pytest.mark.parametrize(
    ("other", "distance_mm"),
    [
        (Box((2, 2, 2), (3, 3, 3)), 0),  # inside
        (Box((10, 0, 0), (20, 10, 10)), 0),  # touching
        (Box((17, 0, 0), (20, 10, 10)), 7),  # beside
        (Box((13, 14, 0), (20, 20, 10)), 5),  # edge to edge
        (Box((-4, -3, 22), (-1, -2, 30)), np.sqrt(1 + 4 + 144)),  # corner to corner
    ],
)
def test_distance_is_the_shortest_way_between(other: Box, distance_mm: float) -> None:
    box = Box((0, 0, 0), (10, 10, 10))
    assert box.distance_mm(other) == pytest.approx(distance_mm)
    assert other.distance_mm(box) == pytest.approx(distance_mm)


@given(boxes(), boxes(), st.floats(0, 300))
def test_boxes_meet_once_grown_by_their_distance(first: Box, second: Box, margin_mm: float) -> None:
    distance_mm = first.distance_mm(second)
    if first.intersect(second) is not None:
        assert distance_mm == 0
    if first.expand(margin_mm).intersect(second) is None:
        assert distance_mm >= margin_mm - 1e-6
    assert first.expand(distance_mm + 1e-3).intersect(second) is not None


@given(st.lists(boxes(), min_size=1, max_size=4))
def test_hull_just_holds_all(several: list[Box]) -> None:
    around = hull(several)
    for box in several:
        assert around.intersect(box) == box
    for axis in range(3):
        assert around.lower_mm[axis] in [box.lower_mm[axis] for box in several]
        assert around.upper_mm[axis] in [box.upper_mm[axis] for box in several]


def test_union_counts_what_boxes_share_once() -> None:
    one, other = Box((0, 0, 0), (10, 10, 10)), Box((5, 0, 0), (15, 10, 20))
    assert union_ml([one]) == pytest.approx(1)
    assert union_ml([one, other]) == pytest.approx(1 + 2 - 0.5)
    assert union_ml([one, other, Box((2, 2, 2), (3, 3, 3)), one]) == pytest.approx(2.5), "inside, and twice"
    assert union_ml([one, one.shift((50, 0, 0))]) == pytest.approx(2)
    assert union_ml([Box((0, 0, 0), (10, 10, 0))]) == 0
    assert union_ml([]) == 0


@given(boxes(), boxes())
def test_union_of_two_is_their_sum_without_what_they_share(first: Box, second: Box) -> None:
    common = first.intersect(second)
    expected = first.volume_ml + second.volume_ml - (common.volume_ml if common else 0)
    assert union_ml([first, second]) == pytest.approx(expected)


@given(st.lists(boxes(), min_size=1, max_size=4))
def test_union_is_no_less_than_the_largest_and_no_more_than_the_sum(several: list[Box]) -> None:
    volumes = [box.volume_ml for box in several]
    assert max(volumes) * (1 - 1e-9) <= union_ml(several) <= sum(volumes) * (1 + 1e-9)
    assert union_ml(several[::-1]) == pytest.approx(union_ml(several))


def test_union_counts_an_overlap_once() -> None:
    one, other = Box((0, 0, 0), (10, 10, 10)), Box((5, 5, 5), (15, 15, 15))
    assert union_ml([one]) == pytest.approx(1.0)
    assert union_ml([one, other]) == pytest.approx(2.0 - 0.125)
    assert union_ml([one, one, Box((20, 0, 0), (30, 10, 10))]) == pytest.approx(2.0)
    assert union_ml([]) == 0
