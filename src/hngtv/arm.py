"""Walk one arm from prepared cases to predictions; every station is a file or folder, skipped where it is finished."""

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from filelock import FileLock

from hngtv.cases.folds import load_or_make_folds, make_folds
from hngtv.cases.prepare import Volume
from hngtv.cases.store import PreparedCase
from hngtv.config import (
    BudgetSettings,
    CoarseLocaliser,
    OracleLocaliser,
    RoiSettings,
    RunSettings,
    WholeLocaliser,
    plain,
)
from hngtv.errors import InputError
from hngtv.localise.coarse_net import find_box
from hngtv.localise.roi_table import Roi, read_rois, write_rois
from hngtv.localise.rules import covered_fraction
from hngtv.networks.build import build_network
from hngtv.run_folder import RunFolder, atomic_path, make_folder, read_json, sha256_of
from hngtv.training.coarse import CoarseLocalisationModule
from hngtv.training.fine import FineSegmentationModule
from hngtv.training.logger import RunLogger
from hngtv.training.roi_data import CropRules, TrainingCrops
from hngtv.training.trainer import StageFolder, StagePlan, train_stage
from hngtv.two_stage import (
    N_CHANNELS,
    Model,
    coarse_probability,
    load_model,
    load_weights,
    predict_case,
    write_prediction,
)
from hngtv.volume.box import Box

COARSE_ROI = {"margin_mm": 0.0, "jitter_mm": 0.0, "foreground_share": 0.5}
"""Stage 1 is cropped, if at all, anywhere in the image, half of the time around tumour. Source: our choice."""
ORACLE = "oracle"

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
    """Training and test cases of the run's fold; `fold=all` trains on every case of the training split with a target.

    Raises:
        InputError: Too few cases with a target, or folds written for other cases.
    """
    usable = [case for case in cases if case.has_target and case.split == "train"]
    if settings.fold == "all":
        if not usable:
            raise InputError("no case has a target, so there is nothing to train on")
        return Split(usable, [case for case in cases if case.split == "test"])
    data = settings.data
    folds = load_or_make_folds(
        folder.folds,
        [(case.case_id, case.centre) for case in usable],
        data.n_folds,
        data.fold_seed,
        data.group_by_centre,
    )
    test = [case for case in usable if folds[case.case_id] == settings.fold]
    return Split([case for case in usable if folds[case.case_id] != settings.fold], test)


def train_arm(split: Split, settings: RunSettings, folder: RunFolder, logger: RunLogger) -> None:
    """Train all stages of an arm within its budget and write the boxes of its training cases to `rois.csv`."""
    rois, used_s = _rois_of_training_cases(split, settings, folder, logger)
    boxes = {roi.case_id: roi.box for roi in rois}
    earlier = read_rois(folder.rois) if folder.rois.is_file() else []
    write_rois(folder.rois, [*rois, *(roi for roi in earlier if roi.case_id not in boxes)])
    plan = StagePlan(
        label="fine",
        key=sha256_of(
            [
                _training_key(split, settings),
                plain(settings.network),
                plain(settings.roi),
                _plain_boxes(boxes),
            ]
        ),
        build_module=lambda steps: FineSegmentationModule(
            plain(settings.network),
            plain(settings.loss),
            plain(settings.optimiser),
            N_CHANNELS,
            split.n_classes,
            steps,
        ),
        build_crops=lambda n: TrainingCrops(split.train, boxes, _fine_rules(settings), settings.seed, n),
        budget=_fine_budget(settings, used_s),
        optimiser=settings.optimiser,
        trainer=settings.trainer,
        seed=settings.seed,
    )
    train_stage(StageFolder(folder.fine), plan, logger)


def predict_and_locate(split: Split, settings: RunSettings, folder: RunFolder) -> list[str]:
    """Predict the test cases, add their boxes to `rois.csv`, and return one line for each case that failed."""
    if not split.test:
        return []
    model = load_model(folder.root)
    _set_threads(settings)
    rois = {roi.case_id: roi for roi in read_rois(folder.rois)}
    failures = []
    for case in split.test:
        if case.case_id in rois and _is_predicted(folder, case.case_id, model):
            continue
        try:
            prediction = predict_case(model, case.raw)
            write_prediction(folder.prediction(case.case_id), prediction, case.raw, model)
        except InputError as error:
            failures.append(str(error))
            log.error("%s", error)
            continue
        rois[case.case_id] = prediction.roi
        write_rois(folder.rois, rois.values())
        log.info("%s: predicted in %.1f s", case.case_id, sum(prediction.seconds.values()))
    return failures


