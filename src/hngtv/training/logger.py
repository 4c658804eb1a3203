"""Weights & Biases beside the curves' CSV file: offline by default, silent, and never in the way of a run."""

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, WandbLogger

from hngtv.config import LoggerSettings

INIT_TIMEOUT_S = 20
"""How long an online run waits for the server before it goes on offline. Source: our choice."""

log = logging.getLogger(__name__)


@contextlib.contextmanager
def open_logger(settings: LoggerSettings, folder: Path, name: str, config: Mapping[str, Any]) -> Iterator[Logger | None]:
    """The logger of a run, finished on exit; None for `csv`, or where W&B cannot start.

    Everything W&B writes stays in `folder`.
    """
    logger = _start(settings, folder, name, config) if settings.name == "wandb" else None
    try:
        yield logger
    finally:
        if logger is not None:
            with contextlib.suppress(Exception):
                logger.experiment.finish()


def log_summary(logger: Logger | None, values: Mapping[str, float]) -> None:
    """Put final figures into the run's summary; a failure is only logged."""
    if not isinstance(logger, WandbLogger):
        return
    try:
        logger.experiment.summary.update(dict(values))
    except Exception as error:
        log.warning("W&B: the summary was not written (%s)", error)


def _start(settings: LoggerSettings, folder: Path, name: str, config: Mapping[str, Any]) -> WandbLogger | None:
    folder.mkdir(parents=True, exist_ok=True)
    for variable in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_CONFIG_DIR", "WANDB_ARTIFACT_DIR"):
        os.environ[variable] = str(folder / "wandb")
    os.environ["WANDB_SILENT"] = "true"
    mode = settings.mode
    if mode == "online" and not _has_account():
        log.warning("W&B: no API key found, so this run is kept offline; wandb sync sends it later")
        mode = "offline"
    for attempt in dict.fromkeys((mode, "offline")):
        try:
            return _connect(settings, folder, name, config, attempt)
        except Exception as error:
            log.warning("W&B: could not start %s (%s); the run goes on", attempt, error)
    return None


def _connect(
    settings: LoggerSettings, folder: Path, name: str, config: Mapping[str, Any], mode: str
) -> WandbLogger:
    import wandb

    run = wandb.init(
        project=settings.project,
        name=name,
        dir=str(folder),
        config=dict(config),
        mode="offline" if mode == "offline" else "online",
        settings=wandb.Settings(init_timeout=INIT_TIMEOUT_S, console="off", silent=True),
    )
    return WandbLogger(experiment=run)


def _has_account() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    import netrc

    try:
        return any("wandb" in host for host in netrc.netrc().hosts)
    except (OSError, netrc.NetrcParseError):
        return False
