"""JSON lists of images as the Medical Segmentation Decathlon and MONAI write them, with 4D images or one file each."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from tqdm import tqdm

from hngtv.cases.findings import Finding
from hngtv.cases.layouts.nnunet import find_channels
from hngtv.cases.layouts.tables import add_patient_files
from hngtv.cases.layouts.tree import (
    Recognised,
    Tree,
    as_kind,
    listing,
    path_inside,
    read_json_leniently,
    read_object,
    stem_of,
)
from hngtv.cases.manifest import RawCase, check_ids, if_file
from hngtv.errors import InputError
from hngtv.volume.nifti import save_nifti

CT_IN_NAME = re.compile(r"(^|[_.-])ct([_.-]|$)", re.IGNORECASE)
PET_IN_NAME = re.compile(r"(^|[_.-])(pt|pet|suv)([_.-]|$)", re.IGNORECASE)
SECTIONS = {"training": "train", "validation": "train", "test": "test", "testing": "test"}


def find_decathlon(tree: Tree) -> Recognised | None:
    """Recognise a tree by a JSON with a list `training` of images.

    Raises:
        InputError: Several such lists, a path that leaves the tree, or CT and PET that cannot be told apart.
    """
    lists = [path for path in tree.jsons if _is_list(path)]
    if not lists:
        return None
    if len(lists) > 1:
        names = ", ".join(str(tree.inside(path)) for path in lists[:3])
        raise InputError(f"{tree.root} holds {len(lists)} lists of images ({names}); give one as source=FILE")
    return read_decathlon(lists[0], tree)


def read_decathlon(path: Path, tree: Tree) -> Recognised:
    """The cases of one list; see `find_decathlon`."""
    content, notes = read_object(path)
    entries = [
        (_as_entry(entry, path), split)
        for section, split in SECTIONS.items()
        for entry in as_kind(content.get(section) or [], list, f"{path}: {section}")
    ]  # fmt: skip
    if not entries:
        raise InputError(f"{path} lists no image; expected a list `training` of entries with image and label")
    where = str(path)
    if any(isinstance(entry.get("image"), str) and _second(entry) is None for entry, _ in entries):
        ct, pet = find_channels(content, path)
        sources = [_frames_of(entry, split, path.parent, where) for entry, split in entries]
        check_ids([case for _, case in sources], path)
        notes += _label_notes([case for _, case in sources], path)
        write = partial(_write_frames, sources=sources, frames=(ct, pet))
        why = f"{path.name} lists 4D images (CT is frame {ct}, PET frame {pet})"
        return Recognised("Medical Segmentation Decathlon (4D images)", why, notes=tuple(notes), write=write)
    cases, absent = [], []
    for entry, split in entries:
        case = _listed_case(entry, split, path.parent, where)
        (cases if case.ct.is_file() else absent).append(case)
    if absent:
        names = ", ".join(case.case_id for case in absent[:3])
        notes.append(f"{path}: {len(absent)} listed case(s) are not on disk and were left out: {names}")
    notes += _label_notes(cases, path)
    cases = [replace(case, target=case.target and if_file(case.target)) for case in cases]
    cases, more = add_patient_files(cases, tree)
    return Recognised("list of images (JSON)", f"{path.name} lists CT and PET of each case",
                      tuple(cases), (*notes, *more))  # fmt: skip


def _is_list(path: Path) -> bool:
    try:
        content, _ = read_json_leniently(path)
    except InputError:
        return False
    listed = content.get("training") if isinstance(content, dict) else None
    return isinstance(listed, list) and bool(listed) and isinstance(listed[0], dict) and "image" in listed[0]


def _as_entry(entry: Any, path: Path) -> Mapping[str, Any]:
    """Test images may be named without a key."""
    entry = entry if isinstance(entry, dict) else {"image": entry}
    if not isinstance(entry.get("image") or entry.get("ct"), str | list):
        raise InputError(f"{path} has the entry {str(entry)[:60]}; expected `image` in it, a file or a list of files")
    return entry


def _label_notes(cases: Sequence[RawCase], path: Path) -> list[str]:
    """Which listed masks are not on disk."""
    absent = [case.case_id for case in cases if case.target is not None and not case.target.is_file()]
    return [f"{path}: {len(absent)} listed label(s) are not on disk: {listing(absent)}"] if absent else []


def _second(entry: Mapping[str, Any]) -> Any:
    return entry.get("image2") or entry.get("pet") or entry.get("pt")


def _listed_case(entry: Mapping[str, Any], split: str, root: Path, where: str) -> RawCase:
    image = entry.get("image") or entry.get("ct")
    names = [str(name) for name in ([image, _second(entry)] if isinstance(image, str) else image or [])]
    ct = [name for name in names if CT_IN_NAME.search(stem_of(Path(name)))]
    pet = [name for name in names if PET_IN_NAME.search(stem_of(Path(name)))]
    if len(ct) != 1 or len(pet) != 1:
        raise InputError(f"{where} lists the images {names}; expected one CT and one PET, told by ct and pt or pet")
    label = entry.get("label")
    case_id = CT_IN_NAME.sub("", stem_of(Path(ct[0]))).strip("_.-") or Path(ct[0]).parent.name
    extra = {"official_fold": str(entry["fold"])} if "fold" in entry else {}
    paths = [path_inside(root, name, where) for name in (ct[0], pet[0])]
    target = path_inside(root, str(label), where) if label else None
    return RawCase(case_id, "", paths[0], if_file(paths[1]), target, split=split, extra=extra)


def _frames_of(entry: Mapping[str, Any], split: str, root: Path, where: str) -> tuple[Path, RawCase]:
    """A 4D image, and the case that it will be below the folder that it is written to."""
    source = path_inside(root, as_kind(entry.get("image"), str, f"{where}: an image"), where)
    label = path_inside(root, str(entry["label"]), where) if entry.get("label") else None
    folder = Path(stem_of(source))
    return source, RawCase(folder.name, "", folder / "ct.nii.gz", folder / "pet.nii.gz", label, split=split)


def _write_frames(
    out: Path, sources: Sequence[tuple[Path, RawCase]], frames: tuple[int, int]
) -> tuple[list[RawCase], list[Finding]]:
    """Split 4D images into out/CASE/ct.nii.gz and pet.nii.gz; masks stay where they are."""
    cases, findings = [], []
    for source, case in tqdm(sources, desc="splitting", unit="case", disable=None):
        assert case.pet is not None
        target = case.target and if_file(case.target)
        case = replace(case, ct=out / case.ct, pet=out / case.pet, target=target)
        try:
            _split(source, case, frames)
        except InputError as error:
            findings.append(Finding(case.case_id, "error", f"case {case.case_id}: {error}"))
            continue
        cases.append(case)
    return cases, findings


def _split(source: Path, case: RawCase, frames: tuple[int, int]) -> None:
    try:
        image = nib.Nifti1Image.from_filename(source)
        values = np.asanyarray(image.dataobj)
    except Exception as error:  # nibabel raises many kinds for a damaged file
        raise InputError(f"{source} cannot be read ({error}); copy it again from its source") from None
    if values.ndim != 4 or values.shape[3] <= max(frames):
        raise InputError(f"{source} has shape {values.shape}; expected 4 axes with frames {frames[0]} and {frames[1]}")
    for path, frame in zip((case.ct, case.pet), frames, strict=True):
        assert path is not None
        save_nifti(path, nib.Nifti1Image(values[..., frame], image.affine, _header(image, values.dtype)))


def _header(image: nib.Nifti1Image, dtype: np.dtype) -> nib.Nifti1Header:
    header = image.header.copy()
    header.set_data_dtype(np.float32 if dtype == np.float64 else dtype)
    return header
