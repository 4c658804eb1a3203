"""How unsure networks are of their own outline."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr


def entropy_bits(probability: NDArray[np.float32]) -> NDArray[np.float32]:
    """Entropy of "tumour or not", 0 where the network is sure to 1 at a probability of one half; same shape."""
    p = probability.astype(np.float64)
    return ((entr(p) + entr(1 - p)) / np.log(2)).astype(np.float32)


def mean_dice(hits: NDArray[np.integer], sizes: NDArray[np.integer]) -> float:
    """Mean Dice of pairs of masks, from the voxels that both of a pair hold and those of both together.

    Two empty masks count as 0: who outlines nothing shows no agreement on where the tumour is.
    """
    return float((2 * hits / np.maximum(sizes, 1)).mean())
