"""Rules as localisers and several ROIs for one patient, from raw files to scores and the report."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hngtv.cases.manifest import load_cases
from hngtv.commands.entry import DONE, compose, run_command
from hngtv.config import CoarseLocaliser, RunSettings, parse_settings
from hngtv.localise.finding import FOUND, Finding
from hngtv.localise.roi_policy import matched_jitter_mm
from hngtv.localise.roi_table import Roi, read_rois
from hngtv.localise.rules import PET_RULES
from hngtv.localise.truth import target_box
from hngtv.model import load_model
from hngtv.run_folder import read_json
from hngtv.training.roi_data import CropRules, TrainingCrops
from hngtv.two_stage import predict_case
from hngtv.volume.box import Box
from hngtv.volume.grid import Grid
from hngtv.volume.nifti import read_image
from tests.tiny_cases import write_tiny_cohort
from tests.tiny_run import tiny_run

SIZE_MM = (70.0, 70.0, 60.0)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("localisers")
    write_tiny_cohort(root / "cases", 4)
    return root


def walk(cohort: Path, name: str, **changes: object) -> Path:
    """The folder of a finished run of two_stage_unet with another localiser or ROI policy."""
    localiser = (
        {} if "localiser" in changes else {"localiser__network__widths": [4, 8, 8], "localiser__budget_share": 0.5}
    )
    run_dir = cohort / "runs" / name
    changes = {"arm": name, "run_dir": run_dir, "localiser": "coarse", "roi": "box", **localiser} | changes
    arguments = tiny_run(cohort / "cases", cohort, "oracle_unet", budget__steps=4, **changes)
    assert run_command(arguments) == DONE
    return run_dir


@pytest.fixture(scope="module")
def nvauto(cohort: Path) -> Path:
    return walk(cohort, "nvauto", localiser="nvauto", localiser__size_mm=list(SIZE_MM))


def inside(mask: NDArray, grid: Grid, boxes: list[Box]) -> bool:
    """Whether all voxels of a mask are touched by a box."""
    allowed = np.zeros(grid.shape, dtype=bool)
    for box in boxes:
        allowed[grid.clip(grid.slices_of(box))] = True
    return not (mask & ~allowed).any()


def test_a_rule_walks_the_line(nvauto: Path, cohort: Path) -> None:
    rois = read_rois(nvauto / "rois.csv")
    assert sorted(roi.case_id for roi in rois) == ["tiny_00", "tiny_01", "tiny_02", "tiny_03"]
    assert {(roi.localiser, roi.fold, roi.reason, roi.confidence) for roi in rois} == {("nvauto", "", FOUND, 1.0)}
    for roi in rois:
        (box,) = roi.boxes
        np.testing.assert_allclose(box.size_mm, SIZE_MM)
    assert not (nvauto / "coarse").exists()
    assert read_json(nvauto / "fine/training.json")["steps"] == 4, "a rule takes nothing from the budget"
    scored = {row["case_id"] for row in csv.DictReader((nvauto / "scores.csv").open(newline=""))}
    by_case = {roi.case_id: roi for roi in rois}
    assert len(scored) == 2
    for case_id in scored:
        note, mask = (
            read_json(nvauto / f"predictions/{case_id}.json"),
            read_image(nvauto / f"predictions/{case_id}.nii.gz"),
        )
        assert note["reason"] == FOUND
        assert note["rois_mm"] == [[*box.lower_mm, *box.upper_mm] for box in by_case[case_id].boxes]
        margin_mm = load_model(nvauto).settings.roi.margin_mm
        assert inside(mask.values > 0, mask.grid, [box.expand(margin_mm) for box in by_case[case_id].boxes])


def test_training_and_prediction_see_the_same_box_of_a_rule(nvauto: Path, cohort: Path) -> None:
    """A rule knows no training cases: what it says of them from the store is what it says of their files."""
    model = load_model(nvauto)
    cases = {case.case_id: case for case in load_cases(cohort / "cases")}
    for roi in read_rois(nvauto / "rois.csv"):
        found = predict_case(model, cases[roi.case_id]).roi
        np.testing.assert_allclose(found.box.lower_mm, roi.box.lower_mm, atol=0.5)
        assert found.covered_fraction == pytest.approx(roi.covered_fraction, abs=0.05)
        assert (found.localiser, found.fold, found.reason) == (roi.localiser, roi.fold, roi.reason)


@pytest.mark.parametrize("name", [*PET_RULES, "fixed", "atlas"])
def test_every_rule_predicts(name: str, nvauto: Path, cohort: Path) -> None:
    """With the networks of another run: what learns is the fine stage alone."""
    arguments = tiny_run(cohort / "cases", cohort, "oracle_unet", localiser=name, localiser__size_mm="[60, 60, 50]")
    settings = parse_settings(RunSettings, compose("run", arguments[1:]))
    case = load_cases(cohort / "cases")[0]
    prediction = predict_case(replace(load_model(nvauto), settings=settings), case)
    assert (prediction.roi.localiser, prediction.roi.fold, prediction.roi.reason) == (name, "", FOUND)
    (box,) = prediction.roi.boxes
    np.testing.assert_allclose(box.size_mm, (60, 60, 50))
    assert prediction.roi.covered_fraction is not None


def test_a_walked_rule_has_nothing_left_to_do(nvauto: Path, cohort: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in nvauto.rglob("*.*") if path.suffix in (".pt", ".gz", ".json")}
    walk(cohort, "nvauto", localiser="nvauto", localiser__size_mm=list(SIZE_MM))
    after = {path: path.stat().st_mtime_ns for path in nvauto.rglob("*.*") if path.suffix in (".pt", ".gz", ".json")}
    unchanged = {path for path in before if before[path] == after[path]}
    assert {path for path in before if path.suffix != ".json"} <= unchanged
    assert {path for path in before if "predictions" in path.parts or "fine" in path.parts} <= unchanged


def test_a_pet_without_uptake_falls_back_and_is_told(cohort: Path, tmp_path: Path) -> None:
    """`on_empty` of a rule is followed in training too."""
    flat = cohort / "flat"
    write_tiny_cohort(flat / "cases", 4)
    arguments = tiny_run(
        flat / "cases", flat, "oracle_unet", localiser="nvauto", localiser__size_mm=[70, 70, 60], budget__steps=2
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PET_RULES, "nvauto", lambda *_: None)
        assert run_command(arguments) == DONE
    rois = read_rois(flat / "run/rois.csv")
    assert {roi.reason for roi in rois} == {"fallback:whole_volume (no uptake that stands out)"}
    assert {roi.covered_fraction for roi in rois} == {1.0}


def two_lesions(probability: NDArray, pet_suv: NDArray, grid: Grid, *_: Any) -> Finding:
    """In place of stage 1: boxes in two corners of the image, one of them by chance a little smaller."""
    low, high = grid.bounds().lower_mm, grid.bounds().upper_mm
    off = np.random.default_rng(int(pet_suv.sum())).uniform(0, 6, 3)
    return Finding(
        (Box.from_corners(np.add(low, off), np.add(low, 30)), Box.from_corners(np.subtract(high, 40), high)), 0.7, FOUND
    )


@pytest.fixture(scope="module")
def several(cohort: Path) -> tuple[Path, list[CropRules], str]:
    """A run whose stage 1 finds two boxes in each case; the rules of its training crops; its log."""
    seen: list[CropRules] = []

    class Noting(TrainingCrops):
        def __init__(self, cases: Any, rois: Any, rules: CropRules, *others: Any) -> None:
            seen.append(rules)
            super().__init__(cases, rois, rules, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hngtv.two_stage.find_boxes", two_lesions)
        patch.setattr("hngtv.arm.TrainingCrops", Noting)
        folder = walk(cohort, "several", roi__join_mm=5, roi__jitter_mm="matched", localiser__thresholds=[0.5])
    return folder, seen, (folder / "log.txt").read_text()


def test_several_rois_of_a_patient_walk_the_line(several: tuple[Path, list[CropRules], str]) -> None:
    folder, _, _ = several
    rois = read_rois(folder / "rois.csv")
    assert {roi.fold for roi in rois} == {"0", "1", "ensemble"}
    assert {len(roi.boxes) for roi in rois} == {2}
    rows = list(csv.DictReader((folder / "rois.csv").open(newline="")))
    assert [row["roi"] for row in rows] == ["0", "1"] * 4
    margin_mm = load_model(folder).settings.roi.margin_mm
    for roi in rois:
        if roi.fold != "ensemble":
            continue
        note = read_json(folder / f"predictions/{roi.case_id}.json")
        assert len(note["rois_mm"]) == 2
        mask = read_image(folder / f"predictions/{roi.case_id}.nii.gz")
        assert inside(mask.values > 0, mask.grid, [box.expand(margin_mm) for box in roi.boxes])


def test_matched_jitter_is_that_of_the_boxes_of_training_cases(
    several: tuple[Path, list[CropRules], str], cohort: Path
) -> None:
    folder, seen, log = several
    trained = [roi for roi in read_rois(folder / "rois.csv") if roi.fold != "ensemble"]
    assert len(trained) == 2
    wanted = matched_jitter_mm([(roi.box, true_box(cohort, roi)) for roi in trained])
    assert wanted > 1
    assert seen
    assert [rules.jitter_mm for rules in seen] == pytest.approx([wanted] * len(seen))
    assert f"jitter of up to {wanted:.1f} mm, matched to the centres of 2 boxes" in log


def true_box(cohort: Path, roi: Roi) -> Box:
    """On the grid of the tiny cases the fine grid of the store is the CT's own."""
    target = read_image(cohort / f"cases/{roi.case_id}/gtv.nii.gz")
    box = target_box(target.values, target.grid)
    assert box is not None
    return box


