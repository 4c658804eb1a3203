"""Dice on validation cases during training: at its moments, of the averaged weights, told again after a kill."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hngtv.cases.intensity import window
from hngtv.cases.store import PreparedCase
from hngtv.config import RunSettings
from hngtv.networks.build import build_network
from hngtv.training.attention_history import watch
from hngtv.training.logger import RunLogger
from hngtv.training.trainer import StageFolder, train_stage
from hngtv.training.validation import Milestones, Validation
from tests.training.test_processes import STEPS, plan_of, settings_of, weights_of

THRESHOLD = 0.4


class HopelessError(Exception):
    """What a search raises."""


@pytest.fixture
def settings(tmp_path: Path) -> RunSettings:
    return settings_of(tmp_path, trainer__checkpoint_every_s=1e-6)


def validation(cases: list[PreparedCase], settings: RunSettings, milestones: Milestones) -> Validation:
    crops = [watch([case], settings.roi.crop_voxels or (), settings.intensity) for case in cases]
    return Validation([crop for crop in crops if crop], THRESHOLD, milestones)


def test_told_at_its_moments_of_the_averaged_weights(
    prepared: list[PreparedCase], settings: RunSettings, tmp_path: Path
) -> None:
    told: list[tuple[int, float]] = []
    seen = validation(prepared, settings, Milestones((0.4, 1.0), lambda *pair: told.append(pair)))
    train_stage(StageFolder(tmp_path), plan_of(settings, prepared, validation=seen), RunLogger())
    assert [number for number, _ in told] == [0, 1]
    network = build_network(settings.network, settings.intensity.n_channels, 3).eval()
    network.load_state_dict(weights_of(tmp_path))
    dices = []
    for crop in seen.crops:
        with torch.no_grad():
            logits = network(torch.from_numpy(window(crop.image, crop.intensity))[None])
        found, true = logits.softmax(1)[0, 1:].sum(0).numpy() >= THRESHOLD, crop.target > 0
        dices.append(2 * (found & true).sum() / (found.sum() + true.sum()))
    assert told[1][1] == pytest.approx(np.mean(dices), abs=1e-6)
    assert np.mean(dices) > 0


def test_looking_changes_no_weight_and_a_hopeless_training_goes_on_where_it_was(
    prepared: list[PreparedCase], settings: RunSettings, tmp_path: Path
) -> None:
    def end(number: int, dice: float) -> None:
        told.append(number)
        if number == 1:
            raise HopelessError

    told: list[int] = []
    plan = plan_of(settings, prepared)
    seen = validation(prepared, settings, Milestones((0.3, 0.6), end))
    with pytest.raises(HopelessError):
        train_stage(StageFolder(tmp_path / "on"), replace(plan, validation=seen), RunLogger())
    go_on = replace(seen, milestones=Milestones((0.3, 0.6), lambda number, _: told.append(number)))
    record = train_stage(StageFolder(tmp_path / "on"), replace(plan, validation=go_on), RunLogger())
    assert told == [0, 1, 0, 1]
    assert record["steps"] == STEPS
    train_stage(StageFolder(tmp_path / "unseen"), plan, RunLogger())
    one, other = weights_of(tmp_path / "on"), weights_of(tmp_path / "unseen")
    assert all(torch.equal(one[name], other[name]) for name in one)
