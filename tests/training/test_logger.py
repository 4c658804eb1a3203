"""W&B: offline without asking, inside the run folder, and never in the way of a run."""

import contextlib
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
from matplotlib.image import imsave
from wandb.proto import wandb_internal_pb2

from hngtv.cases.store import PreparedCase
from hngtv.config import BudgetSettings, LoggerSettings
from hngtv.errors import InputError
from hngtv.run_folder import write_csv
from hngtv.training.logger import RunLogger, RunName, open_logger
from hngtv.training.tensorboard_logger import open_tensorboard
from hngtv.training.trainer import StageFolder, train_stage
from hngtv.training.wandb_logger import WandbRunLogger
from tests.training.test_processes import plan_of, settings_of


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


KEY = "x" * 40


def open_in(root: Path, **changes: Any) -> Any:
    plain: dict[str, Any] = {"name": "wandb", "mode": "offline", "project": "tests"}
    settings = LoggerSettings(**(plain | changes))
    name = RunName("arm-fold0", "sweep", "arm", ("fold0",))
    return open_logger(settings, root / "run", name, {"seed": 1})


def records_of(file: Path) -> list[Any]:
    """Records of an offline file: a log in the format of LevelDB, of protobuf messages, in blocks of 32 KiB."""
    messages: Any = wandb_internal_pb2
    read = messages.Record.FromString
    content, place, records, parts = file.read_bytes(), 7, [], b""
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        chunk = content[place + 7 : place + 7 + length]
        if zlib.crc32(chunk, zlib.crc32(bytes([kind]))) != struct.unpack_from("<I", content, place)[0]:
            raise AssertionError(f"broken record at {place}")
        parts += chunk
        if kind in (1, 4):
            records.append(read(parts))
            parts = b""
        place += 7 + length
    return records


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


