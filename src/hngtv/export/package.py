"""A model package: one folder with all that a prediction needs, and nothing of the patients it was trained on.

A folder and not an archive: containers mount folders, nothing need be unpacked, and a person can read what is in it.
`manifest.json` holds the SHA-256 of every file that a prediction depends on. It is written last, so that a folder
without it is no package, and checked on loading. It guards against damage, not against forgery.
"""

import hashlib
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from hngtv.cases.checks import LABELS
from hngtv.config import RunSettings, TrainedLocaliser, parse_settings, plain
from hngtv.ensemble.members import RECORD, load_ensemble, member_folders
from hngtv.errors import InputError
from hngtv.export.card import describe_runs, write_card
from hngtv.model import Model, build_localiser, load_model
from hngtv.networks.build import build_network, to_fast_layout
from hngtv.run_folder import RunFolder, atomic_path, installed_versions, make_folder, read_json, write_json

FORMAT = 2
"""Raised when older code could not read a package any more."""
CLASS_NAMES = ("background", "GTVp", "GTVn")
FORMAT_FOLDERS = ("onnx", "bundle", "container")
"""What else a package may hold, one folder for each further format."""
assert len(CLASS_NAMES) == len(LABELS)


@dataclass(frozen=True)
class Package:
    """Names of the files of a package; nothing is created by asking for a name."""

    root: Path

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    @property
    def model(self) -> Path:
        """Settings, with the intensity windows, class names, threshold and crop size."""
        return self.root / "model.json"

    @property
    def provenance(self) -> Path:
        """What the run was trained on and made with, and its held-out scores."""
        return self.root / "provenance.json"

    @property
    def card(self) -> Path:
        return self.root / "README.md"

    def weights(self, name: str) -> Path:
        """Of one network, by its name in `networks_of`."""
        return self.root / f"{name}.safetensors"

    @property
    def is_whole(self) -> bool:
        return self.manifest.is_file()


def networks_of(model: Model) -> dict[str, nn.Module]:
    """All networks that predict: `coarse_0`, `coarse_1` and so on, then `fine`; of an ensemble `fine_0` and so on."""
    coarse = {f"coarse_{number}": network for number, network in enumerate(model.coarse)}
    return coarse | dict(zip(_fine_names(len(model.fine)), model.fine, strict=True))


def _fine_names(n: int) -> list[str]:
    return ["fine"] if n == 1 else [f"fine_{number}" for number in range(n)]


def write_package(source: Path, out: Path, cohort: str | None = None) -> Package:
    """Write the package of a finished run or an ensemble, in place of an earlier one.

    Args:
        source: Folder of a finished run or of an ensemble.
        out: A new or empty folder, or a package; what it held in `FORMAT_FOLDERS` is removed.
        cohort: What the card calls the training cases; None for the name in the data settings.
    Raises:
        InputError: The run is not finished, the ensemble is damaged, or `out` holds something else.
    """
    from safetensors.torch import save_file

    is_ensemble = (source / RECORD).is_file()
    model = load_ensemble(source) if is_ensemble else load_model(source)
    runs = member_folders(source) if is_ensemble else [RunFolder(source)]
    package = emptied(Package(out))
    for name, network in networks_of(model).items():
        tensors = {key: value.detach().clone().contiguous() for key, value in network.state_dict().items()}
        with atomic_path(package.weights(name)) as temporary:
            save_file(tensors, temporary)
            temporary.chmod(0o644)  # a container reads it as another user
    n_classes = read_json(runs[0].fine / "training.json")["n_classes"]
    write_json(
        package.model,
        {
            "digest": model.digest,
            "classes": CLASS_NAMES[:n_classes],
            "n_coarse": len(model.coarse),
            "n_fine": len(model.fine),
            "coarse_threshold": model.coarse_threshold,
            "crop_voxels": model.window_voxels,
            "settings": plain(_without_places(model.settings)),
        },
    )
    facts = describe_runs(runs, cohort) | {"ensemble": read_json(source / RECORD)["measured"] if is_ensemble else None}
    write_json(package.provenance, facts)
    write_card(package.card, facts, model, CLASS_NAMES[:n_classes])
    files = [package.model, package.provenance, *map(package.weights, networks_of(model))]
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    write_json(package.manifest, {"format": FORMAT, "hngtv": installed_versions()["hngtv"], "sha256": digests})
    return package


def copy_package(package: Package, folder: Path) -> None:
    """Copy a package, without its further formats, into a folder that is made for it."""
    folder.mkdir(parents=True)
    for name in (*read_json(package.manifest)["sha256"], package.card.name, package.manifest.name):
        shutil.copyfile(package.root / name, folder / name)


