"""Localisers judged on cases that they never saw: where each one looks, what it costs, and what bad scans do to it."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from hngtv.arm import Split, split_cases
from hngtv.cases.checks import CheckedImages, check_case, check_pet
from hngtv.cases.disturb import DISTURBANCES
from hngtv.cases.prepare import Volume, prepare_images
from hngtv.cases.store import GridSettings, PreparedCase
from hngtv.config import (
    Level,
    LocaliserSettings,
    LocaliseSettings,
    TrainedLocaliser,
    parse_settings,
    plain,
)
from hngtv.errors import InputError
from hngtv.localise.finding import BOXES_VERSION, Finding, Localiser
from hngtv.localise.located import SHARES, LocalisedCase, is_located, read_located, write_located
from hngtv.localise.roi_policy import place_rois
from hngtv.localise.rules import find_untrained
from hngtv.localise.truth import margins_needed, target_box
from hngtv.model import load_coarse
from hngtv.out_of_fold import CoarseStation, training_key
from hngtv.run_folder import RunFolder, read_json, sha256_of
from hngtv.training.logger import RunLogger
from hngtv.two_stage import NetworkLocaliser

log = logging.getLogger(__name__)


def judge_fold(
    split: Split, fold: int, settings: LocaliseSettings, folder: Path, logger: RunLogger
) -> list[LocalisedCase]:
    """Train the localisers of a fold, or find them trained, and let each look at the test cases.

    What is finished is read back from `folder`.

    Raises:
        InputError: A localiser finds nothing and its `on_empty` is "fail".
    """
    rows = []
    todo: dict[str, LocaliserSettings] = {}
    for name, localiser in settings.chosen.items():
        if is_located(_table(folder, name), _key(split, settings, localiser)):
            rows += read_located(_table(folder, name))
        else:
            todo[name] = localiser
    if not todo:
        return rows
    found: dict[str, list[LocalisedCase]] = {name: [] for name in todo}
    trained = {
        name: _open(localiser, split, settings, folder / name, logger)
        for name, localiser in todo.items()
        if isinstance(localiser, TrainedLocaliser)
    }
    for case in tqdm(split.test, desc=f"fold {fold}", unit="case", disable=None):
        images = check_case(case.raw)
        for disturbance in ("", *settings.disturbances):
            for name, row in _look(case, images, disturbance, trained, todo, settings, str(fold)):
                found[name].append(row)
    for name, localiser in todo.items():
        write_located(_table(folder, name), _key(split, settings, localiser), found[name])
        rows += found[name]
    return rows


def split_folds(cases: Sequence[PreparedCase], settings: LocaliseSettings, folder: RunFolder) -> dict[int, Split]:
    """The split of each fold that is asked for."""
    folds = range(settings.data.n_folds) if settings.folds is None else settings.folds
    return {fold: split_cases(cases, replace(settings, fold=fold), folder) for fold in folds}


def read_trial(root: Path) -> tuple[LocaliseSettings, list[LocalisedCase]]:
    """The settings of a folder of `hngtv localise`, and what each localiser that is finished made of each scan.

    Raises:
        InputError: The folder holds none.
    """
    folder = RunFolder(root)
    if not folder.settings.is_file():
        raise InputError(f"{root} is no folder of hngtv localise (no settings.json)")
    settings = parse_settings(LocaliseSettings, read_json(folder.settings))
    tables = sorted(path for name in settings.localisers for path in root.glob(f"fold_*/{name}.json"))
    rows = [row for path in tables for row in read_located(path)]
    order = {name: place for place, name in enumerate(settings.localisers)}
    return settings, sorted(rows, key=lambda row: order[row.localiser])


def _open(
    localiser: TrainedLocaliser, split: Split, settings: LocaliseSettings, folder: Path, logger: RunLogger
) -> Localiser:
    """The localiser, trained on the training cases."""
    own = replace(settings, localiser=localiser)
    CoarseStation(split.train, own, localiser).walk(RunFolder(folder), logger)
    networks, threshold = load_coarse(RunFolder(folder), own)
    return NetworkLocaliser(localiser, networks, threshold, own)


def _look(
    case: PreparedCase,
    images: CheckedImages,
    disturbance: str,
    trained: Mapping[str, Localiser],
    chosen: Mapping[str, LocaliserSettings],
    settings: LocaliseSettings,
    fold: str,
) -> list[tuple[str, LocalisedCase]]:
    """What each localiser makes of one scan."""
    refused = ""
    if disturbance:
        images = DISTURBANCES[disturbance](images)
        try:
            check_pet(case.raw, images.pet.values)
        except InputError as error:
            refused = f"refused: {error}"
    grid, target, data = images.ct.grid, images.target, settings.data
    assert target is not None
    image = grid.bounds()
    target_ml = float((target > 0).sum()) * grid.voxel_ml

    def volume(level: Level) -> Volume:
        return prepare_images(images, GridSettings(data.spacing_mm, data.coarse_spacing_mm).spacing_of(level))

    def find(name: str, localiser: LocaliserSettings) -> Finding:
        if isinstance(localiser, TrainedLocaliser):
            return trained[name].find(volume(localiser.level), case.case_id)
        return find_untrained(localiser, image, lambda: target_box(target, grid), lambda: volume("fine"), case.case_id)

    rows = []
    for name, localiser in chosen.items():
        started = time.perf_counter()
        finding = Finding((), 0.0, refused) if refused else find(name, localiser)
        seconds = time.perf_counter() - started
        boxes = place_rois(finding.boxes, image, settings.roi) if finding.boxes else ()
        needed = tuple(margins_needed(target, grid, boxes, SHARES)) if boxes and target_ml > 0 else None
        row = LocalisedCase(
            case.case_id, name, fold, disturbance, boxes, image, needed, target_ml, finding.confidence,
            finding.reason, seconds,
        )  # fmt: skip
        rows.append((name, row))
    return rows


def _key(split: Split, settings: LocaliseSettings, localiser: LocaliserSettings) -> str:
    """Digest of what the rows of a localiser depend on."""
    tested = sorted((case.case_id, case.digest) for case in split.test)
    groups = [plain(settings.roi), plain(localiser), list(settings.disturbances)]
    return sha256_of([training_key(split.train, settings), BOXES_VERSION, tested, *groups])


def _table(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"
