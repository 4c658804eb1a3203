"""BIDS-like trees: sub-ID/[ses-ID/]ct|anat|pet/sub-ID..._ct.nii.gz and ..._pet.nii.gz.

Masks (dseg, mask, seg, gtv) lie beside them or in derivatives, and say GTV, tumour or lesion in their name.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from hngtv.cases.layouts.tables import add_patient_files
from hngtv.cases.layouts.tree import Recognised, Tree, listing, read_json_leniently, stem_of
from hngtv.cases.manifest import RawCase
from hngtv.errors import InputError

SUBJECT = re.compile(
    r"(?P<id>sub-[A-Za-z0-9]+(_ses-[A-Za-z0-9]+)?)(_[A-Za-z0-9]+-[A-Za-z0-9]+)*_(?P<kind>[A-Za-z0-9]+)"
)
TUMOUR = re.compile(r"gtv|tumou?r|lesion", re.IGNORECASE)
KINDS = {"ct": "ct", "pet": "pet", "dseg": "target", "mask": "target", "seg": "target", "gtv": "target"}


def find_bids(tree: Tree) -> Recognised | None:
    """Recognise a tree by sub-ID_ct and sub-ID_pet files.

    Raises:
        InputError: A subject with several CTs, PETs, masks or sessions, or with a mask that may be of anything.
    """
    found: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path in tree.images:
        match = SUBJECT.fullmatch(stem_of(path))
        if match and (kind := KINDS.get(match["kind"].lower())):
            found[match["id"]][kind].append(path)
    cases, notes, others = [], [], []
    for case_id, files in sorted(found.items()):
        if not files["ct"]:
            continue
        named = [path for path in files["target"] if TUMOUR.search(stem_of(path).removeprefix(case_id))]
        if files["target"] and not named:
            raise InputError(
                f"{case_id} has the mask {tree.inside(files['target'][0])}, whose name does not say of what; expected "
                "gtv, tumour or lesion in it, as in label-GTV_mask, so name it so or take it out of the tree"
            )
        others += [path.name for path in files["target"] if path not in named]
        files["target"] = named
        for kind, paths in files.items():
            if len(paths) > 1:
                names = ", ".join(str(tree.inside(path)) for path in paths[:3])
                raise InputError(
                    f"{case_id} has {len(paths)} {kind} files: {names}; expected one, so leave one in the tree"
                )
        ct = files["ct"][0]
        pet, target = (next(iter(files[kind]), None) for kind in ("pet", "target"))
        cases.append(RawCase(case_id, "", ct, pet, target))
        notes += _unit_note(pet)
    if not any(case.pet for case in cases):
        return None
    _check_sessions([case.case_id for case in cases])
    if others:
        notes.append(f"{len(others)} mask(s) of other things are not used: {listing(others)}")
    complete, more = add_patient_files(cases, tree)
    why = f"{len(cases)} subjects named sub-ID with _ct and _pet files"
    return Recognised("BIDS-like", why, tuple(complete), (*notes, *more))


def _check_sessions(case_ids: Sequence[str]) -> None:
    """Raise InputError if a subject has several sessions: each would be a patient of its own in the folds."""
    counts = Counter(case_id.partition("_ses-")[0] for case_id in case_ids)
    if several := sorted(subject for subject, n in counts.items() if n > 1):
        raise InputError(
            f"{len(several)} subject(s) have several sessions ({listing(several)}); expected one each, since folds are "
            "split by patient, so leave one session of each in the tree"
        )


def _unit_note(pet: Path | None) -> list[str]:
    """What the sidecar of a PET says of its unit, if it is not SUV."""
    if pet is None or not (sidecar := pet.parent / f"{stem_of(pet)}.json").is_file():
        return []
    record, notes = read_json_leniently(sidecar)
    units = str(record.get("Units", "")) if isinstance(record, dict) else ""
    if units and units.lower() not in ("suv", "g/ml", "unitless"):
        notes.append(f"{sidecar} says that the PET is in {units}; give pet_unit and pet_factor in cases.csv")
    return notes
