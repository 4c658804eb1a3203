"""Connected components of a mask; in 2D, 8 neighbours instead of 26."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def remove_small_components(mask: NDArray[np.bool_], min_voxels: int) -> NDArray[np.bool_]:
    """The mask without components (26 neighbours) of fewer than `min_voxels` voxels; empty stays empty."""
    if min_voxels <= 1 or not mask.any():
        return mask
    labels, sizes = _label(mask)
    return (sizes >= min_voxels)[labels] & mask


def remove_minor_components(mask: NDArray[np.bool_], min_share: float) -> NDArray[np.bool_]:
    """The mask without components (26 neighbours) smaller than a share of its largest; an empty mask stays empty."""
    if min_share <= 0 or not mask.any():
        return mask
    labels, sizes = _label(mask)
    return (sizes >= min_share * sizes.max())[labels] & mask


def remove_cold_components(mask: NDArray[np.bool_], suv: NDArray[np.floating], min_suv: float) -> NDArray[np.bool_]:
    """The mask without components (26 neighbours) whose hottest voxel is below `min_suv`; an empty mask stays empty."""
    if min_suv <= 0 or not mask.any():
        return mask
    labels, sizes = _label(mask)
    hottest = ndimage.maximum(suv, labels, np.arange(1, len(sizes)))
    return np.concatenate([[False], hottest >= min_suv])[labels]


def largest_component(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest component (26 neighbours) of a mask; an empty mask stays empty."""
    labels, sizes = _label(mask)
    return labels == sizes.argmax() if sizes.any() else np.zeros_like(mask)


def components(mask: NDArray[np.bool_]) -> list[tuple[tuple[slice, slice, slice], NDArray[np.bool_]]]:
    """Slices that just hold each component (26 neighbours) of a mask (X, Y, Z), and its voxels in them."""
    labels, _ = _label(mask)
    return [(slices, labels[slices] == number) for number, slices in enumerate(ndimage.find_objects(labels), start=1)]


def _label(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """Number of each voxel's component, 0 outside the mask, and voxels by number, 0 for the outside."""
    labels = np.zeros(mask.shape, dtype=np.int32)
    ndimage.label(mask, np.ones((3,) * mask.ndim, dtype=bool), output=labels)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels, sizes


def bounding_slices(mask: NDArray[np.bool_]) -> tuple[slice, slice, slice] | None:
    """Slices that just hold a mask (X, Y, Z); None if it is empty."""
    found = ndimage.find_objects(mask.astype(np.uint8), max_label=1)
    return found[0] if found else None
