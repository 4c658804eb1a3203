"""What the gates of a finished run let pass in some of its test cases, kept small for the report and the notebooks."""

from collections.abc import Iterable, Sequence

import nibabel as nib
import numpy as np

from hngtv.cases.checks import CheckedImages, check_case
from hngtv.cases.manifest import RawCase
from hngtv.localise.roi_policy import widen
from hngtv.localise.roi_table import Roi, read_rois
from hngtv.metrics.score import CaseScore
from hngtv.model import Model, load_model
from hngtv.report.browse import gate_paths, pick_cases
from hngtv.run_folder import RunFolder, read_json, write_json
from hngtv.segmentation import attend
from hngtv.volume.box import hull
from hngtv.volume.grid import Grid
from hngtv.volume.nifti import save_nifti
from hngtv.volume.resample import resample

SPACING_MM = 3.0
"""Of the kept maps; gates look at coarse levels of the network anyway. Source: our choice."""


def keep_gate_maps(folder: RunFolder, cases: Iterable[RawCase], scores: Sequence[CaseScore]) -> None:
    """Keep the alphas of the best, the median and the worst test case of a run; nothing for a network without gates.

    What is there from the same model is not made again. A case without a prediction has none.
    """
    model = load_model(folder.root)
    if not model.settings.network.name.endswith("attention_unet"):
        return
    picked = {row.case_id for row in pick_cases(scores).values()}
    wanted = {case_id for case_id in picked if folder.prediction(case_id).is_file()}
    rois = {roi.case_id: roi for roi in read_rois(folder.rois)}
    note = folder.gates / "model.json"
    known = read_json(note) if note.is_file() else {}
    for case in (case for case in cases if case.case_id in wanted and case.case_id in rois):
        if known.get(case.case_id) == model.digest and gate_paths(folder, case.case_id):
            continue
        write_gate_maps(folder, model, case, rois[case.case_id])
        known[case.case_id] = model.digest
        write_json(note, known)


def write_gate_maps(folder: RunFolder, model: Model, case: RawCase, roi: Roi) -> None:
    """Write `gates/<case_id>/<gate>.nii.gz` around the ROIs: steps of 1/255, at `SPACING_MM` along the world's axes."""
    images = check_case(case, needs_pet=False)
    rois = widen(roi.boxes, model.settings.roi)
    grid = _grid_around(images, roi, model)
    for path in gate_paths(folder, case.case_id).values():
        path.unlink()
    for name, alpha in attend(model, images, rois).items():
        small = resample(alpha, images.ct.grid, grid, outside=0.0)
        image = nib.Nifti1Image(np.rint(255 * small.clip(0, 1)).astype(np.uint8), grid.matrix)
        image.header.set_slope_inter(1 / 255, 0)
        image.set_sform(grid.matrix, code=1)
        save_nifti(folder.gates / case.case_id / f"{name}.nii.gz", image)


def _grid_around(images: CheckedImages, roi: Roi, model: Model) -> Grid:
    seen = hull(widen(roi.boxes, model.settings.roi)).intersect(images.ct.grid.bounds())
    return Grid.axis_aligned(seen or images.ct.grid.bounds(), (SPACING_MM, SPACING_MM, SPACING_MM))
