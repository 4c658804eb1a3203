"""Stage 1 by inner folds: a case is never located by a model that was trained on it."""

import dataclasses
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from hngtv.cases.manifest import FolderLayout, load_cases
from hngtv.cases.prepare import Volume, prepare_cases
from hngtv.cases.store import GridSettings, PreparedCase
from hngtv.commands.entry import compose
from hngtv.config import RunSettings, TrainedLocaliser, parse_settings
from hngtv.errors import InputError
from hngtv.localise.roi_table import read_rois
from hngtv.out_of_fold import AFTER_TRAINING, CoarseStation
from hngtv.run_folder import RunFolder, read_csv, read_json
from hngtv.training.logger import RunLogger
from tests.tiny_cases import write_tiny_cohort
from tests.tiny_run import tiny_run


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[PreparedCase]]:
    root = tmp_path_factory.mktemp("cohort")
    write_tiny_cohort(root / "cases", 4)
    settings = settings_of(root)
    grids = GridSettings(settings.data.spacing_mm, settings.data.coarse_spacing_mm)
    cases, failures = prepare_cases(
        load_cases(settings.data.root, FolderLayout.of(settings.data)), root / "store", grids, n_workers=1
    )
    assert not failures
    return root, cases


def settings_of(root: Path, **changes: object) -> RunSettings:
    return parse_settings(RunSettings, compose("run", tiny_run(root / "cases", root, "two_stage_ag", **changes)[1:]))


def station(cases: list[PreparedCase], settings: RunSettings) -> CoarseStation:
    assert isinstance(settings.localiser, TrainedLocaliser)
    return CoarseStation(cases, settings, settings.localiser)


def test_the_run_keeps_the_threshold_that_its_boxes_were_found_with(
    prepared: tuple[Path, list[PreparedCase]], tmp_path: Path
) -> None:
    root, cases = prepared
    settings = settings_of(root, localiser__thresholds="[0.9, 0.0]", localiser__min_covered=0.0)
    folder = RunFolder(tmp_path)
    rois, _ = station(cases, settings).walk(folder, RunLogger())
    chosen = read_json(folder.coarse_threshold)
    assert chosen["threshold"] == 0.9, "the highest, since nothing is asked of it"
    assert chosen["covered"] == {"0.9": 0.0, "0": 0.0}, "nothing is found at 0.9, and all the image at 0"
    assert all(roi.is_fallback for roi in rois)


@pytest.mark.parametrize("by_centre", [False, True])
def test_inner_models_never_see_the_cases_they_locate(
    by_centre: bool, prepared: tuple[Path, list[PreparedCase]]
) -> None:
    root, cases = prepared
    stage = station(cases, settings_of(root, data__group_by_centre=by_centre))
    for inner in range(stage.localiser.n_inner_folds):
        located = {case_id for case_id, fold in stage.inner_folds.items() if fold == inner}
        seen = {case.case_id for case in stage._plans(inner, root)[0][1].build_crops(1).cases}
        assert located
        assert seen
        assert not located & seen
        assert located | seen == {case.case_id for case in cases}


def test_inner_folds_keep_centres_together_where_there_are_enough(
    prepared: tuple[Path, list[PreparedCase]],
) -> None:
    root, cases = prepared
    settings = settings_of(root, data__group_by_centre=True)
    folds_of_centre: dict[str, set[int]] = {}
    inner_folds = station(cases, settings).inner_folds
    for case in cases:
        folds_of_centre.setdefault(case.centre, set()).add(inner_folds[case.case_id])
    assert sorted(map(len, folds_of_centre.values())) == [1, 1]
    one_centre = [case for case in cases if case.centre == cases[0].centre]
    assert set(station(one_centre, settings).inner_folds.values()) == {0, 1}


def slice_settings(root: Path, **changes: object) -> RunSettings:
    small = {"localiser.crop_voxels": "[16, 16]", "localiser.batch_size": 4, "localiser.budget_share": 0.7}
    return parse_settings(
        RunSettings,
        compose("run", tiny_run(root / "cases", root, "oracle_ag", localiser="slices", **small, **changes)[1:]),
    )


