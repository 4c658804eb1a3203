"""Weights & Biases beside the curves' CSV file: offline by default, silent, and never in the way of a run."""

import contextlib
import logging
import netrc
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, WandbLogger

from hngtv.config import LoggerSettings

INIT_TIMEOUT_S = 20
"""How long an online run waits for the server before it goes on offline. Source: our choice."""

log = logging.getLogger(__name__)


class TolerantLogger(WandbLogger):
    """Passes figures to W&B while it works; a failure is told once and does not stop the training."""

    has_failed = False

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        try:
            super().log_metrics(metrics, step)
        except Exception as error:
            if not self.has_failed:
                log.warning("W&B: figures are no longer sent (%s); curves.csv has them all", error)
            self.has_failed = True


class RunLogger:
    """The logger of a whole run: one W&B run for all its stages, or nothing.

    Args:
        wandb_run: From `wandb.init`; None where only the CSV files are written.
    """

    def __init__(self, wandb_run: Any = None) -> None:
        self.wandb_run = wandb_run

    def stage(self, label: str) -> Logger | None:
        """A Lightning logger that puts the stage's name before its curves; None for CSV only."""
        return TolerantLogger(experiment=self.wandb_run, prefix=label) if self.wandb_run is not None else None

    def summarise(self, values: Mapping[str, float]) -> None:
        """Put final figures into the run's summary; a failure is only logged."""
        if self.wandb_run is None:
            return
        try:
            self.wandb_run.summary.update(dict(values))
        except Exception as error:
            log.warning("W&B: the summary was not written (%s)", error)


@contextlib.contextmanager
def open_logger(settings: LoggerSettings, folder: Path, name: str, config: Mapping[str, Any]) -> Iterator[RunLogger]:
    """The logger of a run, finished on exit; everything W&B writes stays in `folder`.

    A run without network or account, or with a broken W&B, goes on with the CSV files alone.
    """
    wandb_run = _start(settings, folder, name, config) if settings.name == "wandb" else None
    try:
        yield RunLogger(wandb_run)
    finally:
        if wandb_run is not None:
            with contextlib.suppress(Exception):
                wandb_run.finish()


def _start(settings: LoggerSettings, folder: Path, name: str, config: Mapping[str, Any]) -> Any:
    for variable in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_CONFIG_DIR", "WANDB_ARTIFACT_DIR"):
        os.environ[variable] = str(folder / "wandb")
    os.environ["WANDB_SILENT"] = "true"
    mode = settings.mode
    if mode == "online" and not _has_account():
        log.warning("W&B: no API key found, so this run is kept offline; wandb sync sends it later")
        mode = "offline"
    for attempt in dict.fromkeys((mode, "offline")):
        try:
            return _connect(settings.project, folder, name, config, attempt)
        except Exception as error:
            log.warning("W&B: could not start %s (%s); the run goes on", attempt, error)
    return None


def _connect(project: str, folder: Path, name: str, config: Mapping[str, Any], mode: Any) -> Any:
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    quiet = wandb.Settings(init_timeout=INIT_TIMEOUT_S, console="off", silent=True)
    return wandb.init(project=project, name=name, dir=str(folder), config=dict(config), mode=mode, settings=quiet)


def _has_account() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return any("wandb" in host for host in netrc.netrc().hosts)
    except (OSError, netrc.NetrcParseError):
        return False
