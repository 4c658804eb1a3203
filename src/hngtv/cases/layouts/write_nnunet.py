"""Cases as an nnU-Net raw data set with the house's folds, so that nnU-Net can be compared on the same cases."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from hngtv.cases.checks import CheckedImages, check_case
from hngtv.cases.folds import make_folds
from hngtv.cases.manifest import RawCase, write_manifest
from hngtv.errors import InputError
from hngtv.run_folder import make_folder, write_json
from hngtv.volume.nifti import write_image_like, write_labels_like
from hngtv.volume.resample import resample

DESCRIPTION_NAME, SPLITS_NAME, IDS_NAME = "dataset.json", "splits_final.json", "case_ids.csv"
FILE_ENDING = ".nii.gz"
CHANNELS = {"0": "CT", "1": "PET"}
DATASET_NAME = re.compile(r"Dataset\d{3}_\w+")
"""What nnU-Net asks of the folder's name."""


@dataclass(frozen=True)
class FoldPlan:
    """How the folds are made; see `hngtv.cases.folds.make_folds`."""

    n_folds: int
    seed: int
    group_by_centre: bool


def write_nnunet(cases: Sequence[RawCase], out: Path, folds: FoldPlan) -> tuple[list[RawCase], list[str]]:
    """Write `out/{imagesTr,labelsTr,imagesTs,labelsTs}`, dataset.json, splits_final.json and case_ids.csv.

    The PET is interpolated on the CT grid, as nnU-Net needs one grid for all channels. Training cases with a target
    go to imagesTr, all others to imagesTs. case_ids.csv is a manifest whose ids are those of the data set; the ids
    that the cases had stand in its column original_id.

    Returns:
        The written cases under their ids there, and one line for each case that failed.
    Raises:
        InputError: `out` holds a data set or cannot be written, or too few cases for the folds.
    """
    if (out / DESCRIPTION_NAME).exists():
        raise InputError(f"{out} holds a data set already; delete it, or give another folder with out=DIR")
    _splits({case.case_id: case for case in cases if _is_training(case)}, folds)  # fails before any file is written
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        make_folder(out / name)
    ids, done, failures, labels = _safe_ids(cases), [], [], Counter()
    for case in tqdm(cases, desc="converting", unit="case", disable=None):
        named = replace(case, case_id=ids[case.case_id], extra={**case.extra, "original_id": case.case_id})
        try:
            images = check_case(case)
            _write_case(named, images, out)
        except InputError as error:
            failures.append(str(error))
            continue
        done.append(named)
        labels.update(() if images.target is None else np.unique(images.target).tolist())
    originals = {case.extra["original_id"]: case for case in done if _is_training(case)}
    write_json(out / SPLITS_NAME, _splits(originals, folds))
    write_manifest(out / IDS_NAME, done)
    _describe(out / DESCRIPTION_NAME, len(originals), has_nodes=labels[2] > 0)
    return done, failures


def _is_training(case: RawCase) -> bool:
    return case.split == "train" and case.target is not None


def _write_case(case: RawCase, images: CheckedImages, out: Path) -> None:
    part = "Tr" if _is_training(case) else "Ts"
    ct = np.rint(images.ct.values).clip(np.iinfo(np.int16).min, np.iinfo(np.int16).max).astype(np.int16)
    pet = resample(images.pet.values, images.pet.grid, images.ct.grid, outside=0.0)
    for number, values in enumerate((ct, pet)):
        write_image_like(out / f"images{part}" / f"{case.case_id}_{number:04d}{FILE_ENDING}", values, case.ct)
    if images.target is not None:
        write_labels_like(out / f"labels{part}" / f"{case.case_id}{FILE_ENDING}", images.target, case.ct)


def _splits(cases: dict[str, RawCase], plan: FoldPlan) -> list[dict[str, list[str]]]:
    """The folds that `hngtv run` makes of the same cases, under their new ids.

    Args:
        cases: By the ids they had, which decide the folds.
    """
    if not cases:
        return []
    pairs = [(case_id, case.centre) for case_id, case in cases.items()]
    folds = make_folds(pairs, plan.n_folds, plan.seed, plan.group_by_centre)
    return [
        {
            "train": [cases[case_id].case_id for case_id, fold in folds.items() if fold != number],
            "val": [cases[case_id].case_id for case_id, fold in folds.items() if fold == number],
        }
        for number in range(plan.n_folds)
    ]


def _describe(path: Path, n_training: int, has_nodes: bool) -> None:
    labels = {"background": 0, "GTVp": 1} | ({"GTVn": 2} if has_nodes else {})
    write_json(
        path,
        {"channel_names": CHANNELS, "labels": labels, "numTraining": n_training, "file_ending": FILE_ENDING},
    )


def _safe_ids(cases: Sequence[RawCase]) -> dict[str, str]:
    """Ids of letters, digits, dash and underscore that do not end like a channel and differ in more than their case."""
    ids: dict[str, str] = {}
    taken: set[str] = set()
    for case in cases:
        plain = re.sub(r"[^A-Za-z0-9_-]", "_", case.case_id)
        plain = re.sub(r"_(?=\d{4}$)", "-", plain)
        name, number = plain, 2
        while name.lower() in taken:
            name, number = f"{plain}-{number}", number + 1
        taken.add(name.lower())
        ids[case.case_id] = name
    return ids
