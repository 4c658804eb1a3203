"""What a run cost is added up over its stages; what is unknown is not made up."""

from pathlib import Path

from hngtv.commands.costs import write_costs
from hngtv.run_folder import RunFolder, read_json, write_json


def write_stage(folder: Path, n_parameters: int, cpu_s: float, steps: int) -> None:
    write_json(folder / "training.json", {"n_parameters": n_parameters, "cpu_s": cpu_s, "steps": steps})


def test_all_stages_are_trained_and_those_that_predict_are_counted(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    write_stage(folder.fine, 1000, 10.5, 80)
    for inner in (0, 1):
        write_stage(folder.coarse / f"inner_{inner}", 100, 1.25, 10)
        write_stage(folder.coarse / f"inner_{inner}/heads", 90, 0.5, 5)
    write_json(folder.predictions / "a.json", {"seconds": {"read": 1.0, "segment": 2.0}})
    write_json(folder.predictions / "b.json", {"seconds": {"read": 0.5, "segment": 1.5}})
    write_costs(folder)
    costs = read_json(folder.costs)
    assert costs.pop("peak_memory_mb") > 10
    assert costs == {"n_parameters": 1200, "train_cpu_s": 14.0, "train_steps": 110, "predict_s": 2.5}


def test_the_largest_memory_is_kept_and_the_unknown_is_null(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    write_json(folder.costs, {"peak_memory_mb": 1e9})
    write_costs(folder)
    assert read_json(folder.costs) == {
        "n_parameters": None, "train_cpu_s": None, "train_steps": None, "predict_s": None, "peak_memory_mb": 1e9,
    }  # fmt: skip
