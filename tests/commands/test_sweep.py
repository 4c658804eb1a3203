"""A sweep loses no job: each has its row, whatever becomes of it, and the same command runs what is missing."""

import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from hngtv.commands import job as job_module
from hngtv.commands.entry import BUG, CASES_FAILED, DONE, INTERRUPTED, run_command
from hngtv.commands.results import SCORE_COLUMNS
from hngtv.run_folder import read_csv
from tests import fake_job

PROGRAM = (
    "import sys; from hngtv.commands import job; from hngtv.commands.entry import main; "
    f"job.PROGRAM = {fake_job.PROGRAM!r}; main()"
)
"""`hngtv` with jobs that train nothing."""
STARTED: list[subprocess.Popen] = []


@pytest.fixture(autouse=True)
def fake_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(job_module, "PROGRAM", fake_job.PROGRAM)
    (tmp_path / "cases").mkdir()
    behave({})
    yield
    while STARTED:
        STARTED.pop().kill()  # where a test failed


def behave(behaviour: dict[str, object]) -> None:
    Path("behaviour.json").write_text(json.dumps(behaviour))


def words(folds: str, *more: str) -> list[str]:
    return ["run", "-m", "data.root=cases", "arm=x", f"fold={folds}", "logger=csv", *more]


def started(*more: str) -> subprocess.Popen:
    """The same sweep as a command of its own."""
    STARTED.append(subprocess.Popen([sys.executable, "-c", PROGRAM, *more], stdout=subprocess.PIPE, text=True))
    return STARTED[-1]


def rows() -> dict[str, dict[str, str]]:
    return {row["fold"]: row for row in read_csv(Path("runs/results.csv"), ["arm", "fold", "seed", "status"])}


def starts() -> list[str]:
    return [line.split()[2] for line in Path("starts.txt").read_text().splitlines()]


def wait_until(holds: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(fold: str) -> bool:
    """Whether a job is at work and has said so; in `results.csv` it runs from the moment that it has its folder."""
    has_said = Path(f"runs/x/fold_{fold}_seed_0/status.json").is_file()
    return has_said and Path("runs/results.csv").is_file() and rows()[fold]["status"] == "running"


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2] if Path("/proc").is_dir() else True


def pid_of(fold: int) -> int:
    return json.loads(Path(f"runs/x/fold_{fold}_seed_0/status.json").read_text())["pid"]


def test_a_job_that_dies_ends_neither_the_sweep_nor_disappears(capsys: pytest.CaptureFixture[str]) -> None:
    behave({"0": "kill", "1": "segfault", "2": "bug", "3": "lose a case"})
    assert run_command(words("0,1,2,3,4")) == 128 + signal.SIGSEGV
    found = rows()
    assert [row["status"] for row in found.values()] == ["failed", "failed", "failed", "done", "done"]
    assert "killed by signal 9" in found["0"]["reason"]
    assert "killed by signal 11" in found["1"]["reason"]
    assert found["2"]["reason"] == "RuntimeError: out of luck"
    assert "1 case(s) failed" in found["3"]["reason"]
    assert found["4"]["reason"] == ""
    assert [row["exit_status"] for row in found.values()] == ["137", "139", str(BUG), str(CASES_FAILED), str(DONE)]
    assert found["4"]["GTV_dice"] == repr((0.04 + 0.14 + 0.24) / 3)
    assert found["4"]["run_dir"] == "x/fold_4_seed_0"
    assert found["0"]["GTV_dice"] == ""
    shown = capsys.readouterr().out
    assert "[5/5] x fold 4 seed 0: done in" in shown
    assert "Dice 0.14" in shown

    behave({})
    assert run_command(words("0,1,2,3,4")) == DONE
    assert starts() == ["0", "1", "2", "3", "4", "0", "1", "2", "3"], "what was missing and nothing else"
    assert {row["status"] for row in rows().values()} == {"done"}
    assert "[2/5] x fold 0" in capsys.readouterr().out


def test_a_job_with_bad_input_says_why() -> None:
    behave({"1": "bad input"})
    assert run_command(words("0,1")) == 2
    assert rows()["1"]["reason"] == "case x: no CT"


def test_a_job_that_cannot_begin_is_told_by_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_module, "PROGRAM", ("-c", "import nothing_of_the_kind"))
    assert run_command(words("0,1")) == 1
    assert rows()["1"]["reason"] == "ModuleNotFoundError: No module named 'nothing_of_the_kind'"


