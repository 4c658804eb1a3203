"""The challenge entry, run as its container runs it, on folders laid out as the platform does."""

import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hngtv.commands.entry import BAD_INPUT, DONE, run_command
from hngtv.errors import InputError
from hngtv.export.challenge import find_image
from tests.export.conftest import Exported

sitk = pytest.importorskip("SimpleITK", reason="SimpleITK is not installed")
requirements = pytest.importorskip("packaging.requirements", reason="packaging is not installed")

WITHOUT_OTHERS = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
absent = set(sys.argv.pop(1).split(","))
sys.meta_path.insert(0, Absent())
import hngtv
print(hngtv.__file__)
from hngtv.commands.entry import main
main()
"""
"""Runs hngtv as if the packages in the first argument were not installed."""


def lay_out(root: Path, exported: Exported, inputs: dict[str, str] | None = None) -> Path:
    """The input folder of a patient; with `inputs`, slugs and folders as inputs.json has them."""
    folders = inputs or {"ct-image": "images/ct", "pet-image": "images/pet"}
    assert exported.case.pet is not None
    for file, folder in zip((exported.case.ct, exported.case.pet), folders.values(), strict=True):
        (root / folder).mkdir(parents=True)
        image = sitk.ReadImage(file)
        for key in image.GetMetaDataKeys():
            image.EraseMetaData(key)
        sitk.WriteImage(image, root / folder / "5c1d0a7e-uuid.mha")
    (root / "ehr.json").write_text('{"Age": 61, "Gender": 1}')
    if inputs:
        sockets = [{"socket": {"slug": slug, "relative_path": folder}} for slug, folder in inputs.items()]
        (root / "inputs.json").write_text(json.dumps(sockets))
    return root


def check_mask(path: Path, exported: Exported) -> None:
    mask, ct, expected = sitk.ReadImage(path), sitk.ReadImage(exported.case.ct), sitk.ReadImage(exported.mask)
    assert mask.GetPixelID() == sitk.sitkUInt8
    for geometry in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(mask, geometry)() == pytest.approx(getattr(ct, geometry)())
    labels = sitk.GetArrayFromImage(mask)
    assert labels.any()
    np.testing.assert_array_equal(labels, sitk.GetArrayFromImage(expected))


def needed_by(names: list[str]) -> set[str]:
    """These distributions and all that they need, in lower case."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name not in found:
            found.add(name)
            for line in metadata.requires(name) or []:
                requirement = requirements.Requirement(line)
                if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                    waiting.append(requirement.name)
    return found


def not_needed(names: list[str]) -> set[str]:
    """Installed modules that the distributions do not bring."""
    needed = needed_by(names)
    return {
        module
        for module, owners in metadata.packages_distributions().items()
        if not {owner.lower().replace("_", "-") for owner in owners} & (needed | {"hngtv"})
    }


def test_the_container_predicts_with_what_it_installs(exported: Exported, tmp_path: Path) -> None:
    container = exported.package / "container"
    folders = {"ct-image": "images/ct-scan", "pet-image": "images/pet-scan"}
    source = lay_out(tmp_path / "input", exported, folders)
    lines = (container / "requirements.txt").read_text().splitlines()
    absent = not_needed([line.partition("==")[0] for line in lines])
    assert {"pytorch_lightning", "wandb", "matplotlib"} <= absent
    places = [f"input={source}", f"output={tmp_path / 'output'}", f"model={container / 'model'}"]
    answer = subprocess.run(
        [sys.executable, "-c", WITHOUT_OTHERS, ",".join(absent), "challenge", "year=2026", *places],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(container / "app")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == DONE, answer.stderr
    assert answer.stdout.startswith(str(container / "app"))
    check_mask(tmp_path / "output/images/head-neck-tumor-segmentation/output.mha", exported)
    stages = [(tmp_path / f"output/{name}.json").read_text().strip() for name in ("t-stage", "n-stage", "rfs")]
    assert stages == ["null"] * 3
    assert "predicts no stage and no outcome" in answer.stderr
    found = re.search(r"([\d.]+) s of 1500 s, ([\d.]+) GB of 16 GB", answer.stderr)
    assert found is not None
    assert 0 < float(found[1]) < 600
    assert 0.05 < float(found[2]) < 16


def test_task_1_of_2025(exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = lay_out(tmp_path / "input", exported), tmp_path / "output"
    places = [f"input={source}", f"output={out}", f"model={exported.package}"]
    assert run_command(["challenge", "year=2025", *places]) == DONE
    check_mask(out / "images/tumor-lymph-node-segmentation/output.mha", exported)
    assert sorted(path.name for path in out.iterdir()) == ["images"]
    assert " s of 600 s, " in capsys.readouterr().err


def test_constants_of_2026_are_written_as_given(exported: Exported, tmp_path: Path) -> None:
    source, out = lay_out(tmp_path / "input", exported), tmp_path / "output"
    places = [f"input={source}", f"output={out}", f"model={exported.package}"]
    assert run_command(["challenge", "year=2026", *places, "t_stage=T2", "n_stage=N0", "rfs=0"]) == DONE
    written = {name: json.loads((out / f"{name}.json").read_text()) for name in ("t-stage", "n-stage", "rfs")}
    assert written == {"t-stage": "T2", "n-stage": "N0", "rfs": 0.0}


def flat(source: Path) -> None:
    sitk.WriteImage(sitk.Image(1, 1, sitk.sitkInt16), source / "images/pet/5c1d0a7e-uuid.mha")


def cut(source: Path) -> None:
    path = source / "images/ct/5c1d0a7e-uuid.mha"
    path.write_bytes(path.read_bytes()[:500])


BAD: dict[str, tuple[Any, str]] = {
    "no PET": (lambda source: next((source / "images/pet").iterdir()).unlink(), "expected one image"),
    "two PETs": (lambda source: (source / "images/pet/b.mha").touch(), "found 5c1d0a7e-uuid.mha, b.mha"),
    "a flat placeholder": (flat, "expected a 3D image"),
    "a cut file": (cut, "cannot be read"),
    "inputs.json of another form": (lambda source: (source / "inputs.json").write_text('["ct"]'), "a list of inputs"),
}


@pytest.mark.parametrize("mistake", BAD)
def test_bad_input_is_told_in_one_line_and_leaves_no_mask(
    mistake: str, exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = lay_out(tmp_path / "input", exported), tmp_path / "output"
    spoil, expected = BAD[mistake]
    spoil(source)
    places = [f"input={source}", f"output={out}", f"model={exported.package}"]
    assert run_command(["challenge", "year=2026", *places]) == BAD_INPUT
    message = capsys.readouterr().err
    assert expected in message
    assert message.count("\n") == 1
    assert not out.exists()


def test_a_folder_without_images_names_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"images/ct: expected one image \(\.mha.*for ct-image, found none"):
        find_image(tmp_path, "ct-image")
