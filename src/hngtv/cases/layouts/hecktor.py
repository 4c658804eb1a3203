"""HECKTOR trees of 2020, 2021, 2022, 2025 and 2026, told apart by the names in them."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from hngtv.cases.layouts.tables import add_patient_files
from hngtv.cases.layouts.tree import Recognised, Tree, key_of, listing, stem_of
from hngtv.cases.manifest import RawCase
from hngtv.errors import InputError

CT_NAME = re.compile(r"(?P<id>.+?)(?P<line>__?)ct", re.IGNORECASE)
PET_NAME = re.compile(r"(?P<id>.+?)__?pt", re.IGNORECASE)
GTV_NAME = re.compile(r"(?P<id>.+?)(?P<ct>_ct)?_gtvt", re.IGNORECASE)
UNUSED_NAME = re.compile(r".+__(ctplanning|rtdose)", re.IGNORECASE)
YEAR = re.compile(r"hecktor[ _-]?(?P<year>20\d\d)", re.IGNORECASE)
TASK = re.compile(r"task[ _]?(?P<number>\d)", re.IGNORECASE)
LABEL_FOLDER = re.compile(r"labelst[rs]", re.IGNORECASE)
TEST_FOLDER = re.compile(r"(hecktor(.*[ _\-\d])?)?test(ing)?([ _-].*)?|imagests|labelsts", re.IGNORECASE)
TRAIN_FOLDER = re.compile(r"(hecktor(.*[ _\-\d])?)?train(ing)?([ _-].*)?|imagestr|labelstr", re.IGNORECASE)


def find_hecktor(tree: Tree) -> Recognised | None:
    """Recognise a tree by files named ID_ct and ID_pt (2020, 2021) or ID__CT and ID__PT (2022 on).

    Raises:
        InputError: A patient, its PET or its mask occurs twice, or a table of the tree is unusable.
    """
    cts, pets = _by_key(tree.images, CT_NAME), _by_key(tree.images, PET_NAME)
    if not cts.keys() & pets.keys():
        return None
    targets = _targets(tree.images, set(cts))
    notes, unplaced = [], []
    cases = []
    for key in sorted(cts):
        ct = _first_task(key, cts[key], notes)
        match = CT_NAME.fullmatch(stem_of(ct))
        assert match is not None
        pet = _only(key, "PET", ct, pets.get(key, []))
        masks = [path for path in targets.get(key, []) if _is_placed(path, ct)]
        unplaced += [path.name for path in targets.get(key, []) if path not in masks and not _task_of(path)]
        target = _only(key, "mask", ct, masks)
        cases.append(RawCase(match["id"], "", ct, pet, target, split=split_of(tree, ct)))
    cases, more = add_patient_files(cases, tree)
    splits = Counter(case.split for case in cases)
    more.append(f"{splits['train']} case(s) are train and {splits['test']} test, by the names of their folders")
    if unplaced:
        more.append(
            f"{len(unplaced)} mask(s) lie neither beside their CT nor in labelsTr or labelsTs, as predictions do, and "
            f"were left out: {listing(unplaced)}"
        )
    lone = sorted(pets.keys() - cts.keys())
    if lone:
        more.append(f"{len(lone)} PET file(s) have no CT and were left out: {listing(lone)}")
    unused = [path.name for path in tree.images if UNUSED_NAME.fullmatch(stem_of(path))]
    if unused:
        more.append(f"{len(unused)} planning CT or dose file(s) are not used: {listing(unused)}")
    year, why = _year_of(tree, [case.ct for case in cases])
    return Recognised(f"HECKTOR {year}", why, tuple(cases), (*_summed(notes), *more))


def split_of(tree: Tree, path: Path) -> str:
    """`test` below a folder of test cases, judged by the innermost folder in the tree that names a split."""
    for name in reversed(tree.inside(path).parent.parts):
        if TEST_FOLDER.fullmatch(name):
            return "test"
        if TRAIN_FOLDER.fullmatch(name):
            return "train"
    return "train"


def _by_key(images: Sequence[Path], name: re.Pattern[str]) -> dict[str, list[Path]]:
    found = defaultdict(list)
    for path in images:
        if match := name.fullmatch(stem_of(path)):
            found[key_of(match["id"])].append(path)
    return found


def _targets(images: Sequence[Path], keys: set[str]) -> dict[str, list[Path]]:
    """Masks by patient: ID_gtvt or ID_ct_gtvt, else the file named by the id alone."""
    found = _by_key(images, GTV_NAME)
    for path in images:
        key = key_of(stem_of(path))
        if key in keys:
            found[key].append(path)
    return found


def _is_placed(mask: Path, ct: Path) -> bool:
    """Whether a mask lies where a release has its masks."""
    return mask.parent == ct.parent or LABEL_FOLDER.fullmatch(mask.parent.name) is not None


def _only(key: str, what: str, ct: Path, found: Sequence[Path]) -> Path | None:
    """The file beside the CT, else the one elsewhere; None for none."""
    found = [path for path in found if path.parent == ct.parent] or found
    if len(found) > 1:
        raise InputError(
            f"patient {key} has more than one {what}: {', '.join(map(str, found[:2]))}; expected one, so leave one in "
            "the tree"
        )
    return found[0] if found else None


def _first_task(key: str, cts: Sequence[Path], notes: list[str]) -> Path:
    """The CT of a patient; one that lies in several tasks of 2025 is taken from the first."""
    if len(cts) == 1:
        return cts[0]
    tasks = [_task_of(path) for path in cts]
    if "" in tasks or len(set(tasks)) < len(tasks):
        raise InputError(
            f"patient {key} has more than one CT: {', '.join(map(str, cts[:2]))}; "
            "expected one, so import each release on its own"
        )
    notes.append(key)
    return cts[tasks.index(min(tasks))]


def _task_of(path: Path) -> str:
    """Number of the task of 2025 that a file lies in; "" for none."""
    return next((match["number"] for part in path.parts if (match := TASK.fullmatch(part))), "")


def _summed(in_several: Sequence[str]) -> list[str]:
    if not in_several:
        return []
    return [f"{len(in_several)} patient(s) lie in several tasks; each is taken once: {listing(in_several)}"]


def _year_of(tree: Tree, cts: Sequence[Path]) -> tuple[str, str]:
    """The year, and what it was told by: a name that holds it, else the form of the tree."""
    names = [tree.root.name, *(part for ct in cts for part in tree.inside(ct).parent.parts)]
    names += [path.name for path in tree.tables]
    by_year = {match["year"]: name for name in reversed(names) if (match := YEAR.search(name))}
    if by_year:
        told = ", ".join(f"{name!r}" for _, name in sorted(by_year.items()))
        return " and ".join(sorted(by_year)), f"{len(cts)} CT files and the name {told}"
    match = CT_NAME.fullmatch(stem_of(cts[0]))
    folders = {part.lower() for ct in cts for part in tree.inside(ct).parent.parts}
    if match is not None and match["line"] == "_":
        own = all(key_of(ct.parent.name) == key_of(_id_of(ct)) for ct in cts)
        if own or any(stem_of(path).lower().endswith("_ct_gtvt") for path in tree.images):
            return "2020", "files ID_ct and ID_pt in a folder for each patient"
        return "2021", "files ID_ct and ID_pt in one folder"
    if folders & {"imagestr", "imagests"}:
        return "2022", "files ID__CT and ID__PT in imagesTr or imagesTs"
    if any(TASK.fullmatch(name) for name in folders):
        return "2025", "files ID__CT and ID__PT in folders named after tasks"
    if any(path.name.lower() == "suv_conversion_tags.csv" for path in tree.tables):
        return "2026", "files ID__CT and ID__PT, and suv_conversion_tags.csv"
    return "2025 or 2026", "files ID__CT and ID__PT, and no name that tells the year (both are read alike)"


def _id_of(ct: Path) -> str:
    match = CT_NAME.fullmatch(stem_of(ct))
    return match["id"] if match else ""
