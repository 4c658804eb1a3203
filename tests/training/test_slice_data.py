"""Training slices: true classes, equal shares, decided by seed and number alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hngtv.cases.store import PreparedCase
from hngtv.commands.entry import compose
from hngtv.config import RunSettings, SliceLocaliser, parse_settings
from hngtv.training.slice_data import TrainingSlices
from tests.tiny_run import tiny_run


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> RunSettings:
    root = tmp_path_factory.mktemp("none")
    overrides = tiny_run(root, root, "oracle_ag", localiser="slices", augment="none")
    return parse_settings(RunSettings, compose("run", [*overrides[1:], "localiser.crop_voxels=[16,16]"]))


def stream(cases: list[PreparedCase], settings: RunSettings, seed: int = 0, **changes: Any) -> TrainingSlices:
    assert isinstance(settings.localiser, SliceLocaliser)
    return TrainingSlices(cases, settings.localiser, settings, seed, 60)


def test_classes_are_balanced_and_true(prepared: list[PreparedCase], settings: RunSettings) -> None:
    slices = stream(prepared, settings)
    classes = [int(slices[n][1]) for n in range(60)]
    assert 20 <= sum(classes) <= 40
    hottest = [float(slices[n][0][-1].max()) for n in range(60)]
    with_tumour, without = (np.mean([h for h, c in zip(hottest, classes, strict=True) if c == k]) for k in (1, 0))
    assert with_tumour > without, "the tumours of the tiny cases are hot"


def test_a_slice_drawn_for_its_tumour_shows_some(prepared: list[PreparedCase], settings: RunSettings) -> None:
    """The image is larger than the crop, so that a crop anywhere would often miss it."""
    slices = stream(prepared, settings)
    assert min(prepared[0].grid("fine").shape[:2]) > max(slices.size)
    slices.slices = ([], slices.slices[1])
    assert all(int(slices[n][1]) == 1 for n in range(30))


def test_item_depends_on_seed_and_number_alone(prepared: list[PreparedCase], settings: RunSettings) -> None:
    one, other = stream(prepared, settings), stream(prepared[::-1], settings)
    torch.testing.assert_close(one[5][0], other[5][0], rtol=0, atol=0)
    assert one[5][0].shape == (settings.intensity.n_channels, 16, 16)
    assert not torch.equal(one[5][0], stream(prepared, settings, seed=1)[5][0])


def test_cases_without_tumour_give_the_other_class(
    prepared: list[PreparedCase], settings: RunSettings, tmp_path: Path
) -> None:
    slices = stream(prepared, settings)
    slices.slices = (slices.slices[0], [])
    assert all(int(slices[n][1]) == 0 for n in range(10))
