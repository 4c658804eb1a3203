"""Lesions against counts by hand and an independent matching."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from hngtv.errors import InputError
from hngtv.metrics.lesions import LesionCounts, aggregated_f1, count_lesions, match_lesions

masks = arrays(np.bool_, (4, 4, 3))


def blocks(*boxes, shape=(20, 8, 8)):
    mask = np.zeros(shape, bool)
    for x, length in boxes:
        mask[x : x + length, 2:4, 2:4] = True
    return mask


def components_by_flood(mask, connectivity):
    """Sets of voxels, found without a library: neighbours differ by 1 along at most 1, 2 or 3 axes."""
    n_axes = {6: 1, 18: 2, 26: 3}[connectivity]
    left, found = set(zip(*np.nonzero(mask), strict=True)), []
    while left:
        lesion, edge = set(), [left.pop()]
        while edge:
            voxel = edge.pop()
            lesion.add(voxel)
            for step in itertools.product((-1, 0, 1), repeat=3):
                neighbour = tuple(a + b for a, b in zip(voxel, step, strict=True))
                if neighbour in left and 0 < sum(map(abs, step)) <= n_axes:
                    left.remove(neighbour)
                    edge.append(neighbour)
        found.append(lesion)
    return found


def largest_number_of_pairs(prediction, target, connectivity):
    """Every choice of partners is tried."""
    predicted, true = components_by_flood(prediction, connectivity), components_by_flood(target, connectivity)
    possible = [[len(p & t) / len(p | t) > 0.3 for t in true] for p in predicted]

    def best(row, used):
        if row == len(possible):
            return 0
        with_pair = (1 + best(row + 1, used | {c}) for c, ok in enumerate(possible[row]) if ok and c not in used)
        return max([best(row + 1, used), *with_pair])

    n_found = best(0, frozenset())
    return LesionCounts(len(true), n_found, len(predicted) - n_found)


def test_found_missed_and_invented_by_hand():
    target = blocks((0, 4), (6, 4), (12, 2))
    prediction = blocks((1, 4), (9, 2), (17, 3))  # IoU 3/5; 1/5; alone
    assert match_lesions(prediction, target) == LesionCounts(n_lesions=3, n_found=1, n_false=2)


def test_an_iou_of_just_the_limit_is_not_enough():
    target, prediction = blocks((0, 10)), blocks((0, 3))
    assert match_lesions(prediction, target).n_found == 0
    assert match_lesions(prediction, target, min_iou=0.29).n_found == 1


def test_one_prediction_over_two_lesions_finds_one_of_them():
    target, prediction = blocks((0, 4), (5, 4)), blocks((0, 9))
    assert match_lesions(prediction, target) == LesionCounts(2, 1, 0)


def test_greedy_takes_the_best_pair_and_may_lose_two_others_that_hungarian_keeps():
    target, prediction = np.zeros((24, 3, 1), bool), np.zeros((24, 3, 1), bool)
    target[0:21, 0] = target[14:21, 2] = True  # A of 21 voxels, B of 7
    prediction[0:7, 0] = True  # 7/21 of A
    prediction[8:21, 0] = prediction[20, 1] = prediction[14:21, 2] = True  # 13/29 of A, 7/21 of B
    assert match_lesions(prediction, target, matching="greedy") == LesionCounts(2, 1, 1)
    assert match_lesions(prediction, target, matching="hungarian") == LesionCounts(2, 2, 0)


@pytest.mark.parametrize(("connectivity", "n"), [(6, 3), (18, 2), (26, 1)])
def test_neighbours_by_face_edge_and_corner(connectivity, n):
    mask = np.zeros((4, 4, 4), bool)
    mask[0, 0, 0] = mask[1, 1, 0] = mask[2, 2, 1] = True  # joined by an edge, then by a corner
    assert count_lesions(mask, connectivity) == n
    assert match_lesions(mask, mask, connectivity) == LesionCounts(n, n, 0)


@pytest.mark.parametrize("connectivity", [6, 18, 26])
@given(prediction=masks, target=masks)
def test_counts_are_those_of_trying_every_choice(connectivity, prediction, target):
    expected = largest_number_of_pairs(prediction, target, connectivity)
    assert match_lesions(prediction, target, connectivity, matching="hungarian") == expected
    greedy = match_lesions(prediction, target, connectivity)
    assert greedy.n_found <= expected.n_found <= 2 * greedy.n_found
    assert greedy.n_found + greedy.n_false == expected.n_found + expected.n_false


def test_empty_masks_have_no_lesions():
    empty, full = blocks(), blocks((0, 4))
    assert match_lesions(empty, empty) == LesionCounts(0, 0, 0)
    assert match_lesions(empty, full) == LesionCounts(1, 0, 0)
    assert match_lesions(full, empty) == LesionCounts(0, 0, 1)


def test_unknown_neighbours_or_matching_are_refused():
    with pytest.raises(InputError, match="connectivity 8"):
        match_lesions(blocks(), blocks(), connectivity=8)
    with pytest.raises(InputError, match="'best'"):
        match_lesions(blocks(), blocks(), matching="best")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="shape"):
        match_lesions(blocks(), blocks(shape=(3, 3, 3)))


def test_aggregated_f1_pools_the_lesions_of_all_cases():
    assert aggregated_f1([3, 1], [2, 0], [1, 2]) == pytest.approx(2 * 2 / (2 * 2 + 3 + 2))
    assert np.isnan(aggregated_f1([0, 0], [0, 0], [0, 0]))
    assert aggregated_f1([[1, 0], [1, 0]], [[1, 0], [0, 0]], [[0, 0], [0, 1]]).tolist() == [1.0, 0.0]
