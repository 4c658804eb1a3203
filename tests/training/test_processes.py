"""Two processes on CPUs (gloo) train a stage as one does, and what they log, write and fail of is told once."""

import importlib.util
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor, nn

from hngtv.cases.store import PreparedCase
from hngtv.commands.entry import BAD_INPUT, DONE, INTERRUPTED, compose, run_command
from hngtv.config import BudgetSettings, RunSettings, parse_settings, plain
from hngtv.errors import InputError
from hngtv.networks.build import build_network
from hngtv.run_folder import read_csv, read_json
from hngtv.training import machine
from hngtv.training.attention_history import watch
from hngtv.training.fine import FineSegmentationModule
from hngtv.training.logger import RunLogger
from hngtv.training.processes import build_strategy, gather_batch, own_share
from hngtv.training.roi_data import CropRules, TrainingCrops
from hngtv.training.trainer import StageFolder, StagePlan, train_stage
from tests.own_network import install_example
from tests.tiny_run import tiny_run

STEPS = 6
TOLERANCE = 5e-6
"""Largest difference of a weight: sums come in another order."""
WITHOUT_EFFECT = re.compile(r"(en|de)coder\.\d\.[03]\.bias")
"""Biases that an instance normalisation takes away again. Their gradient is rounding, which Adam makes steps of."""


def settings_of(root: Path, **changes: Any) -> RunSettings:
    shared: dict[str, Any] = {"optimiser__batch_size": 2, "trainer__precision": "32-true"}
    command = tiny_run(root, root, "single_stage_ag", **shared | changes)
    return parse_settings(RunSettings, compose("run", command[1:]))


def plan_of(settings: RunSettings, cases: list[PreparedCase], **changes: Any) -> StagePlan:
    rules = CropRules("fine", settings.roi, settings.intensity, settings.augment, settings.network.total_stride)
    rois = {case.case_id: [case.grid("fine").bounds()] for case in cases}
    plan = StagePlan(
        label="fine",
        key="k",
        build_module=lambda steps: FineSegmentationModule(
            plain(settings.network),
            plain(settings.loss),
            plain(settings.optimiser),
            settings.intensity.n_channels,
            3,
            steps,
        ),
        build_crops=lambda n: TrainingCrops(cases, rois, rules, settings.seed, n),
        budget=BudgetSettings(steps=STEPS),
        optimiser=settings.optimiser,
        trainer=settings.trainer,
        seed=3,
    )
    return replace(plan, **changes)


def weights_of(folder: Path) -> dict[str, Tensor]:
    return torch.load(StageFolder(folder).weights, weights_only=True)


def largest_difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    names = [name for name in one if not WITHOUT_EFFECT.fullmatch(name)]
    return max(float((one[name] - other[name]).abs().max()) for name in names)


def curves_of(folder: Path) -> dict[str, list[float]]:
    curves: dict[str, list[float]] = {}
    for row in read_csv(StageFolder(folder).curves, ("step", "name", "value")):
        curves.setdefault(row["name"], []).append(float(row["value"]))
    return curves


@dataclass
class LostCrops:
    """A stream whose store is damaged from an item on."""

    crops: Any
    lost: int

    @property
    def size(self) -> Any:
        return self.crops.size

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, item: int) -> tuple[Tensor, Tensor]:
        if item >= self.lost:
            raise InputError(f"crop {item} cannot be read")
        return self.crops[item]


@pytest.fixture(scope="module")
def settings(tiny_cohort: Path) -> RunSettings:
    return settings_of(tiny_cohort)


