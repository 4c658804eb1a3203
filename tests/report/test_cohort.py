import dataclasses
from pathlib import Path

import numpy as np
import pytest

from hngtv.cases.manifest import RawCase
from hngtv.report.cohort import cohort_browser, cohort_rows, draw_volumes
from hngtv.volume.nifti import read_image


def test_rows_hold_what_the_files_hold(phantom_cases: list[RawCase], tmp_path: Path) -> None:
    lost = dataclasses.replace(phantom_cases[0], case_id="lost", ct=tmp_path / "nothing.nii.gz")
    rows = cohort_rows([*phantom_cases, lost])
    target = read_image(phantom_cases[0].target)  # pyright: ignore
    assert rows[0]["GTVp_ml"] == pytest.approx(np.sum(target.values == 1) * target.grid.voxel_ml, abs=0.01)
    assert rows[0]["CT voxels"] == " x ".join(map(str, target.grid.shape))
    assert "nothing.nii.gz cannot be read" in rows[3]["checks"]
    assert [row.keys() for row in rows] == [rows[0].keys()] * 4


def test_a_case_without_a_target_has_no_volume(phantom_cases: list[RawCase]) -> None:
    (row,) = cohort_rows([dataclasses.replace(phantom_cases[0], target=None)])
    assert (row["GTVp_ml"], row["GTVn_ml"]) == ("", "")
    assert draw_volumes([row]).axes[0].collections[0].get_offsets().shape[0] == 0  # pyright: ignore


def test_volumes_are_dots_by_centre_and_empty_ones_are_left_out(phantom_cases: list[RawCase]) -> None:
    rows = cohort_rows(phantom_cases)
    rows[2] |= {"GTVn_ml": 0.0}
    axis = draw_volumes(rows).axes[0]
    dots = [len(np.asarray(dots.get_offsets())) for dots in axis.collections]
    assert dots == [1, 2, 1, 1]  # GTVp of north and south, then GTVn


def test_browser_leaves_out_what_cannot_be_read(phantom_cases: list[RawCase], tmp_path: Path) -> None:
    lost = dataclasses.replace(phantom_cases[0], case_id="lost", ct=tmp_path / "nothing.nii.gz")
    page = cohort_browser([phantom_cases[0], lost])
    assert page.count("<details") == 1
