"""Stations that runs share are built once, also when the runs are at work at the same time."""

import re
import subprocess
import sys
from pathlib import Path

from hngtv.localise.roi_table import read_rois
from tests.tiny_cases import write_tiny_cohort
from tests.tiny_run import tiny_run

PROGRAM = """
import os, sys
os.cpu_count = lambda: 1  # cases are prepared in this process
from hngtv.cases import prepare
from hngtv.commands.entry import run_command
write_case = prepare._write_case
def noted(case, folder, grids):
    with open("prepared.txt", "a") as stream:
        stream.write(f"{case.case_id} {os.getpid()}\\n")
    write_case(case, folder, grids)
prepare._write_case = noted
sys.exit(run_command(sys.argv[1:]))
"""


def test_runs_at_the_same_time_prepare_and_train_stage_1_once(tmp_path: Path) -> None:
    write_tiny_cohort(tmp_path / "cases", 4)
    arms = ("two_stage_unet", "two_stage_ag")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *tiny_run(tmp_path / "cases", tmp_path, arm, run_dir=tmp_path / arm)],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
        )
        for arm in arms
    ]
    told = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    lines = (tmp_path / "prepared.txt").read_text().splitlines()
    assert sorted(line.split()[0] for line in lines) == [f"tiny_{n:02d}" for n in range(4)]
    logs = "".join((tmp_path / arm / "log.txt").read_text() for arm in arms)
    assert sorted(re.findall(r"(coarse_\d): training from step 0", logs)) == ["coarse_0", "coarse_1"]
    assert sorted(re.findall(r"(coarse_\d): already trained", logs)) == ["coarse_0", "coarse_1"]
    tables = [
        {roi.case_id: roi for roi in read_rois(tmp_path / arm / "rois.csv") if roi.fold != "ensemble"} for arm in arms
    ]
    assert tables[0] == tables[1]
    for inner in ("inner_0", "inner_1"):
        weights = [(tmp_path / arm / "coarse" / inner / "model.pt").read_bytes() for arm in arms]
        assert weights[0] == weights[1]
    assert not list((tmp_path / "work").rglob(".tmp-*"))
