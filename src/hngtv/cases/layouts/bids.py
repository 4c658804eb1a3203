"""BIDS-like trees: sub-ID/[ses-ID/]ct|anat|pet/sub-ID..._ct.nii.gz and ..._pet.nii.gz.

Masks (dseg, mask, seg, gtv) lie beside them or in derivatives.
"""

import re
from collections import defaultdict
from pathlib import Path

from hngtv.cases.layouts.tables import add_patient_files
from hngtv.cases.layouts.tree import Recognised, Tree, nearest, read_json_leniently, stem_of
from hngtv.cases.manifest import RawCase
from hngtv.errors import InputError

SUBJECT = re.compile(
    r"(?P<id>sub-[A-Za-z0-9]+(_ses-[A-Za-z0-9]+)?)(_[A-Za-z0-9]+-[A-Za-z0-9]+)*_(?P<kind>[A-Za-z0-9]+)"
)
KINDS = {"ct": "ct", "pet": "pet", "dseg": "target", "mask": "target", "seg": "target", "gtv": "target"}


def find_bids(tree: Tree) -> Recognised | None:
    """Recognise a tree by sub-ID_ct and sub-ID_pet files.

    Raises:
        InputError: Several CTs, PETs or masks for one subject and session.
    """
    found: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path in tree.images:
        match = SUBJECT.fullmatch(stem_of(path))
        if match and (kind := KINDS.get(match["kind"].lower())):
            found[match["id"]][kind].append(path)
    cases, notes = [], []
    for case_id, files in sorted(found.items()):
        if not files["ct"]:
            continue
        for kind, paths in files.items():
            if len(paths) > 1:
                names = ", ".join(str(tree.inside(path)) for path in paths[:3])
                raise InputError(
                    f"{case_id} has {len(paths)} {kind} files: {names}; expected one, so leave one in the tree"
                )
        ct = files["ct"][0]
        pet = nearest(ct, files["pet"])
        cases.append(RawCase(case_id, "", ct, pet, nearest(ct, files["target"])))
        notes += _unit_note(pet)
    if not any(case.pet for case in cases):
        return None
    if any("_ses-" in case.case_id for case in cases):
        notes.append(
            "each session counts as a patient of its own in the folds; keep one session a patient to avoid this"
        )
    complete, more = add_patient_files(cases, tree)
    why = f"{len(cases)} subjects named sub-ID with _ct and _pet files"
    return Recognised("BIDS-like", why, tuple(complete), (*notes, *more))


def _unit_note(pet: Path | None) -> list[str]:
    """What the sidecar of a PET says of its unit, if it is not SUV."""
    if pet is None or not (sidecar := pet.parent / f"{stem_of(pet)}.json").is_file():
        return []
    record, notes = read_json_leniently(sidecar)
    units = str(record.get("Units", "")) if isinstance(record, dict) else ""
    if units and units.lower() not in ("suv", "g/ml", "unitless"):
        notes.append(f"{sidecar} says that the PET is in {units}; give pet_unit and pet_factor in cases.csv")
    return notes
