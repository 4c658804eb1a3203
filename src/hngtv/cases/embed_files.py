"""Files of `hngtv embed`: one folder for each case, whole or absent, and skipped when finished."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from hngtv.cases.checks import check_case
from hngtv.cases.embed import Embedded, find_place, make_patient, set_in
from hngtv.cases.manifest import RawCase
from hngtv.cases.phantom import PHANTOM_VERSION
from hngtv.cases.phantom_host import draw_host
from hngtv.cases.prepare import Failure
from hngtv.cases.store import file_stamp, offset_of, pet_factor_of, source_files
from hngtv.errors import InputError
from hngtv.run_folder import atomic_folder, make_folder, read_json, sha256_of, sweep_temporaries, write_json
from hngtv.volume.nifti import write_nifti

EMBED_VERSION = 1
"""Raised whenever the same seed gives other values, so that older cases are made again."""
RECORD_NAME = "embedded.json"
NAMES = ("ct", "pet", "gtv")


@dataclass(frozen=True)
class EmbedPlan:
    """What decides a cohort beside its source: folder, seed (0 or more) and size (`small` or `full`)."""

    out: Path
    seed: int
    size: str


def embed_cases(cases: Sequence[RawCase], plan: EmbedPlan) -> tuple[list[RawCase], list[Failure]]:
    """Set all cases in that are not finished yet; a case that fails does not stop the others.

    Writes `out/<case_id>/{ct,pet,gtv}.nii.gz` and `embedded.json`.

    Returns:
        The finished cases as they lie in `out`, with centre and split of their source, and the failures.
    Raises:
        InputError: `out` cannot be written or holds the source's own files.
    """
    _check_apart(cases, plan.out)
    sweep_temporaries(make_folder(plan.out))
    done, failures = [], []
    for case in tqdm(cases, desc="embedding", unit="case", disable=None):
        try:
            done.append(_embed_unless_done(case, plan))
        except InputError as error:
            failures.append(Failure(case.case_id, str(error)))
        except (OSError, MemoryError) as error:
            failures.append(Failure(case.case_id, f"case {case.case_id}: {type(error).__name__}: {error}"))
    return done, failures


def embed_case(case: RawCase, seed: int, size: str) -> Embedded:
    """Set one case in; the result depends on its images, its id, `seed`, `size` and the versions only.

    Raises:
        InputError: The case fails a check, has no lesion, or does not fit.
    """
    rng = np.random.default_rng([seed, EMBED_VERSION, PHANTOM_VERSION, *case.case_id.encode()])
    for_host, for_place = rng.spawn(2)
    images = check_case(case)
    try:
        patient = make_patient(images)
        host = draw_host(for_host, size)
        return set_in(patient, host, find_place(for_place, patient, host))
    except InputError as error:
        raise InputError(f"case {case.case_id}: {case.target or case.ct}: {error}") from None


def _check_apart(cases: Sequence[RawCase], out: Path) -> None:
    for case in cases:
        for path in source_files(case).values():
            if path.is_relative_to(out.resolve()):
                raise InputError(f"out is {out}, which holds {path} of the source; expected a folder of its own")


def _embed_unless_done(case: RawCase, plan: EmbedPlan) -> RawCase:
    folder = plan.out / case.case_id
    if not _is_done(case, plan, folder):
        key = _key(case, plan)
        embedded = embed_case(case, plan.seed, plan.size)
        with atomic_folder(folder) as temporary:
            _write(embedded, temporary)
            settings = {"version": EMBED_VERSION, "phantom_version": PHANTOM_VERSION}
            settings |= {"seed": plan.seed, "size": plan.size}
            write_json(temporary / RECORD_NAME, {"case_id": case.case_id, **settings, **embedded.facts, "key": key})
    ct, pet, target = (folder / f"{name}.nii.gz" for name in NAMES)
    return replace(case, ct=ct, pet=pet, target=target, pet_unit="SUV", pet_factor=1.0, ct_offset=0.0)


def _write(embedded: Embedded, folder: Path) -> None:
    write_nifti(folder / "ct.nii.gz", embedded.ct, embedded.ct_grid.matrix)
    write_nifti(folder / "pet.nii.gz", embedded.pet, embedded.pet_grid.matrix)
    write_nifti(folder / "gtv.nii.gz", embedded.target, embedded.ct_grid.matrix)


def _is_done(case: RawCase, plan: EmbedPlan, folder: Path) -> bool:
    """Whether a case was set in with the same settings from the same files."""
    if not all((folder / f"{name}.nii.gz").is_file() for name in NAMES):
        return False
    try:
        return read_json(folder / RECORD_NAME)["key"] == _key(case, plan)
    except (InputError, OSError, KeyError, TypeError):
        return False


def _key(case: RawCase, plan: EmbedPlan) -> str:
    """A digest of the settings, and of path, size and time of the source's files."""
    stamps: dict[str, Any] = {name: file_stamp(path) for name, path in source_files(case).items() if path.exists()}
    values = [pet_factor_of(case), stamps, *offset_of(case)]
    return sha256_of([EMBED_VERSION, PHANTOM_VERSION, plan.seed, plan.size, *values])
