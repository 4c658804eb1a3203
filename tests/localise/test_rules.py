"""Boxes by rule, against hand geometry."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hngtv.cases.prepare import Volume
from hngtv.config import AtlasLocaliser, FixedLocaliser, PetRuleLocaliser, RuleLocaliser
from hngtv.errors import InputError
from hngtv.localise.finding import Finding
from hngtv.localise.rules import (
    NVAUTO_SIZE_MM,
    PET_RULES,
    RuleBox,
    atlas_box,
    fixed_box,
    hecktor2020_box,
    hot_spot_box,
    medai_box,
    nvauto_box,
)
from hngtv.volume.box import Box
from hngtv.volume.grid import Grid

SCAN = Grid.axis_aligned(Box((-300, -300, 0), (300, 300, 800)), (10.0, 10.0, 10.0))
"""60 x 60 x 80 voxels; the upper quarter begins at slice 60, at 600 mm."""
SMALL = Grid.axis_aligned(Box((-50, -40, 100), (50, 40, 220)), (10.0, 10.0, 10.0))
"""10 x 8 x 12 voxels: smaller than every box below."""
SIZE_MM = (100.0, 120.0, 140.0)


def hot_scan(*indices: tuple[int, int, int], grid: Grid = SCAN) -> np.ndarray:
    pet = np.zeros(grid.shape)
    for index in indices:
        pet[index] = 10
    return pet


def assert_box(found: Box | None, centre_mm: tuple[float, float, float], size_mm: tuple[float, ...] = SIZE_MM) -> None:
    assert found is not None
    assert found.size_mm == pytest.approx(size_mm)
    assert found.centre_mm == pytest.approx(centre_mm)


def rule(name: Any, **changes: Any) -> PetRuleLocaliser:
    return PetRuleLocaliser(**({"name": name, "size_mm": SIZE_MM, "on_empty": "whole_volume"} | changes))


def fixed(**changes: Any) -> FixedLocaliser:
    return FixedLocaliser(**({"name": "fixed", "size_mm": SIZE_MM, "below_top_mm": 80} | changes))


def atlas(**changes: Any) -> AtlasLocaliser:
    plain = {"name": "atlas", "size_mm": SIZE_MM, "centre": (0.5, 0.6, 0.4), "long_mm": 900, "long_centre_z": 0.8}
    return AtlasLocaliser(**(plain | changes))


def look(settings: RuleLocaliser, pet: np.ndarray, grid: Grid = SCAN) -> Finding:
    return RuleBox(settings).find(Volume(np.zeros(grid.shape, dtype=np.float32), pet, grid), "P01")


def test_fixed_hangs_from_the_top_in_the_middle_of_the_plane() -> None:
    assert_box(fixed_box(SCAN, fixed()), (0, 0, 800 - 80 - 70))
    assert_box(fixed_box(SCAN, fixed(below_top_mm=0)), (0, 0, 730))


def test_fixed_in_a_short_scan_is_moved_up_to_its_bottom() -> None:
    short = Grid.axis_aligned(Box((-100, -100, 0), (100, 100, 180)), (5.0, 5.0, 5.0))
    assert_box(fixed_box(short, fixed()), (0, 0, 70))


def test_atlas_is_at_fractions_of_the_extent() -> None:
    """Of a scan with its origin elsewhere: 40 % of the way from feet to head, 60 % from back to front."""
    grid = Grid.axis_aligned(Box((100, -500, -1000), (700, 100, -200)), (10.0, 10.0, 10.0))
    assert_box(atlas_box(grid, atlas()), (400, -140, -680))


def test_atlas_has_another_fraction_for_long_scans() -> None:
    assert_box(atlas_box(SCAN, atlas(long_mm=800)), (0, 60, 640))
    assert_box(atlas_box(SCAN, atlas(long_mm=801)), (0, 60, 320))
    assert_box(atlas_box(SCAN, atlas(centre=(0.0, 1.0, 0.0))), (-250, 240, 70))


def test_nvauto_hangs_a_box_below_the_highest_uptake_and_about_its_mean() -> None:
    x, y, z = SCAN.to_world(np.array([30, 25, 70]))
    assert_box(nvauto_box(hot_scan((30, 25, 70)), SCAN, NVAUTO_SIZE_MM), (x, y, z - 155), NVAUTO_SIZE_MM)
    several = hot_scan((30, 25, 70), (32, 25, 62), (34, 28, 65))
    assert_box(nvauto_box(several, SCAN, SIZE_MM), (x + 20, y + 10, z - 70))


def test_medai_is_about_the_largest_uptake() -> None:
    """A bigger component wins over a hotter one; the middle of the box is its centroid, as far as the image reaches."""
    pet = hot_scan((10, 10, 78))
    pet[30:34, 24:28, 65:69] = 5
    assert_box(medai_box(pet, SCAN, SIZE_MM), (20, -40, 670))
    pet[30:34, 24:28, 65:69] = 0
    x, y, _ = SCAN.to_world(np.array([10, 10, 78]))
    assert_box(medai_box(pet, SCAN, SIZE_MM), (x, y, 800 - 70))


@pytest.mark.parametrize("find_box", [nvauto_box, medai_box])
def test_upper_quarter_alone_is_looked_at(find_box: Callable[..., Box | None]) -> None:
    pet = hot_scan((30, 25, 70))
    expected = find_box(pet, SCAN, SIZE_MM)
    pet[5:20, 5:20, 10:60] = 1000
    assert find_box(pet, SCAN, SIZE_MM) == expected
    pet[:, :, 60:] = 0
    assert find_box(pet, SCAN, SIZE_MM) is None


@pytest.mark.parametrize("find_box", [nvauto_box, medai_box])
def test_uptake_a_standard_deviation_above_the_mean_stands_out(find_box: Callable[..., Box | None]) -> None:
    """Voxels of two values, a quarter of them high: the high ones are at the mean plus 1.7 standard deviations."""
    pet = np.ones(SCAN.shape)
    pet[:15, :, 60:] = 2
    found = find_box(pet, SCAN, SIZE_MM)
    assert found is not None
    assert found.centre_mm[0] == pytest.approx(-300 + 75)
    pet[:45, :, 60:] = 2  # three quarters: 0.6 standard deviations above the mean
    assert find_box(pet, SCAN, SIZE_MM) is None


def with_brain(suv: float = 10.0, body: float = 0.0) -> np.ndarray:
    """A brain of 120 mm in slices 65 to 76, in x from -60 to 60, in y from -40 to 80."""
    pet = np.full(SCAN.shape, body)
    pet[24:36, 26:38, 65:77] = suv
    return pet


def test_hecktor2020_is_below_and_before_the_brain() -> None:
    """Smoothed by 12 mm the 3 of 10 are reached half a voxel further out, at slice 64 too."""
    found = hecktor2020_box(with_brain(), SCAN, SIZE_MM)
    lowest = SCAN.to_world(np.array([0, 0, 64]))[2]
    assert_box(found, (0, 20 + 30, lowest + 30 - 70))


def test_hecktor2020_takes_the_brain_and_not_a_larger_blob_lower_down() -> None:
    pet = with_brain()
    expected = hecktor2020_box(pet, SCAN, SIZE_MM)
    pet[5:50, 5:50, 5:45] = 30  # 45 cm wide; ends at 450 mm, the top third begins at 530 mm
    assert hecktor2020_box(pet, SCAN, SIZE_MM) == expected


def test_hecktor2020_takes_what_is_larger_in_the_top_third() -> None:
    pet = with_brain()
    expected = hecktor2020_box(pet, SCAN, SIZE_MM)
    pet[45:49, 45:49, 70:74] = 80  # hotter, and smaller
    assert hecktor2020_box(pet, SCAN, SIZE_MM) == expected
    pet[2:20, 2:20, 2:56] = 30  # larger, and mostly below 530 mm
    assert hecktor2020_box(pet, SCAN, SIZE_MM) == expected


def test_hecktor2020_is_about_the_middle_of_the_extent_and_not_of_the_mass() -> None:
    pet = with_brain()
    pet[36:46, 31:33, 70:72] = 10  # a thin arm of 100 mm; its mass moves the centroid by no more than 5 mm
    one, other = (hecktor2020_box(values, SCAN, SIZE_MM) for values in (with_brain(), pet))
    assert one is not None
    assert other is not None
    assert 30 <= other.centre_mm[0] - one.centre_mm[0] <= 50
    assert other.centre_mm[1:] == one.centre_mm[1:]


def test_hecktor2020_tries_again_with_less() -> None:
    """A brain below SUV 3 is found at 0.1, where it spreads further; a body at 0.05 is none of it."""
    found = hecktor2020_box(with_brain(suv=2.5, body=0.05), SCAN, SIZE_MM)
    assert found is not None
    assert found.centre_mm[:2] == pytest.approx((0, 50))
    lowest = found.upper_mm[2] - 30
    bright = hecktor2020_box(with_brain(), SCAN, SIZE_MM)
    assert bright is not None
    assert 615 <= lowest < bright.upper_mm[2] - 30
    assert hecktor2020_box(with_brain(suv=0.09), SCAN, SIZE_MM) is None


def test_hecktor2020_smooths_in_mm() -> None:
    """The same brain on voxels of half the length: the box is the same, to a voxel."""
    fine = Grid.axis_aligned(SCAN.bounds(), (5.0, 10.0, 5.0))
    pet = np.repeat(np.repeat(with_brain(), 2, axis=0), 2, axis=2)
    one, other = hecktor2020_box(with_brain(), SCAN, SIZE_MM), hecktor2020_box(pet, fine, SIZE_MM)
    assert one is not None
    assert other is not None
    np.testing.assert_allclose(one.centre_mm, other.centre_mm, atol=5)


def test_hot_spot_is_about_the_mean_of_the_hottest_hundredth_below_the_brain() -> None:
    """The band is slices 44 to 74; a hundredth of it are 1116 voxels, of which two blocks have 560 each."""
    pet = np.zeros(SCAN.shape)
    pet[20:30, 20:27, 60:68] = 5
    pet[30:40, 20:27, 50:58] = 7
    assert_box(hot_spot_box(pet, SCAN, SIZE_MM), (0, -65, 590))
    pet[:, :, 75:] = 90  # the brain
    pet[:, :, :44] = 90  # the bladder
    assert_box(hot_spot_box(pet, SCAN, SIZE_MM), (0, -65, 590))


def test_hot_spot_of_few_voxels_is_not_drowned_by_what_is_cold() -> None:
    """Where less than a hundredth of the band is hot, the hundredth hottest value is that of air."""
    x, y, z = SCAN.to_world(np.array([40, 20, 60]))
    assert_box(hot_spot_box(hot_scan((40, 20, 60)), SCAN, SIZE_MM), (x, y, z))


@pytest.mark.parametrize("n_slices", [1, 2, 5])
def test_hot_spot_of_a_scan_shorter_than_the_brain_looks_at_its_lowest_slice(n_slices: int) -> None:
    short = Grid.axis_aligned(Box((-300, -300, 0), (300, 300, 10 * n_slices)), (10.0, 10.0, 10.0))
    found = hot_spot_box(hot_scan((40, 20, 0), grid=short), short, (100, 100, 100))
    x, y, _ = short.to_world(np.array([40, 20, 0]))
    assert_box(found, (x, y, 5 * n_slices), (100, 100, 10 * n_slices))


@pytest.mark.parametrize("name", PET_RULES)
@pytest.mark.parametrize("suv", [0.0, 2.5])
def test_flat_pet_has_nothing_that_stands_out(name: str, suv: float) -> None:
    flat = np.full(SCAN.shape, suv)
    assert PET_RULES[name](flat, SCAN, SIZE_MM) is None
    finding = look(rule(name), flat)
    assert finding == Finding((SCAN.bounds(),), 0.0, "fallback:whole_volume (no uptake that stands out)")


@pytest.mark.parametrize("name", PET_RULES)
def test_flat_pet_has_no_pet_rule_to_fall_back_to(name: str) -> None:
    finding = look(rule(name, on_empty="pet_rule"), np.zeros(SCAN.shape))
    assert finding.boxes == (SCAN.bounds(),)
    assert finding.reason.startswith("fallback:whole_volume")


def test_a_rule_that_finds_nothing_falls_back_to_nvauto() -> None:
    pet = hot_scan((30, 25, 78))
    pet[:, :, 40:74] = 0
    assert hot_spot_box(pet, SCAN, SIZE_MM) is None
    finding = look(rule("hot_spot", on_empty="pet_rule"), pet)
    assert finding.boxes == (nvauto_box(pet, SCAN, NVAUTO_SIZE_MM),)
    assert (finding.confidence, finding.reason) == (0.0, "fallback:pet_rule (no uptake that stands out)")


@pytest.mark.parametrize("name", PET_RULES)
def test_a_rule_can_fail_with_the_case_and_the_way_out(name: str) -> None:
    with pytest.raises(InputError, match=r"P01.*no uptake.*localiser\.on_empty"):
        look(rule(name, on_empty="fail"), np.zeros(SCAN.shape))


@pytest.mark.parametrize("name", PET_RULES)
def test_every_rule_is_a_localiser(name: str) -> None:
    pet = with_brain()
    assert look(rule(name), pet) == Finding((PET_RULES[name](pet, SCAN, SIZE_MM),), 1.0, "found")  # pyright: ignore


def test_rules_without_pet_are_localisers() -> None:
    pet = np.zeros(SCAN.shape)
    assert look(fixed(), pet) == Finding((fixed_box(SCAN, fixed()),), 1.0, "found")
    assert look(atlas(), pet) == Finding((atlas_box(SCAN, atlas()),), 1.0, "found")


@pytest.mark.parametrize("name", PET_RULES)
@given(st.tuples(st.integers(0, 59), st.integers(0, 59), st.integers(60, 74)))
def test_boxes_lie_in_the_image_and_have_their_size(name: str, index: tuple[int, int, int]) -> None:
    pet = hot_scan(index)
    pet[index] = 5000  # smoothed by 12 mm, still above SUV 3
    box = PET_RULES[name](pet, SCAN, SIZE_MM)
    assert box is not None
    assert box.intersect(SCAN.bounds()) == box
    assert box.size_mm == pytest.approx(SIZE_MM)
    if name != "hecktor2020":
        point = SCAN.to_world(np.array(index))
        assert (np.asarray(box.lower_mm) <= point + 1e-9).all()
        assert (point <= np.asarray(box.upper_mm) + 1e-9).all()


@pytest.mark.parametrize("name", [*PET_RULES, "fixed", "atlas"])
def test_a_small_image_is_the_box(name: str) -> None:
    settings = {"fixed": fixed(), "atlas": atlas()}.get(name) or rule(name)
    finding = look(settings, hot_scan((5, 4, 6), (5, 4, 10), grid=SMALL) * 100, SMALL)
    assert (finding.boxes, finding.reason) == ((SMALL.bounds(),), "found")


@pytest.mark.parametrize("name", [*PET_RULES, "fixed", "atlas"])
def test_the_head_is_at_high_z(name: str) -> None:
    """Upside down, the box is another: no rule is blind to where the head is."""
    settings = {"fixed": fixed(), "atlas": atlas(centre=(0.5, 0.5, 0.8))}.get(name) or rule(name)
    pet = with_brain()
    pet[28:32, 30:34, 52:56] = 20
    pet[20:40, 20:40, 2:20] = 15
    (upright,) = look(settings, pet).boxes
    (head_down,) = look(settings, np.ascontiguousarray(pet[:, :, ::-1])).boxes
    assert upright.centre_mm[2] > 500
    if name in PET_RULES:
        assert head_down.centre_mm[2] != pytest.approx(800 - upright.centre_mm[2])
    else:
        assert head_down == upright, "by place alone"
