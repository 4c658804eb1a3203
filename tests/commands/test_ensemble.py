"""`hngtv ensemble`: runs of two folds become one model, which predicts, is packaged, and refuses what does not fit."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hngtv.cases.checks import check_case
from hngtv.cases.manifest import load_cases
from hngtv.commands.entry import BAD_INPUT, CASES_FAILED, DONE, run_command
from hngtv.export.package import open_model
from hngtv.networks.build import predict_flipped, predict_probabilities
from hngtv.run_folder import read_json, write_json
from hngtv.segmentation import look, seen_by_network
from hngtv.two_stage import predict_case
from hngtv.volume.nifti import read_image
from tests.tiny_run import tiny_run, write_untrained_run

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


def test_flipped_passes_are_those_of_flipped_images(runs: Path):
    model = open_model(runs / "fold0")
    image = torch.randn(model.settings.intensity.n_channels, 12, 10, 8)
    plain, along_x, *_ = predict_flipped(model.fine[0], image, model.settings.inference, (12, 10, 8))
    wanted = predict_probabilities([model.fine[0]], image.flip(1), model.settings.inference, (12, 10, 8)).flip(1)
    torch.testing.assert_close(along_x, wanted)
    assert not torch.allclose(plain, along_x)


def test_agreement_counts_pairs_of_masks_inside_the_roi(runs: Path, tiny_cohort: Path, monkeypatch: pytest.MonkeyPatch):
    """One network says the left half of its window as it is, all of it flipped along y, and nothing along z."""
    model, images = open_model(runs / "fold0"), check_case(load_cases(tiny_cohort)[0])

    def predict(network, image, *_):
        tumour = torch.zeros(4, *image.shape[1:])
        tumour[:2, : image.shape[1] // 2] = tumour[2] = 1
        return torch.stack([1 - tumour, tumour, 0 * tumour], dim=1)

    monkeypatch.setattr("hngtv.segmentation.predict_flipped", predict)
    image, grid = seen_by_network(model, images, images.ct.grid.bounds())
    n, half = image.shape[1], image.shape[1] // 2
    whole = look(model, images, [images.ct.grid.bounds()], for_choice=True)
    assert whole.agreement == pytest.approx((1 + 2 * half / (half + n) + 0) / 3)
    right = grid.box_of((slice(n - 3, n), slice(0, grid.shape[1]), slice(0, grid.shape[2])))
    assert look(model, images, [right.expand(-0.1)], for_choice=True).agreement == 0


def test_a_patient_without_pet_keeps_pieces_that_none_can_call_cold(
    tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = write_untrained_run(
        tiny_cohort, tmp_path / "run", "single_stage_unet", network__fusion="ct_only", inference__min_component_suv=3
    )
    model, case = open_model(run), load_cases(tiny_cohort)[0]

    def all_tumour(networks, image, *_):
        tumour = torch.ones(image.shape[1:])
        return torch.stack([0 * tumour, tumour, 0 * tumour])

    monkeypatch.setattr("hngtv.segmentation.predict_probabilities", all_tumour)
    assert predict_case(model, replace(case, pet=None)).labels.any()


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
        ("folds", "folds.json", "may know what the other holds out"),
        ("arm", lambda tree: tree.update(arm="another"), "below"),
    ):
        root = tmp_path / name
        shutil.copytree(runs / "fold0", root / "fold0")
        if change is not None:
            shutil.copytree(runs / "fold1", root / "fold1")
            file = root / "fold1" / ("settings.json" if callable(change) else change)
            tree = read_json(file)
            change(tree) if callable(change) else tree.update({next(iter(tree)): 5})
            write_json(file, tree)
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


def test_a_kept_case_that_is_damaged_is_seen_again(runs: Path, tmp_path: Path):
    out = tmp_path / "out"
    command = ["ensemble", f"runs={runs}", f"out={out}", "n_threads=1"]
    assert run_command(command) == DONE
    kept = sorted((out / "cases").iterdir())
    before = (out / "held_out.csv").read_text()
    kept[0].write_bytes(kept[0].read_bytes()[:100])
    kept[1].write_bytes(b"")
    assert run_command(command) == DONE
    assert (out / "held_out.csv").read_text() == before


def test_cases_that_are_gone_are_named_and_the_old_ensemble_stays(
    tiny_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    cases, out = tmp_path / "cases", tmp_path / "ensemble"
    shutil.copytree(tiny_cohort, cases)
    for fold in (0, 1):
        run = tiny_run(
            cases, tmp_path, "single_stage_unet", budget__steps=2, fold=fold, run_dir=tmp_path / f"runs/f{fold}"
        )
        assert run_command(run) == DONE
    command = ["ensemble", f"runs={tmp_path / 'runs'}", f"out={out}", "n_threads=1"]
    assert run_command(command) == DONE
    lost = load_cases(cases)[2]
    lost.ct.unlink()
    capsys.readouterr()
    assert run_command(command) == CASES_FAILED
    assert str(lost.ct) in capsys.readouterr().err
    before = (out / "ensemble.json").read_text()
    for case in load_cases(tiny_cohort):
        (cases / case.ct.relative_to(tiny_cohort)).unlink(missing_ok=True)
    assert run_command(command) == BAD_INPUT
    said = capsys.readouterr().err
    assert "0 of 6 held-out cases can be used" in said
    assert lost.case_id in said
    assert (out / "ensemble.json").read_text() == before


def test_an_ensemble_may_lie_behind_a_link_and_a_damaged_one_is_told(
    runs: Path, tmp_path: Path, tiny_cohort: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    out = tmp_path / "link" / "ensemble"
    assert run_command(["ensemble", f"runs={runs}", f"out={out}", "n_threads=1"]) == DONE
    assert len(open_model(out).fine) == 2
    case = load_cases(tiny_cohort)[0]
    predict = ["predict", f"model={out}", f"ct={case.ct}", f"pet={case.pet}", f"out={tmp_path / 'mask.nii.gz'}"]
    record = read_json(out / "ensemble.json")
    write_json(out / "ensemble.json", record | {"members": {"../gone": "0"}})
    assert run_command(predict) == BAD_INPUT
    assert "a run of the ensemble" in capsys.readouterr().err
    write_json(out / "ensemble.json", {})
    assert run_command(predict) == BAD_INPUT
    assert "is damaged; run hngtv ensemble again" in capsys.readouterr().err
