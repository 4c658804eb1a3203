"""Score rows and runs in memory, and a sweep of run folders without images."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hngtv.cases.manifest import RawCase, write_manifest
from hngtv.metrics.score import CLASS_NAMES, CaseScore
from hngtv.report.runs import Run
from hngtv.report.scores import write_scores
from hngtv.run_folder import RunFolder, write_json


def score(case_id: str, class_name: str, volume_ml: float, **changes: Any) -> CaseScore:
    row = CaseScore(case_id, "x", "0", 0, class_name, 0.5, 0.5, 0.5, 5.0, 2.0, 0.5, volume_ml, volume_ml)
    return dataclasses.replace(row, **changes)


def run_with(arm: str, settings: Mapping[str, Any], case_ids: tuple[str, ...] = ("a",)) -> Run:
    return run_of(arm, [score(case_id, "GTV", 5.0) for case_id in case_ids], settings)


def run_of(arm: str, rows: Sequence[CaseScore], settings: Mapping[str, Any]) -> Run:
    tree = {"arm": arm, "fold": "0", "seed": 0, "localiser": {"name": "whole"}, "network": {"name": "unet"}}
    run = Run(arm, RunFolder(Path(arm)), tree | dict(settings), ())
    scores = tuple(dataclasses.replace(row, arm=arm, fold=run.fold, seed=run.seed) for row in rows)
    return dataclasses.replace(run, scores=scores)


def outlined(case_id: str, dice: float, volume_ml: float, target_volume_ml: float) -> CaseScore:
    return score(case_id, "GTV", volume_ml, dice=dice, target_volume_ml=target_volume_ml)


def write_sweep(root: Path, arms: Mapping[str, float], n_cases: int, seeds: Sequence[int] = (0,)) -> None:
    """Run folders of one fold with settings, scores and costs: Dice about the given mean, a miss in every 20th case.

    Cases are of three centres, and every fourth has no GTVn.
    """
    rng = np.random.default_rng(7)
    size_ml, ease = rng.lognormal(2, 1, n_cases), rng.normal(0, 0.1, n_cases)
    cases = [
        RawCase(f"case_{i:04d}", "abc"[i % 3], Path("ct.nii.gz"), Path("pet.nii.gz"), Path("gtv.nii.gz"))
        for i in range(n_cases)
    ]
    for arm, mean in arms.items():
        for seed in seeds:
            run = RunFolder(root / arm / f"seed{seed}")
            run.root.mkdir(parents=True)
            write_json(run.settings, settings_of(arm, seed))
            costs = {"n_parameters": 1000, "train_cpu_s": 600.0, "train_steps": 50, "predict_s": 2.0}
            write_json(run.costs, costs | {"peak_memory_mb": 900.0})
            write_manifest(run.root / "cases.csv", cases)
            dice = np.clip(rng.normal(mean, 0.05, n_cases) + ease, 0.01, 1)
            dice[rng.random(n_cases) < 0.05] = 0.0
            write_scores(run.scores, [row for i in range(n_cases) for row in _rows(i, float(dice[i]), size_ml[i])])


def settings_of(arm: str, seed: int) -> dict[str, Any]:
    localiser = {"single": "whole", "oracle": "oracle"}.get(arm.split("_")[0], "coarse")
    network = "attention_unet" if arm.endswith("ag") else "unet"
    return {
        "arm": arm, "fold": "0", "seed": seed, "localiser": {"name": localiser}, "network": {"name": network},
        "budget": {"steps": None, "cpu_s": 600.0},
    }  # fmt: skip


def _rows(number: int, dice: float, target_ml: float) -> list[CaseScore]:
    rows = []
    for name in CLASS_NAMES:
        is_absent = name == "GTVn" and number % 4 == 0
        own, volume_ml, n = (1.0, 0.0, 0) if is_absent else (dice, target_ml, 1)
        far_mm = 300.0 if own == 0 else 20 * (1 - own)
        lesions = (float(n), float(n and own > 0.46), float(n and own <= 0.46))
        rows.append(
            CaseScore(
                f"case_{number:04d}", "", "", 0, name, own, own, own, far_mm, far_mm / 2, own, volume_ml, volume_ml,
                far_mm, *lesions,
            )
        )  # fmt: skip
    return rows
