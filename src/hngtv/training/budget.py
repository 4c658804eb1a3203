"""Training budgets: steps as given, or seconds turned into steps by a short calibration."""

import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch

from hngtv.training.roi_data import RoiCropDataModule, TrainingCrops
from hngtv.training.stage import StageModule

N_WARM_UP_STEPS = 1
N_TIMED_STEPS = 4
"""Steps of the calibration. Source: our choice."""
SAFETY = 0.95
"""Share of a time budget that is planned for; the rest absorbs noise of the machine. Source: our choice."""


def training_clock(accelerator: str) -> Callable[[], float]:
    """The clock of a time budget: user + system seconds of this process, or elapsed seconds on a GPU."""
    if accelerator == "cpu":
        return time.process_time

    def elapsed() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return elapsed


def seconds_per_step(
    module: StageModule,
    crops: TrainingCrops,
    batch_size: int,
    n_workers: int,
    trainer_settings: Any,
    clock: Callable[[], float],
) -> float:
    """Cost of a training step, measured with real crops.

    Args:
        module: Built for this measurement; it is trained for a few steps.
        crops: Served from its first items; left untouched.
        batch_size: Crops per step.
        n_workers: Loader processes.
        trainer_settings: Keyword arguments of the Lightning trainer.
        clock: From `training_clock`.
    """
    timer = _StepTimer(clock)
    trainer = pl.Trainer(
        **trainer_settings, max_steps=N_WARM_UP_STEPS + N_TIMED_STEPS, callbacks=[timer], logger=False,
        enable_checkpointing=False, enable_progress_bar=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=RoiCropDataModule(crops, batch_size, start_step=0, n_workers=n_workers))
    return timer.seconds / N_TIMED_STEPS


def steps_within(budget_s: float, used_s: float, step_s: float) -> int:
    """Steps that fit what is left of a time budget, at least one."""
    return max(1, int((budget_s * SAFETY - used_s) / step_s))


class _StepTimer(pl.Callback):
    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.started = 0.0
        self.seconds = 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == N_WARM_UP_STEPS:
            self.started = self.clock()
        self.seconds = self.clock() - self.started


class BudgetGuard(pl.Callback):
    """Counts the seconds of a training, over kills and resumes, and stops it when a time budget is spent.

    Attributes:
        used_s: Seconds so far, those before this process included.
    """

    def __init__(self, clock: Callable[[], float], used_s: float, budget_s: float | None) -> None:
        self.clock = clock
        self.earlier_s = used_s
        self.budget_s = budget_s
        self.started = clock()

    @property
    def used_s(self) -> float:
        return self.earlier_s + self.clock() - self.started

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if self.budget_s is not None and self.used_s > self.budget_s:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, float]:
        return {"used_s": self.used_s}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.earlier_s = state_dict["used_s"]
        self.started = self.clock()
