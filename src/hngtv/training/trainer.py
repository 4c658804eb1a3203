"""Training of one stage in its own folder: planned, killable at any moment, resumed where it was, done once."""

import contextlib
import logging
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.plugins.environments import LightningEnvironment  # pyright: ignore[reportPrivateImportUsage]

from hngtv.config import BudgetSettings, OptimiserSettings, TrainerSettings, plain
from hngtv.networks.build import count_parameters, to_fast_layout
from hngtv.run_folder import make_folder, read_json, write_json
from hngtv.training.attention_history import AttentionHistory, WatchedCrop
from hngtv.training.averaging import AveragedWeights
from hngtv.training.budget import BudgetCallback, training_clock
from hngtv.training.checkpoint import AtomicCheckpointIO, RandomState, checkpoint_step, save_weights
from hngtv.training.curves import CurveWriter
from hngtv.training.logger import RunLogger
from hngtv.training.machine import choose_precision
from hngtv.training.processes import NodeCheckpoint, ProcessSetup, build_strategy
from hngtv.training.roi_data import RoiCropDataModule, TrainingCrops
from hngtv.training.slice_data import TrainingSlices
from hngtv.training.stage import StageModule
from hngtv.training.validation import Validation, ValidationDice

ENDLESS = 10**7
"""Steps of crops to draw from where time ends the training."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageFolder:
    """Names of the files of one trained stage."""

    root: Path

    @property
    def plan(self) -> Path:
        return self.root / "plan.json"

    @property
    def checkpoint(self) -> Path:
        return self.root / "last.ckpt"

    @property
    def curves(self) -> Path:
        return self.root / "curves.csv"

    @property
    def attention(self) -> Path:
        return self.root / "attention.npz"

    @property
    def weights(self) -> Path:
        return self.root / "model.pt"

    @property
    def record(self) -> Path:
        return self.root / "training.json"

    def clear(self) -> None:
        """Remove the stage's own files, the plan last: it tells whose files the others are."""
        for file in (self.record, self.weights, self.curves, self.attention, self.checkpoint, self.plan):
            file.unlink(missing_ok=True)


@dataclass(frozen=True)
class StagePlan:
    """What a stage is trained with.

    Attributes:
        label: Name in logs and curves.
        key: Digest of everything the result depends on.
        build_module: From total steps to the module; called with seeded generators.
        build_crops: From a number of items to the stream of crops.
        budget: Steps or seconds for this stage alone.
        seed: Of weights, order and augmentation.
        watched: A crop whose alphas are kept; None for none.
        validation: Cases whose Dice is reported on the way, by a stage that segments and trains in one process.
    """

    label: str
    key: str
    build_module: Callable[[int], StageModule]
    build_crops: Callable[[int], TrainingCrops | TrainingSlices]
    budget: BudgetSettings
    optimiser: OptimiserSettings
    trainer: TrainerSettings
    seed: int
    watched: WatchedCrop | None = None
    validation: Validation | None = None


def train_stage(folder: StageFolder, plan: StagePlan, logger: RunLogger) -> dict[str, Any]:
    """Train a stage, or go on with it, or return the record of the finished one.

    Returns:
        The record: key, steps, cpu_s (processor seconds, or GPU seconds), n_parameters, n_classes,
        crop_voxels, precision.

    Raises:
        KeyboardInterrupt: Stopped by Ctrl-C or SIGTERM; the same call goes on from the last checkpoint.
    """
    _set_threads(plan.trainer.n_threads)
    if folder.weights.exists() and folder.record.exists() and read_json(folder.record)["key"] == plan.key:
        log.info("%s: already trained", plan.label)
        return read_json(folder.record)
    make_folder(folder.root)
    if folder.plan.exists() and read_json(folder.plan)["key"] != plan.key:
        log.warning("%s: %s is from other settings or cases, so it is trained anew", plan.label, folder.root)
        folder.clear()
    _quieten()
    budget = BudgetCallback(plan.budget, training_clock(plan.trainer.accelerator))
    write_json(folder.plan, {"key": plan.key, "budget": plain(plan.budget)})
    module = _seeded_module(plan, budget.total_steps)
    start = checkpoint_step(folder.checkpoint) if folder.checkpoint.exists() else 0
    crops = plan.build_crops((plan.budget.steps or ENDLESS) * plan.optimiser.batch_size)
    log.info("%s: training from step %d, crops of %s voxels", plan.label, start, crops.size)
    trained = _fit(folder, plan, module, budget, crops, start, logger)
    return _finish(folder, plan, module, trained, crops)


