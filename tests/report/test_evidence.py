"""What is read from the notes and counts beside predictions."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hngtv.cases.manifest import RawCase
from hngtv.errors import InputError
from hngtv.localise.located import SHARES
from hngtv.localise.truth import margins_needed
from hngtv.metrics.calibration import N_BINS, BinCounts, write_calibration
from hngtv.report.evidence import (
    calibration_rows,
    draw_outside,
    draw_reliability,
    located_cases,
    outside_rows,
    roi_names,
)
from hngtv.report.figures import colours_of
from hngtv.report.localisers import share_held
from hngtv.report.runs import Run, find_runs, runs_by_arm
from hngtv.run_folder import write_json
from hngtv.volume.nifti import read_image


@pytest.fixture
def runs(fake_runs: Path, phantom_cases: list[RawCase], tmp_path: Path) -> list[Run]:
    """Runs that know their truth, as those of `hngtv run` do, and networks that promise 0.9 and keep 0.6 or 0.9."""
    shutil.copytree(fake_runs, tmp_path / "runs")
    found, _ = find_runs(tmp_path / "runs")
    for run, kept in zip(found, (60, 90), strict=True):
        counts = np.zeros((3, N_BINS))
        counts[:, 18] = 100, 92.5, kept
        write_calibration(run.folder.calibration, {case_id: BinCounts(*counts) for case_id in run.case_ids})
        for case in phantom_cases:
            target = read_image(case.target)  # pyright: ignore
            margins = (
                margins_needed(target.values, target.grid, run.rois[case.case_id].boxes, SHARES) if run.rois else []
            )
            corners = target.grid.bounds()
            note = {
                "image_mm": [*corners.lower_mm, *corners.upper_mm],
                "target_ml": 10.0,
                "margins_mm": margins,
                "far_ml": 0.25,
            }
            write_json(run.folder.predictions / f"{case.case_id}.json", {"truth": note})
    return found


def test_roi_curve_is_that_of_the_boxes_of_the_run(runs: list[Run]) -> None:
    cases = located_cases(runs)
    assert {case.localiser for case in cases} == {"coarse"}
    two_stage = next(run for run in runs if run.localiser == "coarse")
    # The share held with the run's margin is what the ROI table says of the boxes.
    full = [roi.covered_fraction == 1 for roi in two_stage.rois.values()]
    measured = [(case.margins_mm or (0,))[0] <= two_stage.margin_mm for case in cases]
    assert len(measured) == 3
    assert share_held(cases, 0, two_stage.margin_mm) == pytest.approx(np.mean(measured))
    assert sum(full) <= sum(measured)


def test_runs_that_share_boxes_are_one_line_and_margins_name_lines_apart(runs: list[Run]) -> None:
    assert len(located_cases([*runs, *runs])) == 3
    assert set(roi_names(runs).values()) == {"coarse"}


def test_volume_outside_counts_a_lost_case_as_nothing_outlined(runs: list[Run]) -> None:
    rows = {row["arm"]: row for row in outside_rows(runs_by_arm(runs), "single_stage_ag")}
    crop, gate = rows["two_stage_unet"], rows["single_stage_ag"]
    assert (crop["far_mean_ml"], crop["n_far"]) == (pytest.approx(0.25), 3)
    assert (gate["far_mean_ml"], gate["n_far"]) == (pytest.approx(0.25 * 2 / 3), 2)
    scores = [row for run in runs for row in run.scores if row.arm == "two_stage_unet" and row.class_name == "GTV"]
    wanted = np.mean([row.volume_ml - row.recall * row.target_volume_ml for row in scores])
    assert crop["mean_ml"] == pytest.approx(wanted)
    difference = crop["difference"]
    assert difference.value == pytest.approx(crop["mean_ml"] - gate["mean_ml"])
    assert difference.low < difference.value < difference.high
    assert gate["difference"] is None


def test_a_case_that_an_arm_lacks_counts_as_nothing_outlined(runs: list[Run]) -> None:
    crop = next(run for run in runs if run.arm == "two_stage_unet")
    lacking = replace(crop, scores=[row for row in crop.scores if row.case_id != "phantom_0000"])
    arms = {run.arm: [lacking if run is crop else run] for run in runs}
    rows = {row["arm"]: row for row in outside_rows(arms, "single_stage_ag")}
    outlined, gate = rows["two_stage_unet"], rows["single_stage_ag"]
    assert outlined["n_cases"] == gate["n_cases"] == 3
    assert outlined["difference"].value == pytest.approx(outlined["mean_ml"] - gate["mean_ml"])


def test_calibration_of_an_arm_is_over_all_its_cases(runs: list[Run]) -> None:
    rows = {row["arm"]: row for row in calibration_rows(runs_by_arm(runs))}
    assert rows["single_stage_ag"]["error"] == pytest.approx(0.925 - 0.6)
    assert rows["two_stage_unet"]["overconfidence"] == pytest.approx(0.025)
    figure = draw_reliability(list(rows.values()), colours_of(list(rows)))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "single_stage_ag: error 0.325",
        "two_stage_unet: error 0.025",
    ]


def test_runs_of_earlier_versions_know_less(fake_runs: Path) -> None:
    found, _ = find_runs(fake_runs)
    arms = runs_by_arm(found)
    assert located_cases(found) == []
    assert calibration_rows(arms) == []
    rows = outside_rows(arms, "single_stage_ag")
    assert {row["far_mean_ml"] for row in rows} == {None}
    labels = [text.get_text() for text in draw_outside(rows, colours_of(list(arms))).axes[0].texts]
    assert not any("far" in label for label in labels)


def test_a_damaged_note_is_named(runs: list[Run]) -> None:
    run = next(run for run in runs if run.localiser == "coarse")
    path = run.folder.predictions / "phantom_0000.json"
    note = json.loads(path.read_text())
    path.write_text(json.dumps({"truth": note["truth"] | {"image_mm": "no box"}}))
    with pytest.raises(InputError, match=r"phantom_0000\.json is damaged"):
        located_cases(runs)
