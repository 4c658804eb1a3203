"""HECKTOR 2025 (task 1) and 2026 on Grand Challenge: the files of one patient in, a mask on the CT's grid out.

Only the segmentation is predicted. The clinical record, `ehr.json`, is not read: no stage of the pipeline uses it.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hngtv.cases.manifest import RawCase
from hngtv.errors import InputError
from hngtv.model import Model
from hngtv.run_folder import atomic_path, read_json, write_json
from hngtv.two_stage import Prediction, predict_case
from hngtv.volume.nifti import write_labels_like

MEMORY_GB = 16.0
"""Source: the template repositories of both years."""
SUFFIXES = (".mha", ".nii.gz", ".tif", ".tiff")
"""Image files that the templates look for."""
SOCKETS = {"ct-image": "images/ct", "pet-image": "images/pet"}
"""Slug to folder, where `inputs.json` does not say otherwise."""
NEEDS = "the challenge entry needs SimpleITK: pip install 'hngtv[challenge]'"


@dataclass(frozen=True)
class Interface:
    """What a year asks of an entry.

    Attributes:
        mask: Folder of `output.mha` below the output.
        limit_s: Longest time for one patient.
        has_stages: Whether T stage, N stage and risk of recurrence are outputs too.
    """

    mask: str
    limit_s: float
    has_stages: bool


INTERFACES = {
    2025: Interface("images/tumor-lymph-node-segmentation", 600, has_stages=False),
    2026: Interface("images/head-neck-tumor-segmentation", 1500, has_stages=True),
}
"""Source: the template repositories; the 2026 limit is for all three of its subtasks."""


def segment_patient(model: Model, source: Path, out: Path, interface: Interface) -> Prediction:
    """Predict the patient in `source` and write the mask: uint8 (0 background, 1 GTVp, 2 GTVn), geometry of the CT.

    Raises:
        InputError: An image is missing, unreadable, or fails the checks of every case; nothing is written then.
    """
    sitk = _simpleitk()
    ct_file, pet_file = (find_image(source, slug) for slug in SOCKETS)
    with tempfile.TemporaryDirectory() as folder:
        ct, pet, mask = (Path(folder) / f"{name}.nii" for name in ("ct", "pet", "mask"))
        reference = _convert(sitk, ct_file, ct)
        _convert(sitk, pet_file, pet)
        prediction = predict_case(model, RawCase(ct_file.name.partition(".")[0], "", ct, pet, None))
        write_labels_like(mask, prediction.labels, ct)
        labels = sitk.Cast(sitk.ReadImage(mask), sitk.sitkUInt8)
        labels.CopyInformation(reference)  # exactly the CT's, without what passed through NIfTI's 32 bits
        for key in labels.GetMetaDataKeys():  # of NIfTI, which an mha cannot hold
            labels.EraseMetaData(key)
        with atomic_path(out / interface.mask / "output.mha") as temporary:
            sitk.WriteImage(labels, temporary, useCompression=True)
    return prediction


def write_stages(out: Path, t_stage: str | None, n_stage: str | None, rfs: float | None) -> None:
    """Write the outputs of 2026 that this pipeline does not predict: what was given, null where nothing was."""
    for name, value in {"t-stage": t_stage, "n-stage": n_stage, "rfs": rfs}.items():
        write_json(out / f"{name}.json", value)


def find_image(source: Path, slug: str) -> Path:
    """The one image of an input, in the folder that `inputs.json` names or the usual one.

    Raises:
        InputError: There is none, or several.
    """
    folder = source / _folders_of(source).get(slug, SOCKETS[slug])
    files = [file for suffix in SUFFIXES for file in sorted(folder.glob(f"*{suffix}"))]
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise InputError(f"{folder}: expected one image ({', '.join(SUFFIXES)}) for {slug}, found {names}")
    return files[0]


def _folders_of(source: Path) -> dict[str, str]:
    """Slug to relative path, as `inputs.json` has it; empty without that file."""
    path = source / "inputs.json"
    entries: Any = read_json(path) if path.is_file() else []
    try:
        return {entry["socket"]["slug"]: entry["socket"]["relative_path"] for entry in entries}
    except (KeyError, TypeError):
        raise InputError(f"{path}: expected a list of inputs, each with a socket of slug and relative_path") from None


def _convert(sitk: Any, source: Path, nifti: Path) -> Any:
    """Write an image as NIfTI and return it."""
    try:
        image = sitk.ReadImage(source)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise InputError(f"{source} cannot be read ({reason}); expected a 3D image") from None
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1 or min(image.GetSize()) < 2:
        raise InputError(f"{source} has size {image.GetSize()}; expected a 3D image with one value for each voxel")
    sitk.WriteImage(image, nifti)
    return image


def _simpleitk() -> Any:
    try:
        import SimpleITK
    except ImportError:
        raise InputError(NEEDS) from None
    return SimpleITK
