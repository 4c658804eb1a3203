"""The error budget: by hand where stage 1 loses half of the tumour, and of a tiny run of Zhu's chain."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hngtv import error_budget
from hngtv.cases.checks import CheckedImages
from hngtv.cases.manifest import write_manifest
from hngtv.cases.prepare import prepare_cases
from hngtv.cases.store import GridSettings, PreparedCase
from hngtv.commands.entry import DONE, compose, run_command
from hngtv.config import RunSettings, parse_settings
from hngtv.error_budget import (
    COLUMNS,
    SLICE_COLUMNS,
    WAYS,
    Outcome,
    SliceOutcome,
    judge_case,
    judge_slices,
    oracle_rois,
    share_in_reach,
    summarise,
)
from hngtv.localise.roi_table import Roi
from hngtv.localise.slices import SliceScores
from hngtv.metrics.roc import area_under_curve
from hngtv.model import Model
from hngtv.run_folder import RunFolder, read_csv, read_json
from hngtv.volume.box import Box
from hngtv.volume.grid import Grid
from hngtv.volume.nifti import read_image, write_labels_like
from tests.tiny_cases import rewrite, write_tiny_case, write_tiny_cohort
from tests.tiny_run import tiny_run

TUMOUR = (slice(8, 12), slice(8, 12), slice(4, 8))
"""Four slices of 16 voxels."""


def perfect(model: Model, images: CheckedImages, rois: tuple[Box, ...]) -> SimpleNamespace:
    """A fine stage that outlines all the tumour that it may."""
    assert images.target is not None
    labels = np.zeros_like(images.target)
    for roi in rois:
        part = images.ct.grid.clip(images.ct.grid.slices_of(roi))
        labels[part] = images.target[part]
    return SimpleNamespace(labels=labels)


@pytest.fixture
def halved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[PreparedCase, Roi, Model, RunFolder]:
    """A case whose stage 1 keeps the two upper of the four slices with tumour, and the two above."""
    raw = write_tiny_case(tmp_path / "cases", "P01", has_nodes=False)

    def cube(values: np.ndarray) -> np.ndarray:
        values = np.zeros_like(values)
        values[TUMOUR] = 1
        return values

    rewrite(raw.target, values=cube)
    write_manifest(tmp_path / "cases/cases.csv", [raw])
    overrides = tiny_run(tmp_path / "cases", tmp_path, "zhu2020")[1:]
    settings = parse_settings(RunSettings, compose("run", overrides))
    grids = GridSettings(settings.data.spacing_mm, settings.data.coarse_spacing_mm)
    (case,), failures = prepare_cases([raw], tmp_path / "store", grids, n_workers=0)
    assert not failures
    assert raw.target is not None
    grid = read_image(raw.ct).grid
    x, y, _ = (slice(0, n) for n in grid.shape)
    roi = Roi("P01", "slices", "ensemble", (grid.box_of((x, y, slice(6, 10))),), 0.8, 0.5, "found")
    model = Model(settings, (), 0.5, None, (16, 16, 12), "digest")  # pyright: ignore[reportArgumentType]
    folder = RunFolder(tmp_path / "run")
    target = read_image(raw.target).values.astype(np.uint8)
    target[:, :, :6] = 0
    write_labels_like(folder.prediction("P01"), target, raw.ct)
    monkeypatch.setattr(error_budget, "segment", perfect)
    return case, roi, model, folder


def test_half_of_the_tumour_lost(halved: tuple[PreparedCase, Roi, Model, RunFolder]) -> None:
    outcomes = judge_case(*halved)
    assert [outcome.way for outcome in outcomes] == list(WAYS)
    by_way = {outcome.way: outcome for outcome in outcomes}
    assert {way: outcome.covered_fraction for way, outcome in by_way.items()} == {"oracle": 1, "chain": 0.5, "whole": 1}
    assert by_way["chain"].dice_ceiling == pytest.approx(2 / 3)
    dices = {way: outcome.dice["GTV"] for way, outcome in by_way.items()}
    assert dices == {"oracle": 1.0, "chain": pytest.approx(2 / 3), "whole": 1.0}
    assert all(outcome.dice["GTVn"] == 1 for outcome in outcomes), "two empty masks agree"
    assert by_way["chain"].target_ml == pytest.approx(64 * 5 * 5 * 6 / 1000)
    assert summarise(outcomes, [])["dropped"] == {"mean": 0.5, "pooled": 0.5, "worst": 0.5}


def test_slices_are_kept_where_a_roi_holds_their_centre(
    halved: tuple[PreparedCase, Roi, Model, RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    case, roi, model, _ = halved
    probability = np.linspace(0, 1, case.grid("fine").shape[2], dtype=np.float32)
    monkeypatch.setattr(error_budget, "slice_scores", lambda *_: SliceScores(probability, None))
    slices = judge_slices(case, roi, model)
    n = len(slices)
    assert [i for i, s in enumerate(slices) if s.holds_tumour] == [4, 5, 6, 7]
    assert [i for i, s in enumerate(slices) if s.kept] == [6, 7, 8, 9]
    assert np.diff([s.z_mm for s in slices]) == pytest.approx(np.full(n - 1, 6.0))
    found = summarise([], slices)["slices"]
    assert found["sensitivity"] == 0.5
    assert found["specificity"] == pytest.approx(1 - 2 / (n - 4))
    assert found["auc"] == pytest.approx(4 / (n - 4), abs=1e-9), "four slices of the others are below those with tumour"


def test_oracle_rois_of_slices_leave_out_those_between() -> None:
    overrides = ["data.root=cases", "run_dir=out"]
    grid = Grid.axis_aligned(Box((-50, -60, 200), (50, 60, 280)), (10.0, 10.0, 10.0))
    target = np.zeros(grid.shape, dtype=np.uint8)
    target[3:5, 3:5, [1, 2, 6]] = 1
    zhu = parse_settings(RunSettings, compose("run", ["experiment=zhu2020", *overrides]))
    assert oracle_rois(target, grid, zhu) == (Box((-50, -60, 210), (50, 60, 230)), Box((-50, -60, 260), (50, 60, 270)))
    two = parse_settings(RunSettings, compose("run", ["experiment=two_stage_ag", "roi.margin_mm=5", *overrides]))
    assert oracle_rois(target, grid, two) == (Box((-25, -35, 205), (5, -5, 275)),)
    for settings in (zhu, two):
        (box,) = oracle_rois(np.zeros_like(target), grid, settings)
        assert box == grid.bounds().expand(settings.roi.margin_mm)


def test_share_in_reach_counts_touched_voxels_once() -> None:
    grid = Grid.axis_aligned(Box((0, 0, 0), (40, 40, 40)), (10.0, 10.0, 10.0))
    target = np.ones(grid.shape, dtype=np.uint8)
    boxes = [Box((0, 0, 0), (40, 40, 12)), Box((-9, -9, 0), (40, 40, 10))]
    assert share_in_reach(target, grid, boxes) == 0.5
    assert share_in_reach(np.zeros_like(target), grid, boxes) is None


def outcome(case_id: str, covered: float | None, target_ml: float, dice: float, reason: str = "found") -> Outcome:
    dices = {"GTVp": dice, "GTVn": 1.0, "GTV": dice}
    return Outcome(case_id, "chain", dices, target_ml, covered, reason)


def test_means_are_over_patients_and_pooled_over_volume() -> None:
    chain = [outcome("a", 1.0, 30, 0.8), outcome("b", 0.5, 10, 0.4, "fallback:x"), outcome("c", None, 0, 1.0)]
    summary = summarise(chain, [])
    assert summary["n_cases"] == 3
    assert summary["dice"]["chain"]["GTV"] == pytest.approx(2.2 / 3)
    assert summary["dice"]["whole"]["GTV"] is None
    assert summary["dropped"] == {"mean": 0.25, "pooled": 0.125, "worst": 0.5}
    assert summary["dice_ceiling"] == pytest.approx((1 + 2 / 3) / 2)
    assert summary["nothing_found"] == ["b"]


def test_nothing_to_judge_has_no_numbers() -> None:
    summary = summarise([outcome("c", None, 0, 1.0)], [SliceOutcome("c", 0.0, 0.2, False, True)])
    assert summary["dropped"] == {"mean": None, "pooled": None, "worst": None}
    assert summary["dice_ceiling"] is None
    assert (summary["slices"]["auc"], summary["slices"]["sensitivity"]) == (None, None)
    assert summary["slices"]["specificity"] == 0


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=15))
def test_area_under_curve_counts_pairs(rows: list[tuple[int, bool]]) -> None:
    above = [score for score, holds in rows if holds]
    below = [score for score, holds in rows if not holds]
    found = area_under_curve(*zip(*rows, strict=True))
    if not above or not below:
        assert found is None
    else:
        wins = [(a > b) + 0.5 * (a == b) for a in above for b in below]
        assert found == pytest.approx(np.mean(wins))


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], RunFolder]:
    """A tiny run of Zhu's chain, and its command."""
    root = tmp_path_factory.mktemp("zhu")
    write_tiny_cohort(root / "cases", 4)
    command = tiny_run(root / "cases", root, "zhu2020", budget__steps=8)
    assert run_command(command) == DONE
    return command, RunFolder(root / "run")


