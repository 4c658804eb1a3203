"""Stage 1 of a fold: inner models, each blind to its inner fold, and the boxes they give to cases they never saw."""

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from torch import nn

from hngtv.cases.folds import make_folds
from hngtv.cases.prepare import Volume
from hngtv.cases.store import GridSettings, PreparedCase
from hngtv.config import (
    BudgetSettings,
    CoarseLocaliser,
    HeatMapLocaliser,
    RoiSettings,
    RunSettings,
    SliceLocaliser,
    TrainedLocaliser,
    plain,
)
from hngtv.errors import InputError
from hngtv.localise.coarse_net import choose_threshold, mean_found
from hngtv.localise.finding import BOXES_VERSION
from hngtv.localise.roi_policy import place_rois, widen
from hngtv.localise.roi_table import Roi, read_rois, write_rois
from hngtv.localise.slices import SliceBoxScore, score_attention_boxes, write_slice_boxes
from hngtv.localise.truth import covered_fraction
from hngtv.model import build_localiser, load_weights
from hngtv.networks.heat_map import N_CHANNELS
from hngtv.networks.slices import build_classifier
from hngtv.networks.sononet import SonoNet
from hngtv.run_folder import RunFolder, atomic_path, make_folder, read_json, sha256_of, write_json
from hngtv.training.coarse import CoarseLocalisationModule
from hngtv.training.heat_map import HeatMapModule
from hngtv.training.logger import RunLogger
from hngtv.training.roi_data import CropRules, TrainingCrops
from hngtv.training.slice_classifier import SliceClassificationModule
from hngtv.training.slice_data import TrainingSlices
from hngtv.training.stage import StageModule
from hngtv.training.trainer import StageFolder, StagePlan, train_stage
from hngtv.two_stage import find_rois, slice_scores

FOREGROUND_SHARE = 0.5
"""Where stage 1 sees crops of the image, half of them hold tumour. Source: our choice."""

AFTER_TRAINING = frozenset(
    {
        "thresholds", "min_covered", "min_component_ml", "mass", "min_peak", "on_empty",  # coarse
        "window_mm", "max_peaks",  # heat map
        "smoothing_mm", "max_gap_mm", "slice_margin_mm", "top_k", "keep", "in_plane", "attention",  # slices
    }
)  # fmt: skip
"""Settings of localisers that only decide how boxes are made from what the networks say: a change trains nothing."""

