"""The runs that an ensemble is made of, and the one model that they make."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hngtv.config import InferenceSettings, RunSettings, parse_settings, plain
from hngtv.errors import InputError
from hngtv.model import Model, load_model, what_decides_a_mask
from hngtv.report.runs import find_runs
from hngtv.run_folder import RunFolder, read_json, sha256_of

RECORD = "ensemble.json"
OWN = ("run_dir", "work_dir", "fold", "seed", "trainer", "logger", "error_budget")
"""Settings in which the members of an ensemble may differ."""


@dataclass(frozen=True)
class Member:
    """A finished run of the ensemble."""

    folder: RunFolder
    model: Model

    @property
    def fold(self) -> int:
        assert isinstance(self.model.settings.fold, int)
        return self.model.settings.fold


def find_members(root: Path, arm: str | None) -> list[Member]:
    """The runs of an arm below a folder, ready to predict.

    Raises:
        InputError: There are none of at least two folds, they are of several arms or differ in settings, or were
            trained on all cases.
    """
    runs, _ = find_runs(root)
    arms = sorted({run.arm for run in runs})
    arm = arm or (arms[0] if len(arms) == 1 else None)
    if arm not in arms:
        raise InputError(f"arm is {arm}; below {root} lie runs of {', '.join(arms)}: give one of them")
    members = [Member(run.folder, load_model(run.folder.root)) for run in runs if run.arm == arm]
    if any(member.model.settings.fold == "all" for member in members):
        raise InputError(f"runs of {arm} with fold=all hold no case out, so nothing can be chosen; give runs of folds")
    check_alike(members)
    folds = {member.fold for member in members}
    if len(folds) < 2:
        raise InputError(f"the runs of {arm} below {root} are of fold {folds.pop()} alone; give two or more")
    return members


def check_alike(members: Sequence[Member]) -> None:
    """Raise InputError unless all members take the same input, look in the same way and know the same classes."""
    first, *others = members
    for other in others:
        one, two = (_shared(member.model.settings) for member in (first, other))
        different = [name for name in one if one[name] != two[name]]
        if different or first.model.window_voxels != other.model.window_voxels:
            what = ", ".join(different) or "the size of their crops"
            raise InputError(
                f"{first.folder.root} and {other.folder.root} differ in {what}; an ensemble is made of runs of one arm "
                "that differ in fold and seed alone"
            )
        if read_json(first.folder.folds) != read_json(other.folder.folds):
            raise InputError(
                f"{first.folder.folds} and {other.folder.folds} differ, so one run may know what the other holds out; "
                "give runs on the same cases with the same data.fold_seed"
            )


def _shared(settings: RunSettings) -> dict[str, Any]:
    tree = {name: value for name, value in plain(settings).items() if name not in OWN}
    tree["data"] = {name: value for name, value in tree["data"].items() if name != "root"}
    return tree


def join(members: Sequence[Model], inference: InferenceSettings) -> Model:
    """One model of several: the networks of each stage are averaged.

    The threshold of stage 1 is the lowest of the members', which finds most. Source: our choice.
    """
    first = members[0]
    settings = replace(first.settings, inference=inference)
    digest = sha256_of([[member.digest for member in members], what_decides_a_mask(settings)])
    return Model(
        settings,
        tuple(network for member in members for network in member.coarse),
        min(member.coarse_threshold for member in members),
        tuple(network for member in members for network in member.fine),
        first.window_voxels,
        digest,
    )


def load_ensemble(folder: Path) -> Model:
    """The model of a folder of `hngtv ensemble`.

    Raises:
        InputError: The folder is damaged, or a member is missing or was trained anew.
    """
    record = _read_record(folder)
    members = []
    for place, digest in record["members"].items():
        try:
            member = load_model(folder.resolve() / place)
        except InputError as error:
            raise InputError(
                f"a run of the ensemble {folder} cannot be used: {error}; put the run back where it was, or run hngtv "
                "ensemble again"
            ) from None
        if member.digest != digest:
            raise InputError(f"{folder / place} was trained again since; run hngtv ensemble again")
        members.append(member)
    return join(members, parse_settings(InferenceSettings, record["inference"]))


def member_folders(folder: Path) -> list[RunFolder]:
    """The runs that an ensemble is made of."""
    return [RunFolder((folder.resolve() / place).resolve()) for place in _read_record(folder)["members"]]


def _read_record(folder: Path) -> dict[str, Any]:
    record = read_json(folder / RECORD)
    if not isinstance(record, dict) or not {"members", "inference", "measured"} <= record.keys():
        raise InputError(f"{folder / RECORD} is damaged; run hngtv ensemble again")
    return record


def places(folder: Path, members: Sequence[Member]) -> dict[str, str]:
    """Where the members lie, seen from the folder of the ensemble, and their digests."""
    here = folder.resolve()
    return {os.path.relpath(member.folder.root.resolve(), here): member.model.digest for member in members}
