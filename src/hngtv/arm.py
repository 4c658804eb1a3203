"""Walk one arm from prepared cases to predictions; every station is a file or folder, skipped where it is finished."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from hngtv.cases.folds import load_or_make_folds, make_folds, thin
from hngtv.cases.prepare import Volume
from hngtv.cases.store import PreparedCase
from hngtv.config import (
    BudgetSettings,
    RoiSettings,
    RunSettings,
    TrainedLocaliser,
    UntrainedLocaliser,
    plain,
)
from hngtv.errors import InputError
from hngtv.localise.roi_policy import matched_jitter_mm, place_rois, widen
from hngtv.localise.roi_table import Roi, read_rois, write_rois
from hngtv.localise.rules import find_untrained
from hngtv.localise.truth import covered_fraction
from hngtv.metrics.calibration import read_calibration, write_calibration
from hngtv.model import load_model
from hngtv.out_of_fold import CoarseStation, Used, training_key
from hngtv.run_folder import RunFolder, atomic_path, sha256_of
from hngtv.training.attention_history import watch
from hngtv.training.fine import FineSegmentationModule
from hngtv.training.logger import RunLogger
from hngtv.training.roi_data import CropRules, TrainingCrops, crop_size
from hngtv.training.trainer import StageFolder, StagePlan, train_stage
from hngtv.training.validation import Milestones, Validation
from hngtv.two_stage import drop_prediction, is_predicted, predict_case, write_prediction

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """Cases of one fold: `train` never meets `test`."""

    train: list[PreparedCase]
    test: list[PreparedCase]

    @property
    def n_classes(self) -> int:
        """Background, GTVp and, if any training case has it, GTVn."""
        return 3 if any(case.target_ml[1] > 0 for case in self.train) else 2


def split_cases(cases: Sequence[PreparedCase], settings: RunSettings, folder: RunFolder) -> Split:
    """Training and test cases of the run's fold; `fold=all` trains on every case of the training split with a target,
    or on the share `data.train_share` of them.

    Raises:
        InputError: Too few cases with a target, or folds written for other cases.
    """
    usable = [case for case in cases if case.has_target and case.split == "train"]
    if settings.fold == "all":
        if not usable:
            raise InputError("no case has a target, so there is nothing to train on")
        return Split(_thinned(usable, settings), [case for case in cases if case.split == "test"])
    data = settings.data
    identities = [(case.case_id, case.centre) for case in usable]
    folds = load_or_make_folds(folder.folds, identities, data.n_folds, data.fold_seed, data.group_by_centre)
    test = [case for case in usable if folds[case.case_id] == settings.fold]
    return Split(_thinned([case for case in usable if folds[case.case_id] != settings.fold], settings), test)


def validation_split(split: Split, settings: RunSettings, n_folds: int) -> Split:
    """The training cases alone, split anew: one part of `n_folds` is looked at while settings are chosen.

    Raises:
        InputError: Too few training cases.
    """
    data, identities = settings.data, [(case.case_id, case.centre) for case in split.train]
    by_centre = data.group_by_centre and len({case.centre for case in split.train}) >= n_folds
    folds = make_folds(identities, n_folds, data.fold_seed, by_centre, setting="n_validation_folds")
    held_out = [case for case in split.train if folds[case.case_id] == 0]
    return Split([case for case in split.train if folds[case.case_id] != 0], held_out)


def _thinned(cases: list[PreparedCase], settings: RunSettings) -> list[PreparedCase]:
    """The share of the training cases that the run learns from."""
    kept = thin([case.case_id for case in cases], settings.data.train_share, settings.data.fold_seed)
    return [case for case in cases if case.case_id in kept]


def train_arm(
    split: Split,
    settings: RunSettings,
    folder: RunFolder,
    logger: RunLogger,
    milestones: Milestones | None = None,
) -> None:
    """Train all stages of an arm within its budget and write the boxes of its training cases to `rois.csv`.

    With milestones, the fine stage reports its Dice on the test cases on the way; they are then validation cases.
    """
    rois, used = _rois_of_training_cases(split, settings, folder, logger)
    boxes = {roi.case_id: roi.boxes for roi in rois}
    earlier = read_rois(folder.rois) if folder.rois.is_file() else []
    write_rois(folder.rois, [*rois, *(roi for roi in earlier if roi.case_id not in boxes)])
    jitter_mm = _jitter_mm(split.train, rois, settings.roi)
    stride = settings.network.total_stride
    rules = CropRules("fine", settings.roi, settings.intensity, settings.augment, stride, jitter_mm)
    corners = {case_id: [[*box.lower_mm, *box.upper_mm] for box in found] for case_id, found in boxes.items()}
    own = [plain(settings.network), plain(settings.roi), settings.data.spacing_mm, corners]
    size = crop_size(split.train, boxes, rules)
    plan = StagePlan(
        label="fine",
        key=sha256_of([training_key(split.train, settings), *own]),
        build_module=lambda steps: FineSegmentationModule(
            plain(settings.network),
            plain(settings.loss),
            plain(settings.optimiser),
            in_channels=settings.intensity.n_channels,
            out_channels=split.n_classes,
            total_steps=steps,
        ),
        build_crops=lambda n: TrainingCrops(split.train, boxes, rules, settings.seed, n),
        budget=_what_is_left(settings.budget, used),
        optimiser=settings.optimiser,
        trainer=settings.trainer,
        seed=settings.seed,
        watched=watch(split.train, size, settings.intensity),
        validation=_validation(split, size, settings, milestones) if milestones else None,
    )
    stage = StageFolder(folder.fine)
    train_stage(stage, plan, logger)
    if stage.attention.is_file() and _is_older(folder.attention, stage.attention):
        _draw_attention(stage.attention, folder.attention)


def _validation(split: Split, size: Sequence[int], settings: RunSettings, milestones: Milestones) -> Validation:
    crops = [crop for case in split.test if (crop := watch([case], size, settings.intensity)) is not None]
    return Validation(crops, settings.inference.threshold, milestones)


def _is_older(file: Path, source: Path) -> bool:
    return not file.is_file() or file.stat().st_mtime_ns < source.stat().st_mtime_ns


def _draw_attention(history: Path, picture: Path) -> None:
    from hngtv.report.attention import draw_history, load_history
    from hngtv.report.figures import encode

    with atomic_path(picture) as temporary:
        temporary.write_bytes(encode(draw_history(load_history(history)), "png"))


def predict_and_locate(split: Split, settings: RunSettings, folder: RunFolder) -> list[str]:
    """Predict the test cases, add their boxes to `rois.csv` and their counts to `calibration.csv`.

    Returns one line for each case that failed.
    """
    if not split.test:
        return []
    model = load_model(folder.root)
    if settings.trainer.n_threads:
        torch.set_num_threads(settings.trainer.n_threads)
    rois = {roi.case_id: roi for roi in read_rois(folder.rois)}
    calibration = read_calibration(folder.calibration) if folder.calibration.is_file() else {}
    failures = []
    for case in split.test:
        path = folder.prediction(case.case_id)
        if case.case_id in rois and is_predicted(path, case.raw, model):
            continue
        try:
            prediction = predict_case(model, case.raw)
            if prediction.against_truth is not None:  # before the mask, since a case with a mask is not predicted again
                calibration[case.case_id] = prediction.against_truth.calibration
                write_calibration(folder.calibration, calibration)
            write_prediction(path, prediction, case.raw, model)
        except InputError as error:
            drop_prediction(path)
            failures.append(str(error))
            log.error("%s", error)
            continue
        rois[case.case_id] = prediction.roi
        write_rois(folder.rois, rois.values())
        log.info("%s: predicted in %.1f s", case.case_id, sum(prediction.seconds.values()))
    return failures


def _what_is_left(budget: BudgetSettings, used: Used) -> BudgetSettings:
    """The fine stage's part of the arm's budget.

    Raises:
        InputError: Stage 1 has used it up.
    """
    if budget.steps is not None:
        left = BudgetSettings(steps=budget.steps - used.steps) if budget.steps > used.steps else None
    else:
        assert budget.cpu_s is not None
        left = BudgetSettings(cpu_s=budget.cpu_s - used.cpu_s) if budget.cpu_s > used.cpu_s else None
    if left is None:
        raise InputError(
            f"stage 1 took {used.steps} steps and {used.cpu_s:.0f} s, all of the budget; "
            "raise budget.steps or budget.cpu_s"
        )
    return left


def _jitter_mm(cases: Sequence[PreparedCase], rois: Sequence[Roi], settings: RoiSettings) -> float:
    """As set, or as wide as the localiser errs on the training cases, which it never saw."""
    if settings.jitter_mm != "matched":
        return settings.jitter_mm
    true = {case.case_id: box for case in cases if (box := case.target_box("fine")) is not None}
    pairs = [(roi.box, true[roi.case_id]) for roi in rois if roi.case_id in true and not roi.is_fallback]
    jitter_mm = matched_jitter_mm(pairs)
    log.info("jitter of up to %.1f mm, matched to the centres of %d boxes", jitter_mm, len(pairs))
    return jitter_mm


def _rois_of_training_cases(
    split: Split, settings: RunSettings, folder: RunFolder, logger: RunLogger
) -> tuple[list[Roi], Used]:
    """Boxes of the training cases, none from a model that saw the case, and what they took from the budget."""
    if isinstance(settings.localiser, TrainedLocaliser):
        return CoarseStation(split.train, settings, settings.localiser).walk(folder, logger)
    return [_untrained_roi(case, settings.localiser, settings.roi) for case in split.train], Used()


def _untrained_roi(case: PreparedCase, localiser: UntrainedLocaliser, roi: RoiSettings) -> Roi:
    """The ROI of a case from a localiser that learns nothing."""
    (ct, pet), target = case.read_whole("fine")
    grid = case.grid("fine")
    image = grid.bounds()
    finding = find_untrained(
        localiser, image, lambda: case.target_box("fine"), lambda: Volume(ct, pet, grid), case.case_id
    )
    boxes = place_rois(finding.boxes, image, roi)
    covered = covered_fraction(target, grid, widen(boxes, roi))
    return Roi(case.case_id, localiser.name, "", boxes, finding.confidence, covered, finding.reason)
