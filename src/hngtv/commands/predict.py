"""Outline the tumour of new patients with a finished run, an ensemble of runs, or a package of either.

    hngtv predict model=RUN_DIR ct=FILE pet=FILE out=MASK.nii.gz
    hngtv predict model=PACKAGE cases=FOLDER_OR_CSV out=DIR
    hngtv predict model=PACKAGE dicom=FOLDER out=DIR formats=nifti,rtstruct,seg,pdf

A patient without a PET is predicted by a run that was trained for that: with augment.pet_dropout, or on CT alone
(fusion=ct_only in all stages). Its PET counts as SUV 0, with a warning; other runs refuse.

With attention=true the alphas of the gates are written too, as MASK_gate2.nii.gz and so on: values in [0, 1] on the
CT's grid, to be laid over it.

With dicom=, the patients of a folder in any order are converted (docs/dicom.md) and predicted into out/CASE/:
mask.nii.gz, and of formats=rtstruct,seg,pdf rtstruct.dcm, seg.dcm and report.pdf; the first two refer to the CT series.
With cases= or ct= and pet=, the page lies beside the mask as MASK_report.pdf. probability=true writes the probability
of tumour beside the mask too; uncertainty=true its entropy in bits, and where the model is an ensemble the standard
deviation over its networks. An ensemble (hngtv ensemble) also says which patients a person should look at first.

The mask has the CT's grid, orientation and header (0 background, 1 GTVp, 2 GTVn); beside it lies a JSON with timings,
the region of interest and the model's digest. With cases=, out/ also gets rois.csv, and cases that are already
predicted by this model are skipped, but not with attention=true. A PET in Bq/mL needs a cases.csv with its factor.

Exit status: 0 done, 1 some cases could not be predicted (listed), 2 bad settings or input.
"""

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from hngtv.config import PredictSettings
from hngtv.errors import CasesFailedError, InputError
from hngtv.run_folder import RunFolder, make_folder

if TYPE_CHECKING:
    from hngtv.delivery import Job
    from hngtv.localise.roi_table import Roi
    from hngtv.model import Model
    from hngtv.two_stage import Prediction

CONVERTED = "_converted"
"""Folder below out for DICOM as NIfTI; no case id begins like this."""

log = logging.getLogger(__name__)


def run(settings: PredictSettings) -> None:
    """Predict one case or many; see the module docstring."""
    import torch

    from hngtv.commands.log import logging_to
    from hngtv.export.package import open_model
    from hngtv.segmentation import check_has_gates

    if settings.n_threads:
        torch.set_num_threads(settings.n_threads)
    with logging_to():
        if settings.ct is not None:
            _check_output(settings.out)
        else:
            make_folder(settings.out)
        model = open_model(settings.model)
        if settings.attention:
            check_has_gates(model)
        if settings.ct is not None:
            _predict_one(model, settings)
        else:
            _predict_many(model, settings)


def _check_output(out: Path) -> None:
    from hngtv.volume.nifti import SUFFIXES, has_nifti_name

    if not has_nifti_name(out):
        raise InputError(f"out is {out}; expected a file name that ends in {' or '.join(SUFFIXES)}")
    make_folder(out.parent)


def _predict_one(model: "Model", settings: PredictSettings) -> None:
    from hngtv.cases.manifest import RawCase
    from hngtv.delivery import Job
    from hngtv.two_stage import attention_paths

    assert settings.ct is not None
    started = time.perf_counter()
    case = RawCase(settings.out.name.removesuffix(".gz").removesuffix(".nii"), "", settings.ct, settings.pet, None)
    job = Job(case, settings.out)
    prediction = _predict(model, job, settings)
    files = _write_formats(model, job, prediction.roi, settings)
    n_voxels = int((prediction.labels > 0).sum())
    log.info("%d tumour voxels, %.1f s from files to file", n_voxels, time.perf_counter() - started)
    print(settings.out, *attention_paths(settings.out, prediction), *files, sep="\n")


