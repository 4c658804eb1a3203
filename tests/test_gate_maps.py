from pathlib import Path

import numpy as np
import pytest

from hngtv.cases.checks import check_case
from hngtv.cases.manifest import read_manifest
from hngtv.commands.entry import DONE, run_command
from hngtv.gate_maps import SPACING_MM, keep_gate_maps
from hngtv.localise.roi_policy import widen
from hngtv.model import load_model
from hngtv.report.browse import gate_paths, gates_of, pick_cases, view_of
from hngtv.report.overlay import draw_case
from hngtv.report.runs import Run, read_run
from hngtv.segmentation import attend
from hngtv.volume.resample import resample
from tests.tiny_run import tiny_run


@pytest.fixture(scope="module")
def run(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("gates")
    assert run_command(tiny_run(tiny_cohort, root, "two_stage_ag", budget__steps=6)) == DONE
    return read_run(root / "run")


def test_a_run_keeps_the_gates_of_its_best_median_and_worst_case(run: Run) -> None:
    picked = {row.case_id for row in pick_cases(run.scores).values()}
    assert {path.parent.name for path in run.folder.gates.rglob("*.nii.gz")} == picked
    assert all(list(gate_paths(run.folder, case_id)) == ["gate2"] for case_id in picked)


def test_kept_maps_are_those_of_the_network_made_coarser(run: Run) -> None:
    case_id = next(iter(pick_cases(run.scores).values())).case_id
    kept = gates_of(run, case_id)["gate2"]
    model, images = load_model(run.folder.root), check_case(run.cases[case_id])
    alpha = attend(model, images, widen(run.rois[case_id].boxes, model.settings.roi))["gate2"]
    wanted = resample(alpha, images.ct.grid, kept.grid, outside=0.0)
    assert kept.grid.spacing_mm == pytest.approx((SPACING_MM,) * 3)
    assert wanted.max() > 0.2
    np.testing.assert_allclose(kept.values, wanted, atol=0.5 / 255 + 1e-4)


def test_they_are_drawn_below_ct_and_pet(run: Run) -> None:
    case_id = next(iter(pick_cases(run.scores).values())).case_id
    assert len(draw_case(view_of(run, case_id)).axes) == 9


def test_a_damaged_map_is_left_out_with_a_warning(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    case_id = next(iter(pick_cases(run.scores).values())).case_id
    path = gate_paths(run.folder, case_id)["gate2"]
    whole = path.read_bytes()
    path.write_bytes(b"damaged")
    try:
        assert view_of(run, case_id).gates == {}
    finally:
        path.write_bytes(whole)
    assert "the map is left out" in caplog.text


def test_nothing_is_made_twice_and_a_lost_map_is_made_again(run: Run) -> None:
    cases = read_manifest(run.folder.root / "cases.csv")
    files = sorted(run.folder.gates.rglob("*.nii.gz"))
    stamps = [path.stat().st_mtime_ns for path in files]
    keep_gate_maps(run.folder, cases, run.scores)
    assert [path.stat().st_mtime_ns for path in files] == stamps
    files[0].unlink()
    keep_gate_maps(run.folder, cases, run.scores)
    assert files[0].is_file()
    assert [path.stat().st_mtime_ns for path in files[1:]] == stamps[1:]