@pytest.fixture(scope="module")
def alone(settings: RunSettings, prepared: list[PreparedCase], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained by one process, with batches of two."""
    folder = tmp_path_factory.mktemp("alone")
    crop = watch(prepared, settings.roi.crop_voxels or (), settings.intensity)
    train_stage(StageFolder(folder), plan_of(settings, prepared, watched=crop), RunLogger())
    return folder


def in_two(settings: RunSettings, **changes: Any) -> RunSettings:
    return replace(settings, trainer=replace(settings.trainer, n_devices=2, **changes))


def test_two_processes_train_as_one(
    alone: Path,
    settings: RunSettings,
    prepared: list[PreparedCase],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "hngtv")
    crop = watch(prepared, settings.roi.crop_voxels or (), settings.intensity)
    train_stage(StageFolder(tmp_path), plan_of(in_two(settings), prepared, watched=crop), RunLogger())
    start = build_network(settings.network, settings.intensity.n_channels, 3).state_dict()
    assert largest_difference(weights_of(alone), start) > 100 * TOLERANCE
    assert largest_difference(weights_of(alone), weights_of(tmp_path)) < TOLERANCE
    image = torch.rand(1, settings.intensity.n_channels, 16, 16, 12, generator=torch.manual_seed(0))
    logits = []
    for folder in (alone, tmp_path):
        network = build_network(settings.network, settings.intensity.n_channels, 3).eval()
        network.load_state_dict(weights_of(folder))
        logits.append(network(image))
    assert torch.allclose(*logits, atol=1e-5)
    curves = curves_of(alone)
    assert {"train/loss", "lr"} < curves.keys()
    for name, values in curves_of(tmp_path).items():
        assert values == pytest.approx(curves.pop(name), rel=1e-3)
        assert len(values) == STEPS
    assert not curves
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in alone.iterdir())
    one, two = (read_json(StageFolder(folder).record) for folder in (alone, tmp_path))
    assert {name: value for name, value in one.items() if name != "cpu_s"}.items() <= two.items()
    lines = [record.getMessage() for record in caplog.records if "step 3 of 6" in record.getMessage()]
    assert len(lines) == 1


def test_an_error_of_a_process_is_told_and_training_goes_on_from_its_checkpoint(
    alone: Path, settings: RunSettings, prepared: list[PreparedCase], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hngtv")
    plan = plan_of(in_two(settings, checkpoint_every_s=1e-6), prepared)
    damaged: Any = replace(plan, build_crops=lambda n: LostCrops(plan.build_crops(n), lost=7))
    with pytest.raises(InputError, match="crop 7 cannot be read"):
        train_stage(StageFolder(tmp_path), damaged, RunLogger())
    train_stage(StageFolder(tmp_path), plan, RunLogger())
    assert "training from step 3" in caplog.text
    assert largest_difference(weights_of(alone), weights_of(tmp_path)) < TOLERANCE


def test_seconds_of_all_processes_count(settings: RunSettings, prepared: list[PreparedCase], tmp_path: Path) -> None:
    plan = plan_of(in_two(settings), prepared, budget=BudgetSettings(cpu_s=3))
    record = train_stage(StageFolder(tmp_path), plan, RunLogger())
    assert record["steps"] > 4
    assert 2 < record["cpu_s"] < 3.5


def test_a_run_that_is_stopped_leaves_no_process_and_one_inside_a_sweep_ends(tiny_cohort: Path, tmp_path: Path) -> None:
    command = tiny_run(
        tiny_cohort, tmp_path, "single_stage_ag", trainer="ddp", trainer__accelerator="cpu", trainer__n_workers=0,
        trainer__n_threads=1, trainer__checkpoint_every_s=0.01, optimiser__batch_size=2, budget__steps=80, fold="all",
    )  # fmt: skip
    program = "import sys; from hngtv.commands.entry import run_command; sys.exit(run_command(sys.argv[1:]))"
    process = subprocess.Popen([sys.executable, "-c", program, *command], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run/fine/last.ckpt").exists():
        assert process.poll() is None, "ended before it could be stopped"
        assert time.monotonic() < deadline, "no checkpoint in 120 s"
        time.sleep(0.01)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len([child for child in children if "spawn_main" in " ".join(child.cmdline())]) == 2
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == INTERRUPTED
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    job = [word for word in command if not word.startswith(("run_dir=", "budget."))]
    assert run_command([*job, "-m", "seed=0", f"hydra.sweep.dir={tmp_path / 'sweep'}", "budget.steps=6"]) == DONE
    (record,) = (tmp_path / "sweep").rglob("training.json")
    assert read_json(record)["steps"] == 6


def test_two_nodes_meet_in_the_training(tiny_cohort: Path, tmp_path: Path) -> None:
    """Two commands on this machine, each a node of one device with folders of its own."""
    program = "import sys; from hngtv.commands.entry import run_command; sys.exit(run_command(sys.argv[1:]))"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    nodes = []
    for rank in range(2):
        command = tiny_run(
            tiny_cohort, tmp_path / str(rank), "single_stage_ag", trainer="ddp", trainer__accelerator="cpu",
            trainer__n_devices=1, trainer__n_nodes=2, trainer__n_workers=0, trainer__n_threads=1,
            optimiser__batch_size=2, budget__steps=6, fold="all",
        )  # fmt: skip
        environment = os.environ | {"NODE_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        nodes.append(subprocess.Popen([sys.executable, "-c", program, *command], env=environment))
    assert [node.wait(300) for node in nodes] == [DONE, DONE]
    one, two = (weights_of(tmp_path / str(rank) / "run/fine") for rank in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"optimiser__batch_size": 3}, "optimiser.batch_size is 3, but 2 devices share each batch"),
        ({"optimiser__batch_size": 2, "trainer__n_nodes": 2}, "set a multiple of 4"),
        ({"trainer__n_devices": 0}, "trainer.n_devices"),
        ({"optimiser__batch_size": 2, "network__norm": "batch"}, "network has batch normalisation.*network.norm=group"),
        (
            {"optimiser__batch_size": 2, "localiser": "slices", "localiser__batch_size": 4},
            "localiser.network has batch normalisation.*choose another localiser.network",
        ),
    ],
)
def test_a_batch_that_cannot_be_shared_is_refused(tiny_cohort: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        settings_of(tiny_cohort, **{"trainer": "ddp", "trainer__accelerator": "cpu"} | changes)


def test_batch_normalisation_on_cpus_is_refused(settings: RunSettings) -> None:
    with pytest.raises(InputError, match="batch normalisation cannot share"):
        build_strategy(in_two(settings).trainer, nn.Sequential(nn.BatchNorm3d(2)))
    assert build_strategy(settings.trainer, nn.Sequential(nn.BatchNorm3d(2))) == "auto"


def test_an_own_network_with_batch_normalisation_is_refused_before_any_case_is_prepared(
    tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_example(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    own = {"network": "own", "network__entry_point": "small", "network__total_stride": 4}
    monkeypatch.setattr(machine, "build_network", lambda *_, **__: nn.BatchNorm3d(2))
    with pytest.raises(InputError, match="batch normalisation cannot share"):
        machine.check_machine(settings_of(tiny_cohort, trainer="ddp", trainer__accelerator="cpu", **own))
    machine.check_machine(settings_of(tiny_cohort, **own))


def test_what_the_machine_lacks_is_told_before_any_case_is_prepared(
    tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert run_command(tiny_run(tiny_cohort, tmp_path, "single_stage_ag", trainer="gpu")) == BAD_INPUT
    assert "PyTorch finds 0 GPU(s) here" in capsys.readouterr().err
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda *name: None if "tensorboard" in name else found(*name))
    command = tiny_run(tiny_cohort, tmp_path / "other", "single_stage_ag", logger="tensorboard")
    assert run_command(command) == BAD_INPUT
    assert "pip install 'hngtv[tensorboard]'" in capsys.readouterr().err
    assert not list(tmp_path.rglob("prepared"))


def test_one_process_gathers_nothing() -> None:
    own = torch.ones(2, dtype=torch.bfloat16)
    assert gather_batch(own) is own
    assert own_share(own) is own
