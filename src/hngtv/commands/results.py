"""`results.csv` of a sweep folder: one row for each job, always made anew from what lies in the run folders."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hngtv.commands.costs import COST_NAMES
from hngtv.commands.status import Status, read_status
from hngtv.errors import InputError
from hngtv.run_folder import RunFolder, read_csv, read_json, write_csv, write_json

RESULTS_NAME = "results.csv"
CLASSES = ("GTV", "GTVp", "GTVn")
SCORES: dict[str, Callable[[Sequence[float]], float]] = {
    "dice": statistics.fmean,
    "precision": statistics.fmean,
    "recall": statistics.fmean,
    "hd95_mm_median": statistics.median,
    "msd_mm": statistics.fmean,
    "surface_dice_2mm": statistics.fmean,
}
"""Columns for each class, and how they are made of the test cases; `_median` is no part of a score's name."""
SCORE_COLUMNS = tuple(f"{name}_{score}" for name in CLASSES for score in SCORES)
COLUMNS = (
    "arm", "fold", "seed", "status", "reason", "exit_status", "n_cases", *SCORE_COLUMNS, *COST_NAMES, "seconds",
    "run_dir",
)  # fmt: skip


def announce(folder: RunFolder, arm: str, fold: int | str, seed: int, overrides: Sequence[str]) -> None:
    """Give a job its row before it begins."""
    job = {"arm": arm, "fold": fold, "seed": seed, "overrides": list(overrides)}
    if not folder.job.is_file() or read_json(folder.job) != job:
        write_json(folder.job, job)


def write_results(root: Path) -> Path:
    """Write `results.csv` of a sweep folder; where several processes do so at once, one after the other."""
    from filelock import FileLock

    with FileLock(root / ".results.lock"):
        rows = sorted((_row(root, RunFolder(path.parent)) for path in root.glob("*/*/job.json")), key=_place)
        write_csv(root / RESULTS_NAME, COLUMNS, rows)
    return root / RESULTS_NAME


def mean_scores(folder: RunFolder) -> dict[str, float]:
    """Scores over the test cases of a run, by column, and how many cases there were; empty without scores."""
    if not folder.scores.is_file():
        return {}
    by_class: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in read_csv(folder.scores, ("case_id", "class_name")):
        by_class[row["class_name"]].append(row)
    return {"n_cases": len(by_class[CLASSES[0]])} | dict(_scores_of(by_class))


def _scores_of(by_class: dict[str, list[dict[str, str]]]) -> Iterator[tuple[str, float]]:
    """Nothing of a class that no target and no prediction holds: it has Dice 1 everywhere, which says nothing."""
    for name in CLASSES:
        rows = by_class[name]
        if not any(float(row[volume]) > 0 for row in rows for volume in ("volume_ml", "target_volume_ml")):
            continue
        for score, average in SCORES.items():
            yield f"{name}_{score}", average([float(row[score.removesuffix("_median")]) for row in rows])


def _row(root: Path, folder: RunFolder) -> dict[str, Any]:
    job = read_json(folder.job)
    row = {key: job[key] for key in ("arm", "fold", "seed")}
    try:
        status = read_status(folder)
        row |= mean_scores(folder) | (read_json(folder.costs) if folder.costs.is_file() else {})
    except (InputError, ValueError, KeyError, TypeError) as error:
        status = Status("failed", f"its files are damaged: {error}")
    row |= {name: getattr(status, name) for name in ("status", "reason", "exit_status", "seconds")}
    return {name: row.get(name) for name in COLUMNS} | {"run_dir": folder.root.relative_to(root).as_posix()}


def _place(row: dict[str, Any]) -> tuple[str, str, int]:
    return row["arm"], f"{row['fold']:>9}", row["seed"]
