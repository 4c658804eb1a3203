"""Locate, crop, segment, paste back: from the files of a patient to labels on the original CT grid. No Lightning."""

import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from hngtv.cases.checks import CheckedImages, check_case
from hngtv.cases.manifest import RawCase
from hngtv.cases.prepare import Volume, prepare_images
from hngtv.cases.store import GridSettings, case_digests
from hngtv.config import (
    CoarseLocaliser,
    HeatMapLocaliser,
    InferenceSettings,
    Level,
    OracleLocaliser,
    RunSettings,
    SliceLocaliser,
    TrainedLocaliser,
)
from hngtv.errors import InputError
from hngtv.localise.coarse_net import find_boxes
from hngtv.localise.finding import Finding
from hngtv.localise.heat_map import HeatMaps, find_peak_boxes
from hngtv.localise.located import SHARES
from hngtv.localise.roi_policy import place_rois, widen
from hngtv.localise.roi_table import Roi
from hngtv.localise.rules import find_untrained
from hngtv.localise.slices import SliceScores, find_slice_boxes
from hngtv.localise.truth import covered_fraction, margins_needed, target_box
from hngtv.metrics.calibration import BinCounts, count_bins
from hngtv.metrics.false_positives import far_outside_ml
from hngtv.metrics.uncertainty import entropy_bits
from hngtv.model import Model
from hngtv.networks.build import predict_mean, predict_probabilities
from hngtv.networks.heat_map import read_maps
from hngtv.networks.slices import classify_slices
from hngtv.networks.sononet import SonoNet
from hngtv.run_folder import read_json, write_json
from hngtv.segmentation import Segmentation, attend, input_of, segment
from hngtv.volume.box import Box
from hngtv.volume.nifti import file_digest, write_labels_like, write_map_like

COARSE_INFERENCE = InferenceSettings(
    mode="whole_volume", overlap=0.0, flip_axes=(), threshold=0.5, min_component_ml=0.0, min_gtvp_share=0.0
)
"""Stage 1 sees the whole field of view at once."""


MAPS = ("probability", "entropy", "disagreement")
"""Of tumour of any kind: its probability; the entropy of that in bits; its standard deviation over networks."""


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AgainstTruth:
    """What can be said of a prediction only while its probabilities are at hand, or best then.

    Attributes:
        digest: SHA-256 of the target file.
        image: Bounds of the CT.
        target_ml: Volume of the tumour, all labels together.
        margins_mm: For each of `SHARES`, the least margin with which the boxes hold that share; None without tumour.
        far_ml: See `far_outside_ml`.
        calibration: Over the voxels of the CT grid inside the ROIs.
    """

    digest: str
    image: Box
    target_ml: float
    margins_mm: tuple[float, ...] | None
    far_ml: float
    calibration: BinCounts


@dataclass(frozen=True)
class Prediction:
    """Labels of one case.

    Attributes:
        labels: (X, Y, Z) uint8 in RAS order on the grid of the CT.
        roi: Where the tumour was looked for.
        digests: SHA-256 of the files it was made from; without "pet" where the PET was missing.
        seconds: Time of each part.
        attention: Where asked for, gate name to alpha (X, Y, Z) in [0, 1] on the grid of the CT, 0 where the network
            did not look.
        against_truth: None where the truth is unknown.
        maps: Those of `MAPS` that were asked for, (X, Y, Z) float32 on the grid of the CT, 0 outside the ROIs.
        agreement: Of the networks with themselves on flipped images, see `Region`; None without a rule for review.
        review: Why a person should look at it first; "" for no reason, or where the model has no rule for it.
        warnings: What is odd about the images, one line each.
    """

    labels: NDArray[np.uint8]
    roi: Roi
    digests: dict[str, str]
    seconds: dict[str, float]
    attention: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    against_truth: AgainstTruth | None = None
    maps: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    agreement: float | None = None
    review: str = ""
    warnings: tuple[str, ...] = ()


