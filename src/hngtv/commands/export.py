"""Write a finished run, or an ensemble of runs, as what others can use.

    hngtv export model=RUN_DIR out=PACKAGE
    hngtv export model=ENSEMBLE out=PACKAGE
    hngtv export model=RUN_DIR out=PACKAGE formats=package,onnx,bundle,container

package    PACKAGE itself: weights of both stages (safetensors), settings, model card, provenance and checksums, without
           any file, path or id of the training cases. hngtv predict model=PACKAGE works without them.
onnx       PACKAGE/onnx: both networks, each held against PyTorch (1e-4) before it is left, and their speed on one
           thread (needs hngtv[onnx]).
bundle     PACKAGE/bundle: the whole pipeline for MONAI's runner (which needs hngtv[bundle]);
           not of an ensemble.
container  PACKAGE/container: build context of a HECKTOR 2025 or 2026 entry (needs hngtv[challenge]).

The package is always written, in place of an earlier one; PACKAGE is a new or empty folder, or a package.

Exit status: 0 done, 2 bad settings or input.
"""

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from hngtv.config import ExportSettings

if TYPE_CHECKING:
    from hngtv.export.package import Package
    from hngtv.model import Model

log = logging.getLogger(__name__)


def run(settings: ExportSettings) -> None:
    """Write the formats; see the module docstring."""
    from hngtv.commands.log import logging_to
    from hngtv.export.package import open_model, write_package

    with logging_to():
        if "bundle" in settings.formats:
            from hngtv.export.bundle import check_one_network

            check_one_network(open_model(settings.model))
        package = write_package(settings.model, settings.out, settings.cohort)
        model = open_model(package.root)  # as its users will
        print(package.root)
        for name in dict.fromkeys(settings.formats):
            if name != "package":
                _write(name, package, model)


def _write(name: str, package: "Package", model: "Model") -> None:
    folder = package.root / name
    try:
        if name == "onnx":
            _write_onnx(model, folder)
        elif name == "bundle":
            from hngtv.export.bundle import write_bundle

            write_bundle(package, model, folder)
        else:
            from hngtv.export.container import write_container

            write_container(package, model, folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    print(folder)


def _write_onnx(model: "Model", folder: Path) -> None:
    from hngtv.export.onnx_files import write_onnx

    for entry in write_onnx(model, folder):
        log.info(
            "%s: differs from the network by %.1e at most, %.1f times as fast on one thread",
            entry["file"],
            entry["largest_difference"],
            entry["times_faster"],
        )
