"""A trained arm: its networks and settings, read from the folder of its run. No Lightning."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from hngtv.config import (
    CoarseLocaliser,
    HeatMapLocaliser,
    RunSettings,
    SliceLocaliser,
    TrainedLocaliser,
    parse_settings,
    plain,
)
from hngtv.errors import InputError
from hngtv.networks.build import build_network, to_fast_layout
from hngtv.networks.heat_map import N_CHANNELS
from hngtv.networks.output import SegmentationNetwork
from hngtv.networks.slices import build_classifier
from hngtv.run_folder import RunFolder, read_json, sha256_of

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Model:
    """A trained arm, ready to predict.

    Attributes:
        settings: Of the run that trained it.
        coarse: Networks of stage 1, averaged; empty without one.
        coarse_threshold: Of tumour probability in stage 1.
        fine: The segmenting networks, averaged.
        window_voxels: Size of its training crops.
        digest: SHA-256 over all weights and the settings that a prediction depends on.
    """

    settings: RunSettings
    coarse: tuple[nn.Module, ...]
    coarse_threshold: float
    fine: tuple[SegmentationNetwork, ...]
    window_voxels: tuple[int, int, int]
    digest: str


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
    digest.update(sha256_of(what_decides_a_mask(settings)).encode())
    x, y, z = record["crop_voxels"]
    return Model(settings, tuple(coarse), threshold, (fine,), (x, y, z), digest.hexdigest())


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


def what_decides_a_mask(settings: RunSettings) -> list[Any]:
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
