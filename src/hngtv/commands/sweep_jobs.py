"""From the words of `hngtv run -m` to its jobs, all composed and checked before the first one begins."""

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hngtv.commands.claim import check_settings
from hngtv.commands.entry import compose, conf_folder
from hngtv.commands.job import Job
from hngtv.commands.overrides import group_choices, quote, quoted, wrong_choice
from hngtv.commands.run import PLACES
from hngtv.config import (
    LauncherSettings,
    RunSettings,
    SweepSettings,
    parse_settings,
)
from hngtv.errors import InputError
from hngtv.run_folder import RunFolder

SWEEP_DIR = "runs"
"""Where a sweep goes unless told otherwise."""
QUOTES = "'\""
IDENTITY = ("experiment", "arm", "fold", "seed")
"""Swept settings that a job's name tells by itself."""
MAX_FOLDER_NAME = 120
"""Characters; file systems take 255 bytes. Source: our choice."""


@dataclass(frozen=True)
class SweepWords:
    """What was typed: for the sweep itself, and for its jobs.

    Attributes:
        root: The sweep folder, absolute.
        launcher: What runs the jobs.
        names: Named sweeps, files of `conf/sweep`.
        overrides: Of `hngtv run`; values separated by commas are swept.
    """

    root: Path
    launcher: LauncherSettings
    names: tuple[str, ...]
    overrides: tuple[str, ...]


def read_words(words: Sequence[str]) -> SweepWords:
    """Take apart the words after `hngtv run -m`; `hydra/launcher` and `hydra.launcher` are launcher, too.

    Raises:
        InputError: A launcher, a sweep or a setting of Hydra that there is not.
    """
    root, names, launcher, overrides = SWEEP_DIR, "", [], []
    for word in words:
        key, _, value = word.lstrip("+").partition("=")
        if key == "hydra.sweep.dir":
            root = value.strip("'\"")
        elif key == "sweep":
            names = value.strip("[]")
        elif re.match(r"(hydra[./])?launcher\b", key):
            launcher.append(word.lstrip("+").removeprefix("hydra.").removeprefix("hydra/"))
        elif key.startswith(("hydra.", "hydra/", "~hydra")):
            raise InputError(f"{word}: of Hydra's own settings, hydra.sweep.dir and hydra/launcher are used here")
        elif key == "run_dir":
            raise InputError(f"{word}: a sweep names the run folders itself, below hydra.sweep.dir (now {root})")
        else:
            overrides.append(word)
    if not root or "${" in root:
        raise InputError(f"hydra.sweep.dir is {root!r}; expected the path of a folder")
    chosen = tuple(name.strip() for name in names.split(",") if name.strip())
    return SweepWords(Path(root).absolute(), _read_launcher(launcher), chosen, tuple(overrides))


def build_jobs(words: SweepWords) -> list[Job]:
    """Compose and check every job; nothing is written.

    Raises:
        InputError: A mistake in the settings of any job, two jobs in one folder, or a folder that holds another run.
    """
    choices = [*_named_values(words), *_typed_values(words.overrides)]
    swept = [key for key, values in choices if len(values) > 1 and key not in IDENTITY]
    jobs = []
    for picked in itertools.product(*(values for _, values in choices)):
        settings_of = dict(zip((key for key, _ in choices), picked, strict=True))
        suffix = "".join(f" {key}={settings_of[key].strip(QUOTES)}" for key in swept)
        overrides = [value if key == value else f"{key}={value}" for key, value in settings_of.items()]
        jobs.append(_build_job(words.root, overrides, suffix))
    for folder, n_jobs in Counter(job.run_dir for job in jobs).items():
        if n_jobs > 1:
            raise InputError(
                f"{n_jobs} jobs have the folder {folder}: a value is listed twice, or experiments share a name"
            )
    return jobs


