"""The terms of a comparison: what is asked of it, and what the arms did not share though fairness needs it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hngtv.report.runs import Run, runs_by_arm

ARM_SETTINGS = (
    "arm", "run_dir", "work_dir", "fold", "seed", "localiser", "logger", "network.name", "network.gate_variant",
    "network.n_gates", "network.open_gates", "roi.margin_mm", "roi.jitter_mm",
)  # fmt: skip
"""Settings, or groups of them, that may differ between arms: what an arm is, and where it lies."""

BUDGET_TOLERANCE = 0.1
"""Training budgets that differ by no more than this share of the smaller one are equal. Source: our choice."""


@dataclass(frozen=True)
class Conditions:
    """What is asked of a comparison.

    Attributes:
        margin: Largest loss that does not matter, in the unit of the metric; None to ask nothing of the kind.
        budget_tolerance: As `BUDGET_TOLERANCE`.
        unequal_budgets: Whether an arm may be called better though the training budgets differ.
    """

    margin: float | None = None
    budget_tolerance: float = BUDGET_TOLERANCE
    unequal_budgets: bool = False


def unequal_terms(runs: Sequence[Run], budget_tolerance: float = BUDGET_TOLERANCE) -> list[str]:
    """What the arms did not share though a fair comparison needs it, one sentence each; empty if they are equal."""
    arms = {arm: {(run.fold, run.seed): run for run in group} for arm, group in runs_by_arm(runs).items()}
    if len(arms) < 2:
        return []
    places = sorted({(run.fold, run.seed) for run in runs})
    lacking = {arm: [_place(place) for place in places if place not in runs_of] for arm, runs_of in arms.items()}
    gaps = [f"{arm} lacks {', '.join(names)}" for arm, names in lacking.items() if names]
    return [
        *([f"Different folds or seeds: {'; '.join(gaps)}."] if gaps else []),
        *unequal_budgets(runs, budget_tolerance),
        *_differences("cases", runs, lambda run: sorted(run.case_ids), len, _all_equal),
        *_other_differences(runs),
    ]


def unequal_budgets(runs: Sequence[Run], tolerance: float = BUDGET_TOLERANCE) -> list[str]:
    """One sentence where the arms trained on budgets that differ by more than the tolerance in a fold.

    A budget is the processor seconds of all stages where every run was given seconds, else the steps of all stages:
    what `costs.json` says was used, or what the settings gave where there is no such file. Where nothing is known of
    any run, nothing is said.
    """
    in_seconds = all((run.settings.get("budget") or {}).get("cpu_s") is not None for run in runs)

    def are_near(spent: Sequence[float | None]) -> bool:
        known = [value for value in spent if value is not None]
        return len(known) in (0, len(spent)) and (not known or max(known) <= (1 + tolerance) * min(known))

    unit = "s" if in_seconds else "steps"
    return _differences(
        "budget",
        runs,
        lambda run: spent_budget(run, in_seconds),
        lambda spent: "an unknown one" if spent is None else f"{spent:.0f} {unit}",
        are_near,
    )


def spent_budget(run: Run, in_seconds: bool) -> float | None:
    """Processor seconds, or steps, of all stages of a run; None where no file says it."""
    cost, budget = ("train_cpu_s", "cpu_s") if in_seconds else ("train_steps", "steps")
    given = run.settings.get("budget") or {}
    found = (run.costs.get(cost), given.get(budget), run.training.get(budget))
    return next((float(value) for value in found if value is not None), None)


def budget_text(settings: Mapping[str, Any]) -> str:
    budget = settings.get("budget") or {}
    if budget.get("steps") is not None:
        return f"{budget['steps']} steps"
    return f"{budget['cpu_s']:g} s" if budget.get("cpu_s") is not None else "unknown"


def _differences(
    name: str,
    runs: Sequence[Run],
    value_of: Callable[[Run], Any],
    word: Callable[[Any], object],
    are_equal: Callable[[Sequence[Any]], bool],
) -> list[str]:
    """One sentence on the first fold whose runs differ, whatever their seeds; empty if none do."""
    of_fold: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run.fold, run.seed)):
        of_fold.setdefault(run.fold, []).append(run)
    differ = [fold for fold, group in of_fold.items() if not are_equal([value_of(run) for run in group])]
    if not differ:
        return []
    values = dict.fromkeys(f"{run.arm} has {word(value_of(run))}" for run in of_fold[differ[0]])
    more = f" and {len(differ) - 1} more" if len(differ) > 1 else ""
    return [f"Different {name}: {'; '.join(values)} (fold {differ[0]}{more})."]


def _all_equal(values: Sequence[Any]) -> bool:
    return all(value == values[0] for value in values)


def _place(fold_and_seed: tuple[str, int]) -> str:
    return "fold {} seed {}".format(*fold_and_seed)


def _other_differences(runs: Sequence[Run]) -> list[str]:
    """Settings outside the arm's own choices, and outside what a sweep named its arms by, that are not the same in all
    runs."""
    trees = [_flat_settings(run.settings) for run in runs]
    keys = dict.fromkeys(key for tree in trees for key in tree)
    changed = [key for key in keys if any(tree.get(key) != trees[0].get(key) for tree in trees)]
    changed = [key for key in changed if not any(f" {key}=" in run.arm for run in runs)]
    return [f"Different settings: {', '.join(changed)} (see settings.json of the runs)."] if changed else []


def _flat_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`group.key: value` of what should be equal in all arms."""
    flat: dict[str, Any] = {}
    for group, value in settings.items():
        if group not in (*ARM_SETTINGS, "budget"):
            flat |= {f"{group}.{key}": v for key, v in value.items()} if isinstance(value, Mapping) else {group: value}
    return {key: value for key, value in flat.items() if key not in ARM_SETTINGS}