def test_a_finished_sweep_is_recognised_without_the_libraries_of_training() -> None:
    assert run_command(words("0,1")) == DONE
    program = (
        "import sys; from hngtv.commands.entry import run_command; status = run_command(sys.argv[1:]); "
        "print(status, sorted({'torch', 'numpy', 'nibabel', 'scipy', 'pytorch_lightning'} & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program, *words("0,1")], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert "2 jobs, 2 of them finished" in answer[0]
    assert answer[-1] == "0 []"
    assert starts() == ["0", "1"]


def test_results_have_a_row_for_every_job_from_the_start_and_columns_for_every_class() -> None:
    behave({"0": "slow"})
    sweep = started(*words("0,1"))
    wait_until(lambda: is_running("0"))
    assert rows()["1"]["status"] == "waiting"
    assert set(SCORE_COLUMNS) <= set(rows()["0"])
    sweep.send_signal(signal.SIGTERM)
    assert sweep.wait(30) == INTERRUPTED


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_stopped_sweep_leaves_no_job_at_work_and_goes_on_later(how: signal.Signals) -> None:
    behave({"0": "slow"})
    sweep = started(*words("0,1"))
    wait_until(lambda: is_running("0"))
    pid = pid_of(0)
    sweep.send_signal(how)
    assert sweep.wait(30) == (-signal.SIGKILL if how == signal.SIGKILL else INTERRUPTED)
    wait_until(lambda: not is_alive(pid), 10)
    behave({})
    if how == signal.SIGKILL:
        assert rows()["0"]["status"] == "running", "nobody was left to say otherwise"
    else:
        assert rows()["0"]["status"] == "failed"
        assert starts() == ["0"]
    assert run_command(words("0,1")) == DONE
    assert starts() == ["0", "0", "1"]
    assert {row["status"] for row in rows().values()} == {"done"}


def test_two_commands_on_one_folder_share_the_jobs() -> None:
    behave({str(fold): 1.0 for fold in range(4)})
    both = [started(*words("0,1,2,3")) for _ in range(2)]
    told = [sweep.communicate(timeout=120)[0] for sweep in both]
    assert [sweep.returncode for sweep in both] == [DONE, DONE], told
    assert sorted(starts()) == ["0", "1", "2", "3"], told
    assert {row["status"] for row in rows().values()} == {"done"}


def test_two_commands_on_one_folder_run_a_failing_job_once() -> None:
    behave({"0": 1.0, "1": 2.0, "2": "bug", "3": 1.0, "4": "lose a case"})
    both = [started(*words("0,1,2,3,4")) for _ in range(2)]
    told = [sweep.communicate(timeout=120)[0] for sweep in both]
    assert [sweep.returncode for sweep in both] == [BUG, BUG], told
    assert sorted(starts()) == ["0", "1", "2", "3", "4"], told


def test_an_error_budget_asked_for_later_is_added() -> None:
    localiser = "localiser=hot_spot"
    assert run_command(words("0,1", localiser)) == DONE
    for _ in range(2):
        assert run_command(words("0,1", localiser, "error_budget=true")) == DONE
    assert starts() == ["0", "1", "0", "1"]


def overlap() -> bool:
    """Whether a job of `behave({...: 3.0})` began within 2 s of another."""
    times = sorted(float(line.split()[3]) for line in Path("starts.txt").read_text().splitlines())
    return any(later - earlier < 2 for earlier, later in itertools.pairwise(times))


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_launcher_runs_jobs_side_by_side_and_loses_none(launcher: str) -> None:
    pytest.importorskip(launcher.partition("_")[0])
    behave({"0": 3.0, "1": 3.0, "2": "kill"})
    sweep = started(*words("0,1,2,3", f"launcher={launcher}", "launcher.n_jobs=2"))
    told = sweep.communicate(timeout=120)[0]
    assert sweep.returncode == 137, told
    assert [row["status"] for row in rows().values()] == ["done", "done", "failed", "done"]
    assert overlap()
    assert told.count("done in") == 3
    behave({})
    again = started(*words("0,1,2,3", f"hydra/launcher={launcher}"))
    assert "[4/4] x fold 2 seed 0: done" in again.communicate(timeout=60)[0]
    assert again.returncode == DONE
    assert sorted(starts()) == ["0", "1", "2", "2", "3"]


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_stopped_launcher_leaves_no_job_at_work(launcher: str) -> None:
    pytest.importorskip(launcher.partition("_")[0])
    behave({"0": "slow", "1": "slow"})
    sweep = started(*words("0,1,2", f"launcher={launcher}"))
    wait_until(lambda: is_running("0") and is_running("1"))
    pids = [pid_of(0), pid_of(1)]
    sweep.send_signal(signal.SIGTERM)
    assert sweep.wait(60) == INTERRUPTED
    wait_until(lambda: not any(map(is_alive, pids)), 10)
    assert [row["status"] for row in rows().values()] == ["failed", "failed", "waiting"]


def test_missing_engine_is_told_before_the_first_job(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run_command(words("0,1", "launcher=ray")) == 2
    assert "pip install 'hngtv[ray]'" in capsys.readouterr().err
    assert not Path("runs").exists()


FAKE_SLURM = {
    "sbatch": """
        import os, re, subprocess, sys
        script = open(sys.argv[1]).read()
        n_jobs = int(re.search(r"--array=0-(\\d+)%", script)[1]) + 1
        open("sbatch.txt", "w").write(script)
        for task in range(n_jobs):
            names = {"SLURM_JOB_ID": f"7{task}", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": str(task)}
            ranks = {"SLURM_NTASKS": "1", "SLURM_JOB_NUM_NODES": "1", "SLURM_NODEID": "0", "SLURM_PROCID": "0"}
            more = {"SLURM_LOCALID": "0", "SLURM_JOB_NODELIST": "here"}
            log = open("slurm.txt", "a")
            subprocess.Popen(["bash", sys.argv[1]], env=os.environ | names | ranks | more, stdout=log, stderr=log)
        print("Submitted batch job 7")
    """,
    "srun": """
        import os, sys
        command = sys.argv[sys.argv.index(sys.executable):]
        os.execv(command[0], command)
    """,
    "sacct": "print('JobID|State|NodeList')",
}
"""Commands that do at once, on this machine, what Slurm's would do later elsewhere."""


def put_on_path(commands: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, source in commands.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!{sys.executable}\n{textwrap.dedent(source)}")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_no_slurm_is_told_before_the_first_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run_command(words("0,1", "launcher=submitit_slurm")) == 2
    assert "there is no srun and no sbatch here" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_an_engine_that_refuses_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("submitit")
    refusal = "import sys; sys.exit('sbatch: error: invalid partition specified')"
    put_on_path(FAKE_SLURM | {"sbatch": refusal}, tmp_path / "bin", monkeypatch)
    assert run_command(words("0,1", "launcher=submitit_slurm")) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("hngtv: launcher=submitit_slurm cannot start")
    assert "invalid partition" in told


def test_a_ray_cluster_that_is_not_there_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def init(address: str, **_: object) -> None:
        raise ConnectionError(f"no cluster at\n{address}")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init))
    assert run_command(words("0,1", "launcher=ray", "launcher.address=nowhere:1")) == 2
    assert capsys.readouterr().err == ("hngtv: launcher=ray cannot start: no cluster at nowhere:1; see its settings\n")


def test_slurm_gets_an_array_of_jobs_with_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    put_on_path(FAKE_SLURM, tmp_path / "bin", monkeypatch)
    behave({"1": "kill"})
    more = [
        "partition=short",
        "gpus_per_node=1",
        "mem_gb=8",
        "setup=['export X=1']",
        "additional={account: me}",
        "n_jobs=5",
    ]
    sweep = started(*words("0,1", "launcher=submitit_slurm", *(f"launcher.{word}" for word in more)))
    told = sweep.communicate(timeout=120)[0]
    assert sweep.returncode == 137, told
    assert [row["status"] for row in rows().values()] == ["done", "failed"]
    script = Path("sbatch.txt").read_text().splitlines()
    asked = ["partition=short", "gpus-per-node=1", "mem=8GB", "account=me", "array=0-1%2", "cpus-per-task=2"]
    assert {f"#SBATCH --{line}" for line in [*asked, "time=1440"]} <= set(script)
    assert "export X=1" in script


def test_ray_cluster_of_two_nodes_runs_every_job() -> None:
    """Two nodes on loopback, one processor each, so that two jobs at once need both."""
    ray_cluster = pytest.importorskip("ray.cluster_utils", reason="ray is not installed (pip install 'hngtv[ray]')")
    behave({"0": 8.0, "1": 8.0, "2": "kill"})
    cluster = ray_cluster.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        more = [f"launcher.address={cluster.address}", "launcher=ray"]
        sweep = started(*words("0,1,2,3", *more))
        told = sweep.communicate(timeout=300)[0]
    finally:
        cluster.shutdown()
    assert sweep.returncode == 137, told
    assert [row["status"] for row in rows().values()] == ["done", "done", "failed", "done"]
    hosts = [json.loads(path.read_text())["pid"] for path in sorted(Path("runs/x").glob("*/status.json"))]
    assert len(set(hosts)) == 4
    assert overlap()
