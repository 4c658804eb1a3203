"""Time budgets: steps that fit, and seconds counted over kills and resumes."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hngtv.training.budget import SAFETY, BudgetGuard, steps_within, training_clock


class Clock:
    """Seconds as told."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def stops(guard: BudgetGuard) -> bool:
    trainer: Any = SimpleNamespace(should_stop=False)
    guard.on_train_batch_end(trainer)
    return trainer.should_stop


@given(st.floats(1, 1e5), st.floats(0, 1e5), st.floats(1e-3, 100))
def test_steps_fit_what_is_left(budget_s: float, used_s: float, step_s: float) -> None:
    n = steps_within(budget_s, used_s, step_s)
    assert n >= 1
    assert n == 1 or used_s + n * step_s <= budget_s * SAFETY + 1e-6 * budget_s
    assert used_s + (n + 1) * step_s > budget_s * SAFETY - 1e-6 * budget_s


def test_guard_counts_and_stops_once_the_budget_is_spent() -> None:
    clock = Clock()
    guard = BudgetGuard(clock, used_s=2.0, budget_s=10.0)
    clock.now += 7
    assert guard.used_s == pytest.approx(9)
    assert not stops(guard)
    clock.now += 2
    assert stops(guard)


def test_guard_without_a_time_budget_only_counts() -> None:
    clock = Clock()
    guard = BudgetGuard(clock, 0.0, None)
    clock.now += 1e6
    assert guard.used_s == 1e6
    assert not stops(guard)


def test_guard_keeps_counting_over_a_kill() -> None:
    clock = Clock()
    first = BudgetGuard(clock, 1.0, 10.0)
    clock.now += 5
    state = first.state_dict()
    clock.now += 2  # lost with the killed process
    later = Clock(now=3.0)
    resumed = BudgetGuard(later, 0.0, 10.0)
    later.now += 0.5
    resumed.load_state_dict(state)
    assert resumed.used_s == pytest.approx(6)
    later.now += 5
    assert resumed.used_s == pytest.approx(11)
    assert stops(resumed)
    assert resumed.state_dict() == {"used_s": pytest.approx(11)}


def test_clock_of_a_cpu_counts_work_and_not_waiting() -> None:
    import time

    clock = training_clock("cpu")
    before = clock()
    time.sleep(0.05)
    waited = clock() - before
    sum(range(300_000))
    assert waited < 0.04
    assert clock() > before
