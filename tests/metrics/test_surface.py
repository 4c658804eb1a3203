"""Surface distances by hand, against a distance transform, and by their properties."""

import math
import time
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from hngtv.errors import InputError
from hngtv.metrics import surface

ANISOTROPIC_MM = (0.9, 1.1, 3.0)
SHAPE = (5, 4, 3)

masks = arrays(bool, SHAPE).filter(np.any)


def cube(shape, start, size):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(first, first + size) for first in start)] = True
    return mask


def ball(centre_mm, radius_mm, shape, spacing_mm):
    position = np.indices(shape) * np.reshape(spacing_mm, (3, 1, 1, 1))
    return np.sqrt(((position - np.reshape(centre_mm, (3, 1, 1, 1))) ** 2).sum(axis=0)) <= radius_mm


def hausdorff_by_distance_transform(prediction, target, spacing_mm, percentile=95):
    """The larger of the two directed percentiles, from dense distance maps."""
    prediction, target = np.pad(prediction, 2), np.pad(target, 2)
    first, second = (mask ^ np.asarray(ndimage.binary_erosion(mask), bool) for mask in (prediction, target))
    to_second = np.asarray(ndimage.distance_transform_edt(~second, sampling=spacing_mm))[first]
    to_first = np.asarray(ndimage.distance_transform_edt(~first, sampling=spacing_mm))[second]
    return max(np.percentile(to_second, percentile), np.percentile(to_first, percentile))


@pytest.mark.parametrize(("axis", "expected_mm"), [(0, 0.9), (1, 1.1), (2, 3.0)])
def test_cube_shifted_by_one_voxel_is_off_by_the_spacing_of_that_axis(axis, expected_mm):
    target = cube((16, 16, 16), (3, 3, 3), 8)
    prediction = np.roll(target, 1, axis)
    assert surface.hausdorff_95_mm(prediction, target, ANISOTROPIC_MM) == pytest.approx(expected_mm)


def test_two_points_two_millimetres_apart():
    prediction, target = cube((7, 5, 5), (1, 2, 2), 1), cube((7, 5, 5), (3, 2, 2), 1)
    assert surface.hausdorff_95_mm(prediction, target, (1.0, 1.0, 1.0)) == pytest.approx(2.0)
    assert surface.surface_dice(prediction, target, (1.0, 1.0, 1.0), 2.0) == 1.0
    assert surface.surface_dice(prediction, target, (1.0, 1.0, 1.0), 0.9) == 0.0


def test_a_far_island_counts_on_the_side_that_has_it():
    """All of the target is found and an island beside it is false: one direction alone sees it."""
    target = cube((40, 12, 12), (2, 2, 2), 4)
    prediction = target | cube((40, 12, 12), (30, 2, 2), 4)
    expected_mm = hausdorff_by_distance_transform(prediction, target, ANISOTROPIC_MM)
    assert expected_mm > 20
    assert surface.hausdorff_95_mm(prediction, target, ANISOTROPIC_MM) == pytest.approx(expected_mm)
    assert surface.hausdorff_95_mm(target, prediction, ANISOTROPIC_MM) == pytest.approx(expected_mm)


@pytest.mark.parametrize("size_mm", [1.0, 3.0])
def test_surface_dice_of_a_shifted_cube_counts_areas_by_hand(size_mm):
    """A digital cube of n voxels has flat elements, edges cut at 45 degrees and triangles at its corners.

    Shifted along x by one voxel with a tolerance below one voxel, what lies off the other cube is the whole
    trailing face with its rim, and the inside of the leading face.
    """
    n = 10
    face, edge, corner = (n - 1) ** 2, (n - 1) * math.sqrt(0.5), math.sqrt(3) / 8
    whole = 6 * face + 12 * edge + 8 * corner
    off = 2 * face + 4 * edge + 4 * corner
    target = cube((16, 16, 16), (2, 2, 2), n)
    value = surface.surface_dice(np.roll(target, 1, 0), target, (size_mm,) * 3, tolerance_mm=2 / 3 * size_mm)
    assert value == pytest.approx(1 - off / whole, abs=1e-6)


def test_surface_dice_equals_the_published_package():
    """Balls of 20 and 22 mm; the number is that of the surface-distance package 0.1 on the same masks."""
    spacing_mm = (1.0, 1.0, 3.0)
    small, large = (ball((32, 32, 48), radius, (64, 64, 32), spacing_mm) for radius in (20, 22))
    assert surface.surface_dice(small, large, spacing_mm, 2.0) == pytest.approx(0.817, abs=5e-4)
    assert surface.hausdorff_95_mm(small, large, spacing_mm) == pytest.approx(3.0)


