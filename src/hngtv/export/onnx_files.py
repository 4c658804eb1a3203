"""Networks as ONNX files, each held against the network before it is left behind, and their speed as a ratio."""

import contextlib
import copy
import hashlib
import logging
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hngtv.cases.checks import CheckedImages, check_case
from hngtv.cases.intensity import window
from hngtv.cases.manifest import RawCase
from hngtv.cases.phantom import write_phantom
from hngtv.cases.prepare import prepare_images
from hngtv.cases.store import GridSettings
from hngtv.config import SliceLocaliser, TrainedLocaliser
from hngtv.errors import InputError
from hngtv.export.card import channel_names
from hngtv.export.package import networks_of
from hngtv.localise.truth import target_box
from hngtv.model import Model
from hngtv.networks.blocks import pad_to
from hngtv.networks.convolution import plain_copy
from hngtv.networks.slice_network import SliceNetwork
from hngtv.networks.slices import enlarge
from hngtv.networks.sononet import MIN_SIDE, SonoNet
from hngtv.run_folder import write_json
from hngtv.volume.box import Box

TOLERANCE = 1e-4
"""Largest difference between ONNX and network, relative to the largest logit where that is above 1.

The network computes in PyTorch's plain memory layout then: in the one that predicts fastest, its group normalisation
is off by up to 3e-3 of logits up to 16, in the plain one by 2e-5 (against double precision).
"""
N_TURNS = 3
"""Passes of each that are timed. Source: our choice."""
N_SLICES = 4
"""Slices of a 2D network's sample. Source: our choice."""
INDEX_NAME = "onnx.json"
NEEDS = "formats=onnx needs more packages: pip install 'hngtv[onnx]'"


