"""Locate, crop, segment, paste back: grids of any orientation, and a saved model with random weights."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hngtv.cases.checks import CheckedImages, check_case
from hngtv.cases.intensity import window
from hngtv.cases.manifest import RawCase, load_cases, write_manifest
from hngtv.commands.entry import BAD_INPUT, CASES_FAILED, DONE, run_command
from hngtv.config import CoarseLocaliser, InferenceSettings
from hngtv.errors import InputError
from hngtv.localise.finding import Finding
from hngtv.localise.located import SHARES
from hngtv.localise.roi_policy import widen
from hngtv.localise.truth import covered_fraction, margins_needed, target_box
from hngtv.metrics.false_positives import far_outside_ml
from hngtv.model import Model, load_model
from hngtv.networks.blocks import resize
from hngtv.networks.build import build_network, predict_attention
from hngtv.run_folder import read_json
from hngtv.segmentation import clean_up, label_of, paste_back, segment
from hngtv.training.checkpoint import save_weights
from hngtv.two_stage import attention_paths, is_predicted, predict_case, write_prediction
from hngtv.volume.box import Box, hull
from hngtv.volume.grid import Grid
from hngtv.volume.nifti import read_image, write_labels_like
from tests.tiny_run import write_untrained_run

CT_SHAPE = (20, 18, 16)
TURNS = st.floats(-0.5, 0.5)


def inference(**changes: Any) -> InferenceSettings:
    plain: dict[str, Any] = {
        "mode": "whole_volume", "overlap": 0, "flip_axes": (), "threshold": 0.5, "min_component_ml": 0.0,
        "min_gtvp_share": 0,
    }  # fmt: skip
    return InferenceSettings(**(plain | changes))


def ct_grid(angle: float = 0.0, signs: tuple[int, int, int] = (1, 1, 1)) -> Grid:
    """Voxels of 3 x 3 x 4 mm, turned by `angle` radians about z, axes flipped by `signs`, about the world's origin."""
    c, s = np.cos(angle), np.sin(angle)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag(np.multiply(signs, (3.0, 3.0, 4.0)))
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(CT_SHAPE) - 1) / 2)
    return Grid.from_array(CT_SHAPE, affine)


def ball(grid: Grid, centre_mm: tuple[float, float, float], radius_mm: float) -> np.ndarray:
    points = grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1))
    return np.linalg.norm(points - centre_mm, axis=-1) < radius_mm


def as_probabilities(*classes: np.ndarray) -> np.ndarray:
    tumour = np.stack(classes).astype(np.float32)
    return np.concatenate([1 - tumour.sum(axis=0, keepdims=True), tumour])


CROP = Grid.axis_aligned(Box((-18, -16, -20), (14, 18, 20)), (2.0, 2.0, 2.0))


def paste(probabilities: np.ndarray, ct: Grid, box: Box | None = None, threshold: float = 0.5) -> np.ndarray:
    """Labels on the whole grid of the CT from probabilities on `CROP`."""
    slices, classes = paste_back(probabilities[1:], CROP, box or CROP.bounds(), ct)
    found = label_of(classes, threshold)
    labels = np.zeros(ct.shape, dtype=found.dtype)
    labels[slices] = found
    return labels


@given(TURNS, st.tuples(*[st.sampled_from((-1, 1))] * 3))
def test_paste_back_puts_a_ball_where_it_is(angle: float, signs: tuple[int, int, int]) -> None:
    ct = ct_grid(angle, signs)
    labels = paste(as_probabilities(ball(CROP, (-3, 2, 1), 10), 0 * ball(CROP, (0, 0, 0), 1)), ct)
    wanted = ball(ct, (-3, 2, 1), 10)
    assert labels.dtype == np.uint8
    assert labels.shape == CT_SHAPE
    assert set(np.unique(labels)) == {0, 1}
    assert 2 * (labels.astype(bool) & wanted).sum() / (labels.astype(bool).sum() + wanted.sum()) > 0.9


