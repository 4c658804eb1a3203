"""`hngtv predict` of one patient: mask, maps and further formats."""

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from hngtv.config import PredictSettings
from hngtv.run_folder import make_folder

if TYPE_CHECKING:
    from hngtv.delivery import Job
    from hngtv.localise.roi_table import Roi
    from hngtv.model import Model
    from hngtv.two_stage import Prediction

log = logging.getLogger(__name__)


def predict_one(model: "Model", settings: PredictSettings) -> None:
    from hngtv.cases.manifest import RawCase
    from hngtv.delivery import Job
    from hngtv.two_stage import attention_paths

    assert settings.ct is not None
    started = time.perf_counter()
    case = RawCase(settings.out.name.removesuffix(".gz").removesuffix(".nii"), "", settings.ct, settings.pet, None)
    job = Job(case, settings.out)
    prediction = predict(model, job, settings)
    files = write_formats_of(model, job, prediction.roi, settings)
    n_voxels = int((prediction.labels > 0).sum())
    log.info("%d tumour voxels, %.1f s from files to file", n_voxels, time.perf_counter() - started)
    print(settings.out, *attention_paths(settings.out, prediction), *files, sep="\n")


def predict(model: "Model", job: "Job", settings: PredictSettings) -> "Prediction":
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


def is_done(model: "Model", job: "Job", settings: PredictSettings) -> bool:
    from hngtv.delivery import MAP_FILES, is_whole
    from hngtv.two_stage import is_predicted

    if settings.attention or not is_predicted(job.mask, job.case, model):
        return False
    return all(is_whole(job, MAP_FILES[name]) for name in _maps(model, settings))


def write_formats_of(model: "Model", job: "Job", roi: "Roi", settings: PredictSettings) -> list[Path]:
    from hngtv.delivery import write_formats

    return write_formats(job, model, roi, settings.formats, settings.probability)
