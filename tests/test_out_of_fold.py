"""Stage 1 by inner folds: a case is never located by a model that was trained on it."""

from pathlib import Path

import pytest

from hngtv.cases.manifest import load_cases
from hngtv.cases.prepare import prepare_cases
from hngtv.cases.store import GridSettings, PreparedCase
from hngtv.commands.entry import compose
from hngtv.commands.run import layout_of
from hngtv.config import CoarseLocaliser, RunSettings, parse_settings
from hngtv.out_of_fold import CoarseStation
from hngtv.run_folder import RunFolder, read_json
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
        load_cases(settings.data.root, layout_of(settings.data)), root / "store", grids, n_workers=1
    )
    assert not failures
    return root, cases


def settings_of(root: Path, **changes: object) -> RunSettings:
    return parse_settings(RunSettings, compose("run", tiny_run(root / "cases", root, "two_stage_ag", **changes)[1:]))


def station(cases: list[PreparedCase], settings: RunSettings) -> CoarseStation:
    assert isinstance(settings.localiser, CoarseLocaliser)
    return CoarseStation(cases, settings, settings.localiser)


def test_the_run_keeps_the_threshold_that_its_boxes_were_found_with(
    prepared: tuple[Path, list[PreparedCase]], tmp_path: Path
) -> None:
    root, cases = prepared
    settings = settings_of(root, localiser__thresholds="[0.9, 0.0]", localiser__min_covered=1.0)
    folder = RunFolder(tmp_path)
    rois, _ = station(cases, settings).walk(folder, RunLogger())
    chosen = read_json(folder.coarse_threshold)
    assert chosen["threshold"] == 0.0, "the whole image holds all, and twelve steps find nothing at 0.9"
    assert chosen["covered"] == {"0.9": 0.0, "0": 1.0}
    assert all(roi.box == case.grid("coarse").bounds() for roi, case in zip(rois, cases, strict=True))


@pytest.mark.parametrize("by_centre", [False, True])
def test_inner_models_never_see_the_cases_they_locate(
    by_centre: bool, prepared: tuple[Path, list[PreparedCase]]
) -> None:
    root, cases = prepared
    stage = station(cases, settings_of(root, data__group_by_centre=by_centre))
    for inner in range(stage.localiser.n_inner_folds):
        located = {case_id for case_id, fold in stage.inner_folds.items() if fold == inner}
        seen = {case.case_id for case in stage._plan(inner).build_crops(1).cases}
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
