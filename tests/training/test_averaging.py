"""The average of the weights."""

from functools import partial

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from hngtv.training.averaging import AveragedWeights, ema


def test_average_forgets_the_start_and_settles_at_its_decay() -> None:
    average = partial(ema, decay=0.99)
    start, now = torch.zeros(1), torch.ones(1)
    assert average(start, now, 0).item() > 0.8
    assert abs(average(start, now, 10**6).item() - 0.01) < 1e-6


def test_statistics_of_batch_normalisation_are_averaged_with_the_weights() -> None:
    assert AveragedWeights(0.5)._use_buffers
    network = nn.BatchNorm3d(2)
    averaged = AveragedModel(network, avg_fn=partial(ema, decay=0.5), use_buffers=True)
    for value in (1.0, 3.0):
        for name in ("weight", "running_mean", "running_var"):
            network.state_dict()[name].fill_(value)
        averaged.update_parameters(network)
    inner = averaged.module.state_dict()
    assert 1 < inner["weight"][0] < 3
    assert torch.equal(inner["running_mean"], inner["weight"])
    assert torch.equal(inner["running_var"], inner["weight"])


def test_integers_are_kept() -> None:
    """Position indices of shifted-window attention: averaged and rounded down, they would be others."""
    index = torch.arange(2000)
    network = nn.Module()
    network.register_buffer("index", index.clone())
    averaged = AveragedModel(network, avg_fn=partial(ema, decay=0.999), use_buffers=True)
    for _ in range(20):
        averaged.update_parameters(network)
    assert torch.equal(averaged.module.state_dict()["index"], index)
