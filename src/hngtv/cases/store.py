"""The prepared store: cases on regular grids, laid out so that a training crop reads only its own bytes.

    <store>/<settings key>/<case id>-<8 hex of its files' paths>/
        case.json                      sources, grids, target volumes; present means the case is finished
        {fine,coarse}_ct.npy           (X, Y, Z) int16 HU
        {fine,coarse}_pet.npy          (X, Y, Z) float16 SUV
        {fine,coarse}_target.npy       (X, Y, Z) uint8 labels             only with a target
        {fine,coarse}_foreground.npy   (N, 3) int16 voxel indices         only with a target

The name depends on where the files of the case lie and on its PET factor, so that two cohorts which both call a
patient P01, or two manifests with different targets, share a store without undoing each other's work. Centre and
split are not stored: they come from the manifest, so that editing them there takes effect at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hngtv.cases.checks import OUTSIDE_CT_HU
from hngtv.cases.manifest import RawCase
from hngtv.config import Level
from hngtv.errors import InputError
from hngtv.run_folder import read_json, sha256_of, write_json
from hngtv.volume.box import Box
from hngtv.volume.grid import Grid
from hngtv.volume.nifti import file_digest

STORE_VERSION = 2
"""Raised whenever prepared values or files change meaning, so that older ones are made again."""
RECORD_NAME = "case.json"

LEVELS: tuple[Level, ...] = ("fine", "coarse")
Slices = tuple[slice, slice, slice]


@dataclass(frozen=True)
class GridSettings:
    """Spacings of the two levels of every prepared case."""

    spacing_mm: tuple[float, float, float]
    coarse_spacing_mm: tuple[float, float, float]

    def spacing_of(self, level: Level) -> tuple[float, float, float]:
        return self.spacing_mm if level == "fine" else self.coarse_spacing_mm

    @property
    def key(self) -> str:
        """Name of the part of the store that holds cases prepared like this, 12 hexadecimal digits."""
        spacings = [[float(value) for value in self.spacing_of(level)] for level in LEVELS]
        return sha256_of({"version": STORE_VERSION, "spacings_mm": spacings})[:12]


@dataclass(frozen=True)
class LevelRecord:
    """What is known of one level without opening its arrays.

    Attributes:
        grid: RAS grid along the axes of the world.
        target_box: Smallest box of whole voxels that holds all labels; None for an empty or missing target.
        n_target_voxels: Voxels of label 1 and of label 2.
    """

    grid: Grid
    target_box: Box | None
    n_target_voxels: tuple[int, int]


@dataclass(frozen=True)
class PreparedCase:
    """A finished case of the store: cheap to send to a worker process, its arrays are opened at each read.

    Attributes:
        raw: The case as the manifest has it.
        folder: Its folder in the store.
        has_target: Whether there is a target file; its target may still be empty.
        target_ml: Volume of label 1 and of label 2 on the original CT grid.
        digest: Changes whenever anything does that the arrays depend on.
        warnings: What the checks found odd but usable.
        fine: Level at `spacing_mm`.
        coarse: Level at `coarse_spacing_mm`.
    """

    raw: RawCase
    folder: Path
    has_target: bool
    target_ml: tuple[float, float]
    digest: str
    warnings: tuple[str, ...]
    fine: LevelRecord
    coarse: LevelRecord

    @property
    def case_id(self) -> str:
        return self.raw.case_id

    @property
    def centre(self) -> str:
        return self.raw.centre

    @property
    def split(self) -> str:
        return self.raw.split

    def level(self, level: Level) -> LevelRecord:
        return self.fine if level == "fine" else self.coarse

    def grid(self, level: Level) -> Grid:
        return self.level(level).grid

    def target_box(self, level: Level) -> Box | None:
        """Smallest world box that holds the target's voxels at a level; None if it has none there."""
        return self.level(level).target_box

    def n_target_voxels(self, level: Level) -> int:
        """Voxels of the target, both labels together, at a level."""
        return sum(self.level(level).n_target_voxels)

    def read_crop(self, level: Level, slices: Slices) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Read a crop, and from disk only the crop.

        Args:
            level: "fine" or "coarse".
            slices: Starts may be negative and stops beyond the end: there CT is -1024, PET 0 and target 0.
        Returns:
            Image (2, X, Y, Z) float32, CT in HU and PET in SUV; target (X, Y, Z) uint8, 0 without a target.
        Raises:
            InputError: The store was damaged after it was opened.
        """
        size = tuple(s.stop - s.start for s in slices)
        image = np.zeros((2, *size), dtype=np.float32)
        image[0] = OUTSIDE_CT_HU
        target = np.zeros(size, dtype=np.uint8)
        inside = self.grid(level).clip(slices)
        into = tuple(slice(i.start - s.start, i.stop - s.start) for i, s in zip(inside, slices, strict=True))
        image[0][into] = self._open(level, "ct")[inside]
        image[1][into] = self._open(level, "pet")[inside]
        if self.has_target:
            target[into] = self._open(level, "target")[inside]
        return image, target

    def read_whole(self, level: Level) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Read a whole level, as `read_crop` does."""
        x, y, z = (slice(0, n) for n in self.grid(level).shape)
        return self.read_crop(level, (x, y, z))

    def foreground_voxels(self, level: Level) -> NDArray[np.int16]:
        """A sample of target voxels to centre crops on, (N, 3) indices; labels present have equal shares.

        A voxel of a small target may occur more than once. (0, 3) for an empty or missing target.
        """
        if self.n_target_voxels(level) == 0:
            return np.zeros((0, 3), dtype=np.int16)
        return np.array(self._open(level, "foreground"))

    def read_target_slice(self, level: Level, z: int) -> NDArray[np.uint8]:
        """Labels (X, Y) of an axial slice; 0 without a target."""
        if not self.has_target:
            return np.zeros(self.grid(level).shape[:2], dtype=np.uint8)
        return np.array(self._open(level, "target")[:, :, z])

    def slices_with_target(self, level: Level) -> NDArray[np.bool_]:
        """Whether each axial slice (Z,) holds target."""
        if not self.has_target:
            return np.zeros(self.grid(level).shape[2], dtype=bool)
        return np.asarray(self._open(level, "target").any(axis=(0, 1)))

    def _open(self, level: Level, name: str) -> NDArray:
        path = self.folder / array_name(level, name)
        try:
            return np.load(path, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"case {self.case_id}: {path} cannot be read ({error}); run hngtv prepare again") from None


