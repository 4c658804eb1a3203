"""`hngtv prepare`: fills the store, says what failed, and continues after a kill."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hngtv.commands.entry import run_command
from tests.tiny_cases import write_tiny_cohort

COMMAND = "import sys; from hngtv.commands.entry import run_command; sys.exit(run_command(sys.argv[1:]))"
STALLING_COMMAND = f"""
import time
from hngtv.cases import prepare
write_json, written = prepare.write_json, []
def stall_at_the_third(path, record):
    written.append(path)
    if len(written) == 3:
        time.sleep(600)
    write_json(path, record)
prepare.write_json = stall_at_the_third
{COMMAND}
"""
"""`hngtv prepare` that stands still while it writes its third case."""


def arguments(root: Path, work_dir: Path, *more: str) -> list[str]:
    return ["prepare", f"data.root={root}", f"work_dir={work_dir}", "n_workers=0", *more]


def records(work_dir: Path) -> dict[str, int]:
    """When each finished case was finished."""
    found = (work_dir / "prepared").glob("*/tiny_*/case.json")
    return {path.parent.name: path.stat().st_mtime_ns for path in found}


def unfinished(work_dir: Path, name: str = "*") -> list[Path]:
    """Files of the third case while it is being written, or after its writer was killed."""
    folders = (work_dir / "prepared").glob("*/.tmp-tiny_02-*")
    return [path for folder in folders for path in folder.glob(name)]


def test_all_cases_are_prepared_once(tiny_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(arguments(tiny_cohort, tmp_path)) == 0
    assert "6 of 6 cases are prepared" in capsys.readouterr().out
    first = records(tmp_path)
    assert len(first) == 6
    assert run_command(arguments(tiny_cohort, tmp_path)) == 0
    assert records(tmp_path) == first


def test_failed_cases_are_listed_with_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = write_tiny_cohort(tmp_path / "raw", 3)
    cases[0].ct.write_text("no image")
    assert cases[2].target is not None
    cases[2].target.unlink()
    assert run_command(arguments(tmp_path / "raw", tmp_path / "work")) == 1
    output = capsys.readouterr()
    first, second, last = output.err.strip().splitlines()
    assert "case tiny_00: " in first
    assert "is not a NIfTI file" in first
    assert "case tiny_02: " in second
    assert "No such file" in second
    assert last == "hngtv: 2 of 3 cases failed (listed above)"
    assert "1 of 3 cases are prepared" in output.out


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_continues_and_redoes_nothing(tmp_path: Path, signal_number: signal.Signals) -> None:
    write_tiny_cohort(tmp_path / "raw", 4)
    line = arguments(tmp_path / "raw", tmp_path / "work")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", STALLING_COMMAND, *line], env=environment, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not unfinished(tmp_path / "work", "coarse_foreground.npy") and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal_number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (130 if signal_number == signal.SIGINT else -signal_number)
    assert b"Traceback" not in errors
    assert bool(unfinished(tmp_path / "work")) == (signal_number == signal.SIGKILL)
    before = records(tmp_path / "work")
    assert len(before) == 2
    assert run_command(line) == 0
    after = records(tmp_path / "work")
    assert len(after) == 4
    assert after.items() >= before.items()
    assert not unfinished(tmp_path / "work")


def test_other_spacings_are_kept_side_by_side(tiny_cohort: Path, tmp_path: Path) -> None:
    assert (
        run_command(arguments(tiny_cohort, tmp_path, "data.spacing_mm=[8,8,8]", "data.coarse_spacing_mm=[9,9,9]")) == 0
    )
    assert (
        run_command(arguments(tiny_cohort, tmp_path, "data.spacing_mm=[9,9,9]", "data.coarse_spacing_mm=[9,9,9]")) == 0
    )
    assert len(list((tmp_path / "prepared").iterdir())) == 2


def test_work_folder_that_cannot_be_written_is_bad_input(
    tiny_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert run_command(arguments(tiny_cohort, tmp_path / "file" / "work")) == 2
    assert "cannot write into folder" in capsys.readouterr().err


def test_impossible_spacing_is_bad_input(tiny_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run_command(arguments(tiny_cohort, tmp_path, "data.spacing_mm=[0,3,3]")) == 2
    assert "spacing_mm" in capsys.readouterr().err
