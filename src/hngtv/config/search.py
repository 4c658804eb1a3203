"""Settings of `hngtv search`: those of a run, and what is searched."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from hngtv.config.parse import parse_settings, plain
from hngtv.config.run import RunSettings
from hngtv.config.values import Count, settings_group
from hngtv.errors import InputError

RANGE_KEYS = {"low", "high", "log", "step", "choices"}
OWN_KEYS = {"fold", "seed", "arm", "run_dir", "work_dir", "trainer", "logger", "error_budget", "data", "budget"}
"""Settings, or groups of them, that all trials share: with another budget or other cases they could not be compared."""


@dataclass(frozen=True)
class Range:
    """The values that one setting may take: `choices`, which count before all else, or all from `low` to `high`.

    Attributes:
        key: Dotted, such as `optimiser.learning_rate`.
        is_whole: Only whole numbers.
        log: Equal ratios are equally likely, rather than equal differences.
        step: Between values; None for any.
    """

    key: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    is_whole: bool = False
    log: bool = False
    step: float | None = None

    @property
    def extremes(self) -> tuple[Any, ...]:
        """Values that the settings must take for all others to be likely right."""
        return self.choices or (self.low, self.high)


@settings_group
class SearchSettings(RunSettings):
    """`hngtv search`: the settings of a run, and the space around them."""

    out: Path
    n_trials: Count
    timeout_s: Annotated[float, Field(gt=0)] | None
    metric: Literal["dice", "surface_dice_2mm", "hd95_mm", "msd_mm"]
    class_name: Literal["GTV", "GTVp", "GTVn"]
    n_validation_folds: Annotated[int, Field(ge=2)]
    moments: tuple[Annotated[float, Field(gt=0, lt=1)], ...]
    n_startup_trials: Annotated[int, Field(ge=0)]
    n_warmup_moments: Annotated[int, Field(ge=0)]
    space: dict[str, Any]

    def __post_init__(self) -> None:
        super().__post_init__()
        if list(self.moments) != sorted(set(self.moments)):
            raise ValueError(f"moments must rise, got {list(self.moments)}")
        if self.trainer.n_processes > 1:
            raise ValueError(
                "trainer.n_devices: a trial trains in one process; for more at once, start the command several times"
            )
        if not self.ranges:
            raise ValueError("space is empty; give a range such as space.optimiser.learning_rate={low:1e-4,high:1e-2}")
        for found in self.ranges:
            for value in found.extremes:
                try:
                    trial_settings(self, {found.key: value}, self.run_dir, self.arm)
                except InputError as error:
                    raise ValueError(
                        f"space.{found.key} allows {value!r}, but {error}".replace("settings: ", "")
                    ) from None

    @property
    def ranges(self) -> tuple[Range, ...]:
        """The space, by key."""
        tree = plain(self)
        return tuple(_read_range(key, values, tree) for key, values in _leaves(self.space, ""))


def trial_settings(settings: SearchSettings, values: Mapping[str, Any], run_dir: Path, arm: str) -> RunSettings:
    """The settings of a trial: those of the search with some values changed.

    Raises:
        InputError: They do not go together.
    """
    tree = {name: value for name, value in plain(settings).items() if name in {f.name for f in fields(RunSettings)}}
    tree |= {"run_dir": str(run_dir), "arm": arm}
    for key, value in values.items():
        *parents, last = key.split(".")
        inner = tree
        for name in parents:
            inner = inner[name]
        inner[last] = value
    return parse_settings(RunSettings, tree)


def _leaves(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Dotted key and range of each leaf."""
    for name, values in tree.items():
        key = f"{prefix}{name}"
        if values is None:  # switched off, space.loss=null
            continue
        if not isinstance(values, Mapping):
            raise ValueError(f"space.{key} is {values!r}; expected a range {{low, high, log, step}} or {{choices}}")
        if RANGE_KEYS & set(values):
            yield key, values
        else:
            yield from _leaves(values, f"{key}.")


def _read_range(key: str, values: Mapping[str, Any], tree: Mapping[str, Any]) -> Range:
    unknown = sorted(set(values) - RANGE_KEYS)
    if unknown:
        raise ValueError(
            f"space.{key} has {', '.join(unknown)}; a range is made of low, high, log, step, or of choices"
        )
    now = _value_now(key, tree)
    if "choices" in values:
        choices = values["choices"]
        if not isinstance(choices, list | tuple) or not choices:
            raise ValueError(f"space.{key}.choices is {choices!r}; expected a list of values")
        return Range(key, choices=tuple(choices))
    try:
        low, high = float(values["low"]), float(values["high"])
        step = None if values.get("step") is None else float(values["step"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"space.{key} needs the numbers low and high, or choices, got {dict(values)}") from None
    log, is_whole = bool(values.get("log", False)), isinstance(now, int) and not isinstance(now, bool)
    if not low < high or (log and low <= 0) or (log and step is not None):
        raise ValueError(f"space.{key} needs low < high, and with log low > 0 and no step, got {dict(values)}")
    if step is not None and step <= 0:
        raise ValueError(f"space.{key} needs step > 0, got {dict(values)}")
    if is_whole:
        if not all(value.is_integer() for value in (low, high, step or 1.0)):
            raise ValueError(f"space.{key} takes whole numbers as low, high and step, got {dict(values)}")
        low, high = int(low), int(high)
    return Range(key, (), low, high, is_whole, log, step)


def _value_now(key: str, tree: Mapping[str, Any]) -> Any:
    """The value that the settings have, whose type a range takes."""
    if key.split(".")[0] in OWN_KEYS:
        raise ValueError(f"space.{key} is the same for all trials, so that they can be compared; leave it out of space")
    value: Any = tree
    for depth, name in enumerate(key.split(".")):
        if not isinstance(value, Mapping) or name not in value:
            known = value if isinstance(value, Mapping) else {}
            nearest = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
            parents = key.split(".")[:depth]
            hint = f"; did you mean {' or '.join('.'.join([*parents, other]) for other in nearest)}?" if nearest else ""
            raise ValueError(f"space: unknown key {key}{hint}")
        value = value[name]
    return value