def test_coarse_network_with_several_rois_and_matched_jitter(cohort: Path) -> None:
    """The same without a stand-in: whatever a network of a few steps finds."""
    folder = walk(
        cohort, "coarse", roi__join_mm=5, roi__jitter_mm="matched", roi__margin_mm=4,
        localiser__thresholds="[0.6, 0.5]", localiser__min_component_ml=0.5,
    )  # fmt: skip
    rois = read_rois(folder / "rois.csv")
    assert sorted(roi.case_id for roi in rois) == ["tiny_00", "tiny_01", "tiny_02", "tiny_03"]
    assert "matched to the centres of" in (folder / "log.txt").read_text()
    settings = load_model(folder).settings
    assert isinstance(settings.localiser, CoarseLocaliser)
    assert (settings.roi.join_mm, settings.roi.jitter_mm) == (5, "matched")
    for roi in rois:
        for number, box in enumerate(roi.boxes):
            assert all(box.distance_mm(other) > 5 for other in roi.boxes[number + 1 :])


def test_jitter_that_is_set_reaches_the_crops(cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    start = TrainingCrops.__init__

    def noting(crops: TrainingCrops, cases: Any, rois: Any, rules: CropRules, *others: Any) -> None:
        seen.append(rules.jitter_mm)
        start(crops, cases, rois, rules, *others)

    monkeypatch.setattr(TrainingCrops, "__init__", noting)
    walk(cohort, "jitter", localiser="oracle", roi__jitter_mm=7)
    assert set(seen) == {7}


def test_report_takes_rules_and_several_rois(
    nvauto: Path, several: tuple[Path, list[CropRules], str], tmp_path: Path
) -> None:
    for run in (nvauto, several[0]):
        shutil.copytree(run, tmp_path / "runs" / run.name)
    assert run_command(["compare", f"runs={tmp_path / 'runs'}", f"out={tmp_path}"]) == DONE
    table = {row["arm"]: row for row in csv.DictReader((tmp_path / "table.csv").open(newline=""))}
    folder = several[0]
    margin_mm = load_model(folder).settings.roi.margin_mm
    volumes = [
        sum(box.expand(margin_mm).volume_ml for box in roi.boxes)
        for roi in read_rois(folder / "rois.csv")
        if roi.fold == "ensemble"
    ]
    assert float(table["several"]["box_ml_median"]) == pytest.approx(np.median(volumes), rel=1e-3)
    assert "nvauto" in (tmp_path / "report.html").read_text(encoding="utf-8")
