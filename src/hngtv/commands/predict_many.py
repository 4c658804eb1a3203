"""`hngtv predict` of many patients: side by side in a few processes, each with one of them in memory."""

import logging
import multiprocessing
import os
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from hngtv.commands.predict_one import is_done, predict, write_formats_of
from hngtv.config import PredictSettings
from hngtv.errors import CasesFailedError, InputError
from hngtv.run_folder import RunFolder, read_json

if TYPE_CHECKING:
    from hngtv.delivery import Job
    from hngtv.localise.roi_table import Roi
    from hngtv.model import Model

CONVERTED = "_converted"
"""Folder below out for DICOM as NIfTI; no case id begins like this."""
MIN_CASES_A_WORKER = 2
"""A process that is started for fewer costs more than it saves. Source: our choice."""

log = logging.getLogger(__name__)


def predict_many(model: "Model", settings: PredictSettings) -> None:
    from hngtv.cases.processes import map_cases
    from hngtv.localise.roi_table import read_rois, write_rois

    table = settings.out / RunFolder(settings.out).rois.name
    rois = {roi.case_id: roi for roi in read_rois(table)} if table.is_file() else {}
    jobs, n_failed = _find_jobs(model, settings)
    n_cases = len(jobs) + n_failed
    n_workers = min(settings.n_workers, len(jobs) // MIN_CASES_A_WORKER)
    side_by_side = replace(settings, n_workers=n_workers) if n_workers > 1 else settings
    tasks = [_Task(job, rois.get(job.case.case_id), side_by_side) for job in jobs]
    for number, (task, done) in enumerate(map_cases(_work, tasks, n_workers, _killed, "predicting"), start=1):
        case_id = task.job.case.case_id
        for level, line in done.lines:
            log.log(level, "%s", line)
        if done.roi is None:
            n_failed += 1
            log.error("%s", done.error)
            continue
        took = "already predicted" if done.seconds is None else f"{done.seconds:.1f} s"
        log.info("%d/%d %s: %s", number, len(jobs), case_id, took)
        if done.seconds is not None:
            rois[case_id] = done.roi
            write_rois(table, rois.values())
        if done.error:  # the mask is there, a format is not
            n_failed += 1
            log.error("%s", done.error)
    print(settings.out)
    if n_failed:
        raise CasesFailedError(f"{n_failed} of {n_cases} case(s) failed, each named above; the others are predicted")


@dataclass(frozen=True)
class _Task:
    """One patient of many.

    Attributes:
        job: Its files.
        roi: Where an earlier command looked for the tumour; None if none did.
        settings: Of the command.
    """

    job: "Job"
    roi: "Roi | None"
    settings: PredictSettings


@dataclass(frozen=True)
class _Done:
    """What became of a patient.

    Attributes:
        roi: None if nothing was predicted.
        seconds: None if it was predicted already.
        error: What went wrong; "" for nothing.
        lines: What a worker process logged, level and text.
    """

    roi: "Roi | None" = None
    seconds: float | None = None
    error: str = ""
    lines: tuple[tuple[int, str], ...] = ()


def _work(task: _Task) -> _Done:
    """Predict one patient and write all that is asked for, here or in a worker process."""
    if multiprocessing.parent_process() is None:
        return _predict_task(task)
    package, kept = logging.getLogger("hngtv"), _Kept()
    package.setLevel(logging.INFO)
    package.addHandler(kept)
    try:
        return replace(_predict_task(task), lines=tuple(kept.lines))
    finally:
        package.removeHandler(kept)


class _Kept(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.levelno, record.getMessage()))


def _predict_task(task: _Task) -> _Done:
    from hngtv.two_stage import drop_prediction, note_path

    job, roi, settings = task.job, task.roi, task.settings
    model, seconds = open_once(settings), None
    try:
        if roi is None or not is_done(model, job, settings):
            roi = None
            try:
                prediction = predict(model, job, settings)
            except InputError:
                drop_prediction(job.mask)
                raise
            roi, seconds = prediction.roi, sum(prediction.seconds.values())
        elif review := read_json(note_path(job.mask)).get("review"):
            log.warning("%s: please review: %s", job.case.case_id, review)
        write_formats_of(model, job, roi, settings)
    except InputError as error:
        return _Done(roi, seconds, str(error))
    return _Done(roi, seconds)


def _killed(task: _Task) -> _Done:
    return _Done(
        error=f"case {task.job.case.case_id}: a worker process was killed, most likely for lack of memory; "
        "give n_workers=1"
    )


@cache
def open_once(settings: PredictSettings) -> "Model":
    """The model, once for each process, and the processors that it may use."""
    import torch

    from hngtv.export.package import open_model

    n_threads = settings.n_threads
    if not n_threads and multiprocessing.parent_process() is not None:
        n_threads = max(1, (os.cpu_count() or 1) // max(1, settings.n_workers))
    if n_threads:
        torch.set_num_threads(n_threads)
    return open_model(settings.model)


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