def predict_case(model: Model, case: RawCase, with_attention: bool = False, maps: Collection[str] = ()) -> Prediction:
    """Predict one case from its files.

    A missing PET counts as SUV 0 where the model was trained for that.

    Args:
        model: From `load_model`.
        case: Its files.
        with_attention: Return the alphas of the gates too, which takes the network a second pass.
        maps: Those of `MAPS` to return too; there is no disagreement of a single network.
    Raises:
        InputError: A file cannot be used, or the PET is missing and the model needs it; or nothing is found and
            `localiser.on_empty` is "fail".
    """
    clock = _Stopwatch()
    if case.pet is None and not model.settings.copes_without_pet:
        raise InputError(
            f"case {case.case_id}: no PET file beside {case.ct}, and {model.settings.arm} was trained with PET; "
            "give its PET, or a model whose localiser is no PET rule, trained with augment.pet_dropout=0.3 or, in all "
            "stages, fusion=ct_only"
        )
    images = check_case(case, needs_pet=False)
    for warning in images.warnings:
        log.warning("%s", warning)
    clock.lap("read")
    finding = locate(model, case.case_id, images)
    boxes = place_rois(finding.boxes, images.ct.grid.bounds(), model.settings.roi)
    rois = widen(boxes, model.settings.roi)
    clock.lap("locate")
    found = segment(model, images, rois)
    clock.lap("segment")
    attention = attend(model, images, rois) if with_attention else {}
    if with_attention:
        clock.lap("attention")
    localiser = model.settings.localiser.name
    covered = None if images.target is None else covered_fraction(images.target, images.ct.grid, rois)
    fold = "ensemble" if model.coarse else ""
    roi = Roi(case.case_id, localiser, fold, boxes, finding.confidence, covered, finding.reason)
    digests = _digests(model, case)
    truth = None
    if images.target is not None:
        truth = _hold_against_truth(images, boxes, rois, found)
    return Prediction(
        found.labels,
        roi,
        digests,
        clock.seconds,
        attention,
        truth,
        {name: on_ct for name in maps if (on_ct := _map_of(name, found)) is not None},
        found.region.agreement,
        _why_review(found, roi, model.settings.inference.review_below),
        images.warnings,
    )


def _map_of(name: str, found: Segmentation) -> NDArray[np.float32] | None:
    """One of `MAPS` on the whole grid of the CT; None for a disagreement of one network."""
    values = {"probability": found.probability, "disagreement": found.region.disagreement}.get(name)
    if name == "entropy":
        values = entropy_bits(found.probability)
    if values is None:
        return None
    whole = np.zeros(found.labels.shape, np.float32)
    whole[found.region.slices] = values
    return whole


def _why_review(found: Segmentation, roi: Roi, below: float) -> str:
    """Why a person should look at a mask first, by the rule of the settings; without a rule nothing is said."""
    if not below:
        return ""
    if not found.labels.any():
        return "nothing is outlined"
    if roi.is_fallback:
        return roi.reason
    agreement = found.region.agreement
    if agreement is not None and agreement < below:
        return f"outlines on the image and its flips agree by {agreement:.2f} only; the limit is {below:.2f}"
    return ""


def _hold_against_truth(
    images: CheckedImages, boxes: Sequence[Box], rois: Sequence[Box], found: Segmentation
) -> AgainstTruth:
    assert images.target is not None
    assert images.target_digest is not None
    target, grid, region = images.target > 0, images.ct.grid, found.region
    inside = np.zeros(region.grid.shape, dtype=bool)
    for roi in rois:
        inside[region.grid.clip(region.grid.slices_of(roi))] = True
    needed = tuple(margins_needed(target, grid, boxes, SHARES)) if target.any() else None
    return AgainstTruth(
        digest=images.target_digest,
        image=grid.bounds(),
        target_ml=int(target.sum()) * grid.voxel_ml,
        margins_mm=needed,
        far_ml=far_outside_ml(found.labels > 0, target, grid.spacing_mm),
        calibration=count_bins(found.probability[inside], target[region.slices][inside]),
    )