def _fit(
    folder: StageFolder,
    plan: StagePlan,
    module: StageModule,
    budget: BudgetCallback,
    crops: TrainingCrops | TrainingSlices,
    start: int,
    logger: RunLogger,
) -> Mapping[str, Any]:
    """Train the module, here or in processes of its own; what `BudgetCallback` leaves."""
    settings = plan.trainer
    is_shared = settings.n_processes > 1
    setup = ProcessSetup(settings, start, plan.seed) if is_shared else None
    trainer = pl.Trainer(
        **_trainer_arguments(settings, plan.optimiser),
        strategy=build_strategy(settings, module),
        callbacks=[*([setup] if setup else []), *_callbacks(folder, plan, budget)],
        logger=False if is_shared else logger.stage(plan.label) or False,
        enable_progress_bar=sys.stderr.isatty(),
        plugins=[AtomicCheckpointIO(), LightningEnvironment()],
    )
    data = RoiCropDataModule(crops, plan.optimiser.batch_size, start, settings.n_workers)
    try:
        with setup.watch(trainer) if setup else contextlib.nullcontext():
            trainer.fit(module, datamodule=data, ckpt_path=folder.checkpoint if start else None, weights_only=True)
    except SystemExit:  # Lightning's answer to Ctrl-C and SIGTERM, with a status that says nothing
        raise KeyboardInterrupt from None
    if is_shared:  # W&B does not follow into spawned processes
        logger.send_curves(plan.label, folder.curves)
    return trainer.callback_metrics


def _seeded_module(plan: StagePlan, total_steps: int) -> StageModule:
    pl.seed_everything(plan.seed, verbose=False)
    module = plan.build_module(total_steps)
    if plan.trainer.channels_last:
        to_fast_layout(module.network)
    return module


def _trainer_arguments(settings: TrainerSettings, optimiser: OptimiserSettings) -> dict[str, Any]:
    return {
        "accelerator": settings.accelerator,
        "devices": settings.n_devices,
        "num_nodes": settings.n_nodes,
        "sync_batchnorm": settings.n_processes > 1 and settings.accelerator == "gpu",
        "precision": choose_precision(settings),
        "deterministic": settings.deterministic,
        "max_epochs": 1,
        "gradient_clip_val": optimiser.gradient_clip,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
        "log_every_n_steps": 10,
    }


def _callbacks(folder: StageFolder, plan: StagePlan, budget: BudgetCallback) -> list[pl.Callback]:
    checkpoint = NodeCheckpoint(
        folder.root,
        filename=folder.checkpoint.stem,
        train_time_interval=timedelta(seconds=plan.trainer.checkpoint_every_s),
        enable_version_counter=False,
    )
    curves = CurveWriter(folder.curves, plan.label)
    watcher = [AttentionHistory(folder.attention, plan.watched)] if plan.watched is not None else []
    averaged = AveragedWeights(plan.optimiser.ema_decay)
    bar = [TQDMProgressBar()] if sys.stderr.isatty() else []
    return [
        budget,
        curves,
        RandomState(),
        *watcher,
        *bar,
        averaged,
        *([ValidationDice(plan.validation, averaged)] if plan.validation is not None else []),
        checkpoint,
    ]


def _finish(
    folder: StageFolder,
    plan: StagePlan,
    module: StageModule,
    trained: Mapping[str, Any],
    crops: TrainingCrops | TrainingSlices,
) -> dict[str, Any]:
    steps, used_s = int(trained["steps"]), float(trained["used_s"])
    save_weights(folder.weights, module.network)
    record = {
        "key": plan.key,
        "steps": steps,
        "cpu_s": round(used_s, 2),
        "n_parameters": count_parameters(module.network),
        "n_classes": module.hparams["out_channels"],
        "crop_voxels": list(crops.size),
        "precision": str(choose_precision(plan.trainer)),
    }
    write_json(folder.record, record)
    folder.checkpoint.unlink(missing_ok=True)
    log.info("%s: done, %d steps in %.0f s", plan.label, steps, used_s)
    return record


def _set_threads(n_threads: int) -> None:
    if n_threads:
        torch.set_num_threads(n_threads)


def _quieten() -> None:
    """Keep Lightning's banners and its advice on loader workers out of the log."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    # Our stream of crops is resumable, by its item numbers.
    warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
