"""nnU-Net raw data sets: dataset.json, imagesTr/ID_0000.nii.gz and _0001, labelsTr/ID.nii.gz."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hngtv.cases.layouts.tables import add_patient_files
from hngtv.cases.layouts.tree import Recognised, Tree, as_kind, listing, read_object
from hngtv.cases.manifest import RawCase, if_file
from hngtv.errors import InputError
from hngtv.volume.nifti import SUFFIXES

CHANNEL = re.compile(r"(?P<id>.+)_(?P<channel>\d{4})")
CT_WORDS = ("ct",)
PET_WORDS = ("pet", "pt", "suv", "fdg", "fdgpet", "petsuv", "suvpet")
GTVP_WORDS, GTVN_WORDS = ("gtvp", "gtvt", "primary"), ("gtvn", "node", "nodes", "lymphnode", "lymphnodes")
SPLITS = {"Tr": "train", "Ts": "test"}


def find_nnunet(tree: Tree) -> Recognised | None:
    """Recognise a data set by its dataset.json and files with channel numbers beside it.

    Raises:
        InputError: Several data sets in one tree, channels that cannot be told, or labels in another order.
    """
    sets = [path for path in tree.jsons if path.name == "dataset.json" and _has_channels(tree, path.parent)]
    if not sets:
        return None
    if len(sets) > 1:
        raise InputError(f"{tree.root} holds {len(sets)} nnU-Net data sets; give one, such as {sets[0].parent}")
    path = sets[0]
    description, notes = read_object(path)
    ending = _ending(description, path)
    ct, pet = find_channels(description, path)
    notes += _check_labels(as_kind(description.get("labels") or {}, dict, f"{path}: labels"), path)
    cases, lone = [], []
    for part, split in SPLITS.items():
        folder = path.parent / f"images{part}"
        for image in sorted(folder.glob(f"*_{ct:04d}{ending}")):
            case_id = image.name.removesuffix(f"_{ct:04d}{ending}")
            other, label = folder / f"{case_id}_{pet:04d}{ending}", path.parent / f"labels{part}" / f"{case_id}{ending}"
            cases.append(RawCase(case_id, "", image, if_file(other), if_file(label), split=split))
        lone += [
            image.name
            for image in sorted(folder.glob(f"*_{pet:04d}{ending}"))
            if not (folder / image.name.replace(f"_{pet:04d}{ending}", f"_{ct:04d}{ending}")).is_file()
        ]
    if lone:
        notes.append(f"{len(lone)} PET file(s) have no CT and were left out: {listing(lone)}")
    cases, more = add_patient_files(cases, tree)
    why = f"{path.name} and imagesTr/ID_0000{ending} (CT is channel {ct}, PET channel {pet})"
    return Recognised("nnU-Net raw", why, tuple(cases), (*notes, *more))


def find_channels(description: Mapping[str, Any], path: Path) -> tuple[int, int]:
    """Numbers of the CT and the PET channel, by their names in a dataset.json.

    Raises:
        InputError: Not exactly one of each.
    """
    names = description.get("channel_names") or description.get("modality") or {}
    names = as_kind(names, dict, f"{path}: channel_names or modality")
    plain = {}
    for number, name in names.items():
        if str(number).isdigit():
            plain[int(number)] = re.sub(r"[^a-z]", "", str(name).lower())
    ct = [number for number, name in plain.items() if name in CT_WORDS]
    pet = [number for number, name in plain.items() if name in PET_WORDS]
    if len(ct) != 1 or len(pet) != 1:
        raise InputError(
            f"{path} has the channels {dict(names)}; expected one named CT and one named PET, so name them so there"
        )
    return ct[0], pet[0]


def _has_channels(tree: Tree, folder: Path) -> bool:
    places = (folder / "imagesTr", folder / "imagesTs")
    return any(image.parent in places and CHANNEL.match(image.name.split(".nii")[0]) for image in tree.images)


def _ending(description: Mapping[str, Any], path: Path) -> str:
    ending = str(description.get("file_ending", ".nii.gz"))
    if ending not in SUFFIXES:
        raise InputError(f"{path}: file_ending is {ending!r}; expected .nii.gz or .nii, so convert the images first")
    return ending


def _check_labels(labels: Mapping[str, Any], path: Path) -> list[str]:
    """Notes on labels whose names are no GTV; nnU-Net 2 writes names to values, 1 values to names."""
    values = {str(v).lower() if str(k).isdigit() else str(k).lower(): k if str(k).isdigit() else v
              for k, v in labels.items()}  # fmt: skip
    notes = []
    for name, value in values.items():
        if isinstance(value, list):
            raise InputError(f"{path}: label {name} is a region {value}; expected one number for each label")
        if not str(value).isdecimal():
            raise InputError(f"{path}: label {name} is {value!r}; expected a whole number such as 1")
        plain, number = re.sub(r"[^a-z]", "", name), int(value)
        expected = 1 if plain in GTVP_WORDS else 2 if plain in GTVN_WORDS else None
        if expected is not None and number != expected:
            raise InputError(
                f"{path}: label {name} is {number}; expected 1 for GTVp and 2 for GTVn, so renumber the masks"
            )
        if expected is None and number in (1, 2):
            notes.append(f"{path}: label {number}, {name!r}, is taken as {'GTVp' if number == 1 else 'GTVn'}")
    return notes
