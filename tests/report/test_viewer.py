import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from hngtv.report.browse import COLUMNS, case_browser, case_table, pick_contested, sort_scores
from hngtv.report.overlay import CaseView
from hngtv.report.runs import read_run
from hngtv.report.viewer import Outline, outline_path, pick_slices, render_viewer, viewer_case
from hngtv.volume.box import Box
from hngtv.volume.grid import Grid
from hngtv.volume.nifti import Image

SHAPE = (100, 100, 60)
GRID = Grid.from_array(SHAPE, np.diag([2.0, 2.0, 3.0, 1.0]))


def cube(x: int, y: int, z: int, label: int = 1) -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    labels[x - 3 : x + 4, y - 3 : y + 4, z - 2 : z + 3] = label
    return labels


def view(target: np.ndarray | None) -> CaseView:
    coarse = Grid.from_array((50, 50, 45), np.diag([4.0, 4.0, 4.0, 1.0]))
    ct = np.full(SHAPE, -1000, np.int16)
    ct[60:, 50:, :] = 300  # bright where the patient's right front is
    return CaseView(Image(ct, GRID, ""), Image(np.full(coarse.shape, 5.0, np.float32), coarse, ""), target, None, None)


def pixels(url: str) -> np.ndarray:
    return np.asarray(Picture.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGBA"))


def test_outline_is_a_closed_path_in_mm_with_right_on_the_left_and_front_on_top() -> None:
    mask = np.zeros((10, 8), bool)
    mask[7:9, 5:8] = True  # high x is the patient's right, high y the front
    path = outline_path(mask, (2.0, 3.0))
    points = np.array(re.findall(r"(-?[\d.]+) (-?[\d.]+)", path), dtype=float)
    # Columns 1 and 2 from the left are voxels 8 and 7: 2 to 6 mm. Rows 0 to 2: 0 to 9 mm. Lines cut voxels in half.
    assert path.startswith("M")
    assert path.endswith("Z")
    assert (points.min(axis=0), points.max(axis=0)) == (pytest.approx([2, 0]), pytest.approx([6, 9]))
    assert len(points) == 8
    assert outline_path(0 * mask > 0, (2.0, 3.0)) == ""


def test_two_islands_and_a_hole_are_three_outlines() -> None:
    mask = np.zeros((20, 20), bool)
    mask[2:9, 2:9], mask[4:6, 4:6], mask[12:15, 12:15] = True, False, True
    assert outline_path(mask, (1.0, 1.0)).count("M") == 3


@pytest.mark.parametrize(
    ("marked", "middle", "n", "wanted"),
    [
        ([10, 11, 12], 11, 20, [9, 10, 11, 12, 13]),
        ([0, 1, 59], 1, 20, [0, 1, 2, 58, 59]),
        (list(range(10, 50)), 31, 5, [9, 19, 29, 31, 40, 50]),
        ([], 2, 40, list(range(11))),
    ],
)
def test_slices_are_those_with_something_to_see(marked: list[int], middle: int, n: int, wanted: list[int]) -> None:
    assert pick_slices(np.array(marked, int), middle, 60, n) == wanted


def test_case_has_a_layer_for_all_that_can_be_switched() -> None:
    alpha = Image(np.full((10, 10, 10), 0.5, np.float32), Grid.from_array((10, 10, 10), np.diag([20.0, 20, 18, 1])), "")
    outlines = [
        Outline("crop", "crop: good", cube(31, 60, 20), [Box((40, 90, 30), (90, 150, 90))], {"gate2": alpha}),
        Outline("gate", "gate: none", None),
    ]
    case = viewer_case("a", "worst", view(cube(30, 60, 20)), outlines)
    assert [layer["key"] for layer in case["layers"]] == ["pet", "truth", "arm0", "arm1", "box", "gate0"]
    assert [layer["off"] for layer in case["layers"]] == [False] * 5 + [True]
    middle = case["slices"][case["first"]]
    assert middle["caption"] == "axial, z = 54 mm"
    assert {line["layer"] for line in middle["lines"]} == {"truth", "arm0"}
    assert {heat["layer"] for heat in middle["heats"]} == {"pet", "gate0"}
    assert len(middle["boxes"]) == 1
    assert case["slices"][0]["lines"] == []


def test_pictures_show_the_window_and_the_right_side() -> None:
    case = viewer_case("a", "", view(cube(58, 52, 20)), [])
    ct = pixels(case["slices"][case["first"]]["ct"])[..., 0]
    assert ct[:20, :20].mean() > 240  # above 215 HU, right front
    assert ct[-20:, -20:].mean() < 10
    pet = pixels(case["slices"][0]["heats"][0]["url"])
    assert 0 < pet[..., 3].mean() < 255  # SUV 5 of 10 is laid over the CT half seen


def test_a_hostile_name_is_text() -> None:
    page = render_viewer([viewer_case("<script>a", "<b>", view(None), [Outline("<i>", "<u>", None)])])
    assert page.count("<script>") == 1
    assert "<i>" not in page
    assert "<u>" not in page


def test_contested_cases_start_with_the_worst_and_end_with_the_best() -> None:
    dice = {"a": dict(zip("pqrst", (0.1, 0.5, 0.9, 0.6, 0.7), strict=True))}
    assert pick_contested(dice, 3) == {"p": "worst", "s": "median", "r": "best"}
    dice["b"] = dict(zip("pqrst", (0.1, 0.9, 0.9, 0.6, 0.6), strict=True))
    assert list(pick_contested(dice, 4).items())[:2] == [("p", "worst"), ("q", "arms differ most")]
    assert len(pick_contested(dice, 99)) == 5
    assert pick_contested(dice, 0) == {}
    assert pick_contested({"a": {}}, 3) == {}


def test_cases_are_sorted_by_any_score_worst_first(fake_runs: Path) -> None:
    run = read_run(fake_runs / "two_stage_unet" / "fold0-seed0")
    for by in COLUMNS:
        values = [getattr(row, by) for row in sort_scores(run.scores, by)]
        assert values == sorted(values, reverse=by == "hd95_mm")
        order = re.findall(r"<tr><td>(\w+)", case_table(run, by=by))
        assert order == [row.case_id for row in sort_scores(run.scores, by)]


def test_browser_opens_the_cases_of_a_run(fake_runs: Path) -> None:
    run = read_run(fake_runs / "single_stage_ag" / "fold0-seed0")
    page = case_browser(run, by="hd95_mm", n_cases=2)
    assert re.findall(r"<summary><b>(\w+)", page) == [row.case_id for row in sort_scores(run.scores, "hd95_mm")][:2]
    assert page.count("<details") == 2
    assert page.count('<details class="case" open>') == 1
    assert "no prediction" in page
