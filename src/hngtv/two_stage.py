"""Locate, crop, segment, paste back: from the files of a patient to labels on the original CT grid. No Lightning."""

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hngtv.cases.checks import CheckedImages, check_case
from hngtv.cases.intensity import window
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
    parse_settings,
    plain,
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
from hngtv.networks.build import build_network, predict_attention, predict_mean, predict_probabilities, to_fast_layout
from hngtv.networks.heat_map import N_CHANNELS, read_maps
from hngtv.networks.output import SegmentationNetwork
from hngtv.networks.slices import build_classifier, classify_slices
from hngtv.networks.sononet import SonoNet
from hngtv.run_folder import RunFolder, read_json, sha256_of, write_json
from hngtv.volume.box import Box, hull
from hngtv.volume.components import remove_minor_components, remove_small_components
from hngtv.volume.grid import Grid
from hngtv.volume.nifti import file_digest, write_labels_like, write_map_like
from hngtv.volume.resample import resample

GTVP = 1
"""Label of the primary tumour."""
COARSE_INFERENCE = InferenceSettings(
    mode="whole_volume", overlap=0.0, flip_axes=(), threshold=0.5, min_component_ml=0.0, min_gtvp_share=0.0
)
"""Stage 1 sees the whole field of view at once."""


Network = TypeVar("Network", bound=nn.Module)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Model:
    """A trained arm, ready to predict.

    Attributes:
        settings: Of the run that trained it.
        coarse: Networks of stage 1, averaged; empty without one.
        coarse_threshold: Of tumour probability in stage 1.
        fine: The segmenting network.
        window_voxels: Size of its training crops.
        digest: SHA-256 over all weights and the settings that a prediction depends on.
    """

    settings: RunSettings
    coarse: tuple[nn.Module, ...]
    coarse_threshold: float
    fine: SegmentationNetwork
    window_voxels: tuple[int, int, int]
    digest: str


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
        probability: Of tumour of any kind, (X, Y, Z) in [0, 1] on the grid of the CT, 0 outside the ROIs, before any
            clean-up; None unless asked for.
        warnings: What is odd about the images, one line each.
    """

    labels: NDArray[np.uint8]
    roi: Roi
    digests: dict[str, str]
    seconds: dict[str, float]
    attention: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    against_truth: AgainstTruth | None = None
    probability: NDArray[np.float32] | None = None
    warnings: tuple[str, ...] = ()


def load_model(run_dir: Path) -> Model:
    """Load the networks of a finished run.

    Raises:
        InputError: The folder is no finished run, or its files are damaged.
    """
    folder = RunFolder(run_dir)
    if not folder.settings.is_file():
        raise InputError(
            f"{run_dir} is not a run folder (no settings.json); give model=RUN_DIR of a finished hngtv run"
        )
    settings = parse_settings(RunSettings, read_json(folder.settings))
    digest = hashlib.sha256()
    coarse, threshold = load_coarse(folder, settings, digest.update)
    if not (folder.fine / "training.json").is_file():
        raise InputError(f"{run_dir} is not finished: run the same hngtv run again to finish it")
    record = read_json(folder.fine / "training.json")
    fine = build_network(settings.network, settings.intensity.n_channels, record["n_classes"])
    load_weights(folder.fine / "model.pt", fine, digest.update)
    digest.update(sha256_of(_what_decides_a_mask(settings)).encode())
    x, y, z = record["crop_voxels"]
    return Model(settings, tuple(coarse), threshold, fine, (x, y, z), digest.hexdigest())


def load_coarse(
    folder: RunFolder, settings: RunSettings, note: Callable[[bytes], None] = lambda _: None
) -> tuple[list[nn.Module], float]:
    """The networks of stage 1 and their threshold; none and 0 for a localiser that does not learn.

    Raises:
        InputError: A file is missing, damaged, or of another network.
    """
    localiser = settings.localiser
    if not isinstance(localiser, TrainedLocaliser):
        return [], 0.0
    networks = [
        load_weights(
            folder.coarse / f"inner_{inner}" / "model.pt",
            build_localiser(localiser, settings.intensity.n_channels),
            note,
        )
        for inner in range(localiser.n_inner_folds)
    ]
    threshold = float(read_json(folder.coarse_threshold)["threshold"])
    note(f"{threshold:g}".encode())
    return networks, threshold


def _what_decides_a_mask(settings: RunSettings) -> list[Any]:
    """The settings, beside the weights, that a prediction depends on."""
    data = settings.data
    groups = [settings.intensity, settings.localiser, settings.roi, settings.inference]
    return [data.spacing_mm, data.coarse_spacing_mm, *map(plain, groups)]


def build_localiser(localiser: TrainedLocaliser, in_channels: int) -> nn.Module:
    """The network of stage 1: of two classes, tumour of any kind and everything else; or of heat maps."""
    match localiser:
        case CoarseLocaliser():
            return build_network(localiser.network, in_channels, out_channels=2)
        case HeatMapLocaliser():
            return build_network(localiser.network, in_channels, out_channels=N_CHANNELS)
        case SliceLocaliser():
            return build_classifier(localiser.network, in_channels, out_channels=2)


def load_weights(path: Path, network: Network, note: Callable[[bytes], None] = lambda _: None) -> Network:
    """Fill a network with saved weights, in eval mode and the memory layout that a CPU computes fastest in.

    Raises:
        InputError: The file is missing, damaged, or of another network.
    """
    try:
        note(path.read_bytes())
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; run the same hngtv run again to finish it") from None
    except Exception as error:
        raise InputError(f"{path} does not hold the weights its settings describe ({error})") from None
    network.eval()
    to_fast_layout(network)
    return network


def predict_case(
    model: Model, case: RawCase, with_attention: bool = False, with_probability: bool = False
) -> Prediction:
    """Predict one case from its files.

    A missing PET counts as SUV 0 where the model was trained for that.

    Args:
        model: From `load_model`.
        case: Its files.
        with_attention: Return the alphas of the gates too, which takes the network a second pass.
        with_probability: Return the probability of tumour too.
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
    needs_probability = with_probability or images.target is not None
    probability = np.zeros(images.ct.grid.shape, np.float32) if needs_probability else None
    labels = segment(model, images, rois, probability)
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
    if images.target is not None and probability is not None:
        truth = _hold_against_truth(images, boxes, rois, labels, probability)
    kept = probability if with_probability else None
    return Prediction(labels, roi, digests, clock.seconds, attention, truth, kept, images.warnings)


