"""What the networks of a fold say of the cases that it held out, kept case by case."""

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hngtv.cases.checks import check_case
from hngtv.cases.manifest import RawCase, read_manifest
from hngtv.cases.store import case_digests
from hngtv.config import InferenceSettings
from hngtv.ensemble.members import Member, join
from hngtv.errors import InputError
from hngtv.localise.finding import FOUND
from hngtv.localise.roi_policy import place_rois, widen
from hngtv.model import Model
from hngtv.run_folder import atomic_path, read_json, sha256_of
from hngtv.segmentation import Region, look
from hngtv.two_stage import locate
from hngtv.volume.components import bounding_slices
from hngtv.volume.grid import Grid

VERSION = 3
"""Raised when the code changes what is kept of a case."""


@dataclass(frozen=True)
class SeenCase:
    """What networks that never saw a case say of it.

    Attributes:
        case_id: The case.
        fold: Of the networks.
        region: Their probabilities, with PET and agreement.
        truth: (x, y, z) bool, all tumour, on the region.
        n_outside: Voxels of tumour that lie outside the region.
        is_fallback: Whether stage 1 fell back.
    """

    case_id: str
    fold: int
    region: Region
    truth: NDArray[np.bool_]
    n_outside: int
    is_fallback: bool

    def cropped(self, threshold: float) -> "SeenCase":
        """The part of it in which the probability of tumour reaches a threshold; all of it if none does."""
        part = bounding_slices(self.region.tumour >= threshold)
        if part is None:
            return self
        own = self.region
        suv = None if own.suv is None else own.suv[part]
        region = Region(part, own.grid.crop(part), own.classes[:, *part], None, suv, own.agreement)
        truth = self.truth[part]
        lost = np.count_nonzero(self.truth) - np.count_nonzero(truth)
        return replace(self, region=region, truth=truth, n_outside=self.n_outside + lost)

    def dice(self, labels: NDArray[np.uint8]) -> float:
        """Dice of all tumour; 1 where both masks are empty, as in scores.csv."""
        total = np.count_nonzero(labels) + np.count_nonzero(self.truth) + self.n_outside
        return 2 * np.count_nonzero((labels > 0) & self.truth) / total if total else 1.0


def held_out(members: Sequence[Member], inference: InferenceSettings) -> Iterator[tuple[RawCase, Model]]:
    """Each case that a fold held out, with the networks of that fold as one model."""
    for fold in sorted({member.fold for member in members}):
        of_fold = [member for member in members if member.fold == fold]
        model = join([member.model for member in of_fold], inference)
        folder = of_fold[0].folder
        tested = {case_id for case_id, number in read_json(folder.folds).items() if number == fold}
        for case in read_manifest(folder.root / "cases.csv"):
            if case.case_id in tested and case.target is not None:
                yield case, model


def see(case: RawCase, model: Model, folder: Path) -> Path:
    """Look at a case and keep what was seen; what was kept of the same files and networks is kept.

    Returns:
        The file, for `load_seen`.
    Raises:
        InputError: A file of the case cannot be used.
    """
    path = folder / f"{case.case_id}.npz"
    try:
        digests = case_digests(case, ("ct", "pet", "target"))
    except OSError as error:
        raise InputError(
            f"case {case.case_id}: {error.filename} cannot be read ({error.strerror}); put it back"
        ) from None
    key = sha256_of([VERSION, model.digest, digests])
    if path.is_file() and _key_of(path) == key:
        return path
    images = check_case(case, needs_pet=False)
    assert images.target is not None
    finding = locate(model, case.case_id, images)
    boxes = place_rois(finding.boxes, images.ct.grid.bounds(), model.settings.roi)
    region = look(model, images, widen(boxes, model.settings.roi), for_choice=True)
    truth = images.target > 0
    inside = truth[region.slices]
    assert isinstance(model.settings.fold, int)
    n_outside = int(np.count_nonzero(truth) - np.count_nonzero(inside))
    seen = SeenCase(case.case_id, model.settings.fold, region, inside, n_outside, finding.reason != FOUND)
    return write_seen(path, seen, key)


def write_seen(path: Path, case: SeenCase, key: str) -> Path:
    """Keep a case, under the digest of what it depends on."""
    region = case.region
    suv = np.zeros(region.grid.shape) if region.suv is None else region.suv
    with atomic_path(path) as temporary:
        np.savez_compressed(
            temporary,
            key=key,
            fold=np.array(case.fold),
            slices=np.array([(part.start, part.stop) for part in region.slices]),
            affine=region.grid.matrix,
            classes=region.classes.astype(np.float16),
            suv=suv.astype(np.float16),
            agreement=np.array(region.agreement),
            has_suv=np.array(region.suv is not None),
            truth=case.truth,
            n_outside=np.array(case.n_outside),
            is_fallback=np.array(case.is_fallback),
        )
    return path


def _key_of(path: Path) -> str | None:
    """The key of a kept file; None for a damaged one."""
    try:
        with np.load(path) as kept:
            return str(kept["key"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


def load_seen(path: Path) -> SeenCase:
    """What `see` kept."""
    with np.load(path) as kept:
        x, y, z = (slice(int(start), int(stop)) for start, stop in kept["slices"])
        grid = Grid.from_array(kept["truth"].shape, kept["affine"])
        classes, suv = kept["classes"].astype(np.float32), kept["suv"].astype(np.float32)
        region = Region((x, y, z), grid, classes, None, suv if kept["has_suv"] else None, float(kept["agreement"]))
        return SeenCase(
            path.stem,
            int(kept["fold"]),
            region,
            kept["truth"],
            int(kept["n_outside"]),
            bool(kept["is_fallback"]),
        )
