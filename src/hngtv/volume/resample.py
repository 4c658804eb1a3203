"""Values of an image on another grid."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hngtv.volume.grid import Grid

SMOOTHING_PER_FACTOR = 0.3
"""Gaussian sigma in source voxels for each unit of downsampling beyond 1, against aliasing. Source: our choice."""

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
    step = np.abs((np.linalg.inv(source.matrix) @ target.matrix)[:3, :3]).max(axis=1)
    sigmas = np.maximum(step - 1.0, 0.0) * SMOOTHING_PER_FACTOR * (order > 0)
    values, source = _crop_to_need(values, source, target, margins=np.ceil(sigmas * TRUNCATE).astype(int) + 2)
    values = np.asarray(values, dtype=np.float32)
    if values.size == 0:
        return np.full(target.shape, outside, dtype=np.float32)
    if sigmas.any():
        values = ndimage.gaussian_filter(values, sigmas, mode="nearest", truncate=TRUNCATE)
    matrix = np.linalg.inv(source.matrix) @ target.matrix
    scale = matrix[:3, :3]
    if np.allclose(scale, np.diag(np.diag(scale)), atol=1e-6):
        scale = np.diag(scale)
    return _with_edge(values, scale, matrix[:3, 3], target.shape, outside, order)


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