@dataclass(frozen=True)
class _Exportable:
    """A network as exporters want it.

    Attributes:
        network: The one that predicts.
        outputs: Names of its outputs.
        multiples: Sides of an input are multiples of these, at least twice them.
    """

    network: nn.Module
    outputs: tuple[str, ...]
    multiples: tuple[int, ...]

    def pad(self, images: Tensor) -> Tensor:
        """Images (N, C, ...) padded at their end, by edge values, to sides that the file takes."""
        sides = zip(images.shape[2:], self.multiples, strict=True)
        return pad_to(images, [max(2, -(-side // multiple)) * multiple for side, multiple in sides])


class _Outputs(nn.Module):
    """Logits, then the maps of a classifier's gates, which its boxes are made of."""

    def __init__(self, exportable: _Exportable) -> None:
        super().__init__()
        self.network: Any = exportable.network
        self.gates = exportable.outputs[1:]

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        output = self.network.run(image)
        return output.logits, *(output.attention[gate] for gate in self.gates)


def write_onnx(model: Model, folder: Path) -> list[dict[str, Any]]:
    """Write each of `networks_of` as NAME.onnx and what is known of them, `onnx.json`, into a folder made for them.

    Returns:
        The entries of `onnx.json`.
    Raises:
        InputError: A package is missing, a network cannot be exported, or a file does not agree; nothing is left then.
    """
    _check_packages()
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".tmp-onnx-") as temporary, _one_thread(), _quiet():
        images = _phantom_images(Path(temporary) / "phantom")
        part = Path(temporary) / "onnx"
        part.mkdir()
        entries = []
        for name, network in networks_of(model).items():
            samples = _samples(model, name, images)
            entries.append(write_file(network, part / f"{name}.onnx", samples))
        write_json(part / INDEX_NAME, {"channels": channel_names(model.settings), "files": entries})
        part.rename(folder)
    return entries


def write_file(network: nn.Module, path: Path, samples: dict[str, Tensor]) -> dict[str, Any]:
    """Export a network, hold the file against it on all samples, time both on the first, and say what was found.

    Raises:
        InputError: The network cannot be exported, or the file does not agree.
    """
    exportable = _exportable(network)
    padded = {name: exportable.pad(images) for name, images in samples.items()}
    has_free_sides = _export(exportable, path, next(iter(padded.values())))
    session, reference = _open(path), _in_plain_layout(exportable)
    if not has_free_sides:  # then only the sample's size goes in
        first, *_ = padded.values()
        padded = {name: images for name, images in padded.items() if images.shape == first.shape}
    differences = {name: _difference(reference, session, images) for name, images in padded.items()}
    worst = max(differences.values())
    if not worst <= TOLERANCE:
        raise InputError(
            f"{path.name} differs from its network by {worst:.2g}, at most {TOLERANCE:g} is allowed; no ONNX file was "
            "left, so use the package"
        )
    network_s, onnx_s = _seconds(_Outputs(exportable), session, next(iter(padded.values())))
    return {
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "input": {"image": [str(side) for side in session.get_inputs()[0].shape]},
        "outputs": list(exportable.outputs),
        "sides_are_multiples_of": list(exportable.multiples),
        "checked_on": {name: list(images.shape) for name, images in padded.items()},
        "largest_difference": worst,
        "network_s": round(network_s, 4),
        "onnx_s": round(onnx_s, 4),
        "times_faster": round(network_s / onnx_s, 2),
    }


def _exportable(network: Any) -> _Exportable:
    if isinstance(network, SliceNetwork):
        return _exportable(network.network)
    if isinstance(network, SonoNet):
        gates = tuple(network.gates) if network.gated else ()
        return _Exportable(network, ("logits", *gates), (MIN_SIDE, MIN_SIDE))
    stride = network.total_stride
    return _Exportable(network, ("logits",), (stride,) * 3 if isinstance(stride, int) else tuple(stride))


def _in_plain_layout(exportable: _Exportable) -> _Outputs:
    network = copy.deepcopy(exportable.network)
    for parameter in network.parameters():
        parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)
    return _Outputs(replace(exportable, network=network)).eval()


def _export(exportable: _Exportable, path: Path, sample: Tensor) -> bool:
    """Write the file; whether its sides are free, else they are those of the sample.

    Raises:
        InputError: PyTorch cannot export the network.
    """
    module = _Outputs(replace(exportable, network=plain_copy(exportable.network))).eval()
    free: dict[int, Any] = {
        axis: multiple * torch.export.Dim(name, min=2) if multiple > 1 else torch.export.Dim(name, min=2)
        for axis, (name, multiple) in enumerate(zip("xyz", exportable.multiples, strict=False), start=2)
    }
    if len(exportable.multiples) == 2:
        free[0] = torch.export.Dim("slices")
    errors = []
    for shapes in ((free,), None):
        try:
            program = torch.onnx.export(
                module,
                (sample,),
                dynamo=True,
                dynamic_shapes=shapes,
                input_names=["image"],
                output_names=list(exportable.outputs),
                external_data=False,
                verbose=False,
            )
        except Exception as error:
            errors.append(_first_cause(error))
            continue
        assert program is not None
        program.save(path)
        return shapes is not None
    raise InputError(f"{path.name}: PyTorch cannot export this network ({errors[-1]}); leave onnx out of formats")


def _first_cause(error: BaseException) -> str:
    """One line of the error that the others were raised for."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _open(path: Path) -> Any:
    """A session of one thread."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@torch.inference_mode()
def _difference(module: nn.Module, session: Any, images: Tensor) -> float:
    """Largest over the outputs, each relative to its own largest value where that is above 1."""
    found = session.run(None, {"image": images.numpy()})
    return max(
        float(np.abs(wanted.numpy() - got).max()) / max(1.0, float(wanted.abs().max()))
        for wanted, got in zip(module(images), found, strict=True)
    )


@torch.inference_mode()
def _seconds(module: nn.Module, session: Any, images: Tensor) -> tuple[float, float]:
    """Median processor seconds of a pass of the network and of the file, taking turns."""
    feed = {"image": images.numpy()}
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(N_TURNS):
        for turns, run in zip(seconds, (lambda: module(images), lambda: session.run(None, feed)), strict=True):
            started = time.process_time()
            run()
            turns.append(time.process_time() - started)
    return float(np.median(seconds[0])), float(np.median(seconds[1]))


def _samples(model: Model, name: str, images: CheckedImages) -> dict[str, Tensor]:
    """Inputs (N, C, ...) of the size that a network sees: random ones, and those of a phantom."""
    settings, data = model.settings, model.settings.data
    generator = torch.Generator().manual_seed(0)
    localiser = settings.localiser
    if name.startswith("fine"):
        around = target_box(images.target, images.ct.grid) if images.target is not None else None
        around = around or images.ct.grid.bounds()
        window_mm = np.multiply(model.window_voxels, data.spacing_mm)
        # No larger than the window: of a large lesion its middle.
        seen = Box.about(around.centre_mm, window_mm).move_into(images.ct.grid.bounds())
        volume = prepare_images(images, data.spacing_mm, seen)
        size = model.window_voxels
    else:
        assert isinstance(localiser, TrainedLocaliser)
        spacing_mm = GridSettings(data.spacing_mm, data.coarse_spacing_mm).spacing_of(localiser.level)
        volume = prepare_images(images, spacing_mm)
        size = volume.grid.shape[::-1]  # another than the phantom's
    phantom = torch.from_numpy(window(np.stack([volume.ct, volume.pet]), settings.intensity))[None]
    random = torch.rand((1, settings.intensity.n_channels, *size), generator=generator) * 2 - 1
    samples = {"random": random, "phantom": phantom}
    if isinstance(localiser, SliceLocaliser) and name.startswith("coarse"):
        return {kind: enlarge(_some_slices(image), localiser.network.zoom) for kind, image in samples.items()}
    if isinstance(model.fine[0], SliceNetwork) and name.startswith("fine"):
        return {kind: _some_slices(image) for kind, image in samples.items()}
    return samples


def _some_slices(image: Tensor) -> Tensor:
    """Axial slices (N, C, X, Y) about the middle of an image (1, C, X, Y, Z)."""
    first = max(0, (image.shape[4] - N_SLICES) // 2)
    return image[0, ..., first : first + N_SLICES].permute(3, 0, 1, 2).contiguous()


def _phantom_images(folder: Path) -> CheckedImages:
    write_phantom(folder, 1, seed=0)
    (case,) = folder.iterdir()
    return check_case(RawCase(case.name, "", case / "ct.nii.gz", case / "pet.nii.gz", case / "gtv.nii.gz"))


def _check_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"{NEEDS} ({error})") from None


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def _quiet(names: Sequence[str] = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")) -> Iterator[None]:
    """Without what the exporters say of themselves."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
