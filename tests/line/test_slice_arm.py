"""Zhu's chain with gates in its 2D network, from files to attention maps."""

from pathlib import Path

from hngtv.commands.entry import DONE, run_command
from hngtv.run_folder import RunFolder, read_json
from hngtv.volume.nifti import read_image
from tests.tiny_cases import write_tiny_cohort
from tests.tiny_run import tiny_run


def test_gated_network_of_slices_walks_the_line(tmp_path: Path) -> None:
    write_tiny_cohort(tmp_path / "cases", 4)
    gated = {"network": "attention_unet", "network__spatial_dims": 2, "roi__crop_voxels": "[16, 16, 3]"}
    command = tiny_run(
        tmp_path / "cases", tmp_path, "zhu2020", **gated, localiser__top_k=3, budget__steps=6, error_budget=False
    )
    assert run_command(command) == DONE
    folder = RunFolder(tmp_path / "run")
    assert folder.scores.is_file()
    assert folder.attention.is_file()
    assert not folder.error_budget.exists()
    assert read_json(folder.fine / "training.json")["crop_voxels"] == [16, 16, 3]
    case, out = tmp_path / "cases/tiny_00", tmp_path / "mask.nii.gz"
    predict = ["predict", f"model={folder.root}", f"ct={case / 'ct.nii.gz'}", f"pet={case / 'pet.nii.gz'}"]
    assert run_command([*predict, f"out={out}", "attention=true"]) == DONE
    alpha = read_image(tmp_path / "mask_gate2.nii.gz")
    assert alpha.grid == read_image(case / "ct.nii.gz").grid
    assert 0 <= alpha.values.min() <= alpha.values.max() <= 1
