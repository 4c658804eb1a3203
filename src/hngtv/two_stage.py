"""Locate, crop, segment, paste back: from the files of a patient to labels on the original CT grid. No Lightning."""

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hngtv.cases.checks import CheckedImages, check_case
from hngtv.cases.intensity import window
from hngtv.cases.manifest import RawCase
from hngtv.cases.prepare import Volume, prepare_images
from hngtv.config import (
    CoarseLocaliser,
    InferenceSettings,
    OracleLocaliser,
    RunSettings,
    WholeLocaliser,
    parse_settings,
)
from hngtv.errors import InputError
from hngtv.localise.coarse_net import Finding, find_box
from hngtv.localise.roi_table import Roi
from hngtv.localise.rules import covered_fraction, target_box
from hngtv.networks.attention_unet import AttentionUNet
from hngtv.networks.build import build_network, predict_probabilities
from hngtv.run_folder import RunFolder, read_json, write_json
from hngtv.volume.box import Box
from hngtv.volume.components import remove_minor_components, remove_small_components
from hngtv.volume.grid import Grid
from hngtv.volume.nifti import file_digest, write_labels_like
from hngtv.volume.resample import resample

GTVP = 1
"""Label of the primary tumour."""
COARSE_INFERENCE = InferenceSettings(
    mode="whole_volume", overlap=0.0, flip_axes=(), threshold=0.5, min_component_ml=0.0, min_gtvp_share=0.0
)
"""Stage 1 sees the whole field of view at once."""


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
        digest: SHA-256 over all weights.
    """

    settings: RunSettings
    coarse: tuple[AttentionUNet, ...]
    coarse_threshold: float
    fine: AttentionUNet
    window_voxels: tuple[int, int, int]
    digest: str


@dataclass(frozen=True)
class Prediction:
    """Labels of one case.

    Attributes:
        labels: (X, Y, Z) uint8 in RAS order on the grid of the CT.
        roi: Where the tumour was looked for.
        digests: SHA-256 of the CT and PET files.
        seconds: Time of each part.
    """

    labels: NDArray[np.uint8]
    roi: Roi
    digests: dict[str, str]
    seconds: dict[str, float]


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
    coarse: list[AttentionUNet] = []
    threshold = 0.0
    if isinstance(settings.localiser, CoarseLocaliser):
        for inner in range(settings.localiser.n_inner_folds):
            network = build_network(settings.localiser.network, settings.intensity.n_channels, out_channels=2)
            coarse.append(load_weights(folder.coarse / f"inner_{inner}" / "model.pt", network, digest.update))
        threshold = float(read_json(folder.coarse_threshold)["threshold"])
        digest.update(f"{threshold:g}".encode())
    if not (folder.fine / "training.json").is_file():
        raise InputError(f"{run_dir} is not finished: run the same hngtv run again to finish it")
    record = read_json(folder.fine / "training.json")
    fine = build_network(settings.network, settings.intensity.n_channels, record["n_classes"])
    load_weights(folder.fine / "model.pt", fine, digest.update)
    x, y, z = record["crop_voxels"]
    return Model(settings, tuple(coarse), threshold, fine, (x, y, z), digest.hexdigest())


def load_weights(path: Path, network: AttentionUNet, note: Callable[[bytes], None] = lambda _: None) -> AttentionUNet:
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
    return network.eval().to(memory_format=torch.channels_last_3d)  # pyright: ignore[reportCallIssue]


def predict_case(model: Model, case: RawCase) -> Prediction:
    """Predict one case from its files.

    Raises:
        InputError: A file cannot be used; or nothing is found and `localiser.on_empty` is "fail".
    """
    clock = _Stopwatch()
    images = check_case(case)
    for warning in images.warnings:
        log.warning("%s", warning)
    clock.lap("read")
    finding = locate(model, case.case_id, images)
    box = finding.box.expand(model.settings.roi.margin_mm)
    clock.lap("locate")
    labels = segment(model, images, box)
    clock.lap("segment")
    localiser = model.settings.localiser.name
    covered = None if images.target is None else covered_fraction(images.target, images.ct.grid, box)
    fold = "ensemble" if model.coarse else ""
    roi = Roi(case.case_id, localiser, fold, finding.box, finding.confidence, covered, finding.reason)
    digests = {"ct": images.ct.digest, "pet": images.pet.digest}
    return Prediction(labels, roi, digests, clock.seconds)


def write_prediction(path: Path, prediction: Prediction, case: RawCase, model: Model) -> None:
    """Write a mask on the original CT grid and, beside it, a JSON with timings, ROI and model."""
    write_labels_like(path, prediction.labels, case.ct)
    roi = prediction.roi
    write_json(
        note_path(path),
        {
            "case_id": case.case_id,
            "arm": model.settings.arm,
            "model": model.digest,
            "mask": file_digest(path),
            "inputs": prediction.digests,
            "roi_mm": [*roi.box.lower_mm, *roi.box.upper_mm],
            "confidence": roi.confidence,
            "reason": roi.reason,
            "seconds": {name: round(value, 3) for name, value in prediction.seconds.items()},
        },
    )


def note_path(path: Path) -> Path:
    """The JSON beside a mask."""
    return path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".json")


def is_predicted(path: Path, case: RawCase, model: Model) -> bool:
    """Whether a mask is whole, and was made from these very files by these very weights."""
    note = note_path(path)
    if not path.is_file() or not note.is_file() or case.pet is None:
        return False
    made_by = read_json(note)
    try:
        inputs = {"ct": file_digest(case.ct), "pet": file_digest(case.pet)}
        wanted = {"model": model.digest, "mask": file_digest(path), "inputs": inputs}
    except OSError:
        return False
    return wanted.items() <= made_by.items()


def drop_prediction(path: Path) -> None:
    """Remove a mask that is no longer true, and its note."""
    path.unlink(missing_ok=True)
    note_path(path).unlink(missing_ok=True)


def locate(model: Model, case_id: str, images: CheckedImages) -> Finding:
    """Where the tumour is looked for, before the margin of the fine stage."""
    settings = model.settings.localiser
    grid = images.ct.grid
    match settings:
        case WholeLocaliser():
            return Finding(grid.bounds(), 1.0, "found")
        case OracleLocaliser():
            if images.target is None:
                raise InputError(
                    f"case {case_id}: the oracle localiser needs a target; use an arm with another localiser"
                )
            box = target_box(images.target, grid)
            return Finding(box or grid.bounds(), 1.0, "found" if box else "fallback:whole_volume (empty target)")
        case CoarseLocaliser():
            volume = prepare_images(images, model.settings.data.coarse_spacing_mm)
            probability = coarse_probability(model.coarse, volume, model.settings)
            return find_box(probability, volume.pet, volume.grid, model.coarse_threshold, settings, case_id)


def coarse_probability(
    networks: tuple[AttentionUNet, ...], volume: Volume, settings: RunSettings
) -> NDArray[np.float32]:
    """Tumour probability (X, Y, Z) of a whole case at coarse spacing, averaged over networks."""
    image = torch.from_numpy(window(np.stack([volume.ct, volume.pet]), settings.intensity))
    return predict_probabilities(networks, image, COARSE_INFERENCE, volume.grid.shape)[1].numpy()


def segment(model: Model, images: CheckedImages, box: Box) -> NDArray[np.uint8]:
    """Labels (X, Y, Z) uint8 on the CT grid, 0 outside of the box.

    The network sees at least the window it was trained on, so around a small box it sees more than it may label; at the
    edge of the image the window is moved inwards, so that it shows anatomy rather than padding.
    """
    settings = model.settings
    window_mm = np.multiply(model.window_voxels, settings.data.spacing_mm)
    seen = box.grow_to(window_mm).move_into(images.ct.grid.bounds())
    volume = prepare_images(images, settings.data.spacing_mm, seen)
    image = torch.from_numpy(window(np.stack([volume.ct, volume.pet]), settings.intensity))
    probabilities = predict_probabilities([model.fine], image, settings.inference, model.window_voxels)
    return paste_back(probabilities.numpy(), volume.grid, box, images.ct.grid, settings.inference)


def paste_back(
    probabilities: NDArray[np.float32], crop: Grid, box: Box, ct: Grid, settings: InferenceSettings
) -> NDArray[np.uint8]:
    """Labels on the CT grid from class probabilities on a crop.

    Probabilities are interpolated, not labels. A voxel is tumour where all tumour classes together reach the
    threshold, and takes the likeliest of them. Small components of tumour are removed, and so are pieces of GTVp that
    are small beside its largest.

    Args:
        probabilities: (classes, X, Y, Z), background first.
        crop: Grid of `probabilities`.
        box: Where labels may lie.
        ct: Grid of the result.
    Returns:
        (X, Y, Z) uint8 on `ct`, 0 outside the crop and outside the slices that hold the box.
    """
    slices = ct.clip(ct.slices_of(box))
    part = ct.crop(slices)
    classes = np.stack([resample(p, crop, part, outside=0.0) for p in probabilities[1:]])
    tumour = remove_small_components(
        classes.sum(axis=0) >= settings.threshold, round(settings.min_component_ml / ct.voxel_ml)
    )
    found = np.where(tumour, classes.argmax(axis=0) + 1, 0).astype(np.uint8)
    found[(found == GTVP) & ~remove_minor_components(found == GTVP, settings.min_gtvp_share)] = 0
    labels = np.zeros(ct.shape, dtype=np.uint8)
    labels[slices] = found
    return labels


class _Stopwatch:
    def __init__(self) -> None:
        self.last = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = now - self.last
        self.last = now
