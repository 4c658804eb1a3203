"""A whole run shows its curves and results in TensorBoard, and files itself in W&B with its sweep."""

from pathlib import Path
from typing import Any

import pytest
import wandb

from hngtv.commands.entry import DONE, run_command
from tests.tiny_run import tiny_run


def test_a_run_shows_curves_and_results(tiny_cohort: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator").EventAccumulator
    assert run_command(tiny_run(tiny_cohort, tmp_path, "oracle_ag", logger="tensorboard")) == DONE
    root = tmp_path / "run" / "tensorboard"
    fine, results = (accumulator(str(root / name)).Reload() for name in ("fine", "results"))
    assert "train/loss" in fine.Tags()["scalars"]
    assert {"cases/best", "cases/median", "cases/worst"} <= set(results.Tags()["images"])
    assert {"scores/text_summary", "roi_curve/text_summary"} <= set(results.Tags()["tensors"])
    assert "dice/GTV" in results.Tags()["scalars"]
    assert (tmp_path / "run/fine/curves.csv").is_file()


def test_wandb_gets_group_and_name_and_may_fail(
    tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def init(**arguments: Any) -> Any:
        asked.append(arguments)
        raise RuntimeError("no service")

    monkeypatch.setattr(wandb, "init", init)
    arguments = tiny_run(tiny_cohort, tmp_path, "oracle_unet", logger="wandb", budget__steps=2)
    assert run_command(arguments) == DONE
    (only,) = asked
    assert (only["name"], only["group"], only["mode"]) == ("oracle_unet-fold0-seed0", "oracle_unet", "offline")
    assert {"fold0", "seed0", "oracle", "unet"} <= set(only["tags"])
    assert (tmp_path / "run/scores.csv").is_file()