def _build_job(root: Path, overrides: list[str], suffix: str) -> Job:
    settings = parse_settings(RunSettings, compose("run", [*overrides, "run_dir=."]))
    arm = settings.arm + suffix
    run_dir = root / folder_name(arm) / f"fold_{settings.fold}_seed_{settings.seed}"
    if not settings.data.root.exists():
        raise InputError(f"data.root is {settings.data.root}, which does not exist; expected a folder or a cases.csv")
    check_settings(RunFolder(run_dir).settings, replace(settings, arm=arm), PLACES)
    own = [f"arm={quoted(arm)}", f"run_dir={quoted(str(run_dir))}"]
    told = [*(quote(o) for o in overrides if not o.startswith("arm=")), *own]
    return Job(arm, settings.fold, settings.seed, tuple(told), root, run_dir, Path.cwd(), settings.error_budget)


def folder_name(arm: str) -> str:
    """An arm as the name of a folder: one word of plain characters, shortened where it is too long."""
    name = re.sub(r"[^\w.=,+-]+", "_", arm).strip("_.") or "arm"
    if len(name.encode()) <= MAX_FOLDER_NAME:
        return name
    return f"{name.encode()[:MAX_FOLDER_NAME].decode(errors='ignore')}-{hashlib.sha256(arm.encode()).hexdigest()[:8]}"


def _named_values(words: SweepWords) -> list[tuple[str, list[str]]]:
    """Keys and values of the named sweeps, without keys that were typed."""
    from omegaconf import OmegaConf

    known = group_choices(conf_folder())["sweep"]
    typed = {override.lstrip("+~").partition("=")[0] for override in words.overrides}
    found: dict[str, tuple[str, list[str]]] = {}
    for name in words.names:
        if name not in known:
            raise InputError(f"settings: sweep is {name!r}; expected one of {', '.join(known)}")
        tree = OmegaConf.to_container(OmegaConf.load(conf_folder() / "sweep" / f"{name}.yaml"))
        for key, values in tree.items() if isinstance(tree, dict) else ():
            if key in typed:
                continue
            if not isinstance(values, list) or not values:
                raise InputError(f"conf/sweep/{name}.yaml: {key} is {values!r}; expected a list of values")
            if key in found:
                raise InputError(f"sweeps {found[key][0]} and {name} both list {key}; give {key}=... as well")
            found[str(key)] = name, [_as_typed(value) for value in values]
    return [(key, values) for key, (_, values) in found.items()]


def _as_typed(value: Any) -> str:
    """A value of a YAML file as one would type it."""
    match value:
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case list():
            return f"[{','.join(map(_as_typed, value))}]"
        case _:
            return str(value)


def _typed_values(overrides: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Keys and values of overrides; one that takes a key away is its own key and value.

    Raises:
        InputError: An override that Hydra's grammar does not know.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_overrides([quote(o, in_sweep=True) for o in overrides])
    except HydraException as error:
        raise InputError(f"settings: {' '.join(str(error).split())}") from None
    found: list[tuple[str, list[str]]] = []
    for one in parsed:
        line = str(one.input_line)
        if one.is_sweep_override():
            try:
                found.append((one.get_key_element(), list(map(str, one.sweep_string_iterator()))))
            except HydraException:  # interval(0,1) and glob(*)
                raise InputError(f"settings: {line}: expected a list of values, such as 0,1 or range(0,2)") from None
        elif line.startswith("~"):
            found.append((line, [line]))
        else:
            key, _, value = line.partition("=")
            found.append((key, [value]))
    return found


def _read_launcher(words: Sequence[str]) -> LauncherSettings:
    if mistake := wrong_choice(words, group_choices(conf_folder())):
        raise InputError(mistake)
    chosen = [word.partition("=")[2] for word in words if word.startswith("launcher=")] or ["basic"]
    tree = compose(f"launcher/{chosen[-1]}", [word for word in words if not word.startswith("launcher=")])
    return parse_settings(SweepSettings, tree).launcher