@given(TURNS, st.tuples(*[st.sampled_from((-1, 1))] * 3))
def test_outside_of_the_crop_is_background(angle: float, signs: tuple[int, int, int]) -> None:
    ct = ct_grid(angle, signs)
    labels = paste(as_probabilities(np.ones(CROP.shape)), ct)
    # Half a voxel of the CT at most: a voxel that the crop touches may count.
    assert covered_fraction(labels, ct, [CROP.bounds().expand(2.1)]) == 1.0
    points = ct.to_world(np.moveaxis(np.indices(ct.shape), 0, -1))
    inside = ((points > CROP.bounds().lower_mm) & (points < CROP.bounds().upper_mm)).all(axis=-1)
    assert labels[inside].all()


def test_outside_of_a_box_smaller_than_the_crop_is_background() -> None:
    ct, box = ct_grid(), Box((-6, -4, -8), (4, 6, 8))
    labels = paste(as_probabilities(np.ones(CROP.shape)), ct, box)
    assert labels.any()
    assert covered_fraction(labels, ct, [box.expand(2.1)]) == 1.0


def test_classes_together_reach_the_threshold_and_the_likeliest_wins() -> None:
    ct, shape = ct_grid(), CROP.shape
    split = as_probabilities(np.full(shape, 0.3), np.full(shape, 0.4))
    assert set(np.unique(paste(split, ct))) == {0, 2}
    assert not paste(split, ct, threshold=0.8).any()


def test_small_components_are_removed() -> None:
    ct = ct_grid()
    tumour = ball(CROP, (-6, 0, 0), 9) | ball(CROP, (9, 10, 12), 4)
    both = paste(as_probabilities(tumour), ct)
    one = clean_up(both, ct.voxel_ml, inference(min_component_ml=1.0))
    np.testing.assert_array_equal(clean_up(both, ct.voxel_ml, inference()), both)
    assert both.sum() > one.sum() > 0
    assert not one[ball(ct, (9, 10, 12), 5)].any()