def test_distance_of_2021_equals_the_published_package_with_its_axes_swapped():
    """The numbers are those of the surface-distance package 0.1 on masks (X, Y, Z) with the spacing (z, y, x)."""
    spacing_mm = (1.0, 1.0, 3.0)
    small, large = (ball((32, 32, 48), radius, (64, 64, 32), spacing_mm) for radius in (20, 22))
    assert surface.hausdorff_95_2021_mm(small, large, spacing_mm) == pytest.approx(2.828427, abs=1e-5)
    shifted = np.roll(small, (3, 1), (0, 2))
    assert surface.hausdorff_95_2021_mm(shifted, large, spacing_mm) == pytest.approx(6.082763, abs=1e-5)


def test_distance_of_2021_takes_x_for_z_and_an_empty_prediction_for_the_best():
    target = cube((16, 16, 16), (3, 3, 3), 8)
    along_x, along_z = np.roll(target, 1, 0), np.roll(target, 1, 2)
    assert surface.hausdorff_95_2021_mm(along_x, target, ANISOTROPIC_MM) == pytest.approx(3.0)
    assert surface.hausdorff_95_2021_mm(along_z, target, ANISOTROPIC_MM) == pytest.approx(0.9)
    empty = np.zeros_like(target)
    assert surface.hausdorff_95_2021_mm(empty, target, ANISOTROPIC_MM) == 0.0
    assert surface.hausdorff_95_2021_mm(empty, empty, ANISOTROPIC_MM) == 0.0
    assert surface.hausdorff_95_2021_mm(target, empty, ANISOTROPIC_MM) == math.inf


@pytest.mark.parametrize("size_mm", [1.0, 1.0000001, 0.9999999, 1.000001])
def test_noise_in_the_spacing_does_not_move_a_surface_across_the_tolerance(size_mm):
    target = cube((16, 16, 16), (2, 2, 2), 8)
    assert surface.surface_dice(np.roll(target, 2, 0), target, (size_mm,) * 3, 2.0) == 1.0


def test_mask_cut_by_the_border_has_a_surface_there():
    inside = cube((10, 10, 10), (0, 0, 0), 6)
    smaller = cube((10, 10, 10), (1, 1, 1), 5)
    away = np.pad(inside, 3), np.pad(smaller, 3)
    hd95_mm = surface.hausdorff_95_mm(inside, smaller, ANISOTROPIC_MM)
    assert hd95_mm == surface.hausdorff_95_mm(*away, ANISOTROPIC_MM) > 0
    share = surface.surface_dice(inside, smaller, ANISOTROPIC_MM, 0.5)
    assert share == surface.surface_dice(*away, ANISOTROPIC_MM, 0.5) < 1
    everything = np.ones((4, 4, 4), bool)
    assert surface.hausdorff_95_mm(everything, everything, ANISOTROPIC_MM) == 0.0
    assert surface.surface_dice(everything, everything, ANISOTROPIC_MM, 0.0) == 1.0


def test_mean_surface_distance_of_parallel_plates_is_their_distance():
    first, second = np.zeros((2, 8, 8, 12), bool)
    first[:, :, 2] = second[:, :, 5] = True
    found = surface.mean_surface_distance_mm(first, second, ANISOTROPIC_MM)
    assert found == pytest.approx(3 * ANISOTROPIC_MM[2])
    assert surface.mean_surface_distance_mm(first, first, ANISOTROPIC_MM) == 0.0


def test_mean_surface_distance_counts_both_surfaces():
    """A far speck counts once in the mean from it, and hardly in the mean towards it."""
    target = cube((40, 12, 12), (2, 2, 2), 6)
    prediction = target.copy()
    prediction[30, 4, 4] = True
    n_surface = 6**3 - 4**3
    expected_mm = (30 - 7) * 1.0 / (2 * n_surface + 1)
    found = surface.mean_surface_distance_mm(prediction, target, (1.0, 1.0, 1.0))
    assert found == pytest.approx(expected_mm)
    assert surface.mean_surface_distance_mm(target, prediction, (1.0, 1.0, 1.0)) == pytest.approx(expected_mm)


