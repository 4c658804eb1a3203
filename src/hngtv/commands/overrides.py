"""Overrides of settings (`key=value`) as a user types them: paths that need no quotes, and mistakes in plain words."""

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PATH_KEYS = (
    "out", "ct", "pet", "cases", "source", "dicom", "model", "input", "output", "formats", "cohort", "predictions",
    "targets", "runs", "run_dir", "work_dir", "data.root", "data.ct", "data.pet", "data.target",
)  # fmt: skip
"""Settings whose whole value is a path, a text, or a list without brackets."""
WHAT_TO_GIVE = {
    "data.root": "a folder of cases or a cases.csv",
    "run_dir": "the folder for everything that the run writes",
    "network.entry_point": "the name under which your package registers its network",
    "model": "the folder of a finished run",
    "predictions": "a folder of <case_id>.nii.gz",
    "targets": "a folder of cases or a cases.csv",
    "runs": "a folder with run folders below it",
    "out": "where to write",
}
COMMA_OUTSIDE_BRACKETS = re.compile(r",(?![^\[{(]*[\])}])")


QUOTE = "'"


def quote(override: str, in_sweep: bool = False) -> str:
    """Quote a path in an override, so that spaces, commas or brackets in file names need no escaping.

    Args:
        override: As typed.
        in_sweep: Whether commas separate the values of a sweep; then only values with a slash are taken for paths.
    """
    key, equals, value = override.partition("=")
    if not value or value[0] in "'\"" or "${" in value:
        return override
    if key == "overrides":
        items = COMMA_OUTSIDE_BRACKETS.split(value.removeprefix("[").removesuffix("]"))
        return f"{key}=[{','.join(item if item[:1] in ('', QUOTE) else quoted(item) for item in items)}]"
    is_path = key.lstrip("+") in PATH_KEYS and (not in_sweep or "{case}" in value) and value not in ("null", "???")
    if is_path or (os.sep in value and (value[0] not in "[{" or key.lstrip("+") in PATH_KEYS)):
        return f"{key}{equals}{quoted(value)}"
    return override


def quoted(value: str) -> str:
    """A value in single quotes; a backslash is doubled only before a quote or the end, as Hydra's grammar has it."""
    return QUOTE + re.sub(r"(\\*)('|\Z)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value) + QUOTE


def group_choices(conf: Path) -> dict[str, list[str]]:
    """Names of the files in every folder of `conf/`."""
    return {p.name: sorted(f.stem for f in p.glob("*.yaml")) for p in sorted(conf.iterdir()) if p.is_dir()}


def wrong_choice(overrides: Sequence[str], groups: Mapping[str, Sequence[str]]) -> str | None:
    """A line on the first override that is no `key=value` or chooses what a group does not have."""
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals and not key.startswith("~"):
            return f"settings: expected key=value, got {override!r}"
        choices = groups.get(key.lstrip("+"), ())
        value = value.strip("'\"")
        if choices and value not in (*choices, "null") and value[:1] != "{":
            return f"settings: {key} is {value!r}; expected one of {', '.join(choices)}"
    return None


def unknown_key(overrides: Sequence[str], tree: Mapping[str, Any], groups: Sequence[str]) -> str | None:
    """A line on the first overridden key that is neither in the composed tree nor a group, with the nearest ones."""
    known = [*_dotted(tree), *groups]
    for override in overrides:
        key = override.partition("=")[0]
        if key[:1] in ("+", "~") or key in known or "@" in key or key.startswith("hydra"):
            continue
        nearest = difflib.get_close_matches(key, known, n=2, cutoff=0.6)
        hint = f"; did you mean {' or '.join(nearest)}?" if nearest else "; --help lists the settings"
        return f"settings: unknown key {key}{hint}"
    return None


def missing_value(keys: Sequence[str]) -> str:
    """One line for each setting that must be given."""
    lines = [f"settings: {key} is missing; give {key}={WHAT_TO_GIVE.get(key, 'VALUE')}" for key in sorted(keys)]
    return "\n".join(lines)


def _dotted(tree: Mapping[str, Any], prefix: str = "") -> list[str]:
    names = []
    for key, value in tree.items():
        names.append(f"{prefix}{key}")
        if isinstance(value, Mapping):
            names += _dotted(value, f"{prefix}{key}.")
    return names