def _predict_many(model: "Model", settings: PredictSettings) -> None:
    from hngtv.localise.roi_table import read_rois, write_rois
    from hngtv.two_stage import drop_prediction

    table = settings.out / RunFolder(settings.out).rois.name
    rois = {roi.case_id: roi for roi in read_rois(table)} if table.is_file() else {}
    jobs, n_failed = _find_jobs(model, settings)
    n_cases = len(jobs) + n_failed
    for number, job in enumerate(jobs, start=1):
        case_id = job.case.case_id
        try:
            if case_id in rois and _is_done(model, job, settings):
                _write_formats(model, job, rois[case_id], settings)
                log.info("%d/%d %s: already predicted", number, len(jobs), case_id)
                continue
            try:
                prediction = _predict(model, job, settings)
            except InputError:
                drop_prediction(job.mask)
                raise
            rois[case_id] = prediction.roi
            write_rois(table, rois.values())
            _write_formats(model, job, prediction.roi, settings)
            log.info("%d/%d %s: %.1f s", number, len(jobs), case_id, sum(prediction.seconds.values()))
        except InputError as error:
            n_failed += 1
            log.error("%s", error)
    print(settings.out)
    if n_failed:
        raise CasesFailedError(f"{n_failed} of {n_cases} case(s) failed, each named above; the others are predicted")


def _find_jobs(model: "Model", settings: PredictSettings) -> "tuple[list[Job], int]":
    """The patients to predict, and how many cannot be, each of which has been named."""
    from hngtv.cases.manifest import FolderLayout, load_cases
    from hngtv.delivery import Job

    if settings.cases is not None:
        cases = load_cases(settings.cases, FolderLayout.of(model.settings.data))
        return [Job(case, settings.out / f"{case.case_id}.nii.gz") for case in cases], 0
    from hngtv.cases.dicom import convert_scans
    from hngtv.cases.dicom.names import DicomChoices
    from hngtv.commands.log import tell

    assert settings.dicom is not None
    choices = DicomChoices(hide_ids=settings.hide_ids, without_outlines=True)
    converted, findings = convert_scans(settings.dicom, settings.out / CONVERTED, choices)
    for finding in findings:
        tell(finding)
    n_failed = sum(finding.severity == "error" for finding in findings)
    return [Job(one.case, settings.out / one.case.case_id / "mask.nii.gz", one) for one in converted], n_failed


def _predict(model: "Model", job: "Job", settings: PredictSettings) -> "Prediction":
    """Predict one patient and write mask and maps, in place of all that was made before."""
    from hngtv.delivery import drop_files, write_maps
    from hngtv.two_stage import predict_case, write_prediction

    drop_files(job)
    prediction = predict_case(model, job.case, settings.attention, _maps(model, settings))
    make_folder(job.mask.parent)
    write_prediction(job.mask, prediction, job.case, model)
    write_maps(job, prediction.maps)
    if prediction.roi.is_fallback:
        log.warning("%s: %s; look at this mask before use", prediction.roi.case_id, prediction.roi.reason)
    elif prediction.review:
        log.warning("%s: please review: %s", prediction.roi.case_id, prediction.review)
    return prediction


def _maps(model: "Model", settings: PredictSettings) -> list[str]:
    """Names of the maps to write; a single network has no disagreement."""
    uncertainty = ["entropy", *(["disagreement"] if len(model.fine) > 1 else [])]
    return [*(["probability"] if settings.probability else []), *(uncertainty if settings.uncertainty else [])]


def _is_done(model: "Model", job: "Job", settings: PredictSettings) -> bool:
    from hngtv.delivery import MAP_FILES, is_whole
    from hngtv.two_stage import is_predicted

    if settings.attention or not is_predicted(job.mask, job.case, model):
        return False
    return all(is_whole(job, MAP_FILES[name]) for name in _maps(model, settings))


def _write_formats(model: "Model", job: "Job", roi: "Roi", settings: PredictSettings) -> list[Path]:
    from hngtv.delivery import write_formats

    return write_formats(job, model, roi, settings.formats, settings.probability)
