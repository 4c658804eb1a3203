"""Fake but realistic run folders: phantoms, and predictions that are their targets, shifted, shrunk or lost."""

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings as hypothesis_settings
from scipy import ndimage

from hngtv.cases.manifest import RawCase, read_manifest, write_manifest
from hngtv.cases.phantom import write_phantom
from hngtv.localise.roi_table import Roi, write_rois
from hngtv.report.scores import score_predictions, write_scores
from hngtv.run_folder import RunFolder, write_csv, write_json
from hngtv.volume.box import Box
from hngtv.volume.components import bounding_slices
from hngtv.volume.nifti import read_image, write_labels_like
from tests.tiny_cases import write_tiny_cohort

# The same examples on every run, and no time limit for one: machines differ and tests share them.
hypothesis_settings.register_profile("steady", deadline=None, derandomize=True, database=None, max_examples=50)
hypothesis_settings.load_profile("steady")

# A shell that runs the tests in the background makes them, and all they start, deaf to Ctrl-C, which some tests send.
signal.signal(signal.SIGINT, signal.default_int_handler)

MARGIN_MM = 10.0
STEPS = 40


@pytest.fixture(scope="session")
def phantom_cases(tmp_path_factory: pytest.TempPathFactory) -> list[RawCase]:
    """Three phantoms; the last has no GTVn."""
    root = tmp_path_factory.mktemp("phantoms")
    write_phantom(root, 3, seed=3)
    cases = [
        RawCase(f"phantom_{i:04d}", centre, folder / "ct.nii.gz", folder / "pet.nii.gz", folder / "gtv.nii.gz")
        for i, centre in enumerate(("north", "south", "south"))
        for folder in (root / f"phantom_{i:04d}",)
    ]
    write_manifest(root / "cases.csv", cases)
    return read_manifest(root / "cases.csv")


@pytest.fixture(scope="session")
def tiny_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of six tiny cases of two centres with their cases.csv; not to be changed."""
    root = tmp_path_factory.mktemp("tiny")
    write_tiny_cohort(root, 6)
    return root


@pytest.fixture(scope="session")
def fake_runs(tmp_path_factory: pytest.TempPathFactory, phantom_cases: list[RawCase]) -> Path:
    """A folder with two finished runs of fold 0: a good two-stage arm, and a gated arm that lost its last case."""
    root = tmp_path_factory.mktemp("runs")
    write_fake_run(root, phantom_cases, "two_stage_unet", offset=1)
    run = write_fake_run(root, phantom_cases, "single_stage_ag", offset=2)
    lost = phantom_cases[-1].case_id
    run.prediction(lost).unlink()
    rescore(run, phantom_cases)
    return root


def write_fake_run(
    root: Path, cases: list[RawCase], arm: str, offset: int = 1, fold: str | int = 0, seed: int = 0
) -> RunFolder:
    """A run folder whose predictions are the targets moved by `offset` voxels, the second case also eroded."""
    run = RunFolder(root / arm / f"fold{fold}-seed{seed}")
    run.root.mkdir(parents=True)
    write_json(run.settings, fake_settings(arm, fold, seed))
    write_manifest(run.root / "cases.csv", cases)
    write_rois(run.rois, [fake_roi(case, arm, number) for number, case in enumerate(cases)])
    rng = np.random.default_rng([seed, offset, len(arm)])
    for number, case in enumerate(cases):
        write_labels_like(run.prediction(case.case_id), _fake_labels(case, offset, number), case.ct)
    for stage in (run.fine, run.coarse / "fold0") if arm.startswith("two_stage") else (run.fine,):
        _write_training(stage, rng)
    rescore(run, cases)
    return run


def rescore(run: RunFolder, cases: list[RawCase]) -> None:
    settings = json.loads(run.settings.read_text())
    scores, _ = score_predictions(cases, run.predictions, settings["arm"], settings["fold"], settings["seed"])
    write_scores(run.scores, scores)


def fake_settings(arm: str, fold: str | int, seed: int) -> dict[str, Any]:
    """The part of a run's settings that the report reads."""
    localiser = next(
        name for start, name in (("two", "coarse"), ("oracle", "oracle"), ("single", "whole")) if arm.startswith(start)
    )
    return {
        "arm": arm,
        "run_dir": "elsewhere",
        "fold": fold,
        "seed": seed,
        "data": {"name": "phantom", "spacing_mm": [2.0, 2.0, 2.0], "n_folds": 2},
        "localiser": {"name": localiser},
        "roi": {"margin_mm": MARGIN_MM},
        "network": {"name": "attention_unet" if arm.endswith("ag") else "unet", "widths": [8, 16, 32]},
        "optimiser": {"learning_rate": 0.003},
        "budget": {"steps": STEPS, "cpu_s": None},
    }


def fake_roi(case: RawCase, arm: str, number: int) -> Roi:
    """The true box grown unevenly, or the whole image; the third case of a two-stage arm falls back."""
    assert case.target is not None
    image = read_image(case.target)
    slices = bounding_slices(image.values > 0)
    if arm.startswith("single") or slices is None:
        return Roi(case.case_id, "whole", "", (image.grid.bounds(),), 1.0, 1.0, "found")
    box = image.grid.box_of(slices)
    if arm.startswith("oracle"):
        return Roi(case.case_id, "oracle", "", (box,), 1.0, 1.0, "found")
    covered, reason = (1.0, "found") if number % 3 < 2 else (0.83, "fallback:nothing above the threshold")
    moved = Box.from_corners(np.subtract(box.lower_mm, 4 * number), np.add(box.upper_mm, 6.0))
    return Roi(case.case_id, "coarse", "ensemble", (moved,), 0.8, covered, reason)


def _fake_labels(case: RawCase, offset: int, number: int) -> np.ndarray:
    assert case.target is not None
    labels = np.roll(read_image(case.target).values.astype(np.uint8), offset, axis=(0, 1))
    if number % 3 == 1:
        labels = labels * ndimage.binary_erosion(labels > 0)
    return labels


def _write_training(folder: Path, rng: np.random.Generator) -> None:
    loss = 1.5 * np.exp(-np.arange(STEPS) / 15) + 0.05 * rng.standard_normal(STEPS) + 0.3
    rows = [{"step": step, "name": "train/loss", "value": f"{value:.4f}"} for step, value in enumerate(loss)]
    rows += [{"step": step, "name": "lr", "value": 0.003} for step in range(0, STEPS, 10)]
    write_csv(folder / "curves.csv", ("step", "name", "value"), rows)
    write_json(folder / "training.json", {"steps": STEPS, "cpu_s": 12.5, "n_parameters": 90_000})
