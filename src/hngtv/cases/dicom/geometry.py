"""From the slices of a series to a volume and where it lies; the only place where DICOM's LPS becomes RAS."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from hngtv.cases.dicom.read import number_of, numbers_of, read_header, read_pixels, shown, tag_name, text_of, value_of
from hngtv.errors import InputError
from hngtv.volume.grid import Grid

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
"""DICOM counts towards the patient's left and back, NIfTI towards right and front."""
SAME_PLACE_MM = 0.01
"""Two slices nearer than this lie at one place. Source: our choice."""
GAP_TOLERANCE_MM = 0.11
GAP_TOLERANCE = (0.05, 0.25)
"""A distance of neighbours may differ from the usual one by `GAP_TOLERANCE_MM`, but at least by the first and at most
by the second share of it: scanners round positions to 0.1 mm at worst, and a lost slice is a whole one. Our choice."""
OFF_LINE = 0.25
"""How far, in voxels, a slice may lie from where equal steps put it. Source: our choice."""
TILT_TOLERANCE = 0.001
"""Largest sideways part of the step between slices: 0.3 mm over 300 mm. Source: our choice."""
LOST_BETWEEN = 1.5
"""Slices farther apart than this share of the distance that their tags give have others lost between. Our choice."""
ORIENTATION_DECIMALS = 3
"""Direction cosines equal to so many decimals are one orientation. Source: our choice."""


@dataclass(frozen=True)
class Slice:
    """One file of a series, and its tags."""

    path: Path
    header: Dataset

    @property
    def name(self) -> str:
        number = text_of(self.header, "InstanceNumber")
        return f"{shown(self.path)}" + (f" (slice {number})" if number else "")


@dataclass(frozen=True)
class Stack:
    """The slices of a volume in order, first along its third axis first, and its grid.

    The array of the volume is (columns, rows, slices), as it was acquired; `grid` says where that lies in RAS mm.
    """

    slices: tuple[Slice, ...]
    grid: Grid


def to_ras(points: NDArray) -> NDArray[np.float64]:
    """World points or directions (..., 3) from DICOM's LPS to RAS; its own inverse."""
    return np.asarray(points, dtype=np.float64) @ LPS_TO_RAS


def grid_of_lps(shape: tuple[int, ...], affine: NDArray) -> Grid:
    """The grid of an array whose 4 x 4 affine leads to LPS mm."""
    matrix = np.asarray(affine, dtype=np.float64).copy()
    matrix[:3] = LPS_TO_RAS @ matrix[:3]
    return Grid.from_array(shape, matrix)


def stack_series(paths: Sequence[Path]) -> Stack:
    """Put the slices of a series in order and find their grid.

    Raises:
        InputError: Slices that are missing, doubled, of another orientation, size or spacing, off the line, or a single
            one; the line names the slice.
    """
    slices = [Slice(path, read_header(path)) for path in paths]
    if len(slices) < 2:
        raise InputError(f"{slices[0].name} is a single slice; expected a volume of at least 2")
    for one in slices:
        _check_one_frame(one)
    row, column = _common_axes(slices)
    n_rows, n_columns = (int(n) for n in _common(slices, ("Rows", "Columns"), 1))
    row_mm, column_mm = _common(slices, ("PixelSpacing",), 2)
    if min(row_mm, column_mm) <= 0 or min(n_rows, n_columns) < 2:
        raise InputError(f"{slices[0].name} has PixelSpacing {row_mm:g}, {column_mm:g}; expected positive numbers")
    positions = np.stack([numbers_of(s.header, "ImagePositionPatient", 3, s.name) for s in slices])
    order = np.argsort(positions @ np.cross(row, column), kind="stable")
    slices, positions = [slices[i] for i in order], positions[order]
    step = _equal_step(slices, positions, np.cross(row, column))
    affine = np.eye(4)
    # PixelSpacing gives the distance of rows first: that is along a column of pixels.
    affine[:3] = np.stack([row * column_mm, column * row_mm, step, positions[0]], axis=1)
    _check_on_line(slices, positions, affine)
    return Stack(tuple(slices), grid_of_lps((n_columns, n_rows, len(slices)), affine))


def check_pet_whole(stack: Stack) -> None:
    """Raise InputError if a PET has not the number of slices that its tags tell of: the first one may be lost."""
    header, n = stack.slices[0].header, len(stack.slices)
    if value_of(header, "NumberOfSlices") is None:
        return
    told = number_of(header, "NumberOfSlices", "the PET")
    times = number_of(header, "NumberOfTimeSlices", "the PET") if text_of(header, "NumberOfTimeSlices") else 1.0
    if told > 0 and n not in (told, told / max(times, 1.0)):
        raise InputError(
            f"the PET has {n} slices, and {tag_name('NumberOfSlices')} = {told:g}; expected all of them, since SUV is "
            "reckoned from the first that was acquired, so export the whole series again"
        )


def check_ct_whole(stack: Stack) -> tuple[str, ...]:
    """Look whether slices of a CT were lost evenly, as every second one.

    Returns:
        A warning where the slice thickness alone tells so.
    Raises:
        InputError: The tags say that slices are missing between all others.
    """
    header, step_mm = stack.slices[0].header, stack.grid.spacing_mm[2]
    apart = _positive(header, "SpacingBetweenSlices")
    if apart is not None:
        if step_mm > LOST_BETWEEN * apart:
            name = tag_name("SpacingBetweenSlices")
            raise InputError(
                f"slices of the CT are {step_mm:.2f} mm apart, and {name} = {apart:g}; export the whole series again"
            )
        return ()
    texts = [text_of(one.header, "InstanceNumber") for one in stack.slices]
    numbers = [int(text) for text in texts if text.lstrip("-").isdecimal()]
    holes = set(np.abs(np.diff(numbers)).tolist()) if len(numbers) == len(texts) else {1}
    if len(holes) == 1 and (each := holes.pop()) > 1:
        raise InputError(
            f"slices of the CT are numbered in steps of {each} ({tag_name('InstanceNumber')} {texts[0]}, {texts[1]}, "
            "...); those between are missing, so export the whole series again"
        )
    thick = _positive(header, "SliceThickness")
    if thick is not None and step_mm > LOST_BETWEEN * thick:
        return (f"slices of the CT are {step_mm:.2f} mm apart and {thick:g} mm thick; look whether some are missing",)
    return ()