def open_model(path: Path) -> Model:
    """The model of a package, an ensemble or a run folder.

    Raises:
        InputError: It is none of them, or its files are missing, changed or damaged.
    """
    package = Package(path)
    if (path / RECORD).is_file():
        return load_ensemble(path)
    if package.model.is_file() or package.is_whole:
        return load_package(package)
    return load_model(path)


def load_package(package: Package) -> Model:
    """Load a package, every file checked against the manifest.

    Raises:
        InputError: A file is missing, changed or damaged, or needs another version of hngtv.
    """
    files = _read_checked(package)
    if package.model.name not in files:
        raise InputError(f"{package.manifest} does not list {package.model.name}; export the run again")
    record: dict[str, Any] = json.loads(files[package.model.name])
    try:
        settings = parse_settings(RunSettings, record["settings"])
    except InputError as error:
        made_with = read_json(package.manifest)["hngtv"]
        here = installed_versions()["hngtv"]
        raise InputError(f"{package.model} was written by hngtv {made_with}, this is {here}: {error}") from None
    n_channels, localiser = settings.intensity.n_channels, settings.localiser
    coarse = [
        _fill(build_localiser(localiser, n_channels), package, f"coarse_{number}", files)
        for number in range(record["n_coarse"])
        if isinstance(localiser, TrainedLocaliser)
    ]
    fine = tuple(
        _fill(build_network(settings.network, n_channels, len(record["classes"])), package, name, files)
        for name in _fine_names(record["n_fine"])
    )
    x, y, z = record["crop_voxels"]
    return Model(settings, tuple(coarse), record["coarse_threshold"], fine, (x, y, z), record["digest"])


def emptied(package: Package) -> Package:
    """The folder of a package that is to be written, without what an earlier one left.

    Raises:
        InputError: It holds other things, or cannot be written.
    """
    root = package.root
    if root.is_dir() and any(root.iterdir()) and not _is_ours(package):
        raise InputError(f"out is {root}, which holds other files; give a new folder, or that of a package")
    make_folder(root)
    package.manifest.unlink(missing_ok=True)
    for file in root.glob("*.safetensors"):
        file.unlink()
    for name in FORMAT_FOLDERS:
        shutil.rmtree(root / name, ignore_errors=True)
    return package


def _is_ours(package: Package) -> bool:
    """Whether a folder is a package, be it unfinished: others write a manifest.json or model.json too."""
    return any(
        path.is_file() and isinstance(record := _json_or_none(path), dict) and keys <= record.keys()
        for path, keys in ((package.manifest, {"format", "sha256"}), (package.model, {"settings", "crop_voxels"}))
    )


def _json_or_none(path: Path) -> Any:
    try:
        return read_json(path)
    except (InputError, OSError):
        return None


def _without_places(settings: RunSettings) -> RunSettings:
    """Settings without the folders of the machine that trained."""
    here = Path(".")
    return replace(settings, run_dir=here, work_dir=here, data=replace(settings.data, root=here))


def _read_checked(package: Package) -> dict[str, bytes]:
    """Bytes of the files that the manifest lists, by name."""
    if not package.is_whole:
        raise InputError(f"{package.root} is an unfinished package (no {package.manifest.name}); export the run again")
    manifest = read_json(package.manifest)
    if manifest.get("format") != FORMAT:
        made_with = manifest.get("hngtv", "another version")
        raise InputError(
            f"{package.manifest} has format {manifest.get('format')}, expected {FORMAT}; it was written by hngtv "
            f"{made_with}, so install that, or export the run again"
        )
    files = {}
    for name, digest in manifest["sha256"].items():
        path = package.root / Path(name).name
        if not path.is_file():
            raise InputError(f"{path} is missing from the package; copy the whole package again")
        files[name] = path.read_bytes()
        if hashlib.sha256(files[name]).hexdigest() != digest:
            raise InputError(
                f"{path} is not the file that was exported (its SHA-256 differs from {package.manifest.name}); "
                "copy the package again, or export the run again"
            )
    return files


def _fill(network: Any, package: Package, name: str, files: dict[str, bytes]) -> Any:
    """A network with its weights, in eval mode and the memory layout that a CPU computes fastest in."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = package.weights(name)
    if path.name not in files:
        raise InputError(f"{package.manifest} does not list {path.name}; export the run again")
    try:
        network.load_state_dict(load(files[path.name]))
    except (SafetensorError, RuntimeError) as error:
        raise InputError(f"{path} does not hold the weights its settings describe ({error})") from None
    network.eval()
    to_fast_layout(network)
    return network