@pytest.fixture(scope="module")
def make_run(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """From an experiment and changed settings to the folder of a run, finished by hand with random weights."""

    def make(experiment: str, **changes: object) -> Path:
        return write_untrained_run(tiny_cohort, tmp_path_factory.mktemp("run"), experiment, **changes)

    return make


@pytest.fixture(scope="module")
def case(tiny_cohort: Path) -> RawCase:
    return load_cases(tiny_cohort)[0]


@pytest.mark.parametrize("experiment", ["single_stage_unet", "two_stage_ag", "oracle_ag"])
def test_predict_case_gives_labels_on_the_ct_grid(
    experiment: str, make_run: Any, case: RawCase, tmp_path: Path
) -> None:
    model = load_model(make_run(experiment))
    prediction = predict_case(model, case)
    ct = read_image(case.ct)
    assert prediction.labels.shape == ct.values.shape
    assert prediction.labels.dtype == np.uint8
    assert prediction.labels.max() <= 2
    assert set(prediction.seconds) == {"read", "locate", "segment"}
    boxes = [box.expand(model.settings.roi.margin_mm) for box in prediction.roi.boxes]
    assert prediction.roi.covered_fraction == covered_fraction(read_image(case.target).values, ct.grid, boxes)  # pyright: ignore
    write_prediction(tmp_path / "mask.nii.gz", prediction, case, model)
    written = read_image(tmp_path / "mask.nii.gz")
    assert written.grid == ct.grid
    np.testing.assert_array_equal(written.values, prediction.labels)
    note = read_json(tmp_path / "mask.json")
    assert (note["arm"], note["model"], note["case_id"]) == (experiment, model.digest, case.case_id)
    assert note["rois_mm"] == [[*box.lower_mm, *box.upper_mm] for box in prediction.roi.boxes]


@pytest.mark.parametrize("experiment", ["single_stage_unet", "two_stage_ag"])
def test_probabilities_are_held_against_the_truth_on_the_ct_grid(
    experiment: str, make_run: Any, case: RawCase, tmp_path: Path
) -> None:
    raw = {"inference__threshold": 0.1, "inference__min_component_ml": 0.0, "inference__min_gtvp_share": 0}
    model = load_model(make_run(experiment, **raw))
    prediction, target = predict_case(model, case), read_image(case.target)  # pyright: ignore
    truth = prediction.against_truth
    assert truth is not None
    inside = np.zeros(target.grid.shape, bool)
    for box in widen(prediction.roi.boxes, model.settings.roi):
        inside[target.grid.clip(target.grid.slices_of(box))] = True
    assert truth.calibration.n_voxels.sum() == inside.sum()
    assert truth.calibration.truth_sum.sum() == (target.values[inside] > 0).sum()
    assert truth.calibration.n_voxels[2:].sum() == (prediction.labels > 0).sum() > 0  # the bins from the threshold on
    assert truth.far_ml == far_outside_ml(prediction.labels > 0, target.values > 0, target.grid.spacing_mm)
    write_prediction(tmp_path / "mask.nii.gz", prediction, case, model)
    note = read_json(tmp_path / "mask.json")["truth"]
    margins = margins_needed(target.values, target.grid, prediction.roi.boxes, SHARES)
    assert note["margins_mm"] == pytest.approx(margins)
    assert note["target_ml"] == pytest.approx((target.values > 0).sum() * target.grid.voxel_ml)
    assert predict_case(model, replace(case, target=None)).against_truth is None


def test_same_model_predicts_the_same(make_run: Any, case: RawCase) -> None:
    first, again = (predict_case(load_model(make_run("two_stage_ag")), case) for _ in range(2))
    np.testing.assert_array_equal(first.labels, again.labels)
    assert first.roi == again.roi


def test_target_changes_nothing_but_the_covered_fraction(make_run: Any, case: RawCase) -> None:
    model = load_model(make_run("two_stage_ag"))
    known, unknown = predict_case(model, case), predict_case(model, replace(case, target=None))
    np.testing.assert_array_equal(known.labels, unknown.labels)
    assert unknown.roi == replace(known.roi, covered_fraction=None)


def test_nothing_found_follows_on_empty(make_run: Any, case: RawCase) -> None:
    found = {
        on_empty: predict_case(
            load_model(make_run("two_stage_ag", localiser__thresholds="[1.0]", localiser__on_empty=on_empty)), case
        ).roi
        for on_empty in ("pet_rule", "whole_volume")
    }
    assert all(roi.reason.startswith(f"fallback:{name}") for name, roi in found.items())
    assert found["whole_volume"].covered_fraction == 1.0
    failing = load_model(make_run("two_stage_ag", localiser__thresholds="[1.0]", localiser__on_empty="fail"))
    with pytest.raises(InputError, match=case.case_id):
        predict_case(failing, case)


def test_oracle_needs_a_target(make_run: Any, case: RawCase) -> None:
    with pytest.raises(InputError, match=rf"{case.case_id}.*target"):
        predict_case(load_model(make_run("oracle_ag")), replace(case, target=None))


def test_digest_tells_models_apart(make_run: Any) -> None:
    run = make_run("two_stage_ag")
    before = load_model(run).digest
    assert load_model(run).digest == before
    settings = load_model(run).settings
    assert isinstance(settings.localiser, CoarseLocaliser)
    network = build_network(settings.localiser.network, settings.intensity.n_channels, 2)
    save_weights(run / "coarse/inner_1/model.pt", network)
    assert load_model(run).digest != before


@pytest.mark.parametrize("name", ["settings.json", "fine/training.json", "fine/model.pt", "coarse/inner_1/model.pt"])
@pytest.mark.parametrize("content", [None, b"damaged"])
def test_unfinished_or_damaged_run_is_named(name: str, content: bytes | None, make_run: Any) -> None:
    run = make_run("two_stage_ag")
    (run / name).unlink()
    if content is not None:
        (run / name).write_bytes(content)
    with pytest.raises(InputError, match=str(run)):
        load_model(run)


def test_missing_inner_model_is_not_overlooked(make_run: Any) -> None:
    run = make_run("two_stage_ag")
    (run / "coarse/inner_1/model.pt").unlink()
    (run / "coarse/inner_1").rmdir()
    with pytest.raises(InputError, match="inner_1"):
        load_model(run)


CT_ONLY = {"network__fusion": "ct_only", "localiser__network__fusion": "ct_only"}
COPES = {
    "PET dropout": ("two_stage_ag", {"augment__pet_dropout": 0.3}),
    "CT alone in both stages": ("two_stage_ag", CT_ONLY),
    "CT alone": ("single_stage_unet", {"network__fusion": "ct_only"}),
}
"""Runs that predict patients without a PET."""


@pytest.mark.parametrize("name", COPES)
def test_missing_pet_is_suv_0_where_the_model_copes(
    name: str, make_run: Any, case: RawCase, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    experiment, changes = COPES[name]
    model, without, path = (
        load_model(make_run(experiment, **changes)),
        replace(case, pet=None),
        tmp_path / "mask.nii.gz",
    )
    prediction = predict_case(model, without)
    assert prediction.labels.shape == read_image(case.ct).values.shape
    assert f"{case.case_id}: no PET" in caplog.text
    assert "look at this mask before use" in caplog.text
    write_prediction(path, prediction, without, model)
    assert set(read_json(tmp_path / "mask.json")["inputs"]) == {"ct"}
    assert is_predicted(path, without, model)
    assert not is_predicted(path, case, model)


def test_ct_alone_is_the_same_with_and_without_pet(make_run: Any, case: RawCase) -> None:
    model = load_model(make_run("single_stage_unet", network__fusion="ct_only"))
    known, without = predict_case(model, case), predict_case(model, replace(case, pet=None))
    np.testing.assert_array_equal(known.labels, without.labels)
    assert known.roi == without.roi


def test_pet_rule_without_pet_is_the_whole_image(make_run: Any, case: RawCase) -> None:
    changes = {"augment__pet_dropout": 0.3, "localiser__thresholds": "[1.0]", "localiser__on_empty": "pet_rule"}
    roi = predict_case(load_model(make_run("two_stage_ag", **changes)), replace(case, pet=None)).roi
    assert roi.reason.startswith("fallback:whole_volume")
    assert roi.boxes == (read_image(case.ct).grid.bounds(),)
    assert roi.covered_fraction == 1.0


@pytest.mark.parametrize("changes", [{}, {"network__fusion": "ct_only"}, {"localiser__network__fusion": "ct_only"}])
def test_missing_pet_is_refused_where_a_stage_needs_it(changes: dict[str, str], make_run: Any, case: RawCase) -> None:
    with pytest.raises(InputError, match=rf"{case.case_id}: no PET.*augment\.pet_dropout=0\.3"):
        predict_case(load_model(make_run("two_stage_ag", **changes)), replace(case, pet=None))


def test_predict_command_without_pet(
    make_run: Any, case: RawCase, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs, copes = make_run("two_stage_ag"), make_run("two_stage_ag", augment__pet_dropout=0.3)
    one, out = [f"ct={case.ct}", f"out={tmp_path / 'mask.nii.gz'}"], tmp_path / "many"
    assert run_command(["predict", f"model={needs}", *one]) == BAD_INPUT
    assert "augment.pet_dropout" in capsys.readouterr().err
    assert run_command(["predict", f"model={copes}", *one]) == DONE
    assert "look at this mask before use" in capsys.readouterr().err
    table = tmp_path / "cases.csv"
    write_manifest(table, [case, replace(case, case_id="no_pet", pet=None)])
    many = [f"cases={table}", f"out={out}"]
    assert run_command(["predict", f"model={needs}", *many]) == CASES_FAILED
    assert "no_pet: no PET" in capsys.readouterr().err
    assert run_command(["predict", f"model={copes}", *many]) == DONE
    assert {path.name for path in out.glob("*.nii.gz")} == {f"{case.case_id}.nii.gz", "no_pet.nii.gz"}


def test_predict_command_needs_a_ct(case: RawCase, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["predict", "model=run", "out=mask.nii.gz", f"pet={case.pet}"]) == BAD_INPUT
    assert "ct=FILE" in capsys.readouterr().err


def test_attention_lies_on_the_ct_grid(make_run: Any, case: RawCase, tmp_path: Path) -> None:
    model = load_model(make_run("two_stage_ag", network__n_gates=2))
    prediction = predict_case(model, case, with_attention=True)
    assert sorted(prediction.attention) == ["gate2_1", "gate2_2"]
    np.testing.assert_array_equal(prediction.labels, predict_case(model, case).labels)
    write_prediction(tmp_path / "mask.nii.gz", prediction, case, model)
    files = attention_paths(tmp_path / "mask.nii.gz", prediction)
    assert [file.name for file in files] == ["mask_gate2_1.nii.gz", "mask_gate2_2.nii.gz"]
    written, ct = read_image(files[0]), read_image(case.ct)
    assert written.grid == ct.grid
    assert written.values.dtype == np.float32
    np.testing.assert_allclose(written.values, prediction.attention["gate2_1"])
    centre = tuple(n // 2 for n in ct.grid.shape)
    assert 0.5 < written.values[centre] <= 1, "gates with random weights start open"


def test_attention_of_windows_is_that_of_the_whole(make_run: Any) -> None:
    """Where a window is as large as the image, nothing is averaged; where it is smaller, maps still are alphas."""
    model = load_model(make_run("single_stage_ag"))
    image = torch.randn(model.settings.intensity.n_channels, 20, 16, 12)
    whole = predict_attention(model.fine[0], image, model.settings.inference, (20, 16, 12))
    expected = model.fine[0].run(image[None]).attention["gate2"]
    torch.testing.assert_close(whole["gate2"], resize(expected, image.shape[1:])[0])
    parts = predict_attention(model.fine[0], image, model.settings.inference, (8, 8, 8))
    assert parts["gate2"].shape == whole["gate2"].shape
    assert ((parts["gate2"] >= 0) & (parts["gate2"] <= 1)).all()


def test_attention_of_a_network_without_gates_is_refused_before_anything_is_written(
    make_run: Any, case: RawCase, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = f"model={make_run('single_stage_unet')}", tmp_path / "mask.nii.gz"
    command = ["predict", model, f"ct={case.ct}", f"pet={case.pet}", f"out={out}", "attention=true"]
    assert run_command(command) == BAD_INPUT
    assert "no attention" in capsys.readouterr().err
    assert not out.exists()


def test_maps_of_an_earlier_prediction_do_not_stay(make_run: Any, case: RawCase, tmp_path: Path) -> None:
    model, path = load_model(make_run("single_stage_ag")), tmp_path / "mask.nii.gz"
    write_prediction(path, predict_case(model, case, with_attention=True), case, model)
    assert (tmp_path / "mask_gate2.nii.gz").is_file()
    write_prediction(path, predict_case(model, case), case, model)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mask.json", "mask.nii.gz"]


@pytest.mark.parametrize(
    "changes", [{"inference__threshold": 0.1}, {"roi__margin_mm": 3}, {"intensity__pet_max_suv": 9}]
)
def test_a_mask_made_with_other_settings_is_not_taken_for_this_one(
    changes: dict[str, object], make_run: Any, case: RawCase, tmp_path: Path
) -> None:
    model, other = load_model(make_run("two_stage_ag")), load_model(make_run("two_stage_ag", **changes))
    path = tmp_path / "mask.nii.gz"
    write_prediction(path, predict_case(model, case), case, model)
    assert is_predicted(path, case, model)
    assert not is_predicted(path, case, other)
    assert not is_predicted(path, replace(case, pet_unit="BQML", pet_factor=0.5), model)


def test_a_corrected_target_is_held_against_the_mask_again(make_run: Any, case: RawCase, tmp_path: Path) -> None:
    model, path, target = load_model(make_run("two_stage_ag")), tmp_path / "mask.nii.gz", tmp_path / "target.nii.gz"
    assert case.target is not None
    target.write_bytes(case.target.read_bytes())
    case = replace(case, target=target)
    write_prediction(path, predict_case(model, case), case, model)
    assert is_predicted(path, case, model)
    image = read_image(target)
    write_labels_like(target, np.zeros(image.values.shape, np.uint8), case.ct)
    assert not is_predicted(path, case, model)
    assert is_predicted(path, replace(case, target=None), model)


def everything_is_tumour(networks: Any, image: torch.Tensor, *_: Any) -> torch.Tensor:
    """GTVp with certainty, wherever a network looks."""
    return torch.stack([torch.zeros(image.shape[1:]), torch.ones(image.shape[1:]), torch.zeros(image.shape[1:])])


def test_rois_far_apart_are_labelled_and_nothing_between(
    make_run: Any, case: RawCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hngtv.segmentation.predict_probabilities", everything_is_tumour)
    model, images = load_model(make_run("two_stage_ag", inference__min_gtvp_share=0)), check_case(case)
    grid = images.ct.grid
    bounds = grid.bounds()
    low = Box.from_corners(bounds.lower_mm, np.add(bounds.lower_mm, (20, 25, 24)))
    high = Box.from_corners(np.subtract(bounds.upper_mm, (30, 20, 24)), bounds.upper_mm)
    labels = segment(model, images, [low, high]).labels
    points = grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1))
    wanted = np.zeros(grid.shape, dtype=bool)
    for box in (low, high):
        wanted |= ((points > box.lower_mm) & (points < box.upper_mm)).all(axis=-1)
    np.testing.assert_array_equal(labels > 0, wanted)


def hot_is_tumour(model: Model) -> Any:
    """In place of a network: GTVp where the PET is above SUV 4."""
    suv = np.stack([np.zeros((1, 1, 1)), np.full((1, 1, 1), 4.0)]).astype(np.float32)
    threshold = float(window(suv, model.settings.intensity)[-1].item())

    def predict(networks: Any, image: torch.Tensor, *_: Any) -> torch.Tensor:
        hot = (image[-1] > threshold).float()
        return torch.stack([1 - hot, hot, 0 * hot])

    return predict


def hot_halves(images: CheckedImages) -> tuple[Box, Box, Box]:
    """A box around GTVp, and its two halves, which have 4 mm in common."""
    assert images.target is not None
    box = target_box(images.target == 1, images.ct.grid)
    assert box is not None
    box = box.expand(6)
    (x, _, _), (x1, y1, z1), (x0, y0, z0) = box.centre_mm, box.upper_mm, box.lower_mm
    return box, Box((x0, y0, z0), (x + 2, y1, z1)), Box((x - 2, y0, z0), (x1, y1, z1))


def test_a_component_cut_by_two_overlapping_rois_is_judged_whole(
    make_run: Any, case: RawCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = check_case(case)
    box, left, right = hot_halves(images)
    model = load_model(make_run("two_stage_ag", inference__min_component_ml=0))
    monkeypatch.setattr("hngtv.segmentation.predict_probabilities", hot_is_tumour(model))
    whole = segment(model, images, [box]).labels
    whole_ml = float((whole > 0).sum()) * images.ct.grid.voxel_ml
    assert whole_ml > 2
    strict = load_model(make_run("two_stage_ag", inference__min_component_ml=0.8 * whole_ml))
    assert not segment(strict, images, [left]).labels.any()
    assert not segment(strict, images, [right]).labels.any()
    both = segment(strict, images, [left, right]).labels
    np.testing.assert_array_equal(both, segment(strict, images, [right, left]).labels)
    assert (both > 0).sum() == pytest.approx((whole > 0).sum(), rel=0.1)


@pytest.mark.parametrize(("second", "wanted"), [(0, 1), (1, 1), (2, 2)])
def test_where_rois_overlap_the_one_that_finds_tumour_likelier_decides_and_of_equals_the_last(
    second: int, wanted: int, make_run: Any, case: RawCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first ROI is GTVp all over; what the second says is background does not wipe it out."""
    says = iter([1, second])

    def predict(networks: Any, image: torch.Tensor, *_: Any) -> torch.Tensor:
        classes = torch.zeros(3, *image.shape[1:])
        classes[next(says)] = 1
        return classes

    monkeypatch.setattr("hngtv.segmentation.predict_probabilities", predict)
    model, images = load_model(make_run("two_stage_ag", inference__min_gtvp_share=0)), check_case(case)
    grid, (_, left, right) = images.ct.grid, hot_halves(images)
    labels = segment(model, images, [left, right]).labels
    overlap, alone = left.intersect(right), left.expand(-7).shift((-7, 0, 0))
    assert overlap is not None
    assert set(np.unique(labels[grid.slices_of(overlap)])) == {wanted}
    assert set(np.unique(labels[grid.slices_of(alone)])) == {1}


def test_pieces_of_gtvp_are_measured_against_its_largest_in_all_rois() -> None:
    labels = np.zeros((20, 4, 4), dtype=np.uint8)
    labels[0:5], labels[7:8], labels[10:11] = 1, 1, 2
    kept = clean_up(labels, 1.0, inference(min_gtvp_share=0.3))
    assert kept[0:5].all()
    assert not kept[7:8].any(), "a fifth of the largest"
    assert (kept[10:11] == 2).all(), "nodes are not measured"
    small = clean_up(labels, 0.1, inference(min_component_ml=2.0))
    assert set(np.unique(small[:6])) == {0, 1}
    assert not small[6:].any(), "1.6 ml"
    assert kept.dtype == small.dtype == np.uint8


def test_several_rois_are_found_predicted_and_noted(make_run: Any, case: RawCase, tmp_path: Path) -> None:
    """A finding of two boxes stays two ROIs where `roi.join_mm` says so, in the row, the note and the covered share."""
    images = check_case(case)
    assert images.target is not None
    grid, (tumour, _, _) = images.ct.grid, hot_halves(images)
    low = Box.about(tumour.centre_mm, (6, 6, 6))
    high = Box.from_corners(np.subtract(grid.bounds().upper_mm, 20.0), grid.bounds().upper_mm)
    written = {}
    for join_mm in ("5", "null"):
        model = load_model(make_run("two_stage_ag", roi__join_mm=join_mm, roi__margin_mm=6))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("hngtv.two_stage.locate", lambda *_: Finding((low, high), 0.5, "found"))
            prediction = predict_case(model, case, with_attention=True)
        write_prediction(tmp_path / "mask.nii.gz", prediction, case, model)
        note = read_json(tmp_path / "mask.json")
        assert note["rois_mm"] == [[*box.lower_mm, *box.upper_mm] for box in prediction.roi.boxes]
        with_margin = [box.expand(6) for box in prediction.roi.boxes]
        assert prediction.roi.covered_fraction == covered_fraction(images.target, grid, with_margin)
        assert prediction.roi.covered_fraction != covered_fraction(images.target, grid, prediction.roi.boxes)
        (alpha,) = prediction.attention.values()
        assert alpha.shape == grid.shape
        assert 0 <= alpha.min() <= alpha.max() <= 1
        written[join_mm] = prediction.roi.boxes
    assert written == {"5": (low, high), "null": (hull([low, high]),)}
