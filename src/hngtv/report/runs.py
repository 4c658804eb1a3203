"""Finished run folders below a folder, read once, and what they have in common."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from hngtv.cases.manifest import RawCase, read_manifest
from hngtv.errors import InputError
from hngtv.localise.roi_table import Roi, read_rois
from hngtv.metrics.score import CaseScore
from hngtv.report.scores import VALIDATION, read_scores
from hngtv.run_folder import RunFolder, read_json

REQUIRED_SETTINGS = ("arm", "fold", "seed", "localiser", "network")


@dataclass(frozen=True)
class Run:
    """One arm on one fold with one seed, as it lies on disk.

    Attributes:
        name: Folder relative to the folder that was searched.
        folder: Names of its files.
        settings: The plain tree of `settings.json`.
        scores: Rows of `scores.csv`, with arm, fold and seed of the settings.
    """

    name: str
    folder: RunFolder
    settings: Mapping[str, Any]
    scores: tuple[CaseScore, ...]

    @property
    def arm(self) -> str:
        return str(self.settings["arm"])

    @property
    def fold(self) -> str:
        return str(self.settings["fold"])

    @property
    def seed(self) -> int:
        return int(self.settings["seed"])

    @property
    def localiser(self) -> str:
        return str(self.settings["localiser"]["name"])

    @property
    def has_gates(self) -> bool:
        return str(self.settings["network"]["name"]).endswith("attention_unet")

    @property
    def margin_mm(self) -> float:
        """What a box is grown by on every side; nothing is outlined beyond."""
        return float(self.settings.get("roi", {}).get("margin_mm", 0.0))

    @property
    def case_ids(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.case_id for row in self.scores))

    @cached_property
    def cases(self) -> dict[str, RawCase]:
        """The scored cases that `cases.csv` lists, by id; empty without that file."""
        path = self.folder.root / "cases.csv"
        known = {case.case_id: case for case in read_manifest(path)} if path.is_file() else {}
        return {case_id: known[case_id] for case_id in self.case_ids if case_id in known}

    @cached_property
    def rois(self) -> dict[str, Roi]:
        """The boxes in which the scored cases were segmented, by case id; empty for a single-stage arm."""
        if self.localiser == "whole" or not self.folder.rois.is_file():
            return {}
        scored = set(self.case_ids)
        rows = [roi for roi in read_rois(self.folder.rois) if roi.case_id in scored]
        return {roi.case_id: roi for roi in rows if roi.localiser == self.localiser or len(rows) == len(scored)}

    @cached_property
    def costs(self) -> dict[str, float | None]:
        """What `costs.json` says of parameters, training, prediction and memory; empty without that file."""
        return _read_optional_json(self.folder.costs)

    @cached_property
    def training(self) -> dict[str, float]:
        """`steps` and `cpu_s` summed over the stages trained in this folder, `n_parameters` of the fine network."""
        fine = _read_optional_json(self.folder.fine / "training.json")
        coarse = [read_json(path) for path in sorted(self.folder.coarse.rglob("training.json"))]
        sums = {key: sum(float(stage.get(key, 0)) for stage in (*coarse, fine)) for key in ("steps", "cpu_s")}
        known = {key: value for key, value in sums.items() if key in fine}
        return known | ({"n_parameters": float(fine["n_parameters"])} if "n_parameters" in fine else {})


def find_runs(root: Path) -> tuple[list[Run], list[str]]:
    """Find the runs below a folder (or the folder itself), single-stage arms first, then by arm, fold and seed.

    Returns:
        The finished runs, those with `settings.json` and `scores.csv`; and the names of folders with settings of an arm
        but no scores yet.

    Raises:
        InputError: The folder is missing, holds no finished run, or holds one arm, fold and seed twice.
    """
    if not root.is_dir():
        raise InputError(f"runs is {root}, which is not a folder; expected a folder with run folders below it")
    runs, unfinished = [], []
    for folder in _run_folders(root):
        if folder.scores.is_file():
            runs.append(read_run(folder.root, root))
        else:
            unfinished.append(_name_of(folder.root, root))
    if not runs:
        hint = f"; {len(unfinished)} unfinished: {', '.join(unfinished[:3])}" if unfinished else ""
        raise InputError(f"no finished run below {root}: expected folders with settings.json and scores.csv{hint}")
    _check_unique(runs)
    return sorted(runs, key=_place_in_report), unfinished


def read_run(folder: Path, root: Path | None = None) -> Run:
    """Read one finished run folder; `root` is what its name is relative to (its parent if None).

    Raises:
        InputError: A file is missing or unusable.
    """
    files = RunFolder(folder)
    settings = read_json(files.settings)
    missing = [key for key in REQUIRED_SETTINGS if not isinstance(settings, dict) or key not in settings]
    if missing:
        raise InputError(f"{files.settings} lacks {', '.join(missing)}; expected the settings of `hngtv run`")
    rows = read_scores(files.scores)
    if not rows:
        raise InputError(f"{files.scores} has no row; run `hngtv run` for this folder again")
    if rows[0].fold.endswith(VALIDATION):  # a trial of `hngtv search`: its cases are not the fold's test cases
        settings = {**settings, "fold": rows[0].fold}
    run = Run(_name_of(folder, root or folder.parent), files, settings, ())
    return replace(run, scores=tuple(replace(row, arm=run.arm, fold=run.fold, seed=run.seed) for row in rows))


def first_run(*roots: Path) -> Path:
    """The first finished run folder below the first of these folders that has one.

    Raises:
        InputError: None has one.
    """
    for root in roots:
        for folder in _run_folders(root):
            if folder.scores.is_file():
                return folder.root
    raise InputError(f"no finished run below {', '.join(map(str, roots))}; run `hngtv demo` first or set HNGTV_RUN")


def runs_by_arm(runs: Sequence[Run]) -> dict[str, list[Run]]:
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.arm].append(run)
    return dict(groups)


def keep_shared_folds(runs: Sequence[Run]) -> tuple[list[Run], list[Run]]:
    """Split runs into those on folds that every arm has, and the rest.

    An arm that was never run on a fold has not failed on its cases, so comparing there would be wrong.

    Raises:
        InputError: The arms share no fold.
    """
    folds = {arm: {run.fold for run in group} for arm, group in runs_by_arm(runs).items()}
    shared = set.intersection(*folds.values())
    if not shared:
        found = "; ".join(f"{arm} has {', '.join(sorted(names))}" for arm, names in folds.items())
        raise InputError(f"the arms share no fold ({found}); run them on the same folds to compare them")
    return [run for run in runs if run.fold in shared], [run for run in runs if run.fold not in shared]


def describe_arm(run: Run) -> str:
    """What an arm is, in words."""
    view = {
        "whole": "whole image",
        "oracle": "crop at the true box (upper bound)",
        "coarse": "crop at a box found by a coarse network",
    }.get(run.localiser, f"crop at a box found by {run.localiser}")
    return f"{view}, {'attention gates' if run.has_gates else 'no gates'}"


def _run_folders(root: Path) -> list[RunFolder]:
    """Folders with settings of an arm; a run folder holds no other, so the walk stops there."""
    found = []
    for path, folders, files in os.walk(root):
        folders.sort()
        if "settings.json" in files and _is_run(Path(path)):
            found.append(RunFolder(Path(path)))
            folders.clear()
    return found


def _is_run(folder: Path) -> bool:
    if (folder / "scores.csv").is_file():
        return True
    settings = read_json(folder / "settings.json")
    return isinstance(settings, dict) and "arm" in settings


def _place_in_report(run: Run) -> tuple[int, bool, str, str, int]:
    """Single-stage arms first, bounds last; without gates before with gates."""
    stage = {"whole": 0, "oracle": 2}.get(run.localiser, 1)
    return stage, run.has_gates, run.arm, run.fold, run.seed


def _check_unique(runs: Sequence[Run]) -> None:
    seen: dict[tuple[str, str, int], str] = {}
    for run in runs:
        key = (run.arm, run.fold, run.seed)
        if key in seen:
            raise InputError(
                f"two runs of arm {run.arm}, fold {run.fold}, seed {run.seed}: {seen[key]} and {run.name}; "
                "compare a folder that holds only one of them"
            )
        seen[key] = run.name


def _name_of(folder: Path, root: Path) -> str:
    folder, root = folder.resolve(), root.resolve()
    return folder.name if folder == root else folder.relative_to(root).as_posix()


def _read_optional_json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