def test_empty_masks_have_no_distance():
    empty, full = np.zeros((3, 3, 3), bool), np.ones((3, 3, 3), bool)
    for pair in ((empty, empty), (empty, full), (full, empty)):
        assert math.isnan(surface.hausdorff_95_mm(*pair, ANISOTROPIC_MM))
        assert math.isnan(surface.mean_surface_distance_mm(*pair, ANISOTROPIC_MM))
    assert surface.surface_dice(empty, full, ANISOTROPIC_MM, 2.0) == 0.0
    assert surface.surface_dice(full, empty, ANISOTROPIC_MM, 2.0) == 0.0
    assert math.isnan(surface.surface_dice(empty, empty, ANISOTROPIC_MM, 2.0))


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0), (1.0, 1.0, 0.0), (1.0, -1.0, 1.0), (1.0, math.nan, 1.0)])
def test_bad_spacing_is_refused(spacing_mm):
    full = np.ones((3, 3, 3), bool)
    with pytest.raises(InputError, match="spacing"):
        surface.hausdorff_95_mm(full, full, spacing_mm)


def test_no_warning_escapes():
    full = np.ones((3, 3, 3), bool)
    surface.hausdorff_95_mm(full, full, ANISOTROPIC_MM)  # MONAI warns on import, once
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        surface.hausdorff_95_mm(full, full, ANISOTROPIC_MM)
        surface.surface_dice(full, full, ANISOTROPIC_MM, 2.0)


def test_a_small_tumour_in_a_large_grid_is_quick():
    target = cube((400, 400, 200), (100, 100, 100), 20)
    prediction = np.roll(target, 2, 0)
    surface.hausdorff_95_mm(prediction, target, ANISOTROPIC_MM)
    started = time.process_time()
    surface.hausdorff_95_mm(prediction, target, ANISOTROPIC_MM)
    assert time.process_time() - started < 2.0


@settings(max_examples=60, deadline=None)
@given(masks, masks, st.tuples(*[st.sampled_from((0.5, 0.977, 1.0, 3.0))] * 3))
def test_hd95_equals_the_distance_transform(first, second, spacing_mm):
    value = surface.hausdorff_95_mm(first, second, spacing_mm)
    expected = hausdorff_by_distance_transform(first, second, spacing_mm)
    assert value == pytest.approx(expected, rel=1e-5, abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(masks, masks, st.floats(0.0, 4.0))
def test_both_measures_are_symmetric_and_padding_changes_nothing(first, second, tolerance_mm):
    hd95_mm = surface.hausdorff_95_mm(first, second, ANISOTROPIC_MM)
    share = surface.surface_dice(first, second, ANISOTROPIC_MM, tolerance_mm)
    assert 0.0 <= share <= 1.0
    assert surface.hausdorff_95_mm(second, first, ANISOTROPIC_MM) == hd95_mm
    assert surface.surface_dice(second, first, ANISOTROPIC_MM, tolerance_mm) == pytest.approx(share, abs=1e-6)
    margins = ((4, 0), (1, 3), (0, 2))
    first, second = np.pad(first, margins), np.pad(second, margins)
    assert surface.hausdorff_95_mm(first, second, ANISOTROPIC_MM) == hd95_mm
    assert surface.surface_dice(first, second, ANISOTROPIC_MM, tolerance_mm) == share


@settings(max_examples=40, deadline=None)
@given(arrays(bool, (2, 3, 3)).filter(np.any), arrays(bool, (2, 3, 3)).filter(np.any))
def test_small_masks_have_distance_zero_only_if_they_are_equal(first, second):
    """With at most 20 surface voxels the 95th percentile sees every one, and all here are surface.

    Surface Dice has no such converse: a dent of one voxel can leave the same places on the surface.
    """
    assert (surface.hausdorff_95_mm(first, second, ANISOTROPIC_MM) == 0.0) == np.array_equal(first, second)
    assert surface.surface_dice(first, first, ANISOTROPIC_MM, 0.0) == 1.0


@settings(max_examples=20, deadline=None)
@given(masks, masks)
def test_the_cut_gives_what_monai_gives_on_the_whole_grid(first, second):
    torch = pytest.importorskip("torch")
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance
    from monai.metrics.surface_dice import compute_surface_dice

    whole = [torch.from_numpy(np.pad(mask, 5))[None, None] for mask in (first, second)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hd95_mm = compute_hausdorff_distance(
            *whole, include_background=True, percentile=95, spacing=list(ANISOTROPIC_MM)
        )
        share = compute_surface_dice(
            *whole,
            class_thresholds=[2.0],
            include_background=True,
            spacing=list(ANISOTROPIC_MM),
            use_subvoxels=True,
        )
    assert surface.hausdorff_95_mm(first, second, ANISOTROPIC_MM) == float(hd95_mm)
    assert surface.surface_dice(first, second, ANISOTROPIC_MM, 2.0) == pytest.approx(float(share), abs=1e-6)
