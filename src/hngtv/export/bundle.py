"""A MONAI bundle of the whole pipeline, run by MONAI's own runner; hngtv must be installed beside MONAI.

A bundle is a network with transforms around it. Here two networks and a ROI lie between the files and a mask on the
CT's own grid, so the config names the objects below, and the bundle holds a copy of the package.
"""

import logging
from pathlib import Path
from typing import Any

from torch import nn

from hngtv.cases.manifest import FolderLayout, RawCase, load_cases
from hngtv.errors import CasesFailedError, InputError
from hngtv.export.card import channel_names
from hngtv.export.package import Package, copy_package, open_model
from hngtv.model import Model
from hngtv.run_folder import installed_versions, make_folder, read_json, write_json, write_text
from hngtv.two_stage import Prediction, predict_case, write_prediction

HERE = "hngtv.export.bundle"
CONFIG: dict[str, Any] = {
    "imports": ["$import torch", f"$import {HERE}"],
    "bundle_root": ".",
    "dataset_dir": "cases",
    "output_dir": "$@bundle_root + '/eval'",
    "device": "$torch.device('cpu')",
    "inferer": {"_target_": f"{HERE}.TwoStagePipeline", "folder": "$@bundle_root + '/models'"},
    "network_def": "$@inferer.fine",
    "dataset": {"_target_": "monai.data.Dataset", "data": "$@inferer.list_cases(@dataset_dir)"},
    "evaluator": {
        "_target_": f"{HERE}.CaseEvaluator",
        "dataset": "@dataset",
        "inferer": "@inferer",
        "output_dir": "@output_dir",
    },
    "run": ["$@evaluator.run()"],
}
README = """# {arm} as a MONAI bundle

The whole pipeline, both stages: from CT and PET of a patient to a mask on the CT's grid (0 background, 1 GTVp,
2 GTVn), the same as `hngtv predict` writes. `hngtv {hngtv}` must be installed beside MONAI (with `fire`).

```
python -m monai.bundle run --config_file configs/inference.json --bundle_root . --dataset_dir CASES --output_dir OUT
```

`CASES` is a folder of `CASE/ct.nii.gz` and `CASE/pet.nii.gz`, or has a `cases.csv`. `network_def` is the segmenting
network alone, which sees a windowed crop; stage 1 and what lies between them are in `inferer`. `models/` is a package
of hngtv, with its model card; its files are checked on loading.

For research use. It is not a medical device.
"""

log = logging.getLogger(__name__)


class TwoStagePipeline:
    """The packaged model as a MONAI config names it: from the files of a case to its prediction."""

    def __init__(self, folder: str) -> None:
        self.model: Model = open_model(Path(folder))

    @property
    def fine(self) -> nn.Module:
        """The segmenting network: (N, C, X, Y, Z) windowed to logits (N, classes, X, Y, Z)."""
        return self.model.fine[0]

    def list_cases(self, folder: str) -> list[dict[str, RawCase]]:
        """The cases of a folder or a `cases.csv`, as items of a MONAI dataset."""
        data = self.model.settings.data
        return [{"case": case} for case in load_cases(Path(folder), FolderLayout.of(data))]

    def __call__(self, item: dict[str, RawCase]) -> Prediction:
        return predict_case(self.model, item["case"])


class CaseEvaluator:
    """Predicts every case of a dataset and writes `<output_dir>/<case_id>.nii.gz` and the note beside it."""

    def __init__(self, dataset: Any, inferer: TwoStagePipeline, output_dir: str) -> None:
        self.dataset, self.inferer, self.output_dir = dataset, inferer, Path(output_dir)

    def run(self) -> None:
        """Predict; a case that fails does not stop the others.

        Raises:
            CasesFailedError: Some cases could not be predicted, each logged.
        """
        make_folder(self.output_dir)
        failures = []
        for item in self.dataset:
            case = item["case"]
            try:
                prediction = self.inferer(item)
            except InputError as error:
                failures.append(str(error))
                log.error("%s", error)
                continue
            write_prediction(self.output_dir / f"{case.case_id}.nii.gz", prediction, case, self.inferer.model)
        if failures:
            raise CasesFailedError(f"{len(failures)} case(s) failed: {'; '.join(failures)}")


def write_bundle(package: Package, model: Model, folder: Path) -> None:
    """Write the bundle of a package into a folder made for it.

    Raises:
        InputError: The package is an ensemble, and a bundle names one network.
    """
    check_one_network(model)
    copy_package(package, folder / "models")
    write_json(folder / "configs" / "inference.json", CONFIG)
    write_json(folder / "configs" / "metadata.json", _metadata(package, model))
    hngtv = installed_versions()["hngtv"]
    write_text(folder / "docs" / "README.md", README.format(arm=model.settings.arm, hngtv=hngtv))


def check_one_network(model: Model) -> None:
    """Raise InputError for an ensemble: a bundle names one segmenting network."""
    if len(model.fine) > 1:
        raise InputError(
            f"formats=bundle names one segmenting network, this ensemble has {len(model.fine)}; "
            "export one of its runs, or the package alone"
        )


def _metadata(package: Package, model: Model) -> dict[str, Any]:
    """What MONAI wants to know; the data format is that of `network_def`."""
    versions, classes = installed_versions(), read_json(package.model)["classes"]
    channels = channel_names(model.settings)
    return {
        "version": "1.0.0",
        "changelog": {"1.0.0": "exported by hngtv"},
        "monai_version": versions["monai"],
        "pytorch_version": versions["torch"].partition("+")[0],
        "numpy_version": versions["numpy"],
        "required_packages_version": {"hngtv": versions["hngtv"], "nibabel": versions["nibabel"]},
        "name": f"Head-and-neck GTV on PET/CT, {model.settings.arm}",
        "task": "Gross tumour volume of head-and-neck cancer on PET/CT",
        "description": "Looks for the tumour, crops, segments and pastes the mask back onto the grid of the CT",
        "intended_use": "Research only; not a medical device",
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "windowed",
                    "modality": "CT, PET",
                    "num_channels": len(channels),
                    "spatial_shape": list(model.window_voxels),
                    "dtype": "float32",
                    "value_range": [-1, 1],
                    "is_patch_data": True,
                    "channel_def": dict(enumerate(channels)),
                }
            },
            "outputs": {
                "pred": {
                    "type": "image",
                    "format": "logits",
                    "num_channels": len(classes),
                    "spatial_shape": list(model.window_voxels),
                    "dtype": "float32",
                    "value_range": [],
                    "is_patch_data": True,
                    "channel_def": dict(enumerate(classes)),
                }
            },
        },
    }
