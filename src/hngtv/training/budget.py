"""Training budgets: steps as given, or seconds that the first steps turn into steps and the later ones correct."""

import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch

from hngtv.config import BudgetSettings
from hngtv.training.stage import StageModule

CALIBRATION_STEPS = 4
"""Steps, after a first one that warms up, whose cost gives the first plan. Source: our choice."""
PROVISIONAL_STEPS = 1000
"""Plan before that; it only decides how slowly the learning rate starts. Source: our choice."""
SAFETY = 0.98
"""Share of a time budget that is planned for; the rest is for writing the result. Source: our choice."""


def training_clock(accelerator: str) -> Callable[[], float]:
    """The clock of a time budget: user + system seconds of this process, or elapsed seconds on a GPU."""
    return time.process_time if accelerator == "cpu" else _gpu_time


def _gpu_time() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


class BudgetCallback(pl.Callback):
    """Ends a training when its budget is spent, and tells the module how many steps there are, so that the learning
    rate reaches 0 on time.

    With a time budget the number of steps is planned from the cost of the first steps, and corrected after each step,
    since the speed of a machine drifts. A killed training goes on with plan and seconds of its last checkpoint.

    Where several processes train, their seconds are added up, the first one plans, and the others follow it. Steps and
    seconds are left in the trainer's metrics, which come back from a spawned process.

    Args:
        budget: Of this stage.
        clock: From `training_clock`.
    Attributes:
        total_steps: The plan.
        used_s: Seconds so far, those before this process included.
    """

    def __init__(self, budget: BudgetSettings, clock: Callable[[], float]) -> None:
        self.budget = budget
        self.clock = clock
        self.total_steps = budget.steps or PROVISIONAL_STEPS
        self.started = clock()
        self.earlier_s = 0.0
        self.others_s = 0.0
        self.warm_s: float | None = None
        self.timed_s = 0.0
        self.timed_steps = 0

    @property
    def used_s(self) -> float:
        return self.earlier_s + self.clock() - self.started + self.others_s

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if trainer.world_size > 1:
            self.started = self.clock()  # a spawned process has a clock of its own

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, StageModule)
        pl_module.total_steps = self.total_steps

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        assert isinstance(pl_module, StageModule)
        self._add_up(trainer)  # with steps too: a checkpoint keeps the seconds of all
        if self.budget.cpu_s is not None:
            self._correct_plan(trainer.global_step, self.budget.cpu_s * SAFETY)
            if trainer.world_size > 1:
                self.total_steps = int(trainer.strategy.broadcast(self.total_steps))
            pl_module.total_steps = self.total_steps
        if trainer.global_step >= self.total_steps:
            trainer.should_stop = True

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._add_up(trainer)
        left = {"steps": trainer.global_step, "used_s": self.used_s}
        trainer.callback_metrics.update(
            {name: torch.tensor(value, dtype=torch.float64) for name, value in left.items()}
        )

    def _add_up(self, trainer: pl.Trainer) -> None:
        """Note the seconds of the other processes."""
        if trainer.world_size > 1:
            own_s = self.clock() - self.started
            seconds = torch.tensor(own_s, dtype=torch.float64, device=trainer.strategy.root_device)
            sum_s = trainer.strategy.reduce(seconds, reduce_op="sum")
            self.others_s = float(sum_s) - own_s

    def _correct_plan(self, step: int, budget_s: float) -> None:
        used_s = self.used_s
        if self.warm_s is not None:
            self.timed_s += used_s - self.warm_s
            self.timed_steps += 1
        self.warm_s = used_s
        if self.timed_steps >= CALIBRATION_STEPS or used_s >= budget_s:
            step_s = self.timed_s / max(1, self.timed_steps)
            left = int((budget_s - used_s) / step_s) if used_s < budget_s else 0
            self.total_steps = step + max(0, left)

    def state_dict(self) -> dict[str, float]:
        return {
            "used_s": self.used_s,
            "timed_s": self.timed_s,
            "timed_steps": self.timed_steps,
            "total_steps": self.total_steps,
        }

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.earlier_s = state_dict["used_s"]
        self.others_s = 0.0
        self.started = self.clock()
        self.timed_s = state_dict["timed_s"]
        self.timed_steps = int(state_dict["timed_steps"])
        self.total_steps = int(state_dict["total_steps"])
