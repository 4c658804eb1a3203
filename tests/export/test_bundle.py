"""MONAI's own runner executes the bundle and ends with the mask of hngtv predict."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.export.conftest import Exported

pytest.importorskip("fire", reason="fire, which MONAI's runner needs, is not installed")


def test_monais_runner_writes_the_mask_of_hngtv_predict(exported: Exported, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.json"]
    places = ["--bundle_root", ".", "--dataset_dir", str(exported.case.ct.parents[1]), "--output_dir", str(tmp_path)]
    bundle = exported.package / "bundle"
    answer = subprocess.run([*command, *places], cwd=bundle, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert (tmp_path / "new_patient.nii.gz").read_bytes() == exported.mask.read_bytes()


def test_it_has_all_that_monai_asks_of_a_bundle(exported: Exported) -> None:
    from monai.bundle.workflows import ConfigWorkflow

    bundle = exported.package / "bundle"
    places = {"bundle_root": str(bundle), "dataset_dir": str(exported.case.ct.parents[1])}
    config = str(bundle / "configs/inference.json")
    workflow = ConfigWorkflow(config, workflow_type="inference", logging_file=False, **places)
    workflow.initialize()
    assert workflow.check_properties() == []
    formats = json.loads((bundle / "configs/metadata.json").read_text())["network_data_format"]
    image, pred = formats["inputs"]["image"], formats["outputs"]["pred"]
    logits = workflow.network_def(torch.zeros(1, image["num_channels"], *image["spatial_shape"]))
    assert list(logits.shape) == [1, pred["num_channels"], *pred["spatial_shape"]]
    assert list(pred["channel_def"].values()) == ["background", "GTVp", "GTVn"]
