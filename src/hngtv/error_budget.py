"""Where an arm loses its Dice: its fine stage in the true ROI, in that of its stage 1, and without a stage 1."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hngtv.cases.checks import CheckedImages, check_case
from hngtv.cases.prepare import Volume
from hngtv.cases.store import PreparedCase
from hngtv.config import OracleLocaliser, RunSettings, SliceLocaliser, WholeLocaliser
from hngtv.localise.finding import FOUND
from hngtv.localise.roi_policy import place_rois, widen
from hngtv.localise.roi_table import Roi, read_rois
from hngtv.localise.slices import true_boxes
from hngtv.localise.truth import target_box
from hngtv.metrics.overlap import dice
from hngtv.metrics.roc import area_under_curve
from hngtv.metrics.score import CLASS_NAMES, class_mask
from hngtv.model import Model, load_model
from hngtv.report.error_budget import draw_error_budget
from hngtv.report.figures import encode
from hngtv.report.scores import read_prediction
from hngtv.run_folder import RunFolder, atomic_path, read_json, sha256_of, write_csv, write_json
from hngtv.segmentation import segment
from hngtv.two_stage import slice_scores
from hngtv.volume.box import Box
from hngtv.volume.grid import Grid
from hngtv.volume.nifti import file_digest

VERSION = 1
"""Raised when the code changes what the files hold."""
WAYS = ("oracle", "chain", "whole")
"""Where the fine stage looks: in the ROIs of the truth, in those of stage 1, and in the whole image."""
COLUMNS = (
    "case_id", "way", "dice_GTVp", "dice_GTVn", "dice_GTV", "target_ml", "covered_fraction", "dice_ceiling", "reason",
)  # fmt: skip
SLICE_COLUMNS = ("case_id", "z_mm", "probability", "holds_tumour", "kept")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """How one case did in one way.

    Attributes:
        case_id: The case.
        way: One of `WAYS`.
        dice: Class name to Dice; empty masks as in `metrics.score`.
        target_ml: Volume of the target, both classes together.
        covered_fraction: Share of the target that the fine stage could label; None for an empty target.
        reason: Of stage 1, see `Finding`; "" for the other ways.
    """

    case_id: str
    way: str
    dice: dict[str, float]
    target_ml: float
    covered_fraction: float | None
    reason: str

    @property
    def dice_ceiling(self) -> float | None:
        """The best Dice of all tumour that was left: 2 (1 - f) / (2 - f), where a share f of the target is lost."""
        if self.covered_fraction is None:
            return None
        return 2 * self.covered_fraction / (1 + self.covered_fraction)


@dataclass(frozen=True)
class SliceOutcome:
    """What stage 1 made of an axial slice: `kept` tells whether its centre lies in a ROI, margin included."""

    case_id: str
    z_mm: float
    probability: float
    holds_tumour: bool
    kept: bool


def write_error_budget(cases: Sequence[PreparedCase], folder: RunFolder) -> None:
    """Write the error budget of a trained arm on its test cases, unless it is up to date.

    Cases without a target or a prediction are left out. Each finished case is kept, so that a killed run goes on.

    Raises:
        InputError: The run is not finished, or a file cannot be read.
    """
    model = load_model(folder.root)
    settings = model.settings
    if isinstance(settings.localiser, WholeLocaliser | OracleLocaliser):
        log.warning("no error budget: with localiser=%s no stage 1 can err", settings.localiser.name)
        return
    judged = [case for case in cases if case.has_target and folder.prediction(case.case_id).is_file()]
    key = sha256_of([_key(case, model, folder) for case in judged])
    if not judged or _is_written(folder, key, isinstance(settings.localiser, SliceLocaliser)):
        return
    rois = {roi.case_id: roi for roi in read_rois(folder.rois)}
    outcomes: list[Outcome] = []
    slices: list[SliceOutcome] = []
    for case in judged:
        of_case, of_slices = _judge(case, rois[case.case_id], model, folder)
        outcomes += of_case
        slices += of_slices
    _write(folder, key, settings, outcomes, slices)


def _key(case: PreparedCase, model: Model, folder: RunFolder) -> str:
    """Digest of what the budget of a case depends on."""
    return sha256_of([VERSION, case.case_id, case.digest, model.digest, file_digest(folder.prediction(case.case_id))])


def _is_written(folder: RunFolder, key: str, has_slices: bool) -> bool:
    files = [folder.error_budget, folder.error_budget_picture, folder.error_budget_summary]
    files += [folder.slice_scores] if has_slices else []
    return all(path.is_file() for path in files) and read_json(folder.error_budget_summary).get("key") == key


def _judge(case: PreparedCase, roi: Roi, model: Model, folder: RunFolder) -> tuple[list[Outcome], list[SliceOutcome]]:
    """The outcomes of a case, or those that an earlier run has kept."""
    part, key = folder.error_budget_part(case.case_id), _key(case, model, folder)
    kept = read_json(part) if part.is_file() else {}
    if kept.get("key") != key:
        outcomes = judge_case(case, roi, model, folder)
        slices = judge_slices(case, roi, model)
        kept = {"key": key, "outcomes": [*map(asdict, outcomes)], "slices": [*map(asdict, slices)]}
        write_json(part, kept)
        log.info("%s: error budget, Dice %s", case.case_id, _listed({o.way: o.dice["GTV"] for o in outcomes}))
    return [Outcome(**row) for row in kept["outcomes"]], [SliceOutcome(**row) for row in kept["slices"]]


def judge_case(case: PreparedCase, roi: Roi, model: Model, folder: RunFolder) -> list[Outcome]:
    """Dice of the fine stage in each of `WAYS`; that of the chain is read from its prediction.

    Args:
        case: With a target.
        roi: Of its stage 1.
        model: The trained arm.
        folder: Holds its prediction.
    """
    images = check_case(case.raw)
    target, grid = images.target, images.ct.grid
    assert target is not None
    rois = {
        "oracle": oracle_rois(target, grid, model.settings),
        "chain": widen(roi.boxes, model.settings.roi),
        "whole": (grid.bounds(),),
    }
    outcomes = []
    for way in WAYS:
        labels = _labels(way, rois[way], case, images, model, folder)
        outcomes.append(
            Outcome(
                case.case_id,
                way,
                {name: _dice(labels, target, name) for name in CLASS_NAMES},
                float(np.count_nonzero(target)) * grid.voxel_ml,
                share_in_reach(target, grid, rois[way]),
                roi.reason if way == "chain" else "",
            )
        )
    return outcomes


def oracle_rois(target: NDArray, grid: Grid, settings: RunSettings) -> tuple[Box, ...]:
    """ROIs of the truth under the ROI policy of a run, margin included; the whole image for an empty target.

    A localiser of slices is held against the slices that hold tumour, any other against the box around all of it.
    """
    image = grid.bounds()
    around = target_box(target, grid) or image
    boxes = true_boxes(target, grid) if isinstance(settings.localiser, SliceLocaliser) else (around,)
    return widen(place_rois(boxes or (image,), image, settings.roi), settings.roi)


def share_in_reach(target: NDArray, grid: Grid, rois: Sequence[Box]) -> float | None:
    """Share of the target's voxels that a ROI touches, which the fine stage may label; None for an empty target."""
    tumour = target > 0
    if not tumour.any():
        return None
    reached = np.zeros(tumour.shape, dtype=bool)
    for roi in rois:
        reached[grid.clip(grid.slices_of(roi))] = True
    return float(reached[tumour].mean())


