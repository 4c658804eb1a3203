"""Training curves that survive a kill: kept in the checkpoint, written to `curves.csv`."""

import logging
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from hngtv.run_folder import write_csv

CURVE_COLUMNS = ("step", "name", "value")
N_POINTS = 200
"""Points of a curve. Source: our choice."""
N_LOG_LINES = 10

log = logging.getLogger(__name__)


class CurveWriter(pl.Callback):
    """Keeps the mean of each logged value over stretches of steps.

    Args:
        path: The CSV file.
        total_steps: Planned length of the training.
        label: Name of the stage in the log.
    """

    def __init__(self, path: Path, total_steps: int, label: str) -> None:
        self.path = path
        self.label = label
        self.total_steps = total_steps
        self.stretch = max(1, total_steps // N_POINTS)
        self.rows: list[dict[str, Any]] = []
        self.sums: dict[str, float] = {}

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        for name, value in trainer.callback_metrics.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value)
        step = trainer.global_step
        if step % self.stretch == 0:
            means = {name: total / self.stretch for name, total in self.sums.items()}
            means["learning_rate"] = trainer.optimizers[0].param_groups[0]["lr"]
            self.rows += [{"step": step, "name": name, "value": f"{value:.6g}"} for name, value in means.items()]
            self.sums = {}
        if step % max(1, self.total_steps // N_LOG_LINES) == 0:
            log.info(
                "%s: step %d of %d, loss %.3f", self.label, step, self.total_steps,
                float(trainer.callback_metrics["train/loss"]),
            )  # fmt: skip

    def on_train_end(self, *_: Any) -> None:
        write_csv(self.path, CURVE_COLUMNS, self.rows)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": list(self.rows), "sums": dict(self.sums)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self.sums = list(state_dict["rows"]), dict(state_dict["sums"])