def array_name(level: Level, name: str) -> str:
    return f"{level}_{name}.npy"


def folder_name(case: RawCase) -> str:
    """Name of a case's folder in the store: its id and 8 hex digits of its files' paths, PET factor and CT offset."""
    paths = {name: str(path) for name, path in source_files(case).items()}
    return f"{case.case_id}-{sha256_of([paths, pet_factor_of(case), *offset_of(case)])[:8]}"


def source_files(case: RawCase) -> dict[str, Path]:
    """The files a case is prepared from."""
    named = {"ct": case.ct, "pet": case.pet, "target": case.target}
    return {name: path.resolve() for name, path in named.items() if path is not None}


def case_digests(case: RawCase, names: Sequence[str] = ("ct", "pet", "target")) -> dict[str, str]:
    """SHA-256 of those of the named files that a case has, and the factor of a PET in Bq/mL.

    Raises:
        OSError: A file cannot be read.
    """
    digests = {name: file_digest(path) for name, path in source_files(case).items() if name in names}
    factor = {"pet_factor": repr(pet_factor_of(case))} if pet_factor_of(case) != 1.0 else {}
    return digests | factor | ({"ct_offset": repr(case.ct_offset)} if case.ct_offset else {})


def file_stamp(path: Path) -> dict[str, Any]:
    """Path, size and time of a file, by which it is recognised without reading it."""
    status = path.stat()
    return {"path": str(path), "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def pet_factor_of(case: RawCase) -> float:
    return case.pet_factor if case.pet_unit == "BQML" else 1.0


def offset_of(case: RawCase) -> list[float]:
    """The CT offset of a case for a key; nothing where there is none, so that older keys hold."""
    return [case.ct_offset] if case.ct_offset else []


def open_case(case: RawCase, folder: Path) -> PreparedCase | None:
    """Open a case's folder in the store; None if the case is absent, damaged, or made from other files.

    A file whose time changed but whose bytes did not still counts as the same.
    """
    try:
        record = read_json(folder / RECORD_NAME)
        if record["version"] != STORE_VERSION or record["pet_factor"] != pet_factor_of(case):
            return None
        if any((folder / name).stat().st_size != size for name, size in record["files"].items()):
            return None
        if not _sources_unchanged(case, folder, record):
            return None
        return _from_record(case, folder, record)
    except (InputError, OSError, KeyError, TypeError, ValueError):
        return None


def level_as_plain(level: LevelRecord) -> dict[str, Any]:
    """A level as JSON-able values."""
    box = level.target_box
    return {
        "shape": list(level.grid.shape),
        "affine": [list(row) for row in level.grid.affine],
        "target_box_mm": None if box is None else [list(box.lower_mm), list(box.upper_mm)],
        "n_target_voxels": list(level.n_target_voxels),
    }


def _level_from_plain(plain: Mapping[str, Any]) -> LevelRecord:
    grid = Grid.from_array(tuple(plain["shape"]), np.array(plain["affine"]))
    corners = plain["target_box_mm"]
    n_primary, n_nodal = plain["n_target_voxels"]
    return LevelRecord(grid, None if corners is None else Box.from_corners(*corners), (n_primary, n_nodal))


def _from_record(case: RawCase, folder: Path, record: Mapping[str, Any]) -> PreparedCase:
    primary_ml, nodal_ml = record["target_ml"]
    digests = {name: source["sha256"] for name, source in record["sources"].items()}
    return PreparedCase(
        raw=case,
        folder=folder,
        has_target="target" in digests,
        target_ml=(primary_ml, nodal_ml),
        digest=sha256_of([digests, record["pet_factor"], folder.parent.name, *offset_of(case)]),
        warnings=tuple(record["warnings"]),
        fine=_level_from_plain(record["levels"]["fine"]),
        coarse=_level_from_plain(record["levels"]["coarse"]),
    )


def _sources_unchanged(case: RawCase, folder: Path, record: Mapping[str, Any]) -> bool:
    """Whether the files are the recorded ones; one with another time is read, and its new time recorded."""
    recorded, present = record["sources"], source_files(case)
    if recorded.keys() != present.keys():
        return False
    stamps = {name: file_stamp(path) for name, path in present.items()}
    touched = [name for name, stamp in stamps.items() if any(recorded[name][key] != stamp[key] for key in stamp)]
    for name in touched:
        same_size = stamps[name]["size"] == recorded[name]["size"]
        if not same_size or file_digest(present[name]) != recorded[name]["sha256"]:
            return False
    if touched:
        sources = {name: stamp | {"sha256": recorded[name]["sha256"]} for name, stamp in stamps.items()}
        write_json(folder / RECORD_NAME, {**record, "sources": sources})
    return True