def _labels(
    way: str, rois: Sequence[Box], case: PreparedCase, images: CheckedImages, model: Model, folder: RunFolder
) -> NDArray:
    if way == "chain":
        return read_prediction(folder.prediction(case.case_id), images.ct.grid)
    return segment(model, images, rois).labels


def _dice(labels: NDArray, target: NDArray, class_name: str) -> float:
    """Dice of a class; 1 where both masks are empty, as in `metrics.score`."""
    value = dice(class_mask(labels, class_name), class_mask(target, class_name))
    return 1.0 if np.isnan(value) else value


def judge_slices(case: PreparedCase, roi: Roi, model: Model) -> list[SliceOutcome]:
    """What stage 1 says of each axial slice, and whether it was kept; nothing for a localiser that has no slices."""
    localiser = model.settings.localiser
    if not isinstance(localiser, SliceLocaliser):
        return []
    (ct, pet), _ = case.read_whole(localiser.level)
    grid = case.grid(localiser.level)
    probability = slice_scores(model.coarse, localiser, Volume(ct, pet, grid), model.settings).tumour
    holds = case.slices_with_target(localiser.level)
    z_mm = grid.to_world(np.array([(0, 0, z) for z in range(len(holds))]))[:, 2]
    kept = np.zeros_like(holds)
    for box in widen(roi.boxes, model.settings.roi):
        kept |= (z_mm >= box.lower_mm[2]) & (z_mm <= box.upper_mm[2])
    return [
        SliceOutcome(case.case_id, float(z), float(p), bool(h), bool(k))
        for z, p, h, k in zip(z_mm, probability, holds, kept, strict=True)
    ]