@pytest.mark.parametrize(
    ("mode", "key", "wanted"),
    [
        ("auto", "", "offline"),
        ("auto", "x" * 40, "online"),
        ("offline", "x" * 40, "offline"),
        ("online", "x" * 40, "online"),
    ],
)
def test_it_is_online_where_a_key_is_set_and_says_so(
    mode: str,
    key: str,
    wanted: str,
    away_from_home: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    modes = []
    monkeypatch.setenv("WANDB_API_KEY", key)
    monkeypatch.setattr(wandb, "init", lambda **arguments: modes.append(arguments["mode"]) or BrokenRun())
    with open_in(away_from_home, mode=mode):
        pass
    assert modes == [wanted]
    assert ("are sent; logger.mode=offline keeps them here" in caplog.text) == (mode == "auto" and bool(key))


@pytest.mark.parametrize(("wish", "wanted"), [("offline", ["offline"]), ("disabled", [])])
def test_the_switch_of_wandb_itself_is_obeyed(
    wish: str, wanted: list[str], away_from_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_MODE", wish)
    monkeypatch.setattr(wandb, "init", lambda **arguments: modes.append(arguments["mode"]) or BrokenRun())
    with open_in(away_from_home, mode="auto"):
        pass
    assert modes == wanted


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
        assert isinstance(logger, WandbRunLogger)
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
    RunLogger().summarise({"dice": 1.0})


@pytest.mark.parametrize("service", ["wandb", "tensorboard"])
def test_a_dead_logger_does_not_end_a_training(
    service: str, tiny_cohort: Path, prepared: list[PreparedCase], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if service == "tensorboard":
        pytest.importorskip("tensorboard")
        (tmp_path / "file").touch()
    logger = WandbRunLogger(BrokenRun()) if service == "wandb" else open_tensorboard(tmp_path / "file")
    for label in ("coarse", "fine"):
        plan = replace(plan_of(settings_of(tiny_cohort), prepared), label=label, budget=BudgetSettings(steps=1))
        assert train_stage(StageFolder(tmp_path / label), plan, logger)["steps"] == 1
    assert len([record for record in caplog.records if "not shown" in record.getMessage()]) == 1
    assert logger.service in caplog.text


def closed_records_of(file: Path) -> list[Any]:
    """The records of a run that was finished; its service may still be writing the last of them."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(AssertionError):  # its last record is half written
            records = records_of(file)
            if any(record.HasField("exit") for record in records):
                return records
        time.sleep(0.2)
    raise AssertionError(f"{file} was not closed")


def test_offline_file_holds_name_curves_table_picture_and_line(away_from_home: Path) -> None:
    picture = away_from_home / "picture.png"
    imsave(picture, np.zeros((8, 8)))
    write_csv(away_from_home / "curves.csv", ("step", "name", "value"), [{"step": 3, "name": "lr", "value": 0.5}])
    with open_in(away_from_home) as logger:
        logger.send_curves("fine", away_from_home / "curves.csv")
        logger.show_table("scores", ("case", "dice"), [["a", 0.5]])
        logger.show_image("cases/best", picture, "a: Dice 0.5")
        logger.show_line("roi_curve", ("volume", [1.0, 2.0]), ("share", [0.5, 1.0]))
        logger.summarise({"dice/GTV": 0.7})
        assert not logger.has_failed
    (file,) = (away_from_home / "run").rglob("*.wandb")
    records = closed_records_of(file)
    (run,) = (record.run for record in records if record.HasField("run"))
    assert (run.display_name, run.run_group, run.job_type, list(run.tags)) == ("arm-fold0", "sweep", "arm", ["fold0"])
    keys = {item.key or item.nested_key[0] for record in records for item in record.history.item}
    assert {"fine-lr", "scores", "cases/best", "roi_curve_table"} <= keys
    summary = {".".join(item.nested_key) or item.key for record in records for item in record.summary.update}
    assert "dice/GTV" in summary
    assert list((away_from_home / "run").rglob("best_*.png"))
    shown = subprocess.run(
        [sys.executable, "-m", "wandb", "sync", "--dry-run", str(file.parent)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert file.parent.name in shown.stdout + shown.stderr


def test_each_run_of_a_process_is_closed(away_from_home: Path) -> None:
    for number in range(2):
        with open_in(away_from_home / str(number)) as logger:
            assert isinstance(logger, WandbRunLogger)
            logger.summarise({"number": number})
        assert wandb.run is None
    assert len(list(away_from_home.rglob("*.wandb"))) == 2


def test_a_run_killed_before_its_first_flush_goes_on(away_from_home: Path) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom tests.training.test_logger import open_in\n"
        "with open_in(Path(sys.argv[1])) as logger:\n    os.kill(os.getpid(), 9)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    killed = subprocess.run([sys.executable, "-c", code, str(away_from_home)], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    with open_in(away_from_home) as logger:
        logger.summarise({"dice/GTV": 0.7})
        assert not logger.has_failed


def test_online_goes_on_as_the_same_run(away_from_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[dict[str, Any]] = []
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setattr(wandb, "init", lambda **arguments: started.append(arguments) or BrokenRun())
    for _ in range(2):
        with open_in(away_from_home, mode="online"):
            pass
    first, second = started
    assert first["id"] == second["id"]
    assert first["resume"] == "allow"
    assert (first["group"], first["job_type"], first["tags"]) == ("sweep", "arm", ["fold0"])


def test_tensorboard_by_one_word(away_from_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator").EventAccumulator
    monkeypatch.setattr(wandb, "init", refuse)
    picture = away_from_home / "picture.png"
    imsave(picture, np.zeros((8, 8)))
    with open_in(away_from_home, name="tensorboard") as logger:
        logger.stage("fine").log_metrics({"train/loss": 0.5}, 3)
        logger.show_table("scores", ("case", "dice"), [["a", 0.5]])
        logger.show_image("cases/best", picture)
        logger.show_line("roi_curve", ("volume", [1.0]), ("share", [0.5]))
        logger.summarise({"dice/GTV": 0.7})
        assert not logger.has_failed
    root = away_from_home / "run" / "tensorboard"
    fine, results = (accumulator(str(root / name)).Reload() for name in ("fine", "results"))
    assert [(event.step, event.value) for event in fine.Scalars("train/loss")] == [(3, 0.5)]
    assert results.Scalars("dice/GTV")[0].value == pytest.approx(0.7)
    assert results.Images("cases/best")[0].width == 8
    assert {"scores/text_summary", "roi_curve/text_summary"} <= set(results.Tags()["tensors"])


def test_tensorboard_that_is_not_installed_is_told(away_from_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with (
        pytest.raises(InputError, match=r"pip install 'hngtv\[tensorboard\]'"),
        open_in(away_from_home, name="tensorboard"),
    ):
        pass