def write_prediction(path: Path, prediction: Prediction, case: RawCase, model: Model) -> None:
    """Write a mask on the original CT grid and, beside it, a JSON with timings, ROI and model, and attention maps.

    The maps are named `<mask>_<gate>.nii.gz`; those of an earlier prediction are removed.
    """
    _drop_attention(path)
    write_labels_like(path, prediction.labels, case.ct)
    roi, truth = prediction.roi, prediction.against_truth
    maps = attention_paths(path, prediction)
    for file, alpha in zip(maps, prediction.attention.values(), strict=True):
        write_map_like(file, alpha, case.ct)
    write_json(
        note_path(path),
        {
            "case_id": case.case_id,
            "arm": model.settings.arm,
            "model": model.digest,
            "mask": file_digest(path),
            "inputs": prediction.digests,
            "attention": [file.name for file in maps],
            "rois_mm": [[*box.lower_mm, *box.upper_mm] for box in roi.boxes],
            "confidence": roi.confidence,
            "reason": roi.reason,
            "agreement": prediction.agreement,
            "review": prediction.review,
            "warnings": list(prediction.warnings),
            "seconds": {name: round(value, 3) for name, value in prediction.seconds.items()},
            "truth": None if truth is None else _truth_note(truth),
        },
    )


def _truth_note(truth: AgainstTruth) -> dict[str, Any]:
    return {
        "target": truth.digest,
        "image_mm": [*truth.image.lower_mm, *truth.image.upper_mm],
        "target_ml": truth.target_ml,
        "margins_mm": truth.margins_mm,
        "far_ml": truth.far_ml,
    }


def attention_paths(path: Path, prediction: Prediction) -> list[Path]:
    """Where the attention maps of a prediction lie, beside its mask."""
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    return [path.with_name(f"{stem}_{name}.nii.gz") for name in prediction.attention]


def note_path(path: Path) -> Path:
    """The JSON beside a mask."""
    return path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".json")


def is_predicted(path: Path, case: RawCase, model: Model) -> bool:
    """Whether a mask is whole, made from these very files by these weights, and held against this target if any."""
    note = note_path(path)
    if not path.is_file() or not note.is_file():
        return False
    made_by = read_json(note)
    try:
        wanted = {"model": model.digest, "mask": file_digest(path), "inputs": _digests(model, case)}
        if case.target is not None and (made_by.get("truth") or {}).get("target") != file_digest(case.target):
            return False
    except OSError:
        return False
    return wanted.items() <= made_by.items()


def _digests(model: Model, case: RawCase) -> dict[str, str]:
    """SHA-256 of the files that a prediction is made from, and the factor of a PET in Bq/mL."""
    is_oracle = isinstance(model.settings.localiser, OracleLocaliser)
    return case_digests(case, ("ct", "pet", "target") if is_oracle else ("ct", "pet"))


def drop_prediction(path: Path) -> None:
    """Remove a mask that is no longer true, its note and its attention maps."""
    _drop_attention(path)
    path.unlink(missing_ok=True)
    note_path(path).unlink(missing_ok=True)


def _drop_attention(path: Path) -> None:
    """Remove the attention maps that the note beside a mask names."""
    note = note_path(path)
    for name in read_json(note).get("attention", []) if note.is_file() else []:
        path.with_name(Path(name).name).unlink(missing_ok=True)


