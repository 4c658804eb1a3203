"""From boxes to ROIs: joined by distance, given a shape, cut to the image."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hngtv.config import RoiSettings
from hngtv.localise.roi_policy import matched_jitter_mm, place_rois, widen
from hngtv.volume.box import Box, hull
from tests.volume.strategies import boxes

IMAGE = Box((-100, -100, 0), (100, 100, 300))


def settings(**changes: Any) -> RoiSettings:
    plain: dict[str, Any] = {"margin_mm": 10, "jitter_mm": 0, "crop_voxels": None, "foreground_share": 0.5}
    return RoiSettings(**(plain | changes))


def cube(x: float, y: float = 0, z: float = 100, side: float = 10) -> Box:
    """A cube with its low corner there."""
    return Box((x, y, z), (x + side, y + side, z + side))


@pytest.mark.parametrize(
    "changes", [{"shape": "fixed"}, {"size_mm": (9, 9, 9)}, {"shape": "slab", "size_mm": (9, 9, 9)}]
)
def test_fixed_and_its_size_go_together(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"size_mm.*shape=fixed"):
        settings(**changes)


@pytest.mark.parametrize(
    "changes", [{"jitter_mm": "same"}, {"jitter_mm": -1}, {"join_mm": -1}, {"shape": "fixed", "size_mm": (9, 9, 0)}]
)
def test_impossible_values_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(set(changes) - {"shape"}))):
        settings(**changes)


def test_without_a_distance_all_boxes_are_one_roi() -> None:
    assert place_rois([cube(-80), cube(70, 60, 200)], IMAGE, settings()) == (Box((-80, 0, 100), (80, 70, 210)),)


def test_boxes_up_to_the_distance_apart_are_joined() -> None:
    apart = [cube(0), cube(15)]
    assert place_rois(apart, IMAGE, settings(join_mm=5)) == (Box((0, 0, 100), (25, 10, 110)),)
    assert place_rois(apart, IMAGE, settings(join_mm=4.9)) == tuple(apart)
    assert place_rois([cube(0), cube(10)], IMAGE, settings(join_mm=0)) == (Box((0, 0, 100), (20, 10, 110)),)
    # 3 mm along x and 4 mm along y: 5 mm between the edges.
    diagonal = [cube(0), cube(13, 14)]
    assert len(place_rois(diagonal, IMAGE, settings(join_mm=5))) == 1
    assert len(place_rois(diagonal, IMAGE, settings(join_mm=4.99))) == 2


def test_boxes_are_joined_in_chains_and_the_box_around_two_may_reach_a_third() -> None:
    chain = [cube(0), cube(40), cube(15)]
    assert place_rois(chain, IMAGE, settings(join_mm=15)) == (Box((0, 0, 100), (50, 10, 110)),)
    # Neither of the two is near the third; the box around them holds it.
    around = [cube(0, 0), cube(12, 12, 100, 40), cube(30, -2, 100, 5)]
    assert place_rois(around, IMAGE, settings(join_mm=9)) == (Box((0, -2, 100), (52, 52, 140)),)


@given(st.lists(boxes(), min_size=1, max_size=5), st.floats(0, 200))
def test_joined_boxes_hold_all_and_lie_apart(several: list[Box], join_mm: float) -> None:
    image = hull(several).expand(1)
    rois = place_rois(several, image, settings(join_mm=join_mm))
    for box in several:
        assert any(box.intersect(roi) == box for roi in rois)
    for number, one in enumerate(rois):
        assert all(one.distance_mm(other) > join_mm for other in rois[number + 1 :])
    assert hull(rois) == hull(several)


def test_fixed_size_is_about_the_centre() -> None:
    (roi,) = place_rois([cube(0), cube(30)], IMAGE, settings(shape="fixed", size_mm=(60, 40, 80)))
    assert roi == Box((-10, -15, 65), (50, 25, 145))


def test_fixed_size_near_an_edge_is_moved_into_the_image() -> None:
    fixed = settings(shape="fixed", size_mm=(60, 40, 80))
    assert place_rois([cube(90, -100, 295, 5)], IMAGE, fixed) == (Box((40, -100, 220), (100, -60, 300)),)


def test_fixed_size_of_a_small_image_is_cut_to_it() -> None:
    fixed = settings(shape="fixed", size_mm=(500, 40, 80))
    assert place_rois([cube(90)], IMAGE, fixed) == (Box((-100, -15, 65), (100, 25, 145)),)


def test_fixed_rois_at_the_same_place_are_one() -> None:
    fixed = settings(shape="fixed", size_mm=(400, 400, 400), join_mm=0)
    assert place_rois([cube(-50), cube(50)], IMAGE, fixed) == (IMAGE,)


def test_slab_is_all_of_the_axial_plane() -> None:
    slabs = place_rois([cube(0, z=20), cube(0, z=250)], IMAGE, settings(shape="slab", join_mm=5))
    assert slabs == (Box((-100, -100, 20), (100, 100, 30)), Box((-100, -100, 250), (100, 100, 260)))


def test_boxes_are_cut_to_the_image() -> None:
    assert place_rois([cube(95, 0, -5)], IMAGE, settings()) == (Box((95, 0, 0), (100, 10, 5)),)
    outside = [cube(500), cube(0)]
    assert place_rois(outside, IMAGE, settings(join_mm=5)) == (cube(0),)


@pytest.mark.parametrize("changes", [{}, {"join_mm": 5}, {"shape": "slab"}])
def test_never_none(changes: dict[str, Any]) -> None:
    beyond = cube(500, 500, 5000)
    assert place_rois([beyond], IMAGE, settings(**changes)) == (IMAGE,)


@given(
    st.lists(boxes(), min_size=1, max_size=4),
    boxes(),
    st.none() | st.floats(0, 100),
    st.sampled_from(["tight", "fixed", "slab"]),
)
def test_rois_lie_in_the_image(several: list[Box], image: Box, join_mm: float | None, shape: str) -> None:
    size_mm = (50, 60, 70) if shape == "fixed" else None
    rois = place_rois(several, image, settings(shape=shape, size_mm=size_mm, join_mm=join_mm))
    assert 1 <= len(rois) <= len(several)
    assert all(roi.intersect(image) == roi for roi in rois)
    if shape == "fixed":
        for roi in rois:
            np.testing.assert_allclose(roi.size_mm, np.minimum((50, 60, 70), image.size_mm), atol=1e-6)


def test_margin_may_reach_beyond_the_image() -> None:
    assert widen([cube(95), cube(0)], settings()) == (
        Box((85, -10, 90), (115, 20, 120)),
        Box((-10, -10, 90), (20, 20, 120)),
    )


def test_matched_jitter_is_the_width_of_uniform_errors() -> None:
    rng = np.random.default_rng(0)
    true = cube(0, 0, 100, 30)
    pairs = [(true.shift(rng.uniform(-14, 14, 3)), true) for _ in range(2000)]
    assert matched_jitter_mm(pairs) == pytest.approx(14, rel=0.03)


def test_matched_jitter_by_hand() -> None:
    true = cube(0)
    # Centres off by 3, 0, 0 and by 0, 0, -3 mm: mean square 18 / 6 = 3 mm^2 along an axis.
    assert matched_jitter_mm([(cube(3), true), (cube(0, 0, 97), true)]) == pytest.approx(3)
    assert matched_jitter_mm([(true.expand(20), true)]) == 0, "a box may be too large without being off"
    assert matched_jitter_mm([]) == 0


def test_slabs_that_overlap_are_joined_even_where_their_boxes_lie_apart() -> None:
    image = Box((0, 0, 0), (100, 100, 100))
    left, right = Box((0, 0, 10), (10, 10, 30)), Box((80, 80, 20), (90, 90, 40))
    placed = place_rois((left, right), image, settings(shape="slab", join_mm=0.0))
    assert placed == (Box((0, 0, 10), (100, 100, 40)),)
