"""TensorBoard, an extra: `logger=tensorboard` writes `tensorboard/` into the run folder."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.image import imread
from pytorch_lightning.loggers import TensorBoardLogger

from hngtv.errors import InputError
from hngtv.training.logger import RunLogger, TolerantLogger


class TensorBoardStageLogger(TolerantLogger, TensorBoardLogger):
    """The curves of one stage."""


class TensorBoardRunLogger(RunLogger):
    """A folder of event files: one for each stage, and one for the results."""

    service = "TensorBoard"

    def __init__(self, root: Path) -> None:
        self.root = root
        self.opened: dict[str, TensorBoardStageLogger] = {}

    def stage(self, label: str) -> TensorBoardStageLogger:
        if label not in self.opened:
            self.opened[label] = TensorBoardStageLogger(self.root, name="", version=label)
            self.opened[label].owner = self
        return self.opened[label]

    def close(self) -> None:
        for logger in self.opened.values():
            logger.experiment.close()

    @property
    def _results(self) -> Any:
        return self.stage("results").experiment

    def _summary(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._results.add_scalar(name, value)

    def _table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        lines = [columns, ["---"] * len(columns), *rows]
        self._results.add_text(name, "\n".join("|" + "|".join(map(str, line)) + "|" for line in lines))

    def _image(self, name: str, path: Path, caption: str) -> None:
        self._results.add_image(name, np.asarray(imread(path))[..., :3], dataformats="HWC")

    def _line(self, name: str, x: tuple[str, Sequence[float]], y: tuple[str, Sequence[float]]) -> None:
        self._table(name, (x[0], y[0]), list(zip(x[1], y[1], strict=True)))


def open_tensorboard(folder: Path) -> TensorBoardRunLogger:
    """The logger of a run folder.

    Raises:
        InputError: TensorBoard is not installed.
    """
    check_tensorboard()
    return TensorBoardRunLogger(folder / "tensorboard")


def check_tensorboard() -> None:
    """Raise InputError if TensorBoard is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        raise InputError("logger=tensorboard needs TensorBoard: pip install 'hngtv[tensorboard]', or set logger=csv")
