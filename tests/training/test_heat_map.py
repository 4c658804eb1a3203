"""Heat maps in training: targets by hand, a loss that is least at the truth, a training that learns and repeats."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hngtv.cases.store import PreparedCase
from hngtv.commands.entry import compose
from hngtv.config import RunSettings, TrainedLocaliser, parse_settings
from hngtv.networks.build import build_network
from hngtv.networks.heat_map import N_CHANNELS, TYPICAL_MM, heat_logits_of, log_sides_of, read_maps
from hngtv.out_of_fold import CoarseStation
from hngtv.run_folder import read_csv
from hngtv.training.heat_map import HeatMapTarget, draw_targets, focal_loss, heat_map_loss
from hngtv.training.logger import RunLogger
from hngtv.training.roi_data import TrainingCrops
from hngtv.training.trainer import StageFolder, train_stage
from tests.tiny_run import tiny_run

SPACING_MM = (10.0, 10.0, 12.0)
SHAPE = (16, 16, 12)


def draw(*lesions: tuple[slice, slice, slice], sigma_mm: float = 10.0) -> HeatMapTarget:
    """Targets of one crop with box-shaped lesions."""
    labels = torch.zeros(1, 1, *SHAPE, dtype=torch.uint8)
    for number, lesion in enumerate(lesions):
        labels[(0, 0, *lesion)] = 1 + number % 2
    return draw_targets(labels, SPACING_MM, sigma_mm)


ONE = (slice(2, 5), slice(3, 4), slice(4, 6))
"""Centre 3, 3, 4."""
OTHER = (slice(9, 14), slice(9, 12), slice(5, 8))
"""Centre 11, 10, 6."""
CUT = (slice(12, 16), slice(2, 5), slice(1, 4))
"""At the border; centre of what is seen 13, 3, 2."""


def centres_of(target: HeatMapTarget) -> list[list[int]]:
    return torch.nonzero(target.heat[0, 0] == 1).tolist()


def test_two_lesions_by_hand() -> None:
    target = draw(ONE, OTHER)
    assert centres_of(target) == [[3, 3, 4], [11, 10, 6]]
    assert target.sides_mm[0, :, 3, 3, 4].tolist() == [30, 10, 24]
    assert target.sides_mm[0, :, 11, 10, 6].tolist() == [50, 30, 36]
    assert target.heat[0, 0, 3, 5, 5].item() == pytest.approx(np.exp(-(20**2 + 12**2) / 200), rel=1e-5)


def test_where_gaussians_meet_the_larger_counts() -> None:
    alone = [draw(ONE).heat, draw(OTHER).heat]
    torch.testing.assert_close(draw(ONE, OTHER).heat, torch.maximum(*alone))


def test_gtvp_and_gtvn_that_touch_are_one_lesion() -> None:
    target = draw((slice(4, 6), slice(4, 6), slice(4, 6)), (slice(6, 9), slice(6, 9), slice(6, 9)))
    assert centres_of(target) == [[6, 6, 6]]
    assert target.sides_mm[0, :, 6, 6, 6].tolist() == [50, 50, 60]


def test_a_lesion_that_is_cut_has_a_centre_and_no_size() -> None:
    target = draw(CUT)
    assert centres_of(target) == [[13, 3, 2]]
    assert not target.sides_mm.any()


def test_each_voxel_tells_the_size_of_the_lesion_whose_gaussian_is_the_highest() -> None:
    """Along x from 3, 3, 4 to the centre of the other one, at 13, 3, 2: the middle is nearer to the first."""
    whole, one_is_cut = draw(ONE, (slice(12, 15), slice(2, 5), slice(1, 4))), draw(ONE, CUT)
    assert whole.sides_mm[0, 0, :, 3, 3].tolist() == [30.0] * 16
    assert whole.sides_mm[0, 1, :, 3, 3].tolist() == [10.0] * 9 + [30.0] * 7
    assert one_is_cut.sides_mm[0, 1, :, 3, 3].tolist() == [10.0] * 9 + [0.0] * 7


def test_an_empty_crop_is_cold() -> None:
    target = draw()
    assert target.heat.shape == (1, 1, *SHAPE)
    assert target.sides_mm.shape == (1, 3, *SHAPE)
    assert not target.heat.any()
    assert not target.sides_mm.any()


def test_crops_of_a_batch_do_not_mix() -> None:
    labels = torch.zeros(2, 1, *SHAPE)
    labels[(1, 0, *ONE)] = 1
    target = draw_targets(labels, SPACING_MM, 10.0)
    assert not target.heat[0].any()
    torch.testing.assert_close(target.heat[1:], draw(ONE).heat)


def sure_of(target: HeatMapTarget) -> Tensor:
    """Logits that say the truth of each centre and of its size."""
    centre = (target.heat == 1) * 30.0 - 15.0
    logits = torch.cat([-centre, (target.sides_mm.clamp(min=1) / TYPICAL_MM).log()], dim=1)
    torch.testing.assert_close(heat_logits_of(logits), centre)
    return logits


def loss_of(logits: Tensor, target: HeatMapTarget) -> float:
    return float(sum(heat_map_loss(logits, target, extent_weight=0.5)))


def test_loss_is_least_at_the_truth() -> None:
    target = draw(ONE, OTHER, CUT)
    truth = sure_of(target)
    assert loss_of(truth, target) < 1e-3
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        other = truth + torch.randn(truth.shape, generator=generator) * 5
        assert loss_of(other, target) > loss_of(truth, target)


def test_near_a_centre_heat_is_forgiven() -> None:
    target = draw(ONE)
    near, far = sure_of(target), sure_of(target)
    near[0, 0, 4, 3, 4] = far[0, 0, 11, 10, 6] = -2
    assert 0 < loss_of(near, target) - loss_of(sure_of(target), target) < 0.1 * loss_of(far, target)


def test_focal_loss_by_hand() -> None:
    """A centre of heat 0.75; a voxel of heat 0.5 where the truth is 0.5, and one where it is 0."""
    logits = torch.tensor([3.0, 1.0, 1.0]).log()
    wanted = -(0.25**2 * np.log(0.75) + 0.5**4 * 0.5**2 * np.log(0.5) + 0.5**2 * np.log(0.5))
    assert focal_loss(logits, torch.tensor([1.0, 0.5, 0.0])).item() == pytest.approx(wanted, rel=1e-5)


def test_loss_of_sizes_by_hand() -> None:
    """Twice too long along x, right along y, half as long along z; at the centre, then everywhere."""
    target = draw(ONE)
    error = torch.tensor([np.log(2), 0, -np.log(2)])
    logits = sure_of(target)
    logits[0, 1:, 3, 3, 4] += error
    at_centre = float(heat_map_loss(logits, target, extent_weight=0.5)[1])
    assert at_centre == pytest.approx(np.log(2) / float(target.heat.sum()), rel=1e-4)
    everywhere = sure_of(target)
    everywhere[0, 1:] += error[:, None, None, None]
    assert float(heat_map_loss(everywhere, target, extent_weight=0.5)[1]) == pytest.approx(np.log(2), rel=1e-4)


@pytest.mark.parametrize("lesions", [(), (CUT,)])
def test_loss_and_gradient_are_finite_without_a_whole_lesion(lesions: tuple[tuple[slice, slice, slice], ...]) -> None:
    target = draw(*lesions)
    logits = torch.randn(1, N_CHANNELS, *SHAPE, requires_grad=True)
    heat, extent = heat_map_loss(logits, target, extent_weight=0.5)
    (heat + extent).backward()
    assert heat.isfinite()
    assert extent == 0
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_what_is_read_is_what_was_trained() -> None:
    logits = torch.randn(2, N_CHANNELS, 4, 4, 4)
    maps = read_maps(logits)
    torch.testing.assert_close(maps[:, :1], heat_logits_of(logits).sigmoid())
    torch.testing.assert_close(maps[:, 1:].log(), log_sides_of(logits))


@pytest.fixture
def settings(tmp_path: Path) -> RunSettings:
    return settings_of(tmp_path)


def settings_of(root: Path, **changes: Any) -> RunSettings:
    arguments = tiny_run(root, root, localiser="heat_map", localiser__crop_voxels="[12, 12, 12]", **changes)
    return parse_settings(RunSettings, compose("run", arguments[1:]))


def test_a_fresh_network_is_cold(settings: RunSettings) -> None:
    assert isinstance(settings.localiser, TrainedLocaliser)
    assert settings.localiser.name == "heat_map"
    network = build_network(settings.localiser.network, 2, N_CHANNELS)
    heat = read_maps(network(torch.zeros(1, 2, 12, 12, 12)))[:, 0]
    assert 0.05 < heat.mean() < 0.25


def train(cases: list[PreparedCase], root: Path, settings: RunSettings) -> StageFolder:
    """Train the first inner model."""
    assert isinstance(settings.localiser, TrainedLocaliser)
    ((folder, plan),) = CoarseStation(cases, settings, settings.localiser)._plans(0, root)
    train_stage(folder, plan, RunLogger())
    return folder


def test_a_short_training_learns(prepared: list[PreparedCase], tmp_path: Path) -> None:
    settings = settings_of(tmp_path, budget__steps=240, augment="none", optimiser__learning_rate=0.005)
    folder = train(prepared, tmp_path / "stage", settings)
    rows = read_csv(folder.curves, ("step", "name", "value"))
    losses = [float(row["value"]) for row in rows if row["name"] == "train/loss"]
    third = len(losses) // 3
    assert third > 0
    assert np.mean(losses[-third:]) < 0.5 * np.mean(losses[:third])
    assert {"train/heat", "train/extent"} <= {row["name"] for row in rows}


def test_equal_seeds_give_equal_weights(prepared: list[PreparedCase], tmp_path: Path) -> None:
    one, same, other = (
        torch.load(train(prepared, tmp_path / name, settings_of(tmp_path, seed=seed)).weights, weights_only=True)
        for name, seed in (("one", 0), ("same", 0), ("other", 1))
    )
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_stopped_training_ends_where_the_unbroken_one_does(
    prepared: list[PreparedCase], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_of(tmp_path, budget__steps=40, trainer__checkpoint_every_s=0.001)
    unbroken = train(prepared, tmp_path / "unbroken", settings)
    read = TrainingCrops.__getitem__

    def read_until_killed(crops: TrainingCrops, item: int) -> tuple[Tensor, Tensor]:
        if item == 6:
            raise RuntimeError("killed")
        return read(crops, item)

    monkeypatch.setattr(TrainingCrops, "__getitem__", read_until_killed)
    with pytest.raises(RuntimeError, match="killed"):
        train(prepared, tmp_path / "killed", settings)
    monkeypatch.undo()
    caplog.clear()  # where an earlier test left the logger at this level, the unbroken training is in it
    with caplog.at_level("INFO", logger="hngtv"):
        killed = train(prepared, tmp_path / "killed", settings)
    assert "heat_map_0: training from step 0" not in caplog.text
    assert "heat_map_0: training from step" in caplog.text
    one, other = (torch.load(stage.weights, weights_only=True) for stage in (unbroken, killed))
    assert all(torch.equal(one[name], other[name]) for name in one)
