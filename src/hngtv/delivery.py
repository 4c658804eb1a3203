"""What a prediction is written as beside its mask: a probability, RTSTRUCT, DICOM SEG, and a page to read."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hngtv.cases.manifest import RawCase
from hngtv.localise.roi_table import Roi
from hngtv.model import Model
from hngtv.run_folder import installed_versions, read_json, write_json
from hngtv.two_stage import MAPS, note_path
from hngtv.volume.nifti import Image, file_digest, read_image, write_map_like

if TYPE_CHECKING:
    from hngtv.cases.dicom.convert import Converted
    from hngtv.cases.dicom.original import Maker, Original

PROBABILITY = "probability.nii.gz"
MAP_FILES = {name: f"{name}.nii.gz" for name in MAPS}
FILES = {"rtstruct": ("rtstruct.dcm",), "seg": ("seg.dcm", "seg_probability.dcm"), "pdf": ("report.pdf",)}
"""Of each format; the second SEG where the probability is asked for."""
NEEDS_DICOM = ("rtstruct", "seg")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One patient to predict.

    Attributes:
        case: Its files.
        mask: Where the mask goes.
        converted: The DICOM it comes from; None for NIfTI.
    """

    case: RawCase
    mask: Path
    converted: "Converted | None" = None

    def beside(self, name: str) -> Path:
        """Where another file about the patient goes: in a folder of its own, or named after the mask."""
        return self.mask.with_name(name if self.converted else f"{note_path(self.mask).stem}_{name}")


def drop_files(job: Job) -> None:
    """Remove what was made of an earlier mask."""
    for name in (*MAP_FILES.values(), *(name for names in FILES.values() for name in names)):
        job.beside(name).unlink(missing_ok=True)


def is_whole(job: Job, name: str) -> bool:
    """Whether a file lies beside the mask as it was written with it."""
    path = job.beside(name)
    return path.is_file() and read_json(note_path(job.mask)).get("files", {}).get(name) == file_digest(path)


def write_maps(job: Job, maps: Mapping[str, NDArray[np.float32]]) -> None:
    """Write maps (X, Y, Z) by their name in `MAPS` beside a mask that was just written."""
    for name, values in maps.items():
        write_map_like(job.beside(MAP_FILES[name]), values, job.case.ct)
        _note_files(job, [MAP_FILES[name]])


def write_formats(job: Job, model: Model, roi: Roi, formats: Sequence[str], with_probability: bool) -> list[Path]:
    """Write the formats of a mask that are not there yet; returns where all of them lie.

    Args:
        job: Its mask is written.
        model: That made it.
        roi: Where it looked.
        formats: Of `FILES`; other names are passed over.
        with_probability: Whether the probability, which is written, is to be a SEG too.
    Raises:
        InputError: The CT series cannot be referred to, or a file cannot be read.
    """
    product = _Product(job, model, roi, read_json(note_path(job.mask)))
    writers = product.writers(formats, with_probability)
    for name, write in writers.items():
        if not is_whole(job, name):
            write(job.beside(name))
            _note_files(job, [name])
    return [job.beside(name) for name in writers]


def _note_files(job: Job, names: Sequence[str]) -> None:
    """Keep the digests of files in the note beside the mask."""
    note = read_json(note_path(job.mask))
    note["files"] = note.get("files", {}) | {name: file_digest(job.beside(name)) for name in names}
    write_json(note_path(job.mask), note)


@dataclass(frozen=True)
class _Product:
    """A mask that was made, with what is said of it."""

    job: Job
    model: Model
    roi: Roi
    note: dict[str, Any]
    version: str = field(default_factory=lambda: installed_versions()["hngtv"])

    def writers(self, formats: Sequence[str], with_probability: bool) -> dict[str, Callable[[Path], None]]:
        """How each file of the formats is written, by its name."""
        writers: dict[str, Callable[[Path], None]] = {}
        if "pdf" in formats:
            writers["report.pdf"] = self.write_page
        in_dicom = [name for name in NEEDS_DICOM if name in formats]
        if in_dicom and not self.mask.values.any():
            log.warning("case %s: nothing is outlined, so there is no RTSTRUCT and no SEG", self.job.case.case_id)
            return writers
        if "rtstruct" in formats:
            writers["rtstruct.dcm"] = self.write_rtstruct
        if "seg" in formats:
            writers["seg.dcm"] = self.write_seg
            if with_probability:
                writers["seg_probability.dcm"] = self.write_seg_of_probability
        return writers

    @cached_property
    def mask(self) -> Image:
        return read_image(self.job.mask)

    @cached_property
    def original(self) -> "Original":
        from hngtv.cases.dicom.original import load_original

        assert self.job.converted is not None
        original = load_original(self.job.converted.scan.ct)
        if not original.is_axial:
            log.warning(
                "case %s: its CT slices are not axial; planning systems may refuse outlines on them",
                self.job.case.case_id,
            )
        return original

    @property
    def maker(self) -> "Maker":
        from hngtv.cases.dicom.original import Maker

        return Maker(self.model.settings.arm, self.version, self.model.digest)

    def write_rtstruct(self, path: Path) -> None:
        from hngtv.cases.dicom.write_rtstruct import write_rtstruct

        write_rtstruct(path, self.mask.values, self.mask.grid, self.original, self.maker)

    def write_seg(self, path: Path) -> None:
        from hngtv.cases.dicom.write_seg import write_seg

        write_seg(path, self.mask.values, self.mask.grid, self.original, self.maker)

    def write_seg_of_probability(self, path: Path) -> None:
        from hngtv.cases.dicom.write_seg import write_seg_of_probability

        image = read_image(self.job.beside(PROBABILITY))
        write_seg_of_probability(path, image.values, image.grid, self.original, self.maker)

    def write_page(self, path: Path) -> None:
        from hngtv.report.patient_page import write_patient_page

        write_patient_page(path, self.job.case, self.job.mask, self.roi, self._facts(), self._notes())

    def _facts(self) -> dict[str, str]:
        x, y, z = self.mask.grid.spacing_mm
        facts = {
            "model": f"{self.model.settings.arm}, hngtv {self.version}, digest of the weights {self.model.digest[:16]}",
            "CT": f"{x:.2f} x {y:.2f} x {z:.2f} mm",
        }
        converted = self.job.converted
        if converted is not None:
            facts["CT"] += f", series {converted.scan.ct.uid}"
            if converted.suv is not None:
                facts["SUV"] = converted.suv["rule"]
        elif self.job.case.pet is not None:
            facts["SUV"] = "as in the PET file" if self.job.case.pet_unit == "SUV" else "Bq/mL times pet_factor"
        if self.note.get("agreement") is not None:
            facts["agreement"] = (
                f"{self.note['agreement']:.2f}, mean Dice of its networks with themselves on flipped images"
            )
        facts["made"] = time.strftime("%Y-%m-%d %H:%M")
        return facts

    def _notes(self) -> list[str]:
        """Warnings about the images, without paths, which may name the patient."""
        case = self.job.case
        notes = [*(self.job.converted.warnings if self.job.converted else ()), *self.note.get("warnings", [])]
        for path, name in ((case.ct, "CT"), (case.pet, "PET")):
            notes = [note.replace(str(path), name) for note in notes]
        review = self.note.get("review")
        return [
            *([f"Please review: {review}"] if review else []),
            *(note.removeprefix(f"case {case.case_id}: ") for note in notes),
        ]
