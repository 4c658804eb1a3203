"""Learning rate from warm-up to zero, and which weights decay."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hngtv.config import OptimiserSettings
from hngtv.training.schedule import build_optimiser, build_schedule


def settings(**changes: Any) -> OptimiserSettings:
    plain = {
        "learning_rate": 0.1, "weight_decay": 0.01, "warmup_share": 0.1, "batch_size": 1, "ema_decay": 0.9,
        "gradient_clip": 1,
    }  # fmt: skip
    return OptimiserSettings(**(plain | changes))  # pyright: ignore[reportArgumentType]


def rates(total_steps: int, **changes: Any) -> list[float]:
    """Rate before each step, and after the last."""
    chosen = settings(**changes)
    optimiser = build_optimiser(nn.Linear(2, 2), chosen)
    schedule = build_schedule(optimiser, chosen, lambda: total_steps)
    found = [optimiser.param_groups[0]["lr"]]
    for _ in range(total_steps):
        optimiser.step()
        schedule.step()
        found.append(optimiser.param_groups[0]["lr"])
    return found


def test_warms_up_and_ends_at_zero() -> None:
    found = rates(100)
    assert found[0] == pytest.approx(0.01)
    assert max(found) == pytest.approx(0.1)
    assert found.index(max(found)) in (9, 10)
    assert found[55] == pytest.approx(0.05)
    assert found[-1] == 0
    assert all(later < earlier for earlier, later in pairwise(found[10:]))


@given(st.integers(1, 40), st.floats(0, 1))
def test_any_length_and_warm_up_ends_at_zero(total_steps: int, warmup_share: float) -> None:
    found = rates(total_steps, warmup_share=warmup_share)
    assert found[-1] == pytest.approx(0, abs=1e-12)
    assert all(0 < rate <= 0.1 + 1e-12 for rate in found[:-1])


def test_norms_and_biases_are_not_decayed() -> None:
    module = nn.Sequential(nn.Conv3d(1, 2, 3), nn.InstanceNorm3d(2, affine=True))
    groups = build_optimiser(module, settings()).param_groups
    assert [group["weight_decay"] for group in groups] == [0.01, 0.0]
    assert [len(group["params"]) for group in groups] == [1, 3]
    assert isinstance(build_optimiser(module, settings()), torch.optim.AdamW)


def test_a_corrected_number_of_steps_moves_the_end() -> None:
    chosen, planned = settings(), [100]
    optimiser = build_optimiser(nn.Linear(2, 2), chosen)
    schedule = build_schedule(optimiser, chosen, lambda: planned[0])
    for step in range(60):
        if step == 30:
            planned[0] = 60
        optimiser.step()
        schedule.step()
    assert optimiser.param_groups[0]["lr"] == 0
