"""Training curves that survive a kill: kept in the checkpoint, written to `curves.csv`."""

import logging
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from hngtv.run_folder import write_csv
from hngtv.training.stage import StageModule

CURVE_COLUMNS = ("step", "name", "value")
N_POINTS = 200
"""Points of a curve, about. Source: our choice."""
N_LOG_LINES = 10

log = logging.getLogger(__name__)


class CurveWriter(pl.Callback):
    """Keeps the mean of each logged value over stretches of steps.

    Args:
        path: The CSV file.
        label: Name of the stage in the log.
    """

    def __init__(self, path: Path, label: str) -> None:
        self.path = path
        self.label = label
        self.rows: list[dict[str, Any]] = []
        self.sums: dict[str, float] = {}
        self.n_steps = 0

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        assert isinstance(pl_module, StageModule)
        step, total_steps = trainer.global_step, pl_module.total_steps
        for name, value in trainer.callback_metrics.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value)
        self.n_steps += 1
        if self.n_steps >= total_steps // N_POINTS:
            self._keep_point(step, trainer.optimizers[0].param_groups[0]["lr"])
        if step % max(1, total_steps // N_LOG_LINES) == 0:
            loss = float(trainer.callback_metrics["train/loss"])
            log.info("%s: step %d of %d, loss %.3f", self.label, step, total_steps, loss)

    def _keep_point(self, step: int, learning_rate: float) -> None:
        means = {name: total / self.n_steps for name, total in self.sums.items()} | {"lr": learning_rate}
        self.rows += [{"step": step, "name": name, "value": f"{value:.6g}"} for name, value in means.items()]
        self.sums, self.n_steps = {}, 0

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.local_rank == 0:
            write_csv(self.path, CURVE_COLUMNS, self.rows)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": list(self.rows), "sums": dict(self.sums), "n_steps": self.n_steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self.sums = list(state_dict["rows"]), dict(state_dict["sums"])
        self.n_steps = state_dict["n_steps"]
