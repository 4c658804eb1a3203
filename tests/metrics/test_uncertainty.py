"""Entropy in bits, and the agreement of pairs of masks."""

import numpy as np
import pytest

from hngtv.metrics.uncertainty import entropy_bits, mean_dice


def test_entropy_is_one_bit_at_a_half_and_none_where_sure():
    found = entropy_bits(np.array([0, 0.5, 1, 0.11], np.float32))
    assert found == pytest.approx([0, 1, 0, 0.4999], abs=1e-3)
    assert found.dtype == np.float32


def test_agreement_is_the_mean_dice_of_the_pairs_and_two_empty_masks_show_none():
    hits, sizes = np.array([[3, 0], [0, 0]]), np.array([[6, 4], [0, 5]])
    assert mean_dice(hits, sizes) == pytest.approx((1 + 0 + 0 + 0) / 4)
