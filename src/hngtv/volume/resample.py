"""Values of an image on another grid."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from hngtv.volume.grid import Grid

SMOOTHING_PER_FACTOR = 0.3
"""Gaussian sigma in source voxels for each unit of downsampling beyond 1, against aliasing. Source: our choice."""

SLAB_SLICES = 16
"""Slices that are weighed at once. Source: our choice."""

EDGE_SLACK = 1e-9
"""Voxels by which a place may miss the edge through rounding."""

TRUNCATE = 3.0
"""Sigmas after which the filter is cut off. Source: our choice."""


def resample(values: NDArray, source: Grid, target: Grid, outside: float, order: int = 1) -> NDArray[np.float32]:
    """Interpolate an image on another grid, smoothing first along axes that get coarser.

    Args:
        values: (X, Y, Z), any real dtype.
        source: Grid of `values`.
        target: Grid of the result.
        outside: Value where `target` lies outside `source`.
        order: 1 linear, 0 nearest (then nothing is smoothed).
    Returns:
        (X, Y, Z) float32 on `target`.
    """
    matrix = np.linalg.inv(source.matrix) @ target.matrix
    sigmas = np.maximum(np.abs(matrix[:3, :3]).max(axis=1) - 1.0, 0.0) * SMOOTHING_PER_FACTOR * (order > 0)
    values, source = _crop_to_need(values, source, target, margins=np.ceil(sigmas * TRUNCATE).astype(int) + 2)
    if values.size == 0:
        return np.full(target.shape, outside, dtype=np.float32)
    matrix = np.linalg.inv(source.matrix) @ target.matrix
    scale, offset = matrix[:3, :3], matrix[:3, 3]
    if order == 1 and np.allclose(scale, np.diag(np.diag(scale)), atol=1e-6):
        axes = [
            _axis_weights(*along)
            for along in zip(values.shape, target.shape, np.diag(scale), offset, sigmas, strict=True)
        ]
        return _along_axes(values, axes, outside)
    values = np.asarray(values, dtype=np.float32)
    if sigmas.any():
        values = ndimage.gaussian_filter(values, sigmas, mode="nearest", truncate=TRUNCATE)
    return _with_edge(values, scale, offset, target.shape, outside, order)


def _axis_weights(n_from: int, n_to: int, scale: float, offset: float, sigma: float) -> NDArray[np.float64]:
    """What each voxel along an axis takes from each of the source: smoothing, then linear interpolation.

    Beyond the outermost centres the edge's value holds for one voxel, as in `_with_edge`.

    Returns:
        (n_to, n_from); rows that lie outside are NaN.
    """
    place = scale * np.arange(n_to) + offset
    inside = np.clip(place, 0, n_from - 1)
    below = np.minimum(np.floor(inside).astype(int), max(n_from - 2, 0))
    share = inside - below
    weights = np.zeros((n_to, n_from))
    rows = np.arange(n_to)
    weights[rows, below] = 1 - share
    weights[rows, np.minimum(below + 1, n_from - 1)] += share
    if sigma > 0:
        weights = weights @ ndimage.gaussian_filter1d(np.eye(n_from), sigma, axis=0, mode="nearest", truncate=TRUNCATE)
    weights[(place < -1 - EDGE_SLACK) | (place > n_from + EDGE_SLACK)] = np.nan
    return weights


def _along_axes(values: NDArray, axes: list[NDArray[np.float64]], outside: float) -> NDArray[np.float32]:
    """Weigh along x, y and z, a few slices at a time, so that a large scan is never held as floats.

    Masks are weighed in double precision, so that shares of exactly a half stay so.
    """
    kind = np.float64 if values.dtype == bool else np.float32
    inside = [~np.isnan(weights[:, 0]) for weights in axes]
    if not all(held.any() for held in inside):
        return np.full([len(held) for held in inside], outside, dtype=np.float32)
    x, y, z = (sparse.csr_array(weights[held].astype(kind)) for weights, held in zip(axes, inside, strict=True))
    slabs = [
        _weigh(y, 1, _weigh(x, 0, values[:, :, start : start + SLAB_SLICES].astype(kind)))
        for start in range(0, values.shape[2], SLAB_SLICES)
    ]
    result = np.full([len(held) for held in inside], outside, dtype=np.float32)
    result[_span(inside)] = _weigh(z, 2, np.concatenate(slabs, axis=2))
    return result


def _weigh(weights: sparse.csr_array, axis: int, values: NDArray) -> NDArray:
    """Weights (n_to, n_from) times an array along one of its axes."""
    first = np.moveaxis(values, axis, 0)
    weighed = weights @ np.ascontiguousarray(first).reshape(len(first), -1)
    return np.moveaxis(weighed.reshape(-1, *first.shape[1:]), 0, axis)


def _span(inside: list[NDArray[np.bool_]]) -> tuple[slice, ...]:
    """Slices of the voxels that are inside, which follow one another along each axis."""
    places = [np.flatnonzero(held) for held in inside]
    return tuple(slice(int(p[0]), int(p[-1]) + 1) if len(p) else slice(0, 0) for p in places)


def _crop_to_need(values: NDArray, source: Grid, target: Grid, margins: NDArray) -> tuple[NDArray, Grid]:
    """The part of an image that a target grid touches, so that a small crop costs little on a large scan."""
    needed = source.slices_of(target.bounds())
    widened = tuple(slice(s.start - m, s.stop + m) for s, m in zip(needed, margins, strict=True))
    clipped = source.clip(widened)  # pyright: ignore[reportArgumentType]
    return values[clipped], source.crop(clipped)


def _with_edge(
    values: NDArray, scale: NDArray, offset: NDArray, shape: tuple[int, int, int], outside: float, order: int
) -> NDArray[np.float32]:
    """Interpolate so that the half voxel between the outermost centres and the faces takes the edge's value."""
    padded = np.pad(values, 1, mode="edge")
    result = np.empty(shape, dtype=np.float32)
    inner = offset + 1.0
    ndimage.affine_transform(
        padded,
        scale,
        inner,  # pyright: ignore[reportArgumentType]  (SciPy types it as a float)
        shape,
        output=result,
        order=order,
        mode="constant",
        cval=outside,
        prefilter=False,
    )
    return result


def resample_labels(labels: NDArray, source: Grid, target: Grid) -> NDArray[np.uint8]:
    """Labels on another grid: each voxel takes the label with the largest interpolated share.

    Args:
        labels: (X, Y, Z) uint8, 0 background.
    Returns:
        (X, Y, Z) uint8 on `target`; 0 outside `source`.
    """
    result = np.zeros(target.shape, dtype=np.uint8)
    best = np.full(target.shape, 0.5, dtype=np.float32)
    for label in np.unique(labels[labels > 0]):
        share = resample(labels == label, source, target, outside=0.0)
        wins = share >= best
        result[wins] = label
        best[wins] = share[wins]
    return result
