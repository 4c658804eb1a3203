"""W&B: offline without asking, inside the run folder, and never in the way of a run."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb

from hngtv.config import LoggerSettings
from hngtv.training.logger import RunLogger, open_logger


@pytest.fixture(autouse=True)
def away_from_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home, a temporary folder and a working directory that are empty; no key; no variable left behind."""
    before = dict(os.environ)
    for name in ("home", "elsewhere", "run"):
        (tmp_path / name).mkdir()
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home/.config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home/.cache"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    yield tmp_path
    for name in set(os.environ) - set(before):
        del os.environ[name]


def open_in(root: Path, **changes: Any) -> Any:
    plain: dict[str, Any] = {"name": "wandb", "mode": "offline", "project": "tests"}
    settings = LoggerSettings(**(plain | changes))
    return open_logger(settings, root / "run", "arm-fold0", {"seed": 1})


class BrokenRun:
    """A W&B run whose every call fails."""

    @property
    def summary(self) -> Any:
        raise RuntimeError("service is gone")

    def finish(self) -> None:
        raise RuntimeError("service is gone")


def refuse(*_: Any, **__: Any) -> Any:
    raise RuntimeError("no service")


def test_offline_run_asks_nothing_and_stays_in_its_folder(
    away_from_home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("builtins.input", refuse)
    with open_in(away_from_home) as logger:
        for label in ("coarse_0", "fine"):
            stage = logger.stage(label)
            assert stage is not None
            stage.log_metrics({"train/loss": 0.5}, step=1)
        logger.summarise({"dice/GTV": 0.7})
    assert list((away_from_home / "run").rglob("*.wandb"))
    outside = [path for name in ("home", "elsewhere") for path in (away_from_home / name).rglob("*")]
    assert [path for path in outside if path.is_file()] == []
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "wandb" not in shown.err.lower()


def test_csv_means_no_wandb(away_from_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb, "init", refuse)
    with open_in(away_from_home, name="csv") as logger:
        assert logger.stage("fine") is None
        logger.summarise({"dice": 1.0})
    assert list((away_from_home / "run").iterdir()) == []


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_wandb_that_cannot_start_does_not_stop_the_run(
    mode: str, away_from_home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(wandb, "init", refuse)
    with open_in(away_from_home, mode=mode) as logger:
        assert logger.stage("fine") is None
        logger.summarise({"dice": 1.0})
    assert "no service" in caplog.text
    assert "the run goes on" in caplog.text


def test_online_without_an_account_goes_on_offline(
    away_from_home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    modes = []
    monkeypatch.setattr(wandb, "init", lambda **arguments: modes.append(arguments["mode"]) or BrokenRun())
    with open_in(away_from_home, mode="online"):
        pass
    assert modes == ["offline"]
    assert "no API key" in caplog.text


def test_online_that_fails_is_tried_offline(away_from_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []

    def init(**arguments: Any) -> BrokenRun:
        modes.append(arguments["mode"])
        if arguments["mode"] == "online":
            raise TimeoutError("no network")
        return BrokenRun()

    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setattr(wandb, "init", init)
    with open_in(away_from_home, mode="online"):
        pass
    assert modes == ["online", "offline"]


def test_wandb_that_breaks_on_the_way_does_not_stop_the_run(
    away_from_home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with open_in(away_from_home) as logger:
        stage = logger.stage("fine")
        assert stage is not None
        monkeypatch.setattr(type(logger.wandb_run), "log", refuse)
        stage.log_metrics({"train/loss": 0.5}, step=1)
        stage.log_metrics({"train/loss": 0.4}, step=2)
    assert caplog.text.count("no service") == 1


def test_failing_summary_and_finish_are_told_and_survived(
    away_from_home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(wandb, "init", lambda **_: BrokenRun())
    with open_in(away_from_home) as logger:
        logger.summarise({"dice": 1.0})
    assert "service is gone" in caplog.text
    RunLogger(None).summarise({"dice": 1.0})