def summarise(outcomes: Sequence[Outcome], slices: Sequence[SliceOutcome]) -> dict[str, Any]:
    """Means over cases: Dice of each way and class, and what stage 1 lost; of slices over all of them together.

    `dropped` is the share of the target that the chain could not label: its mean over patients with tumour, that of
    all their tumour together (`pooled`), and the worst patient's. A class that neither truth nor mask has counts as
    Dice 1, as in scores.csv.
    """
    chain = [outcome for outcome in outcomes if outcome.way == "chain"]
    lost = [(1 - o.covered_fraction, o.target_ml) for o in chain if o.covered_fraction is not None]
    dropped, volumes_ml = (np.array(column) for column in zip(*lost, strict=True)) if lost else (np.zeros(0),) * 2
    summary: dict[str, Any] = {
        "n_cases": len(chain),
        "dice": {
            way: {name: _mean([o.dice[name] for o in outcomes if o.way == way]) for name in CLASS_NAMES} for way in WAYS
        },
        "dice_ceiling": _mean([o.dice_ceiling for o in chain if o.dice_ceiling is not None]),
        "dropped": {
            "mean": _mean(dropped),
            "pooled": float(np.average(dropped, weights=volumes_ml)) if lost else None,
            "worst": float(dropped.max()) if lost else None,
        },
        "nothing_found": [outcome.case_id for outcome in chain if outcome.reason != FOUND],
    }
    return summary | ({"slices": summarise_slices(slices)} if slices else {})


def summarise_slices(slices: Sequence[SliceOutcome]) -> dict[str, Any]:
    """How well stage 1 tells slices with tumour from those without, over the slices of all cases together."""
    holds, kept = (np.array([getattr(s, name) for s in slices]) for name in ("holds_tumour", "kept"))
    return {
        "n": len(slices),
        "n_with_tumour": int(holds.sum()),
        "auc": area_under_curve([s.probability for s in slices], holds),
        "sensitivity": _mean(kept[holds]),
        "specificity": _mean(~kept[~holds]),
    }


def _write(
    folder: RunFolder,
    key: str,
    settings: RunSettings,
    outcomes: Sequence[Outcome],
    slices: Sequence[SliceOutcome],
) -> None:
    """All files; the summary with the key comes last."""
    write_csv(folder.error_budget, COLUMNS, map(_as_row, outcomes))
    if slices:
        write_csv(folder.slice_scores, SLICE_COLUMNS, map(_slice_as_row, slices))
    summary = summarise(outcomes, slices)
    with atomic_path(folder.error_budget_picture) as temporary:
        temporary.write_bytes(encode(draw_error_budget(outcomes, summary, settings.roi.shape == "slab"), "png"))
    write_json(folder.error_budget_summary, {"key": key, **summary})
    means = {way: summary["dice"][way]["GTV"] for way in WAYS}
    log.info("error budget of %d cases, mean Dice: %s", summary["n_cases"], _listed(means))


def _as_row(outcome: Outcome) -> dict[str, object]:
    covered, ceiling = outcome.covered_fraction, outcome.dice_ceiling
    return {
        "case_id": outcome.case_id,
        "way": outcome.way,
        **{f"dice_{name}": f"{value:.4f}" for name, value in outcome.dice.items()},
        "target_ml": f"{outcome.target_ml:.2f}",
        "covered_fraction": "" if covered is None else f"{covered:.4f}",
        "dice_ceiling": "" if ceiling is None else f"{ceiling:.4f}",
        "reason": outcome.reason,
    }


def _slice_as_row(outcome: SliceOutcome) -> dict[str, object]:
    return {
        "case_id": outcome.case_id,
        "z_mm": f"{outcome.z_mm:.2f}",
        "probability": f"{outcome.probability:.4f}",
        "holds_tumour": int(outcome.holds_tumour),
        "kept": int(outcome.kept),
    }


def _listed(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in values.items())


def _mean(values: ArrayLike) -> float | None:
    numbers = np.asarray(values, dtype=float)
    return float(numbers.mean()) if numbers.size else None