def locate(model: Model, case_id: str, images: CheckedImages) -> Finding:
    """Where the tumour is looked for, before the ROI policy of the run.

    Raises:
        InputError: Nothing is found and `localiser.on_empty` is "fail", or the oracle has no target.
    """
    settings, data = model.settings.localiser, model.settings.data
    grid = images.ct.grid

    def volume(level: Level) -> Volume:
        return prepare_images(images, GridSettings(data.spacing_mm, data.coarse_spacing_mm).spacing_of(level))

    def truth() -> Box | None:
        if images.target is None:
            raise InputError(f"case {case_id}: the oracle localiser needs a target; use an arm with another localiser")
        return target_box(images.target, grid)

    if isinstance(settings, TrainedLocaliser):
        localiser = NetworkLocaliser(settings, model.coarse, model.coarse_threshold, model.settings)
        return localiser.find(volume(settings.level), case_id)
    return find_untrained(settings, grid.bounds(), truth, lambda: volume("fine"), case_id)


@dataclass(frozen=True)
class NetworkLocaliser:
    """A trained localiser at one threshold.

    Attributes:
        localiser: Its settings.
        networks: Averaged.
        threshold: See `choose_threshold`.
        settings: Of the run that trained it.
    """

    localiser: TrainedLocaliser
    networks: Sequence[nn.Module]
    threshold: float
    settings: RunSettings

    def find(self, volume: Volume, case_id: str) -> Finding:
        """As `Localiser.find`."""
        return find_rois(self.networks, self.localiser, [self.threshold], volume, self.settings, case_id)[0]


def find_rois(
    networks: Sequence[nn.Module],
    localiser: TrainedLocaliser,
    thresholds: Sequence[float],
    volume: Volume,
    settings: RunSettings,
    case_id: str,
) -> list[Finding]:
    """What stage 1 finds in a case, at each threshold.

    Args:
        networks: Of stage 1, averaged.
        localiser: Its settings.
        volume: The whole case at the localiser's level.
    Raises:
        InputError: Nothing is found and `localiser.on_empty` is "fail".
    """
    pet, grid = volume.pet, volume.grid
    match localiser:
        case CoarseLocaliser():
            probability = coarse_probability(networks, volume, settings)
            return [find_boxes(probability, pet, grid, threshold, localiser, case_id) for threshold in thresholds]
        case HeatMapLocaliser():
            maps = heat_maps(networks, volume, settings)
            return [find_peak_boxes(maps, pet, grid, threshold, localiser, case_id) for threshold in thresholds]
        case SliceLocaliser():
            scores = slice_scores(networks, localiser, volume, settings)
            return [find_slice_boxes(scores, pet, grid, threshold, localiser, case_id) for threshold in thresholds]


def slice_scores(
    networks: Sequence[nn.Module], localiser: SliceLocaliser, volume: Volume, settings: RunSettings
) -> SliceScores:
    """Probability and attention of all axial slices of a whole case at the localiser's level."""
    image = input_of(volume, settings)
    classifiers = [network for network in networks if isinstance(network, SonoNet)]
    tumour, attention = classify_slices(classifiers, image, localiser.network.zoom, localiser.attention.merge)
    return SliceScores(tumour.numpy(), None if attention is None else attention.numpy())


def coarse_probability(networks: Sequence[nn.Module], volume: Volume, settings: RunSettings) -> NDArray[np.float32]:
    """Tumour probability (X, Y, Z) of a whole case at coarse spacing, averaged over networks."""
    image = input_of(volume, settings)
    return predict_probabilities(networks, image, COARSE_INFERENCE, volume.grid.shape)[1].numpy()


def heat_maps(networks: Sequence[nn.Module], volume: Volume, settings: RunSettings) -> HeatMaps:
    """Heat and side lengths of a whole case at coarse spacing, averaged over networks."""
    image = input_of(volume, settings)
    heat, *sides_mm = predict_mean(networks, image, COARSE_INFERENCE, volume.grid.shape, read_maps).numpy()
    return HeatMaps(heat, np.stack(sides_mm))


class _Stopwatch:
    def __init__(self) -> None:
        self.last = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = now - self.last
        self.last = now
