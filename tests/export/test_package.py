"""A package predicts as its run did, tells nothing of patients or machine, and refuses files that were changed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hngtv.commands.entry import BAD_INPUT, DONE, run_command
from hngtv.errors import InputError
from hngtv.export.package import Package, emptied, open_model
from hngtv.volume.nifti import read_image
from tests.export.conftest import Exported


def predict(package: Path, exported: Exported, out: Path, *more: str) -> int:
    files = [f"ct={exported.case.ct}", f"pet={exported.case.pet}", f"out={out}"]
    return run_command(["predict", f"model={package}", *files, *more])


def test_it_predicts_what_the_run_did_without_run_and_cases(exported: Exported, tmp_path: Path) -> None:
    assert not exported.training_folder.exists()
    assert predict(exported.package, exported, tmp_path / "mask.nii.gz", "attention=true") == DONE
    assert (read_image(exported.mask).values > 0).any()
    assert (tmp_path / "mask.nii.gz").read_bytes() == exported.mask.read_bytes()
    assert list(tmp_path.glob("mask_gate*.nii.gz"))


def test_its_masks_count_as_those_of_the_run(exported: Exported) -> None:
    note = json.loads(exported.mask.with_name("expected.json").read_text())
    assert open_model(exported.package).digest == note["model"]


def test_no_text_names_a_patient_or_a_folder_of_the_machine(exported: Exported) -> None:
    texts = [
        path
        for path in exported.package.rglob("*")
        if path.is_file() and path.suffix != ".safetensors" and "app" not in path.parts
    ]
    assert {path.name for path in texts} >= {
        "README.md",
        "model.json",
        "provenance.json",
        "manifest.json",
        "Dockerfile",
    }
    secrets = [*exported.case_ids, str(exported.training_folder), str(exported.package.parent), str(Path.home())]
    for path in texts:
        text = path.read_text(encoding="utf-8")
        assert not [secret for secret in secrets if secret in text], path


def test_the_card_says_what_the_run_was_trained_on(exported: Exported) -> None:
    facts = json.loads((exported.package / "provenance.json").read_text())
    assert facts["trained_on"] == {"n_cases": 2, "centres": {"north": 1, "south": 1}}  # 4 cases, fold 0 of 2
    assert facts["held_out"]["n_cases"] == 2
    assert facts["steps"] == facts["budget"]["steps"] == 6
    assert {row["class"]: row["dice"] for row in facts["scores"]} == pytest.approx(exported.dice, abs=1e-4)
    card = (exported.package / "README.md").read_text(encoding="utf-8")
    assert "research use" in card
    assert "Cohort: Tiny, of eggs, 2 cases: north 1, south 1." in card
    assert f"| GTV | 2 | {exported.dice['GTV']:.3f} |" in card
    assert "0 background, 1 GTVp, 2 GTVn" in card


def flip_last_byte(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "changed weights": (lambda root: flip_last_byte(root / "fine.safetensors"), "is not the file that was exported"),
    "lost weights": (lambda root: (root / "coarse_1.safetensors").unlink(), "is missing from the package"),
    "changed threshold": (
        lambda root: edit(root / "model.json", '"threshold": 0.2', '"threshold": 0.3'),
        "model.json is",
    ),
    "lost settings": (lambda root: (root / "model.json").unlink(), "model.json is missing"),
    "no manifest": (lambda root: (root / "manifest.json").unlink(), "unfinished package"),
    "of the future": (
        lambda root: edit(root / "manifest.json", '"format": 2', '"format": 3'),
        "has format 3, expected 2",
    ),
    "weights not listed": (lambda root: edit(root / "manifest.json", "fine.safe", "other.safe"), "is missing"),
    "no package": (shutil.rmtree, "is not a run folder"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_package_is_refused_in_one_line(
    damage: str, exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "package"
    shutil.copytree(exported.package, root, ignore=shutil.ignore_patterns("bundle", "container"))
    harm, expected = DAMAGES[damage]
    harm(root)
    assert predict(root, exported, tmp_path / "mask.nii.gz") == BAD_INPUT
    message = capsys.readouterr().err
    assert expected in message
    assert message.count("\n") == 1
    assert not (tmp_path / "mask.nii.gz").exists()


def test_a_package_that_was_tampered_with_cannot_reach_files_elsewhere(exported: Exported, tmp_path: Path) -> None:
    root = tmp_path / "package"
    shutil.copytree(exported.package, root, ignore=shutil.ignore_patterns("bundle", "container"))
    edit(root / "manifest.json", '"fine.safetensors"', '"../fine.safetensors"')
    assert predict(root, exported, tmp_path / "mask.nii.gz") == BAD_INPUT


def test_other_files_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        emptied(Package(tmp_path))
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    (tmp_path / "weights.safetensors").write_text("mine too")
    for name, text in (("manifest.json", '{"format": 1}'), ("model.json", "[]"), ("model.json", "no JSON")):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match="holds other files"):
            emptied(Package(tmp_path))
    assert (tmp_path / "weights.safetensors").exists()
    (tmp_path / "model.json").write_text('{"settings": {}, "crop_voxels": []}')
    emptied(Package(tmp_path))
    assert not (tmp_path / "weights.safetensors").exists()


def test_an_unfinished_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    assert run_command(["export", f"model={tmp_path / 'run'}", f"out={tmp_path / 'package'}"]) == BAD_INPUT
    assert "is not a run folder" in capsys.readouterr().err
    assert not (tmp_path / "package").exists()


def test_an_unknown_format_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["export", f"model={tmp_path}", f"out={tmp_path}", "formats=package,onxx"]) == BAD_INPUT
    assert "onxx" in capsys.readouterr().err
