"""What a run cost: `costs.json` in its folder, read by the sweep's table and by the comparison of arms."""

import resource
import sys
from typing import Any

from hngtv.run_folder import RunFolder, read_json, write_json

COST_NAMES = ("n_parameters", "train_cpu_s", "train_steps", "predict_s", "peak_memory_mb")
HEADS = "heads"
"""Folder of a first step of training, whose network is not kept."""


def write_costs(folder: RunFolder) -> None:
    """Add up what the stations of a finished run recorded; what is unknown is None.

    `n_parameters` counts all networks that predict, those of the inner folds of stage 1 included; `train_cpu_s`
    (processor seconds, or GPU seconds) and `train_steps` all stages, also one that another run trained and this one
    shares; `predict_s` is the mean time of a test case; `peak_memory_mb` is the main memory of the process, the largest
    of those that worked on the run up to its end. Memory of a GPU, and of processes that it started, is not in it.
    """
    records = {path: read_json(path) for path in sorted(folder.coarse.rglob("training.json"))}
    records |= {path: read_json(path) for path in [folder.fine / "training.json"] if path.is_file()}
    predicting = [record for path, record in records.items() if path.parent.name != HEADS]
    seconds = [sum(read_json(path)["seconds"].values()) for path in sorted(folder.predictions.glob("*.json"))]
    earlier = read_json(folder.costs)["peak_memory_mb"] if folder.costs.is_file() else 0.0
    values: tuple[Any, ...] = (
        sum(record["n_parameters"] for record in predicting) if records else None,
        round(sum(record["cpu_s"] for record in records.values()), 2) if records else None,
        sum(record["steps"] for record in records.values()) if records else None,
        round(sum(seconds) / len(seconds), 3) if seconds else None,
        max(earlier, peak_memory_mb()),
    )
    write_json(folder.costs, dict(zip(COST_NAMES, values, strict=True)))


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)
