"""Many patients side by side: the same masks as one after another, and one that cannot be read stops no other."""

import shutil
from pathlib import Path

import pytest

from hngtv.commands.entry import CASES_FAILED, DONE, run_command
from hngtv.localise.roi_table import read_rois
from tests.tiny_run import write_untrained_run


@pytest.fixture(scope="module")
def model(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that finds something, though it was not trained."""
    out = tmp_path_factory.mktemp("model") / "run"
    return write_untrained_run(tiny_cohort, out, inference__threshold=0.1, inference__min_gtvp_share=0)


def predict(model: Path, cases: Path, out: Path, n_workers: int) -> int:
    return run_command(["predict", f"model={model}", f"cases={cases}", f"out={out}", f"n_workers={n_workers}"])


def test_workers_write_what_one_process_writes(model: Path, tiny_cohort: Path, tmp_path: Path):
    here, there = tmp_path / "here", tmp_path / "there"
    assert predict(model, tiny_cohort, here, 0) == predict(model, tiny_cohort, there, 3) == DONE
    masks = sorted(path.name for path in here.glob("*.nii.gz"))
    assert len(masks) == 6
    assert sorted(path.name for path in there.glob("*.nii.gz")) == masks
    for name in masks:
        assert (here / name).read_bytes() == (there / name).read_bytes()
    assert {roi.case_id: roi for roi in read_rois(here / "rois.csv")} == {
        roi.case_id: roi for roi in read_rois(there / "rois.csv")
    }


def test_a_case_that_fails_in_a_worker_is_named_and_done_when_mended(
    model: Path, tiny_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    cases, out = tmp_path / "cases", tmp_path / "out"
    shutil.copytree(tiny_cohort, cases)
    broken = next(path for path in sorted(cases.rglob("ct.nii*")))
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    assert predict(model, cases, out, 2) == CASES_FAILED
    said = capsys.readouterr().err
    assert str(broken) in said
    assert len(list(out.glob("*.nii.gz"))) == 5
    broken.write_bytes(whole)
    assert predict(model, cases, out, 2) == DONE
    assert capsys.readouterr().err.count("already predicted") == 5
    assert len(list(out.glob("*.nii.gz"))) == 6
