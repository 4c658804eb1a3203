"""`hngtv ensemble`: runs of two folds become one model, which predicts, is packaged, and refuses what does not fit."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from hngtv.cases.checks import check_case
from hngtv.cases.manifest import load_cases
from hngtv.commands.entry import BAD_INPUT, DONE, run_command
from hngtv.export.package import open_model
from hngtv.networks.build import predict_flipped, predict_probabilities
from hngtv.run_folder import read_json, write_json
from hngtv.segmentation import look
from hngtv.volume.nifti import read_image
from tests.tiny_run import tiny_run

LOW = {"inference__threshold": 0.2, "inference__min_gtvp_share": 0}
"""So low a threshold that a hardly trained network outlines something."""


@pytest.fixture(scope="module")
def runs(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs of both folds."""
    root = tmp_path_factory.mktemp("folds")
    for fold in (0, 1):
        command = tiny_run(tiny_cohort, root, budget__steps=6, fold=fold, run_dir=root / f"fold{fold}", **LOW)
        assert run_command(command) == DONE
    return root


@pytest.fixture(scope="module")
def ensemble(runs: Path) -> Path:
    out = runs / "ensemble"
    assert run_command(["ensemble", f"runs={runs}", f"out={out}", "n_threads=1"]) == DONE
    return out


def test_every_case_is_judged_by_the_run_that_never_saw_it(runs: Path, ensemble: Path):
    rows = list(csv.DictReader((ensemble / "held_out.csv").open(newline="")))
    folds = read_json(runs / "fold0" / "folds.json")
    assert {row["case_id"]: int(row["fold"]) for row in rows} == folds
    scores = {
        row["case_id"]: float(row["dice"])
        for fold in (0, 1)
        for row in csv.DictReader((runs / f"fold{fold}" / "scores.csv").open(newline=""))
        if row["class_name"] == "GTV"
    }
    assert {row["case_id"]: float(row["dice_before"]) for row in rows} == pytest.approx(scores, abs=2e-3)
    assert {"calibration.png", "review.png", "post_processings.csv"} <= {path.name for path in ensemble.iterdir()}


def test_networks_of_each_stage_are_averaged(runs: Path, ensemble: Path, tiny_cohort: Path):
    one, two, both = open_model(runs / "fold0"), open_model(runs / "fold1"), open_model(ensemble)
    assert (len(both.coarse), len(both.fine)) == (4, 2)
    assert both.coarse_threshold == min(one.coarse_threshold, two.coarse_threshold)
    images = check_case(load_cases(tiny_cohort)[0])
    whole = [images.ct.grid.bounds()]
    apart = [look(model, images, whole).tumour for model in (one, two)]
    together = look(both, images, whole)
    np.testing.assert_allclose(together.tumour, np.mean(apart, axis=0), atol=1e-5)
    assert together.disagreement is not None
    np.testing.assert_allclose(together.disagreement, np.std(apart, axis=0), atol=1e-5)


def test_agreement_is_that_of_masks_on_flipped_images(runs: Path, tiny_cohort: Path):
    model = open_model(runs / "fold0")
    images = check_case(load_cases(tiny_cohort)[0])
    region = look(model, images, [images.ct.grid.bounds()], for_choice=True)
    assert region.agreement is not None
    assert 0 <= region.agreement <= 1
    image = torch.randn(model.settings.intensity.n_channels, 12, 10, 8)
    plain, along_x, *_ = predict_flipped(model.fine[0], image, model.settings.inference, (12, 10, 8))
    wanted = predict_probabilities([model.fine[0]], image.flip(1), model.settings.inference, (12, 10, 8)).flip(1)
    torch.testing.assert_close(along_x, wanted)
    assert not torch.allclose(plain, along_x)