def test_zhu2020_writes_its_error_budget(walked: tuple[list[str], RunFolder]) -> None:
    _, folder = walked
    rows = read_csv(folder.error_budget, COLUMNS)
    tested = sorted({row["case_id"] for row in rows})
    assert [(row["case_id"], row["way"]) for row in rows] == [(case, way) for case in tested for way in WAYS]
    scores = {row["case_id"]: row for row in read_csv(folder.scores, ()) if row["class_name"] == "GTV"}
    for row in rows:
        if row["way"] == "chain":
            assert float(row["dice_GTV"]) == pytest.approx(float(scores[row["case_id"]]["dice"]), abs=1e-4)
            assert float(row["dice_GTV"]) <= float(row["dice_ceiling"]) + 1e-4
        else:
            assert (row["covered_fraction"], row["reason"]) == ("1.0000", "")
    summary = read_json(folder.error_budget_summary)
    assert summary["n_cases"] == len(tested)
    assert set(summary["dice"]) == set(WAYS)
    slices = read_csv(folder.slice_scores, SLICE_COLUMNS)
    assert {row["case_id"] for row in slices} == set(tested)
    assert summary["slices"]["n"] == len(slices)
    assert folder.error_budget_picture.read_bytes().startswith(b"\x89PNG")


def test_error_budget_is_made_once_and_goes_on(
    walked: tuple[list[str], RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    command, folder = walked
    files = [folder.error_budget, folder.error_budget_summary, folder.error_budget_picture, folder.slice_scores]
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in files]

    def refuse(*_: object) -> None:
        raise AssertionError("this case is finished")

    monkeypatch.setattr(error_budget, "segment", refuse)
    assert run_command(command) == DONE
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in files] == before
    for lost in files:
        lost.unlink()
        assert run_command(command) == DONE
        assert [path.read_bytes() for path in files] == [content for content, _ in before]


def test_a_finished_run_can_be_given_an_error_budget(tmp_path: Path) -> None:
    write_tiny_cohort(tmp_path / "cases", 4)
    command = tiny_run(tmp_path / "cases", tmp_path, "two_stage_ag", budget__steps=4)
    folder = RunFolder(tmp_path / "run")
    assert run_command(command) == DONE
    assert not folder.error_budget.exists()
    assert run_command([*command, "error_budget=true"]) == DONE
    assert "slices" not in read_json(folder.error_budget_summary)
    assert not folder.slice_scores.exists()


def test_an_arm_without_stage_1_has_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tiny_cohort(tmp_path / "cases", 4)
    command = tiny_run(tmp_path / "cases", tmp_path, "single_stage_unet", budget__steps=1, error_budget=True)
    assert run_command(command) == DONE
    assert "no error budget" in capsys.readouterr().err
    assert not RunFolder(tmp_path / "run").error_budget.exists()
