"""Time budgets: steps that fit, and seconds counted over kills and resumes."""

from collections.abc import Iterable
from itertools import chain, repeat
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hngtv.config import BudgetSettings
from hngtv.training.budget import CALIBRATION_STEPS, SAFETY, BudgetCallback, training_clock
from hngtv.training.stage import SegmentationStage


class Clock:
    """Seconds as told."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Stage(SegmentationStage):
    """A stage without a network."""

    def __init__(self, total_steps: int) -> None:
        pl.LightningModule.__init__(self)
        self.total_steps = total_steps

    def classes_of(self, target: Tensor) -> Tensor:
        return target


def walk(budget: BudgetCallback, clock: Clock, costs_s: Iterable[float], first_step: int = 1) -> tuple[int, Stage]:
    """Steps of the given costs until the callback stops the training, and the module."""
    module = Stage(budget.total_steps)
    for step, cost_s in enumerate(costs_s, start=first_step):
        clock.now += cost_s
        trainer: Any = SimpleNamespace(should_stop=False, global_step=step, world_size=1)
        budget.on_train_batch_end(trainer, module)
        if trainer.should_stop:
            return step, module
    raise AssertionError("never stopped")


def test_steps_are_done_as_set() -> None:
    budget = BudgetCallback(BudgetSettings(steps=7), Clock())
    assert walk(budget, Clock(), repeat(1.0))[0] == 7


@settings(max_examples=20)
@given(st.integers(10, 60), st.floats(0.01, 100))
def test_seconds_become_the_steps_that_fit(n_affordable: int, step_s: float) -> None:
    clock = Clock()
    budget_s = n_affordable * step_s
    budget = BudgetCallback(BudgetSettings(cpu_s=budget_s), clock)
    n_steps, module = walk(budget, clock, chain([3 * step_s], repeat(step_s)))
    assert budget_s * SAFETY - 1.1 * step_s < budget.used_s <= budget_s
    assert n_steps == module.total_steps > CALIBRATION_STEPS


def test_plan_follows_a_machine_that_slows_down() -> None:
    clock = Clock()
    budget = BudgetCallback(BudgetSettings(cpu_s=100), clock)
    walk(budget, clock, chain(repeat(0.5, 60), repeat(1.5)))
    assert 100 * SAFETY - 1.6 < budget.used_s <= 100


def test_a_step_longer_than_the_budget_ends_it() -> None:
    clock = Clock()
    assert walk(BudgetCallback(BudgetSettings(cpu_s=1), clock), clock, repeat(5.0))[0] == 1


def test_seconds_count_over_a_kill() -> None:
    clock = Clock()
    first = BudgetCallback(BudgetSettings(cpu_s=20), clock)
    module = Stage(first.total_steps)
    for step in range(1, 9):
        clock.now += 1
        first.on_train_batch_end(SimpleNamespace(should_stop=False, global_step=step, world_size=1), module)  # type: ignore[arg-type]
    state = first.state_dict()
    clock.now += 3  # lost with the killed process
    later = Clock(now=3.0)
    resumed = BudgetCallback(BudgetSettings(cpu_s=20), later)
    resumed.load_state_dict(state)
    assert resumed.used_s == pytest.approx(8)
    again = Stage(total_steps=1)
    resumed.on_train_start(SimpleNamespace(), again)  # type: ignore[arg-type]
    assert again.total_steps == module.total_steps
    assert walk(resumed, later, repeat(1.0), first_step=9)[0] == pytest.approx(19, abs=1)


def test_clock_of_a_cpu_counts_work_and_not_waiting() -> None:
    import time

    clock = training_clock("cpu")
    before = clock()
    time.sleep(0.05)
    waited = clock() - before
    sum(range(300_000))
    assert waited < 0.04
    assert clock() > before
