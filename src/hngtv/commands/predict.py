"""Outline the tumour of new patients with a finished run, or with the package that hngtv export made of one.

    hngtv predict model=RUN_DIR ct=FILE pet=FILE out=MASK.nii.gz
    hngtv predict model=PACKAGE cases=FOLDER_OR_CSV out=DIR

A patient without a PET is predicted by a run that was trained for that: with augment.pet_dropout, or on CT alone
(fusion=ct_only in all stages). Its PET counts as SUV 0, with a warning; other runs refuse.

With attention=true the alphas of the gates are written too, as MASK_gate2.nii.gz and so on: values in [0, 1] on the
CT's grid, to be laid over it.

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
    from hngtv.localise.roi_table import Roi
    from hngtv.two_stage import Model

log = logging.getLogger(__name__)


def run(settings: PredictSettings) -> None:
    """Predict one case or many; see the module docstring."""
    import torch

    from hngtv.commands.log import logging_to
    from hngtv.export.package import open_model
    from hngtv.two_stage import check_has_gates

    if settings.n_threads:
        torch.set_num_threads(settings.n_threads)
    with logging_to():
        if settings.cases is None:
            _check_output(settings.out)
        else:
            make_folder(settings.out)
        model = open_model(settings.model)
        if settings.attention:
            check_has_gates(model)
        if settings.cases is None:
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
    from hngtv.two_stage import attention_paths, predict_case, write_prediction

    assert settings.ct is not None
    started = time.perf_counter()
    case = RawCase(settings.out.name.removesuffix(".gz").removesuffix(".nii"), "", settings.ct, settings.pet, None)
    prediction = predict_case(model, case, settings.attention)
    write_prediction(settings.out, prediction, case, model)
    maps = attention_paths(settings.out, prediction)
    _warn_of_fallback(prediction.roi)
    n_voxels = int((prediction.labels > 0).sum())
    log.info("%d tumour voxels, %.1f s from files to file", n_voxels, time.perf_counter() - started)
    print(*[settings.out, *maps], sep="\n")


def _predict_many(model: "Model", settings: PredictSettings) -> None:
    from hngtv.cases.manifest import load_cases
    from hngtv.localise.roi_table import read_rois, write_rois
    from hngtv.two_stage import drop_prediction, is_predicted, predict_case, write_prediction

    assert settings.cases is not None
    table = settings.out / RunFolder(settings.out).rois.name
    rois = {roi.case_id: roi for roi in read_rois(table)} if table.is_file() else {}
    n_failed = 0
    cases = load_cases(settings.cases, _layout_of_training(model))
    for number, case in enumerate(cases, start=1):
        path = settings.out / f"{case.case_id}.nii.gz"
        if case.case_id in rois and not settings.attention and is_predicted(path, case, model):
            log.info("%d/%d %s: already predicted", number, len(cases), case.case_id)
            continue
        try:
            prediction = predict_case(model, case, settings.attention)
        except InputError as error:
            drop_prediction(path)
            n_failed += 1
            log.error("%s", error)
            continue
        write_prediction(path, prediction, case, model)
        rois[case.case_id] = prediction.roi
        write_rois(table, rois.values())
        _warn_of_fallback(prediction.roi)
        log.info("%d/%d %s: %.1f s", number, len(cases), case.case_id, sum(prediction.seconds.values()))
    print(settings.out)
    if n_failed:
        raise CasesFailedError(f"{n_failed} of {len(cases)} case(s) failed, each named above; the others are predicted")


def _layout_of_training(model: "Model"):
    from hngtv.commands.run import layout_of

    return layout_of(model.settings.data)


def _warn_of_fallback(roi: "Roi") -> None:
    if roi.is_fallback:
        log.warning("%s: %s; look at this mask before use", roi.case_id, roi.reason)