TRAINING_VERSION = 5
"""Raised when the code of training changes its result: stages of earlier code are then trained anew."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Used:
    """What stage 1 took from the budget."""

    steps: int = 0
    cpu_s: float = 0.0


def training_key(cases: Sequence[PreparedCase], settings: RunSettings) -> str:
    """Digest of what every stage depends on: the training cases, the intensities, the training settings."""
    trainer = {**plain(settings.trainer), "n_workers": None, "checkpoint_every_s": None}
    if settings.trainer.n_processes == 1:  # as before there could be several
        del trainer["n_devices"], trainer["n_nodes"]
    shared = [settings.intensity, settings.augment, settings.loss, settings.optimiser, settings.budget]
    identities = sorted((case.case_id, case.centre, case.digest) for case in cases)
    return sha256_of([TRAINING_VERSION, identities, settings.seed, trainer, *map(plain, shared)])


@dataclass(frozen=True)
class CoarseStation:
    """Stage 1 of a fold.

    It lies in the work folder under the digest of all it depends on, so that arms that share it train it once; a copy
    of its weights and curves goes into each run folder.
    """

    cases: Sequence[PreparedCase]
    settings: RunSettings
    localiser: TrainedLocaliser

    @property
    def key(self) -> str:
        """Of the trained networks."""
        trained = {name: value for name, value in plain(self.localiser).items() if name not in AFTER_TRAINING}
        own = [trained, self.inner_folds, self._spacing_mm]
        return sha256_of([training_key(self.cases, self.settings), *own])[:16]

    @property
    def boxes_key(self) -> str:
        """Of the boxes that the networks give, as the ROI policy places them."""
        roi = self.settings.roi
        after = {name: value for name, value in plain(self.localiser).items() if name in AFTER_TRAINING}
        return sha256_of([BOXES_VERSION, after, roi.shape, roi.size_mm, roi.join_mm, roi.margin_mm])[:8]

    @property
    def _spacing_mm(self) -> tuple[float, float, float]:
        data = self.settings.data
        return GridSettings(data.spacing_mm, data.coarse_spacing_mm).spacing_of(self.localiser.level)

    @property
    def inner_folds(self) -> dict[str, int]:
        """Inner fold of each training case; by centre, as the outer folds, where there are centres enough."""
        identities = [(case.case_id, case.centre) for case in self.cases]
        n_folds, data = self.localiser.n_inner_folds, self.settings.data
        by_centre = data.group_by_centre and len({case.centre for case in self.cases}) >= n_folds
        return make_folds(identities, n_folds, data.fold_seed, by_centre, setting="localiser.n_inner_folds")

    def walk(self, folder: RunFolder, logger: RunLogger) -> tuple[list[Roi], Used]:
        """Train the inner models, or find them trained; a box for each training case, and what was used."""
        root = make_folder(self.settings.work_dir / "coarse") / self.key
        with _locked(root.with_suffix(".lock")):
            records = []
            for inner in range(self.localiser.n_inner_folds):
                name = f"inner_{inner}"
                for stage, plan in self._plans(inner, root / name):
                    records.append(train_stage(stage, plan, logger))
                    _copy_stage(stage, StageFolder(folder.coarse / stage.root.relative_to(root)))
            boxes = make_folder(root / f"boxes_{self.boxes_key}")
            table, chosen = boxes / folder.rois.name, boxes / folder.coarse_threshold.name
            if not table.is_file():
                networks = self._load_networks(root)
                if isinstance(self.localiser, SliceLocaliser) and self.localiser.network.gated:
                    write_slice_boxes(
                        boxes / folder.attention_boxes.name, self._score_attention(networks, self.localiser)
                    )
                rois = self._locate(networks)
                image_ml = {c.case_id: c.grid(self.localiser.level).bounds().volume_ml for c in self.cases}
                threshold = choose_threshold(rois, image_ml, self.localiser.min_covered)
                self._check_found(rois[threshold])
                held = {f"{tried:g}": round(mean_found(found, image_ml), 4) for tried, found in rois.items()}
                write_json(chosen, {"threshold": threshold, "covered": held})
                write_rois(table, rois[threshold])
            _copy_file(chosen, folder.coarse_threshold)
            if (boxes / folder.attention_boxes.name).is_file():
                _copy_file(boxes / folder.attention_boxes.name, folder.attention_boxes)
            rois = read_rois(table)
        _report_coverage(rois, read_json(folder.coarse_threshold)["threshold"])
        return rois, Used(sum(r["steps"] for r in records), sum(r["cpu_s"] for r in records))

    def _plans(self, inner: int, root: Path) -> list[tuple[StageFolder, StagePlan]]:
        """What is trained, in order, for an inner model; the last one lies in `root` itself."""
        inner_folds = self.inner_folds
        cases = [case for case in self.cases if inner_folds[case.case_id] != inner]
        match self.localiser:
            case CoarseLocaliser():
                return [(StageFolder(root), self._coarse_plan(self.localiser, cases, inner))]
            case HeatMapLocaliser():
                return [(StageFolder(root), self._heat_map_plan(self.localiser, cases, inner))]
            case SliceLocaliser():
                if not (self.localiser.network.gated and self.localiser.network.aggregation == "ft"):
                    return [(StageFolder(root), self._slice_plan(self.localiser, cases, inner))]
                heads = StageFolder(root / "heads")
                mean = replace(self.localiser.network, aggregation="mean")
                half = replace(self.localiser, budget_share=self.localiser.budget_share / 2)
                first = self._slice_plan(replace(half, network=mean), cases, inner, step="heads")
                return [(heads, first), (StageFolder(root), self._slice_plan(half, cases, inner, start=heads))]

    def _inner_seed(self, inner: int) -> int:
        return int(sha256_of([self.settings.seed, "coarse", inner])[:8], 16)

    def _slice_plan(
        self,
        localiser: SliceLocaliser,
        cases: Sequence[PreparedCase],
        inner: int,
        step: str = "",
        start: StageFolder | None = None,
    ) -> StagePlan:
        """Plan of a slice classifier; with `start`, of the second step of "ft" from the weights of the first."""
        settings, seed = self.settings, self._inner_seed(inner)
        optimiser = replace(settings.optimiser, batch_size=localiser.batch_size)
        n_channels = settings.intensity.n_channels

        def fine_tuned() -> SonoNet:
            assert start is not None
            mean = replace(localiser.network, aggregation="mean")
            return load_weights(start.weights, build_classifier(mean, n_channels, 2)).fine_tuned().train()

        return StagePlan(
            label="_".join(filter(None, ["slices", str(inner), step])),
            key=sha256_of([self.key, inner, step]),
            build_module=lambda steps: SliceClassificationModule(
                plain(localiser.network),
                plain(optimiser),
                in_channels=n_channels,
                out_channels=2,
                total_steps=steps,
                start_from=fine_tuned if start else None,
            ),
            build_crops=lambda n: TrainingSlices(cases, localiser, settings, seed, n),
            budget=_share_of(settings.budget, localiser.budget_share / localiser.n_inner_folds),
            optimiser=optimiser,
            trainer=settings.trainer,
            seed=seed,
        )

    def _coarse_plan(self, localiser: CoarseLocaliser, cases: Sequence[PreparedCase], inner: int) -> StagePlan:
        settings = self.settings
        return self._crop_plan(
            localiser,
            cases,
            inner,
            lambda steps: CoarseLocalisationModule(
                plain(localiser.network),
                plain(settings.loss),
                plain(settings.optimiser),
                in_channels=settings.intensity.n_channels,
                out_channels=2,
                total_steps=steps,
            ),
        )

    def _heat_map_plan(self, localiser: HeatMapLocaliser, cases: Sequence[PreparedCase], inner: int) -> StagePlan:
        settings = self.settings
        return self._crop_plan(
            localiser,
            cases,
            inner,
            lambda steps: HeatMapModule(
                plain(localiser.network),
                plain(settings.optimiser),
                in_channels=settings.intensity.n_channels,
                out_channels=N_CHANNELS,
                spacing_mm=list(settings.data.coarse_spacing_mm),
                sigma_mm=localiser.sigma_mm,
                extent_weight=localiser.extent_weight,
                total_steps=steps,
            ),
        )

    def _crop_plan(
        self,
        localiser: CoarseLocaliser | HeatMapLocaliser,
        cases: Sequence[PreparedCase],
        inner: int,
        build_module: Callable[[int], StageModule],
    ) -> StagePlan:
        """Plan of a network that sees crops of the whole field of view at coarse spacing."""
        settings = self.settings
        rois = {case.case_id: [case.grid("coarse").bounds()] for case in cases}
        roi = RoiSettings(
            shape="tight",
            size_mm=None,
            join_mm=None,
            margin_mm=0,
            jitter_mm=0,
            crop_voxels=localiser.crop_voxels,
            foreground_share=FOREGROUND_SHARE,
        )
        rules = CropRules("coarse", roi, settings.intensity, settings.augment, localiser.network.total_stride)
        seed = self._inner_seed(inner)
        return StagePlan(
            label=f"{localiser.name}_{inner}",
            key=sha256_of([self.key, inner]),
            build_module=build_module,
            build_crops=lambda n: TrainingCrops(cases, rois, rules, seed, n),
            budget=_share_of(settings.budget, localiser.budget_share / localiser.n_inner_folds),
            optimiser=settings.optimiser,
            trainer=settings.trainer,
            seed=seed,
        )

    def _load_networks(self, root: Path) -> list[nn.Module]:
        return [
            load_weights(
                StageFolder(root / f"inner_{inner}").weights,
                build_localiser(self.localiser, self.settings.intensity.n_channels),
            )
            for inner in range(self.localiser.n_inner_folds)
        ]

    def _score_attention(self, networks: Sequence[nn.Module], localiser: SliceLocaliser) -> list[SliceBoxScore]:
        """The boxes around the attention in slices with tumour, from the inner model that never saw the case."""
        inner_folds, boxes = self.inner_folds, []
        for case in self.cases:
            (ct, pet), target = case.read_whole(localiser.level)
            grid = case.grid(localiser.level)
            network = networks[inner_folds[case.case_id]]
            scores = slice_scores([network], localiser, Volume(ct, pet, grid), self.settings)
            boxes += score_attention_boxes(scores, target, grid, localiser.attention, case.case_id)
        if boxes:
            log.info(
                "attention boxes of %d out-of-fold slices with tumour: mean IoU %.2f, %.0f %% above 0.5",
                len(boxes),
                float(np.mean([box.iou for box in boxes])),
                100 * float(np.mean([box.iou > 0.5 for box in boxes])),
            )
        return boxes

    def _check_found(self, rois: Sequence[Roi]) -> None:
        """Raise InputError for cases without a box, if `on_empty` is "fail"; see `_locate_case`."""
        lost = [f"{roi.case_id}: {roi.reason}" for roi in rois if roi.reason.startswith("fallback:whole_volume")]
        if lost and self.localiser.on_empty == "fail":
            raise InputError(
                f"stage 1 found nothing in {len(lost)} training case(s), and localiser.on_empty is fail; "
                f"localiser.on_empty=pet_rule goes on. {'; '.join(lost)}"
            )

    def _locate(self, networks: Sequence[nn.Module]) -> dict[float, list[Roi]]:
        """At each threshold a box for each training case, from the inner model that never saw it."""
        inner_folds = self.inner_folds
        rows = [self._locate_case(case, networks[inner_folds[case.case_id]], inner_folds) for case in self.cases]
        return {threshold: [row[number] for row in rows] for number, threshold in enumerate(self.localiser.thresholds)}

    def _locate_case(self, case: PreparedCase, network: nn.Module, inner_folds: Mapping[str, int]) -> list[Roi]:
        localiser = self.localiser
        (ct, pet), target = case.read_whole(localiser.level)
        grid = case.grid(localiser.level)
        volume = Volume(ct, pet, grid)
        if localiser.on_empty == "fail":  # a threshold that finds nothing may not be the one that is chosen
            localiser = replace(localiser, on_empty="whole_volume")
        inner = str(inner_folds[case.case_id])
        rois = []
        for found in find_rois([network], localiser, localiser.thresholds, volume, self.settings, case.case_id):
            boxes = place_rois(found.boxes, grid.bounds(), self.settings.roi)
            covered = covered_fraction(target, grid, widen(boxes, self.settings.roi))
            rois.append(Roi(case.case_id, localiser.name, inner, boxes, found.confidence, covered, found.reason))
        return rois


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock file; where another run has it, say so and wait."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("waiting for another run, which is at work on the same stage 1")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _share_of(budget: BudgetSettings, share: float) -> BudgetSettings:
    if budget.steps is not None:
        return replace(budget, steps=max(1, int(budget.steps * share)))
    assert budget.cpu_s is not None
    return replace(budget, cpu_s=budget.cpu_s * share)


def _copy_stage(source: StageFolder, destination: StageFolder) -> None:
    for file in (source.weights, source.curves, source.record):
        _copy_file(file, destination.root / file.name)


def _copy_file(source: Path, destination: Path) -> None:
    if destination.is_file() and destination.read_bytes() == source.read_bytes():
        return
    with atomic_path(destination) as temporary:
        shutil.copyfile(source, temporary)


def _report_coverage(rois: Sequence[Roi], threshold: float) -> None:
    """One line in the log: how much of the truth the boxes hold, and how large they are."""
    covered = [roi.covered_fraction for roi in rois if roi.covered_fraction is not None]
    if covered:
        log.info(
            "out-of-fold boxes at threshold %g and with margin hold %.1f %% of the target on average "
            "(worst case %.1f %%); "
            "mean volume of the boxes %.0f ml before the margin; %d of %d by fallback",
            threshold,
            100 * float(np.mean(covered)),
            100 * min(covered),
            float(np.mean([roi.volume_ml for roi in rois])),
            sum(roi.is_fallback for roi in rois),
            len(rois),
        )
