"""The networks of others walk the line as ours do."""

import csv
from pathlib import Path

import pytest
import torch

from hngtv.commands.entry import DONE, run_command
from hngtv.config import RunSettings, parse_settings
from hngtv.networks.build import build_network
from hngtv.run_folder import read_json
from tests.own_network import install_example
from tests.tiny_cases import write_tiny_cohort
from tests.tiny_run import TINY_PEERS, tiny_run


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("peers")
    write_tiny_cohort(root / "cases", 4)
    return root


@pytest.mark.parametrize("name", TINY_PEERS)
def test_peer_trains_predicts_and_is_scored(name: str, cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cohort / name
    install_example(folder / "site")
    monkeypatch.syspath_prepend(folder / "site")
    experiment = "two_stage_unet" if name == "dynunet" else "single_stage_unet"
    arguments = tiny_run(
        cohort / "cases", folder, experiment, network=name, arm=name, budget__steps=4, work_dir=cohort / "work"
    )
    assert run_command(arguments) == DONE
    with (folder / "run/scores.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["arm"] for row in rows} == {name}
    assert len({row["case_id"] for row in rows}) == 2
    curves = (folder / "run/fine/curves.csv").read_text()
    assert ("gate" in curves) == (name == "own")
    assert_averaged_weights_are_whole(folder / "run")


def assert_averaged_weights_are_whole(run: Path) -> None:
    """Integers are those of a new network, and the statistics of batch normalisation have moved with its weights."""
    saved = torch.load(run / "fine/model.pt", weights_only=True)
    settings = parse_settings(RunSettings, read_json(run / "settings.json"))
    new = build_network(settings.network, settings.intensity.n_channels, out_channels=3).state_dict()
    for key, value in saved.items():
        if key.endswith("running_mean"):
            assert not torch.equal(value, new[key]), key
        elif not value.is_floating_point() and not key.endswith("num_batches_tracked"):
            assert torch.equal(value, new[key]), key
