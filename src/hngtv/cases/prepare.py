"""From the files of a case to its two grids in the store."""

import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from hngtv.cases.checks import LABELS, OUTSIDE_CT_HU, CheckedImages, check_case
from hngtv.cases.manifest import FolderLayout, RawCase, load_cases
from hngtv.cases.processes import map_cases
from hngtv.cases.store import (
    LEVELS,
    RECORD_NAME,
    STORE_VERSION,
    GridSettings,
    Level,
    LevelRecord,
    PreparedCase,
    array_name,
    file_stamp,
    folder_name,
    level_as_plain,
    open_case,
    pet_factor_of,
    source_files,
)
from hngtv.config import DataSettings
from hngtv.errors import InputError
from hngtv.run_folder import TEMPORARY_PREFIX, atomic_folder, make_folder, sweep_temporaries, write_json
from hngtv.volume.box import Box
from hngtv.volume.components import bounding_slices
from hngtv.volume.grid import Grid
from hngtv.volume.resample import resample, resample_labels

N_FOREGROUND = 1000
"""Sampled target voxels for each label present. Source: our choice."""
LOCKS_NAME = ".locks"
STORE_NAME = "prepared"
"""In a work folder."""
MAX_WORKERS = 4
"""Each may hold a clinical scan, about 1 GB. Source: our choice."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Volume:
    """One level of a case in memory.

    Attributes:
        ct: (X, Y, Z) float32 HU, whole numbers.
        pet: (X, Y, Z) float32 SUV, rounded to half precision.
        grid: RAS grid along the axes of the world.
    """

    ct: NDArray[np.float32]
    pet: NDArray[np.float32]
    grid: Grid


@dataclass(frozen=True)
class Failure:
    """A case that could not be prepared, and why, in one line that names it."""

    case_id: str
    reason: str


def prepare_images(images: CheckedImages, spacing_mm: tuple[float, float, float], box: Box | None = None) -> Volume:
    """CT and PET on the world-aligned grid that just covers the CT, or on the part of it that a box touches.

    Values are rounded as in the store, so that a new patient is seen exactly as a stored one. Outside its image
    CT is -1024 HU, and PET is SUV 0.
    """
    grid = Grid.axis_aligned(images.ct.grid.bounds(), spacing_mm)
    if box is not None:
        grid = grid.crop(grid.clip(grid.slices_of(box)))
    ct = resample(images.ct.values, images.ct.grid, grid, outside=OUTSIDE_CT_HU)
    pet = resample(images.pet.values, images.pet.grid, grid, outside=0.0)
    np.rint(np.clip(ct, OUTSIDE_CT_HU, np.iinfo(np.int16).max, out=ct), out=ct)
    np.clip(pet, 0.0, float(np.finfo(np.float16).max), out=pet)
    return Volume(ct, pet.astype(np.float16).astype(np.float32), grid)


def prepare_target(images: CheckedImages, grid: Grid) -> NDArray[np.uint8]:
    """Labels (X, Y, Z) uint8 of a case on a grid; all 0 for an empty or missing target."""
    if images.target is None:
        return np.zeros(grid.shape, dtype=np.uint8)
    return resample_labels(images.target, images.ct.grid, grid)


def store_folder(store_dir: Path, grids: GridSettings) -> Path:
    """The part of a store for these grids."""
    return store_dir / grids.key


def prepare_cohort(data: DataSettings, work_dir: Path) -> tuple[list[RawCase], list[PreparedCase], list[str]]:
    """Prepare the cases that data settings name, as many at a time as this machine can hold.

    Returns:
        All cases, those that are prepared, and a line for each of the others, which is logged too.
    Raises:
        InputError: No case is found, or the store cannot be written.
    """
    cases = load_cases(data.root, FolderLayout.of(data))
    grids = GridSettings(data.spacing_mm, data.coarse_spacing_mm)
    n_workers = min(os.cpu_count() or 1, MAX_WORKERS)
    prepared, failures = prepare_cases(cases, work_dir / STORE_NAME, grids, n_workers)
    for failure in failures:
        logger.error("%s", failure.reason)
    return cases, prepared, [failure.reason for failure in failures]


def prepare_cases(
    cases: Sequence[RawCase], store_dir: Path, grids: GridSettings, n_workers: int
) -> tuple[list[PreparedCase], list[Failure]]:
    """Prepare all cases that are not finished yet; a case that fails does not stop the others.

    Args:
        cases: Cases with distinct ids.
        store_dir: Root of the store, made if needed.
        grids: Spacings of the two levels.
        n_workers: Processes at work; 0 or 1 works in this one.
    Returns:
        The finished cases and the failures, both in the order of `cases`.
    Raises:
        InputError: The store cannot be written.
    """
    folder = make_folder(store_folder(store_dir, grids))
    sweep_temporaries(folder)
    results: dict[str, PreparedCase | Failure] = {}
    missing = []
    for case in cases:
        found = open_case(case, folder / folder_name(case))
        if found is None:
            missing.append(case)
        else:
            results[case.case_id] = found
    work = partial(_prepare_or_fail, folder=folder, grids=grids)
    for case, result in map_cases(work, missing, n_workers, _killed, "preparing"):
        results[case.case_id] = result
        for warning in result.warnings if isinstance(result, PreparedCase) else ():
            logger.warning(warning)
    ordered = [results[case.case_id] for case in cases]
    return [r for r in ordered if isinstance(r, PreparedCase)], [r for r in ordered if isinstance(r, Failure)]


def _prepare_or_fail(case: RawCase, folder: Path, grids: GridSettings) -> PreparedCase | Failure:
    try:
        return _prepare_case(case, folder, grids)
    except InputError as error:
        return Failure(case.case_id, str(error))
    except (OSError, MemoryError) as error:
        return Failure(case.case_id, f"case {case.case_id}: {type(error).__name__}: {error}")


def _prepare_case(case: RawCase, folder: Path, grids: GridSettings) -> PreparedCase:
    """Prepare one case, unless another process sharing the store has just done so."""
    name = folder_name(case)
    (folder / LOCKS_NAME).mkdir(exist_ok=True)
    with FileLock(folder / LOCKS_NAME / name):
        found = open_case(case, folder / name)
        if found is not None:
            return found
        for leftover in folder.glob(f"{TEMPORARY_PREFIX}{name}-*"):  # of a killed run, as this one holds the lock
            shutil.rmtree(leftover, ignore_errors=True)
        with atomic_folder(folder / name) as temporary:
            _write_case(case, temporary, grids)
        prepared = open_case(case, folder / name)
    if prepared is None:
        raise InputError(f"case {case.case_id}: its files changed while it was prepared; run the same command again")
    return prepared


def _write_case(case: RawCase, folder: Path, grids: GridSettings) -> None:
    stamps = {name: file_stamp(path) for name, path in source_files(case).items() if path.exists()}
    images = check_case(case)
    digests = {"ct": images.ct.digest, "pet": images.pet.digest, "target": images.target_digest}
    levels = {level: level_as_plain(_write_level(images, folder, level, grids)) for level in LEVELS}
    voxel_ml = images.ct.grid.voxel_ml
    counts = (0, 0) if images.target is None else _label_counts(images.target)
    record = {
        "version": STORE_VERSION,
        "case_id": case.case_id,
        "pet_factor": pet_factor_of(case),
        "sources": {name: stamp | {"sha256": digests[name]} for name, stamp in stamps.items()},
        "target_ml": [n * voxel_ml for n in counts],
        "warnings": list(images.warnings),
        "levels": levels,
        "files": {file.name: file.stat().st_size for file in sorted(folder.glob("*.npy"))},
    }
    write_json(folder / RECORD_NAME, record)


def _write_level(images: CheckedImages, folder: Path, level: Level, grids: GridSettings) -> LevelRecord:
    volume = prepare_images(images, grids.spacing_of(level))
    np.save(folder / array_name(level, "ct"), volume.ct.astype(np.int16))
    np.save(folder / array_name(level, "pet"), volume.pet.astype(np.float16))
    if images.target is None:
        return LevelRecord(volume.grid, None, (0, 0))
    target = prepare_target(images, volume.grid)
    np.save(folder / array_name(level, "target"), target)
    np.save(folder / array_name(level, "foreground"), sample_foreground(target))
    held = bounding_slices(target > 0)
    return LevelRecord(volume.grid, None if held is None else volume.grid.box_of(held), _label_counts(target))


def sample_foreground(target: NDArray[np.uint8]) -> NDArray[np.int16]:
    """`N_FOREGROUND` voxels of each label present, (N, 3); random but always the same, repeated if too few."""
    rng = np.random.default_rng(0)
    samples = [np.zeros((0, 3), dtype=np.int16)]
    for label in LABELS[1:]:
        voxels = np.argwhere(target == label)
        if len(voxels):
            samples.append(rng.choice(voxels, N_FOREGROUND, replace=len(voxels) < N_FOREGROUND).astype(np.int16))
    return np.concatenate(samples)


def _label_counts(target: NDArray[np.uint8]) -> tuple[int, int]:
    return int((target == 1).sum()), int((target == 2).sum())


def _killed(case: RawCase) -> Failure:
    return Failure(
        case.case_id,
        f"case {case.case_id}: a worker process was killed, most likely for lack of memory; "
        "run hngtv prepare with n_workers=1",
    )
