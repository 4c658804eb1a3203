from pathlib import Path

import numpy as np
import pytest

from hngtv.cases.manifest import RawCase
from hngtv.errors import InputError
from hngtv.report.scores import grid_difference, read_scores, score_predictions, write_scores
from hngtv.volume.grid import Grid
from hngtv.volume.nifti import read_image, write_labels_like
from tests.tiny_cases import rewrite, write_tiny_case


@pytest.fixture
def case(tmp_path: Path) -> RawCase:
    return write_tiny_case(tmp_path / "raw", "tiny_00")


def predict_truth(case: RawCase, folder: Path) -> Path:
    assert case.target is not None
    path = folder / f"{case.case_id}.nii.gz"
    write_labels_like(path, read_image(case.target).values.astype(np.uint8), case.ct)
    return path


def test_truth_scores_perfectly_in_every_class(case: RawCase, tmp_path: Path) -> None:
    predict_truth(case, tmp_path)
    scores, failures = score_predictions([case], tmp_path, "arm", 3, 7)
    assert failures == []
    assert [(s.class_name, s.dice, s.hd95_mm) for s in scores] == [("GTVp", 1, 0), ("GTVn", 1, 0), ("GTV", 1, 0)]
    assert {(s.arm, s.fold, s.seed) for s in scores} == {("arm", "3", 7)}
    assert all(s.volume_ml == s.target_volume_ml > 0 for s in scores)


def test_missing_prediction_scores_worst_and_is_listed(case: RawCase, tmp_path: Path) -> None:
    scores, failures = score_predictions([case], tmp_path, "arm", 0, 0)
    assert [s.dice for s in scores] == [0, 0, 0]
    assert all(s.hd95_mm > 100 for s in scores)
    assert [f.case_id for f in failures] == ["tiny_00"]
    assert "no prediction file tiny_00.nii.gz" in failures[0].reason


def test_prediction_on_another_grid_scores_as_missing(case: RawCase, tmp_path: Path) -> None:
    rewrite(predict_truth(case, tmp_path), affine=lambda a: a + np.array([[0, 0, 0, 3.0]] + [[0, 0, 0, 0]] * 3))
    scores, failures = score_predictions([case], tmp_path, "arm", 0, 0)
    assert [s.dice for s in scores] == [0, 0, 0]
    assert "another grid than the target (shifted by up to 3.00 mm)" in failures[0].reason


def test_prediction_in_another_voxel_order_is_the_same_prediction(case: RawCase, tmp_path: Path) -> None:
    flip = np.diag([1.0, -1.0, 1.0, 1.0])
    path = predict_truth(case, tmp_path)
    n_y = read_image(path).grid.shape[1]
    flip[1, 3] = n_y - 1
    rewrite(path, values=lambda v: v[:, ::-1], affine=lambda a: a @ flip)
    scores, failures = score_predictions([case], tmp_path, "arm", 0, 0)
    assert failures == []
    assert [s.dice for s in scores] == [1, 1, 1]


def test_unknown_labels_score_as_missing(case: RawCase, tmp_path: Path) -> None:
    rewrite(predict_truth(case, tmp_path), values=lambda v: v * 5)
    _, failures = score_predictions([case], tmp_path, "arm", 0, 0)
    assert "labels" in failures[0].reason


def test_unusable_target_gives_a_failure_and_no_row(case: RawCase, tmp_path: Path) -> None:
    assert case.target is not None
    predict_truth(case, tmp_path)
    case.target.write_bytes(case.target.read_bytes()[:100])
    scores, failures = score_predictions([case], tmp_path, "arm", 0, 0)
    assert scores == []
    assert "its target is unusable" in failures[0].reason


def test_scores_come_back_from_disk(case: RawCase, tmp_path: Path) -> None:
    predict_truth(case, tmp_path)
    scores, _ = score_predictions([case], tmp_path, "arm", "all", 0)
    write_scores(tmp_path / "scores.csv", scores)
    assert read_scores(tmp_path / "scores.csv") == scores


def test_a_damaged_score_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text("case_id,arm\na,b\n")
    with pytest.raises(InputError, match=r"scores\.csv lacks the column"):
        read_scores(tmp_path / "scores.csv")


def test_grid_difference_names_shape_before_shift() -> None:
    grid = Grid.from_array((4, 5, 6), np.eye(4))
    assert grid_difference(grid, grid) == ""
    assert grid_difference(grid, Grid.from_array((4, 5, 7), np.eye(4))) == "4 x 5 x 6 voxels against 4 x 5 x 7"