def _hold_against_truth(
    images: CheckedImages,
    boxes: Sequence[Box],
    rois: Sequence[Box],
    labels: NDArray[np.uint8],
    probability: NDArray[np.float32],
) -> AgainstTruth:
    assert images.target is not None
    assert images.target_digest is not None
    target, grid = images.target > 0, images.ct.grid
    inside = np.zeros(grid.shape, dtype=bool)
    for roi in rois:
        inside[grid.clip(grid.slices_of(roi))] = True
    needed = tuple(margins_needed(target, grid, boxes, SHARES)) if target.any() else None
    return AgainstTruth(
        digest=images.target_digest,
        image=grid.bounds(),
        target_ml=int(target.sum()) * grid.voxel_ml,
        margins_mm=needed,
        far_ml=far_outside_ml(labels > 0, target, grid.spacing_mm),
        calibration=count_bins(probability[inside], target[inside]),
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
    image = _input_of(volume, settings)
    classifiers = [network for network in networks if isinstance(network, SonoNet)]
    tumour, attention = classify_slices(classifiers, image, localiser.network.zoom, localiser.attention.merge)
    return SliceScores(tumour.numpy(), None if attention is None else attention.numpy())


def coarse_probability(networks: Sequence[nn.Module], volume: Volume, settings: RunSettings) -> NDArray[np.float32]:
    """Tumour probability (X, Y, Z) of a whole case at coarse spacing, averaged over networks."""
    image = _input_of(volume, settings)
    return predict_probabilities(networks, image, COARSE_INFERENCE, volume.grid.shape)[1].numpy()


def heat_maps(networks: Sequence[nn.Module], volume: Volume, settings: RunSettings) -> HeatMaps:
    """Heat and side lengths of a whole case at coarse spacing, averaged over networks."""
    image = _input_of(volume, settings)
    heat, *sides_mm = predict_mean(networks, image, COARSE_INFERENCE, volume.grid.shape, read_maps).numpy()
    return HeatMaps(heat, np.stack(sides_mm))


def _input_of(volume: Volume, settings: RunSettings) -> torch.Tensor:
    """A network's input (C, X, Y, Z)."""
    return torch.from_numpy(window(np.stack([volume.ct, volume.pet]), settings.intensity))


def segment(
    model: Model, images: CheckedImages, rois: Sequence[Box], probability: NDArray[np.float32] | None = None
) -> NDArray[np.uint8]:
    """Labels (X, Y, Z) uint8 on the CT grid, 0 outside of the ROIs.

    The network sees at least the window it was trained on, so around a small ROI it sees more than it may label; at the
    edge of the image the window is moved inwards, so that it shows anatomy rather than padding. Where ROIs overlap, a
    voxel is what the last one that calls it tumour calls it. `probability` (X, Y, Z), if given, is filled with that of
    tumour inside the ROIs, before any clean-up; where ROIs overlap, the largest.
    """
    settings, ct = model.settings, images.ct.grid
    labels = np.zeros(ct.shape, dtype=np.uint8)
    for roi in rois:
        image, grid = _seen_by_network(model, images, roi)
        probabilities = predict_probabilities([model.fine], image, settings.inference, model.window_voxels)
        slices, classes = paste_back(probabilities.numpy(), grid, roi, ct)
        found = label_of(classes, settings.inference.threshold)
        labels[slices] = np.where(found, found, labels[slices])
        if probability is not None:
            np.maximum(probability[slices], np.clip(classes.sum(axis=0), 0, 1), out=probability[slices])
    around = ct.clip(ct.slices_of(hull(rois)))
    labels[around] = clean_up(labels[around], ct.voxel_ml, settings.inference)
    return labels


def attend(model: Model, images: CheckedImages, rois: Sequence[Box]) -> dict[str, NDArray[np.float32]]:
    """Alphas of the fine network's gates on the CT grid, by name; several gates of one skip are numbered.

    Where ROIs overlap, the largest.
    """
    attention: dict[str, NDArray[np.float32]] = {}
    for roi in rois:
        image, grid = _seen_by_network(model, images, roi)
        maps = predict_attention(model.fine, image, model.settings.inference, model.window_voxels)
        for name, alphas in maps.items():
            for number, alpha in enumerate(alphas, start=1):
                gate = name if len(alphas) == 1 else f"{name}_{number}"
                found = resample(alpha.numpy(), grid, images.ct.grid, outside=0.0)
                attention[gate] = np.maximum(attention[gate], found) if gate in attention else found
    return attention


def check_has_gates(model: Model) -> None:
    """Raise InputError if the fine network returns no attention."""
    image = torch.zeros(model.settings.intensity.n_channels, *model.window_voxels)
    if not predict_attention(model.fine, image, model.settings.inference, model.window_voxels):
        raise InputError(
            f"attention=true, but {model.settings.network.name} of arm {model.settings.arm} returns no attention; "
            "use a run with network=attention_unet"
        )


def _seen_by_network(model: Model, images: CheckedImages, box: Box) -> tuple[torch.Tensor, Grid]:
    """The network's input (C, X, Y, Z) around a box, and its grid."""
    settings = model.settings
    window_mm = np.multiply(model.window_voxels, settings.data.spacing_mm)
    seen = box.grow_to(window_mm).move_into(images.ct.grid.bounds())
    volume = prepare_images(images, settings.data.spacing_mm, seen)
    return _input_of(volume, settings), volume.grid


def paste_back(
    probabilities: NDArray[np.float32], crop: Grid, box: Box, ct: Grid
) -> tuple[tuple[slice, slice, slice], NDArray[np.float32]]:
    """Probabilities on the part of the CT grid that a box touches, from those on a crop.

    Args:
        probabilities: (classes, X, Y, Z), background first.
        crop: Grid of `probabilities`.
        box: Where labels may lie.
        ct: Grid of the result.
    Returns:
        The slices of `ct` that hold the box, and (tumour classes, X, Y, Z) of that part, 0 outside the crop.
    """
    slices = ct.clip(ct.slices_of(box))
    part = ct.crop(slices)
    return slices, np.stack([resample(p, crop, part, outside=0.0) for p in probabilities[1:]])


def label_of(classes: NDArray[np.float32], threshold: float) -> NDArray[np.uint8]:
    """Labels (X, Y, Z) from probabilities (tumour classes, X, Y, Z).

    A voxel is tumour where all tumour classes together reach the threshold, and takes the likeliest of them.
    """
    return np.where(classes.sum(axis=0) >= threshold, classes.argmax(axis=0) + 1, 0).astype(np.uint8)


def clean_up(labels: NDArray[np.uint8], voxel_ml: float, settings: InferenceSettings) -> NDArray[np.uint8]:
    """Labels (X, Y, Z) without small components of tumour, and without pieces of GTVp small beside its largest."""
    tumour = remove_small_components(labels > 0, round(settings.min_component_ml / voxel_ml))
    found = np.where(tumour, labels, 0).astype(np.uint8)
    found[(found == GTVP) & ~remove_minor_components(found == GTVP, settings.min_gtvp_share)] = 0
    return found


class _Stopwatch:
    def __init__(self) -> None:
        self.last = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = now - self.last
        self.last = now