def test_slices_are_fine_tuned_in_two_steps(prepared: tuple[Path, list[PreparedCase]], tmp_path: Path) -> None:
    root, cases = prepared
    stage = station(cases, slice_settings(root))
    folder = RunFolder(tmp_path)
    rois, used = stage.walk(folder, RunLogger())
    inner = root / "work/coarse" / stage.key / "inner_0"
    heads, final = (torch.load(path / "model.pt", weights_only=True) for path in (inner / "heads", inner))
    assert set(final) - set(heads) == {"classifier.weight", "classifier.bias"}
    assert any(not torch.equal(final[name], heads[name]) for name in heads), "all weights are trained on"
    assert used.steps == 4 * 2, "0.7 of 12 steps, by two inner models, in two steps"
    assert [roi.case_id for roi in rois] == [case.case_id for case in cases]
    assert (folder.coarse / "inner_0/heads/training.json").is_file(), "the run folder tells all that was spent"
    boxes = read_csv(folder.attention_boxes, ("case_id", "iou"))
    assert len(boxes) == sum(int(case.slices_with_target("fine").sum()) for case in cases)


def test_a_finished_stage_of_slices_is_not_trained_again(
    prepared: tuple[Path, list[PreparedCase]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root, cases = prepared
    stage = station(cases, slice_settings(root, localiser__network__gated="false", localiser__in_plane="whole"))
    first, _ = stage.walk(RunFolder(tmp_path / "one"), RunLogger())
    with caplog.at_level("INFO", logger="hngtv"):
        second, _ = stage.walk(RunFolder(tmp_path / "two"), RunLogger())
    assert first == second
    assert caplog.text.count("already trained") == 2
    assert not RunFolder(tmp_path / "two").attention_boxes.exists()


def test_nothing_found_at_a_threshold_that_is_not_chosen_is_no_failure(
    prepared: tuple[Path, list[PreparedCase]], tmp_path: Path
) -> None:
    root, cases = prepared
    changes = {"localiser__on_empty": "fail", "localiser__min_covered": 1.0}
    found = station(cases, settings_of(root, localiser__thresholds="[1.0, 0.0]", **changes))
    assert not any(roi.is_fallback for roi in found.walk(RunFolder(tmp_path / "one"), RunLogger())[0])
    lost = station(cases, settings_of(root, localiser__thresholds="[1.0]", **changes))
    with pytest.raises(InputError, match=r"4 training case.*on_empty.*tiny_00"):
        lost.walk(RunFolder(tmp_path / "two"), RunLogger())


def test_every_setting_that_follows_training_is_one_of_a_localiser() -> None:
    """A misspelt name would train anew on every change."""
    names = {field.name for kind in get_args(TrainedLocaliser) for field in dataclasses.fields(kind)}
    assert names >= AFTER_TRAINING
    assert not AFTER_TRAINING & {"name", "network", "n_inner_folds", "budget_share", "crop_voxels", "batch_size"}


@pytest.mark.parametrize(
    "changes",
    [
        {"roi__margin_mm": 3},
        {"roi__join_mm": 5},
        {"roi__shape": "slab"},
        {"roi__shape": "fixed", "roi__size_mm": [30, 30, 30]},
    ],
    ids=["margin", "join", "slab", "fixed"],
)
def test_another_roi_policy_trains_no_inner_model_anew_but_makes_new_boxes(
    changes: dict[str, object],
    prepared: tuple[Path, list[PreparedCase]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    root, cases = prepared
    common = {"localiser__thresholds": "[0.0]", "localiser__min_component_ml": 0, "roi__margin_mm": 0}
    first = station(cases, settings_of(root, **common))
    other = station(cases, settings_of(root, **(common | changes)))
    assert other.key == first.key
    assert other.boxes_key != first.boxes_key
    first.walk(RunFolder(tmp_path / "one"), RunLogger())
    inner = root / "work/coarse" / first.key
    weights = {path: path.stat().st_mtime_ns for path in inner.rglob("model.pt")}
    caplog.clear()
    with caplog.at_level("INFO", logger="hngtv"):
        rois, used = other.walk(RunFolder(tmp_path / "two"), RunLogger())
    assert caplog.text.count("already trained") == 2
    assert {path: path.stat().st_mtime_ns for path in inner.rglob("model.pt")} == weights
    assert (inner / f"boxes_{other.boxes_key}" / "rois.csv").is_file()
    assert used.steps == 2 * 3, "the budget counts what the boxes cost, also where it was spent before"
    assert read_rois(inner / f"boxes_{other.boxes_key}" / "rois.csv") == rois
    if changes.get("roi__shape") == "fixed":
        assert {box.size_mm for roi in rois for box in roi.boxes} == {(30, 30, 30)}


def test_the_margin_decides_what_the_boxes_hold(prepared: tuple[Path, list[PreparedCase]], tmp_path: Path) -> None:
    root, cases = prepared
    small = {"roi__shape": "fixed", "roi__size_mm": [20, 20, 20], "localiser__thresholds": "[0.0]"}
    held = []
    for margin_mm in (0, 8):
        folder = RunFolder(tmp_path / str(margin_mm))
        rois, _ = station(cases, settings_of(root, roi__margin_mm=margin_mm, **small)).walk(folder, RunLogger())
        held.append([roi.covered_fraction for roi in rois])
        assert {box.size_mm for roi in rois for box in roi.boxes} == {(20, 20, 20)}, "the table has no margin in it"
    assert all(less is not None and more is not None and less <= more for less, more in zip(*held, strict=True))
    assert sum(filter(None, held[0])) < sum(filter(None, held[1]))


def test_components_that_lie_apart_stay_apart_where_the_policy_says_so(
    prepared: tuple[Path, list[PreparedCase]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, cases = prepared
    monkeypatch.setattr("hngtv.two_stage.coarse_probability", two_corners)
    numbers = {}
    for join_mm in ("null", "5"):
        changes = {"roi__join_mm": join_mm, "localiser__thresholds": "[0.5]", "localiser__n_inner_folds": 2, "seed": 7}
        folder = RunFolder(tmp_path / join_mm)
        rois, _ = station(cases, settings_of(root, **changes)).walk(folder, RunLogger())
        numbers[join_mm] = {len(roi.boxes) for roi in rois}
        assert len({roi.case_id for roi in rois}) == len(rois) == len(cases)
    assert numbers == {"null": {1}, "5": {2}}


def two_corners(networks: object, volume: Volume, settings: RunSettings) -> np.ndarray:
    """In place of a network: tumour in two corners of the image."""
    probability = np.zeros(volume.grid.shape, dtype=np.float32)
    probability[:2, :2, :2] = probability[-2:, -2:, -2:] = 0.9
    return probability


def test_the_likeliest_slices_are_no_failure_where_nothing_found_is_one(
    prepared: tuple[Path, list[PreparedCase]], tmp_path: Path
) -> None:
    root, cases = prepared
    plain = {"localiser__network__gated": "false", "localiser__in_plane": "whole", "localiser__on_empty": "fail"}
    changes = plain | {"localiser__thresholds": "[1.0]", "seed": 3}
    rois, _ = station(cases, slice_settings(root, localiser__top_k=2, **changes)).walk(
        RunFolder(tmp_path / "one"), RunLogger()
    )
    assert {roi.reason for roi in rois} == {"fallback:top_2 (no slice of probability 1)"}
    assert {roi.confidence for roi in rois} == {0}
    with pytest.raises(InputError, match=r"4 training case.*on_empty"):
        station(cases, slice_settings(root, **changes)).walk(RunFolder(tmp_path / "two"), RunLogger())