def _positive(header: Dataset, keyword: str) -> float | None:
    """A number of a tag that may be absent; None where it is, or says nothing."""
    try:
        value = number_of(header, keyword, "")
    except InputError:
        return None
    return value if value > 0 else None


def read_values(stack: Stack) -> NDArray[np.float32]:
    """Values (X, Y, Z) after each slice's own slope and intercept.

    Raises:
        InputError: A slice lacks slope or intercept, or its pixels cannot be read.
    """
    values = np.empty(stack.grid.shape, dtype=np.float32)
    for z, one in enumerate(stack.slices):
        slope = number_of(one.header, "RescaleSlope", one.name)
        intercept = number_of(one.header, "RescaleIntercept", one.name)
        pixels = read_pixels(one.path)
        if pixels.T.shape != stack.grid.shape[:2]:
            raise InputError(f"{one.name} has pixels of shape {pixels.shape}; expected {stack.grid.shape[1::-1]}")
        values[:, :, z] = pixels.T.astype(np.float64) * slope + intercept
    return values


def _check_one_frame(one: Slice) -> None:
    frames = text_of(one.header, "NumberOfFrames")
    if frames not in ("", "1"):
        raise InputError(f"{one.name} holds {frames} frames; expected one slice a file")
    colours, photometric = text_of(one.header, "SamplesPerPixel"), text_of(one.header, "PhotometricInterpretation")
    if colours not in ("", "1") or photometric not in ("", "MONOCHROME2"):
        raise InputError(f"{one.name} is a picture ({photometric}, {colours} colours); expected MONOCHROME2")


def _common_axes(slices: Sequence[Slice]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Directions, in LPS, in which columns and rows are counted."""
    axes = _common(slices, ("ImageOrientationPatient",), 6, ORIENTATION_DECIMALS)
    row, column = axes[:3], axes[3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if abs(row @ column) > 1e-3 or not np.allclose(lengths, 1, atol=1e-3):
        raise InputError(f"{slices[0].name} has ImageOrientationPatient {axes.round(4).tolist()}; expected unit axes")
    return row / lengths[0], column / lengths[1]


def _common(slices: Sequence[Slice], keywords: Sequence[str], n: int, decimals: int = 4) -> NDArray[np.float64]:
    """What most slices have in some tags of n numbers; another one is refused by name."""
    found = [np.concatenate([numbers_of(s.header, keyword, n, s.name) for keyword in keywords]) for s in slices]
    keys = [tuple((values.round(decimals) + 0.0).tolist()) for values in found]
    usual, n_usual = Counter(keys).most_common(1)[0]
    if n_usual < len(keys):
        odd = next(i for i, key in enumerate(keys) if key != usual)
        raise InputError(
            f"{slices[odd].name} has {'/'.join(keywords)} {list(keys[odd])}, {n_usual} other slices of its series have "
            f"{list(usual)}; expected one volume, so take the odd slices out"
        )
    return found[keys.index(usual)]


def _equal_step(
    slices: Sequence[Slice], positions: NDArray[np.float64], normal: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The step, in LPS mm, from each of the ordered slices to the next; gaps and doubles are refused by name."""
    gaps = np.diff(positions @ normal)
    if gaps.min() < SAME_PLACE_MM:
        first = int(gaps.argmin())
        raise InputError(
            f"{slices[first].name} and {slices[first + 1].name} lie at one place; expected each slice once, so remove "
            "copies, or split the series by time or acquisition"
        )
    usual = float(np.sort(gaps)[(len(gaps) - 1) // 2])  # the median, and the lower one of two
    low, high = (share * usual for share in GAP_TOLERANCE)
    off = np.abs(gaps - usual)
    if off.max() > min(max(GAP_TOLERANCE_MM, low), high):
        worst = int(off.argmax())
        what = "a slice is missing" if gaps[worst] > 1.5 * usual else "the slice distance changes"
        raise InputError(
            f"{what} between {slices[worst].name} and {slices[worst + 1].name}: they are {gaps[worst]:.2f} mm apart, "
            f"most others {usual:.2f} mm; expected equal steps, so export the whole series again"
        )
    return (positions[-1] - positions[0]) / len(gaps)


def _check_on_line(slices: Sequence[Slice], positions: NDArray[np.float64], affine: NDArray[np.float64]) -> None:
    """Raise InputError for a tilted gantry or a slice beside the line of the others."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    tilt = float(np.abs(axes[:, 2] @ axes[:, :2]).max())
    if tilt > TILT_TOLERANCE:
        degrees = np.degrees(np.arcsin(min(tilt, 1.0)))
        raise InputError(f"{slices[0].name}: the slices are tilted by {degrees:.2f} degrees; resample the series first")
    expected = affine[:3, 3] + np.arange(len(slices))[:, None] * affine[:3, 2]
    off = np.abs((positions - expected) @ np.linalg.inv(affine[:3, :3]).T).max(axis=1)
    if off.max() > OFF_LINE:
        raise InputError(
            f"{slices[int(off.argmax())].name} lies {off.max():.2f} voxels from where equal steps put it; expected "
            "one volume of equal steps"
        )
