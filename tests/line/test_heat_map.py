"""The heat-map localiser walks the line as the dense one does, and a network of others can be its network."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hngtv.cases.checks import check_case
from hngtv.cases.manifest import load_cases
from hngtv.cases.prepare import prepare_images
from hngtv.commands.entry import DONE, compose, run_command
from hngtv.config import HeatMapLocaliser, SegResNetSettings, parse_network
from hngtv.localise.roi_table import read_rois
from hngtv.model import build_localiser, load_model
from hngtv.run_folder import read_json
from hngtv.two_stage import NetworkLocaliser, predict_case
from tests.tiny_cases import write_tiny_cohort
from tests.tiny_run import tiny_run


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a cohort and a run; at a threshold of 0 every case has a peak."""
    root = tmp_path_factory.mktemp("heat_map")
    write_tiny_cohort(root / "cases", 4)
    arguments = tiny_run(
        root / "cases", root, localiser="heat_map", localiser__thresholds="[0.0]", localiser__max_peaks=3,
        budget__steps=4,
    )  # fmt: skip
    assert run_command(arguments) == DONE
    return root


def test_run_finds_boxes_and_segments_them(walked: Path) -> None:
    rois = read_rois(walked / "run/rois.csv")
    assert {roi.fold for roi in rois} == {"0", "1", "ensemble"}
    assert {(roi.localiser, roi.reason) for roi in rois} == {("heat_map", "found")}
    assert (walked / "run/scores.csv").is_file()
    for inner in ("inner_0", "inner_1"):
        assert read_json(walked / f"run/coarse/{inner}/training.json")["n_classes"] == 4


def test_prediction_looks_where_the_run_did(walked: Path) -> None:
    model = load_model(walked / "run")
    rois = {roi.case_id: roi for roi in read_rois(walked / "run/rois.csv") if roi.fold == "ensemble"}
    case = next(case for case in load_cases(walked / "cases") if case.case_id in rois)
    found = predict_case(model, case).roi
    assert found.confidence == pytest.approx(rois[case.case_id].confidence, abs=1e-3)
    assert np.allclose(found.box.lower_mm, rois[case.case_id].box.lower_mm, atol=0.1)


def test_network_of_others_gives_heat_maps(walked: Path) -> None:
    model = load_model(walked / "run")
    assert isinstance(model.settings.localiser, HeatMapLocaliser)
    tree = compose("run", tiny_run(walked, walked, network="segresnet")[1:])["network"]
    peer = parse_network(tree)
    assert isinstance(peer, SegResNetSettings)
    localiser = replace(model.settings.localiser, network=peer)
    network = build_localiser(localiser, model.settings.intensity.n_channels).eval()
    case = load_cases(walked / "cases")[0]
    volume = prepare_images(check_case(case), (10.0, 10.0, 12.0))
    finding = NetworkLocaliser(localiser, [network], 0.0, model.settings).find(volume, case.case_id)
    assert 1 <= len(finding.boxes) <= 3
    assert finding.reason == "found"
