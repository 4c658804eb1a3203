"""Trees of challenges, tools and hospitals, recognised by what lies in them."""

from dataclasses import replace
from pathlib import Path

from hngtv.cases.dicom import convert_patients, holds_dicom
from hngtv.cases.dicom.names import DicomChoices
from hngtv.cases.layouts.bids import find_bids
from hngtv.cases.layouts.decathlon import find_decathlon, read_decathlon
from hngtv.cases.layouts.hecktor import find_hecktor
from hngtv.cases.layouts.nnunet import find_nnunet
from hngtv.cases.layouts.tree import Recognised, Tree, is_archive, listing, walk_tree
from hngtv.cases.manifest import MANIFEST_NAME, FolderLayout, NoCaseError, check_ids, find_cases, read_manifest
from hngtv.errors import InputError

FINDERS = (find_nnunet, find_decathlon, find_bids, find_hecktor)
"""In this order, since the names of the first are the most telling."""

__all__ = ["Recognised", "recognise", "recognise_written"]


def recognise(source: Path, layout: FolderLayout | None = None, dicom: DicomChoices | None = None) -> Recognised:
    """Say what a source is: a manifest, a folder with one, a folder by its naming, a known tree, or DICOM.

    Args:
        source: A cases.csv, a JSON list of images, or a folder.
        layout: Naming of the files in a folder; one that is not the default rules out the known trees.
        dicom: How DICOM is converted; None for the defaults.
    Raises:
        InputError: None of these, an archive that was not extracted, or a tree with a fault, in one line.
    """
    if source.is_file():
        return _recognise_file(source)
    if (source / MANIFEST_NAME).is_file():
        cases = read_manifest(source / MANIFEST_NAME)
        return Recognised("a folder with a manifest", f"it has a {MANIFEST_NAME}", tuple(cases))
    by_name = layout or FolderLayout()
    try:
        cases = find_cases(source, by_name)
    except NoCaseError:
        if by_name != FolderLayout():
            raise
    else:
        why = f"{len(cases)} files are named like {by_name.ct}"
        return Recognised("a folder of cases", why, tuple(cases), _dicom_beside(source))
    tree = walk_tree(source)
    for find in FINDERS:
        if found := find(tree):
            return _with_unread(_checked(found, source), tree)
    return _recognise_dicom(tree, dicom)


def recognise_written(source: Path, layout: FolderLayout | None = None) -> Recognised:
    """As `recognise`, for those who write nothing.

    Raises:
        InputError: As there, and for files that must be imported first (DICOM, 4D images).
    """
    found = recognise(source, layout)
    if found.write is not None:
        raise InputError(
            f"{source} is {found.layout}, whose images must be written as NIfTI first: "
            f"hngtv import source={source} out=NEW_FOLDER/cases.csv"
        )
    return found


def _recognise_file(source: Path) -> Recognised:
    if is_archive(source):
        raise InputError(f"{source} is an archive; extract it into a folder of its own and give that folder")
    if source.suffix.lower() == ".json":
        return _checked(read_decathlon(source, walk_tree(source.parent)), source)
    return Recognised("a manifest", f"{source.name} is a table", tuple(read_manifest(source)))


def _checked(found: Recognised, source: Path) -> Recognised:
    if not found.cases and found.write is None:
        why = "; ".join(found.notes) or "it lists none whose images are there"
        raise InputError(f"no case found in {source}, {found.layout}: {why}")
    check_ids(found.cases, source)
    return found


def _recognise_dicom(tree: Tree, choices: DicomChoices | None) -> Recognised:
    known = len(tree.images) + len(tree.tables) + len(tree.jsons) + len(tree.archives)
    if tree.n_files > known and holds_dicom(tree.root):
        return Recognised("DICOM", "its files are DICOM", write=lambda out: convert_patients(tree.root, out, choices))
    if tree.archives:
        names = listing([str(tree.inside(path)) for path in tree.archives])
        raise InputError(
            f"no case found in {tree.root}, but archives ({names}): extract each into a folder of its own first"
        )
    images = listing([str(tree.inside(path)) for path in tree.images]) or "no NIfTI file"
    raise InputError(
        f"no case found in {tree.root}, which holds {images}: expected CASE/ct.nii.gz, HECKTOR, nnU-Net raw, a JSON "
        "list, BIDS or DICOM; for other names set data.ct, data.pet and data.target, as in data.ct={case}_CT.nii.gz"
        + (f"; cannot be opened: {listing(tree.closed)}" if tree.closed else "")
    )


def _dicom_beside(source: Path) -> tuple[str, ...]:
    """A note on DICOM that lies in a folder of cases."""
    if not holds_dicom(source):
        return ()
    return (f"{source} holds DICOM too, which was not read; to import that, give a folder without NIfTI files",)


def _with_unread(found: Recognised, tree: Tree) -> Recognised:
    """Tell of archives that lie beside extracted cases, and of folders that cannot be opened."""
    notes = list(found.notes)
    if tree.archives:
        names = listing([str(tree.inside(path)) for path in tree.archives])
        notes.append(f"{len(tree.archives)} archive(s) were not read: {names}; extract those whose cases are missing")
    if tree.closed:
        notes.append(f"{len(tree.closed)} folder(s) cannot be opened: {listing(tree.closed)}; mend their rights")
    return replace(found, notes=tuple(notes))