def _set_threads(settings: RunSettings) -> None:
    import torch

    if settings.trainer.n_threads:
        torch.set_num_threads(settings.trainer.n_threads)


def _is_predicted(folder: RunFolder, case_id: str, model: Model) -> bool:
    """Whether the prediction in the folder was made by these very weights."""
    note = folder.predictions / f"{case_id}.json"
    return folder.prediction(case_id).is_file() and note.is_file() and read_json(note)["model"] == model.digest


def _training_key(split: Split, settings: RunSettings) -> str:
    """Digest of what both stages depend on: the training cases, the intensities, the training settings."""
    shared = [
        settings.intensity,
        settings.augment,
        settings.loss,
        settings.optimiser,
        settings.budget,
        settings.trainer,
    ]
    return sha256_of([sorted(case.digest for case in split.train), settings.seed, *map(plain, shared)])


def _plain_boxes(boxes: Mapping[str, Box]) -> dict[str, list[float]]:
    return {case_id: [*box.lower_mm, *box.upper_mm] for case_id, box in sorted(boxes.items())}


def _fine_rules(settings: RunSettings) -> CropRules:
    return CropRules(
        "fine", settings.roi, settings.intensity, settings.augment, 2 ** (len(settings.network.widths) - 1)
    )


def _fine_budget(settings: RunSettings, used_s: float) -> BudgetSettings:
    """What stage 1 leaves of the arm's budget."""
    share = settings.localiser.budget_share if isinstance(settings.localiser, CoarseLocaliser) else 0.0
    if settings.budget.steps is not None:
        return BudgetSettings(steps=max(1, settings.budget.steps - round(settings.budget.steps * share)))
    assert settings.budget.cpu_s is not None
    return BudgetSettings(cpu_s=settings.budget.cpu_s - used_s)


def _rois_of_training_cases(
    split: Split, settings: RunSettings, folder: RunFolder, logger: RunLogger
) -> tuple[list[Roi], float]:
    """Boxes of the training cases, none from a model that saw the case, and the seconds spent on them."""
    match settings.localiser:
        case WholeLocaliser():
            return [
                Roi(case.case_id, "whole", "", case.grid("fine").bounds(), 1.0, 1.0, "found") for case in split.train
            ], 0.0
        case OracleLocaliser():
            return [_oracle_roi(case) for case in split.train], 0.0
        case CoarseLocaliser():
            station = CoarseStation(split, settings, settings.localiser)
            return station.walk(folder, logger)


def _oracle_roi(case: PreparedCase) -> Roi:
    box = case.target_box("fine")
    reason = "found" if box else "fallback:whole_volume (empty target)"
    return Roi(case.case_id, ORACLE, "", box or case.grid("fine").bounds(), 1.0, 1.0 if box else None, reason)