def test_it_predicts_with_maps_and_says_whom_to_review(ensemble: Path, tiny_cohort: Path, tmp_path: Path, caplog):
    case = load_cases(tiny_cohort)[0]
    files = [f"ct={case.ct}", f"pet={case.pet}", f"out={tmp_path / 'mask.nii.gz'}"]
    assert run_command(["predict", f"model={ensemble}", *files, "probability=true", "uncertainty=true"]) == DONE
    note = json.loads((tmp_path / "mask.json").read_text())
    below = read_json(ensemble / "ensemble.json")["inference"]["review_below"]
    assert bool(note["review"]) == (
        note["agreement"] < below or not (read_image(tmp_path / "mask.nii.gz").values).any()
    )
    probability, entropy, spread = (
        read_image(tmp_path / f"mask_{name}.nii.gz").values for name in ("probability", "entropy", "disagreement")
    )
    p = np.clip(probability.astype(float), 1e-9, 1 - 1e-9)
    np.testing.assert_allclose(entropy, -(p * np.log2(p) + (1 - p) * np.log2(1 - p)), atol=1e-3)
    assert 0 < spread.max() <= 0.5


def test_a_package_of_it_predicts_the_same(ensemble: Path, tiny_cohort: Path, tmp_path: Path):
    package = tmp_path / "package"
    assert run_command(["export", f"model={ensemble}", f"out={package}"]) == DONE
    case = load_cases(tiny_cohort)[1]
    masks = [tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"]
    for model, out in zip((ensemble, package), masks, strict=True):
        assert run_command(["predict", f"model={model}", f"ct={case.ct}", f"pet={case.pet}", f"out={out}"]) == DONE
    assert masks[0].read_bytes() == masks[1].read_bytes()
    assert open_model(package).digest == open_model(ensemble).digest
    card = (package / "README.md").read_text()
    assert "fold 0, 1" in card
    assert "there are no scores of the ensemble as a whole" in card
    assert "Flagged for review" in card
    assert case.case_id not in card


def test_a_bundle_of_it_is_refused(ensemble: Path, tmp_path: Path, capsys):
    command = ["export", f"model={ensemble}", f"out={tmp_path / 'package'}", "formats=bundle"]
    assert run_command(command) == BAD_INPUT
    assert "this ensemble has 2" in capsys.readouterr().err


def test_a_second_walk_looks_at_no_case_again(runs: Path, ensemble: Path):
    kept = {path.name: path.stat().st_mtime_ns for path in (ensemble / "cases").iterdir()}
    before = (ensemble / "held_out.csv").read_text()
    assert run_command(["ensemble", f"runs={runs}", f"out={ensemble}", "n_threads=1"]) == DONE
    assert {path.name: path.stat().st_mtime_ns for path in (ensemble / "cases").iterdir()} == kept
    assert (ensemble / "held_out.csv").read_text() == before


def test_runs_that_do_not_fit_are_refused(runs: Path, tmp_path: Path, capsys):
    for name, change, words in (
        ("alone", None, "are of fold 0 alone"),
        ("other", lambda tree: tree["data"].update(spacing_mm=[4, 4, 4]), "differ in data"),
        ("all", lambda tree: tree.update(fold="all"), "hold no case out"),
        ("arm", lambda tree: tree.update(arm="another"), "below"),
    ):
        root = tmp_path / name
        shutil.copytree(runs / "fold0", root / "fold0")
        if change is not None:
            shutil.copytree(runs / "fold1", root / "fold1")
            tree = read_json(root / "fold1" / "settings.json")
            change(tree)
            write_json(root / "fold1" / "settings.json", tree)
        assert run_command(["ensemble", f"runs={root}", f"out={tmp_path / 'out'}"]) == BAD_INPUT, name
        assert words in capsys.readouterr().err


def test_a_member_that_was_trained_again_is_noticed(
    runs: Path, ensemble: Path, tmp_path: Path, capsys, tiny_cohort: Path
):
    root = tmp_path / "copy"
    shutil.copytree(runs, root)
    threshold = root / "fold1" / "coarse" / "threshold.json"
    write_json(threshold, read_json(threshold) | {"threshold": 0.123})
    case = load_cases(tiny_cohort)[0]
    files = [f"ct={case.ct}", f"pet={case.pet}", f"out={tmp_path / 'mask.nii.gz'}"]
    assert run_command(["predict", f"model={root / 'ensemble'}", *files]) == BAD_INPUT
    assert "was trained again" in capsys.readouterr().err
