"""What shows a run beside its CSV files, which are always written and are the truth: W&B, TensorBoard, or nothing.

None of them asks, and none is in the way of a run: a failure is told once in the log, and the run goes on.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger

from hngtv.config import LoggerSettings
from hngtv.run_folder import read_csv

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunName:
    """How a run is found among others.

    Attributes:
        name: Of the run itself.
        group: Of the runs it belongs to: its sweep, or else its arm.
        job: What the runs of a group differ in: the arm.
        tags: Further words to filter by.
    """

    name: str
    group: str = ""
    job: str = ""
    tags: tuple[str, ...] = ()


class RunLogger:
    """The logger of a whole run with all its stages; this one shows nothing, so that only the CSV files are left.

    Subclasses say where, in `service`, and how, in `stage`, `_summary`, `_table`, `_image` and `_line`, which may fail.
    """

    service = ""
    has_failed = False

    @property
    def shows(self) -> bool:
        """Whether there is anything beside the CSV files."""
        return bool(self.service)

    def stage(self, label: str) -> Logger | None:
        """A Lightning logger that puts the stage's name before its curves; None for CSV only."""
        return None

    def summarise(self, values: Mapping[str, float]) -> None:
        """Show final figures."""
        self.attempt("the summary", self._summary, values)

    def send_curves(self, label: str, path: Path) -> None:
        """Show the curves of a stage that was trained in processes of its own, from its CSV file."""
        self.attempt("curves", self._curves, label, path)

    def show_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        self.attempt(f"table {name}", self._table, name, columns, rows)

    def show_image(self, name: str, path: Path, caption: str = "") -> None:
        """Show a PNG file."""
        self.attempt(f"image {name}", self._image, name, path, caption)

    def show_line(self, name: str, x: tuple[str, Sequence[float]], y: tuple[str, Sequence[float]]) -> None:
        """Show a curve, each axis with its name."""
        self.attempt(f"curve {name}", self._line, name, x, y)

    def attempt(self, what: str, show: Callable[..., None], *arguments: Any) -> None:
        """Show something; the first failure is told in the log, and none is raised."""
        try:
            show(*arguments)
        except Exception as error:
            if not self.has_failed:
                log.warning("%s: %s not shown (%s); the run's own files have everything", self.service, what, error)
            self.has_failed = True

    def close(self) -> None:
        """End the run, so that the next one in this process is another."""

    def _summary(self, values: Mapping[str, float]) -> None: ...

    def _curves(self, label: str, path: Path) -> None:
        stage = self.stage(label)
        if stage is None:
            return
        by_step: dict[int, dict[str, float]] = {}
        for row in read_csv(path, ("step", "name", "value")):
            by_step.setdefault(int(row["step"]), {})[row["name"]] = float(row["value"])
        for step, values in by_step.items():
            stage.log_metrics(values, step)

    def _table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None: ...

    def _image(self, name: str, path: Path, caption: str) -> None: ...

    def _line(self, name: str, x: tuple[str, Sequence[float]], y: tuple[str, Sequence[float]]) -> None: ...


class TolerantLogger(Logger):
    """Mixed into a Lightning logger: what Lightning asks of it may fail, and does not end the training.

    Attributes:
        owner: The logger of the whole run, which tells the first failure.
    """

    owner: RunLogger

    @property
    def experiment(self) -> Any:
        try:
            return super().experiment  # pyright: ignore[reportAttributeAccessIssue]
        except Exception as error:  # Lightning asks whether there is one, and knows this answer
            raise AttributeError(str(error)) from error

    def log_hyperparams(self, *arguments: Any, **named: Any) -> None:
        self.owner.attempt("settings", partial(super().log_hyperparams, *arguments, **named))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.owner.attempt("figures", super().log_metrics, metrics, step)

    def save(self) -> None:
        self.owner.attempt("figures", super().save)

    def finalize(self, status: str) -> None:
        self.owner.attempt("figures", super().finalize, status)


@contextlib.contextmanager
def open_logger(
    settings: LoggerSettings, folder: Path, name: RunName | str, config: Mapping[str, Any]
) -> Iterator[RunLogger]:
    """The logger of a run, closed on exit; everything it writes stays in `folder`.

    Raises:
        InputError: TensorBoard is asked for and not installed.
    """
    logger = _open(settings, folder, RunName(name) if isinstance(name, str) else name, config)
    try:
        yield logger
    finally:
        with contextlib.suppress(Exception):
            logger.close()


def _open(settings: LoggerSettings, folder: Path, name: RunName, config: Mapping[str, Any]) -> RunLogger:
    match settings.name:
        case "wandb":
            from hngtv.training.wandb_logger import start_wandb

            return start_wandb(settings, folder, name, config) or RunLogger()
        case "tensorboard":
            from hngtv.training.tensorboard_logger import open_tensorboard

            return open_tensorboard(folder)
        case "csv":
            return RunLogger()