@dataclass(frozen=True)
class CoarseStation:
    """Stage 1 of a fold: inner models, each blind to its inner fold, and out-of-fold boxes.

    It lies in the work folder under the digest of all it depends on, so that arms that share it train it once; a copy
    of its weights and curves goes into each run folder.
    """

    split: Split
    settings: RunSettings
    localiser: CoarseLocaliser

    @property
    def key(self) -> str:
        fold_of_grid = [self.settings.data.coarse_spacing_mm, self.settings.roi.margin_mm]
        return sha256_of([_training_key(self.split, self.settings), plain(self.localiser), fold_of_grid])[:16]

    def walk(self, folder: RunFolder, logger: RunLogger) -> tuple[list[Roi], float]:
        root = make_folder(self.settings.work_dir / "coarse") / self.key
        with FileLock(root.with_suffix(".lock")):
            inner_folds = self._inner_folds()
            rois: list[Roi] = []
            used_s = 0.0
            for inner in range(self.localiser.n_inner_folds):
                stage = StageFolder(root / f"inner_{inner}")
                used_s += train_stage(stage, self._plan(inner, inner_folds), logger)["cpu_s"]
                _copy_stage(stage, StageFolder(folder.coarse / f"inner_{inner}"))
            if (root / "rois.csv").is_file():
                rois = read_rois(root / "rois.csv")
            else:
                rois = self._locate(root, inner_folds)
                write_rois(root / "rois.csv", rois)
        _report_coverage(rois)
        return rois, used_s

    def _inner_folds(self) -> dict[str, int]:
        cases = [(case.case_id, case.centre) for case in self.split.train]
        return make_folds(cases, self.localiser.n_inner_folds, self.settings.data.fold_seed)

    def _plan(self, inner: int, inner_folds: Mapping[str, int]) -> StagePlan:
        settings, localiser = self.settings, self.localiser
        cases = [case for case in self.split.train if inner_folds[case.case_id] != inner]
        boxes = {case.case_id: case.grid("coarse").bounds() for case in cases}
        roi = RoiSettings(crop_voxels=localiser.crop_voxels, **COARSE_ROI)
        rules = CropRules("coarse", roi, settings.intensity, settings.augment, 2 ** (len(localiser.network.widths) - 1))
        seed = settings.seed + 1 + inner
        return StagePlan(
            label=f"coarse_{inner}",
            key=sha256_of([self.key, inner]),
            build_module=lambda steps: CoarseLocalisationModule(
                plain(localiser.network),
                plain(settings.loss),
                plain(settings.optimiser),
                N_CHANNELS,
                2,
                steps,
            ),
            build_crops=lambda n: TrainingCrops(cases, boxes, rules, seed, n),
            budget=_share_of(settings.budget, localiser.budget_share / localiser.n_inner_folds),
            optimiser=settings.optimiser,
            trainer=settings.trainer,
            seed=seed,
        )

    def _locate(self, root: Path, inner_folds: Mapping[str, int]) -> list[Roi]:
        networks = [
            load_weights(
                StageFolder(root / f"inner_{inner}").weights,
                build_network(self.localiser.network, N_CHANNELS, 2),
            )
            for inner in range(self.localiser.n_inner_folds)
        ]
        rois = []
        for case in self.split.train:
            inner = inner_folds[case.case_id]
            (ct, pet), target = case.read_whole("coarse")
            grid = case.grid("coarse")
            probability = coarse_probability((networks[inner],), Volume(ct, pet, grid), self.settings)
            finding = find_box(probability, pet, grid, self.localiser, case.case_id)
            covered = covered_fraction(target, grid, finding.box.expand(self.settings.roi.margin_mm))
            rois.append(
                Roi(
                    case.case_id,
                    "coarse",
                    str(inner),
                    finding.box,
                    finding.confidence,
                    covered,
                    finding.reason,
                )
            )
        return rois


def _share_of(budget: BudgetSettings, share: float) -> BudgetSettings:
    if budget.steps is not None:
        return replace(budget, steps=max(1, round(budget.steps * share)))
    assert budget.cpu_s is not None
    return replace(budget, cpu_s=budget.cpu_s * share)


def _copy_stage(source: StageFolder, destination: StageFolder) -> None:
    if destination.record.is_file() and read_json(destination.record) == read_json(source.record):
        return
    for file in (source.weights, source.curves, source.record):
        with atomic_path(destination.root / file.name) as temporary:
            shutil.copyfile(file, temporary)


def _report_coverage(rois: Sequence[Roi]) -> None:
    """One line in the log: how much of the truth the boxes hold, and how large they are."""
    covered = [roi.covered_fraction for roi in rois if roi.covered_fraction is not None]
    n_fallbacks = sum(roi.reason != "found" for roi in rois)
    if covered:
        log.info(
            "out-of-fold boxes with margin hold %.1f %% of the target on average (worst case %.1f %%); "
            "mean box %.0f ml before the margin; %d of %d by fallback",
            100 * float(np.mean(covered)), 100 * min(covered), float(np.mean([r.box.volume_ml for r in rois])),
            n_fallbacks, len(rois),
        )  # fmt: skip
