"""Weights & Biases: offline unless its key is set, silent, and never in the way of a run."""

import logging
import netrc
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import WandbLogger

from hngtv.config import LoggerSettings
from hngtv.run_folder import write_text
from hngtv.training.logger import RunLogger, RunName, TolerantLogger

INIT_TIMEOUT_S = 20
"""How long an online run waits for the server before it goes on offline. Source: our choice."""
FINISH_TIMEOUT_S = 60
"""How long its end waits for the server; what is left then is sent by `wandb sync`. Source: our choice."""

log = logging.getLogger(__name__)


class WandbStageLogger(TolerantLogger, WandbLogger):
    """The curves of one stage."""


class WandbRunLogger(RunLogger):
    """One W&B run for all stages of a run.

    Args:
        wandb_run: From `wandb.init`.
    """

    service = "W&B"

    def __init__(self, wandb_run: Any) -> None:
        self.wandb_run = wandb_run

    def stage(self, label: str) -> WandbStageLogger:
        logger = WandbStageLogger(experiment=self.wandb_run, prefix=label)
        logger.owner = self
        return logger

    def close(self) -> None:
        self.wandb_run.finish()

    def _summary(self, values: Mapping[str, float]) -> None:
        self.wandb_run.summary.update(dict(values))

    def _table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        import wandb

        self.wandb_run.log({name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])})

    def _image(self, name: str, path: Path, caption: str) -> None:
        import wandb

        self.wandb_run.log({name: wandb.Image(str(path), caption=caption)})

    def _line(self, name: str, x: tuple[str, Sequence[float]], y: tuple[str, Sequence[float]]) -> None:
        import wandb

        (x_name, xs), (y_name, ys) = x, y
        table = wandb.Table(columns=[x_name, y_name], data=[list(point) for point in zip(xs, ys, strict=True)])
        self.wandb_run.log({name: wandb.plot.line(table, x_name, y_name, title=name)})


def start_wandb(
    settings: LoggerSettings, folder: Path, name: RunName, config: Mapping[str, Any]
) -> WandbRunLogger | None:
    """Start a run; offline where there is no account or no network, and None where W&B does not work at all."""
    for variable in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_CONFIG_DIR", "WANDB_ARTIFACT_DIR"):
        os.environ[variable] = str(folder / "wandb")
    os.environ["WANDB_SILENT"] = "true"
    mode = settings.mode
    if mode == "auto":
        wish = os.environ.get("WANDB_MODE", "online")
        if wish == "disabled":
            return None
        mode = "online" if wish == "online" and os.environ.get("WANDB_API_KEY") else "offline"
        if mode == "online":
            log.warning(
                "W&B: WANDB_API_KEY is set, so curves, scores and pictures of cases are sent; "
                "logger.mode=offline keeps them here"
            )
    if mode == "online" and not _has_account():
        log.warning("W&B: no API key found, so this run is kept offline; wandb sync sends it later")
        mode = "offline"
    for attempt in dict.fromkeys((mode, "offline")):
        try:
            return WandbRunLogger(_connect(settings.project, folder, name, config, attempt))
        except Exception as error:
            log.warning("W&B: could not start %s (%s); the run goes on", attempt, error)
    return None


def _connect(project: str, folder: Path, name: RunName, config: Mapping[str, Any], mode: Any) -> Any:
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    quiet = wandb.Settings(
        init_timeout=INIT_TIMEOUT_S,
        finish_timeout=FINISH_TIMEOUT_S,
        finish_timeout_raises=False,
        console="off",
        silent=True,
    )
    again: dict[str, Any] = {"id": _run_id(folder), "resume": "allow"} if mode == "online" else {}
    return wandb.init(
        project=project,
        name=name.name,
        group=name.group or None,
        job_type=name.job or None,
        tags=list(name.tags),
        dir=str(folder),
        config=dict(config),
        mode=mode,
        reinit="create_new",
        settings=quiet,
        **again,
    )


def _run_id(folder: Path) -> str:
    """The name by which an online run that was killed goes on as the same one; kept in the run folder."""
    path = folder / "wandb" / "run_id.txt"
    if not path.is_file():
        write_text(path, secrets.token_hex(4))
    return path.read_text(encoding="utf-8").strip()


def _has_account() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return any("wandb" in host for host in netrc.netrc().hosts)
    except (OSError, netrc.NetrcParseError):
        return False
