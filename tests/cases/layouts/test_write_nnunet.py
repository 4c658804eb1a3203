"""Cases as nnU-Net raw: the same voxels, the same folds, and back again."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hngtv.cases.checks import check_case
from hngtv.cases.folds import make_folds
from hngtv.cases.layouts import recognise
from hngtv.cases.layouts.write_nnunet import FoldPlan, write_nnunet
from hngtv.cases.manifest import RawCase, load_cases, read_manifest, write_manifest
from hngtv.commands.entry import run_command
from hngtv.errors import InputError
from hngtv.volume.nifti import read_image
from tests.tiny_cases import write_tiny_case


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[RawCase]:
    """Four to train on, one of them with an unsafe id, one to test, one without a target."""
    root = tmp_path_factory.mktemp("raw")
    found = [write_tiny_case(root, f"P{i}", seed=i, centre="ab"[i % 2]) for i in range(6)]
    found[3] = replace(found[3], case_id="P.3_0001")
    found[4] = replace(found[4], split="test")
    found[5] = replace(found[5], target=None)
    write_manifest(root / "cases.csv", found)
    return read_manifest(root / "cases.csv")


@pytest.fixture(scope="module")
def written(cases: list[RawCase], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("nnunet") / "Dataset501_HNGTV"
    done, failures = write_nnunet(cases, out, FoldPlan(2, 0, False))
    assert (len(done), failures) == (6, [])
    return out


def test_channels_lie_on_the_ct_grid_and_hold_the_same_values(cases: list[RawCase], written: Path) -> None:
    images = check_case(cases[0])
    ct, pet, target = (
        read_image(written / name)
        for name in ("imagesTr/P0_0000.nii.gz", "imagesTr/P0_0001.nii.gz", "labelsTr/P0.nii.gz")
    )
    assert ct.grid == pet.grid == target.grid == images.ct.grid
    np.testing.assert_array_equal(ct.values, images.ct.values)
    np.testing.assert_array_equal(target.values, images.target)
    hottest = images.ct.grid.to_world(np.array(np.unravel_index(pet.values.argmax(), pet.values.shape)))
    expected = images.pet.grid.to_world(np.array(np.unravel_index(images.pet.values.argmax(), images.pet.values.shape)))
    assert np.linalg.norm(hottest - expected) < 7
    assert pet.values.max() == pytest.approx(images.pet.values.max(), rel=0.15)


def test_description_and_places(written: Path) -> None:
    assert json.loads((written / "dataset.json").read_text()) == {
        "channel_names": {"0": "CT", "1": "PET"},
        "labels": {"background": 0, "GTVp": 1, "GTVn": 2},
        "numTraining": 4,
        "file_ending": ".nii.gz",
    }
    assert sorted(p.name for p in (written / "labelsTr").iterdir()) == [
        "P0.nii.gz", "P1.nii.gz", "P2.nii.gz", "P_3-0001.nii.gz",
    ]  # fmt: skip
    assert sorted(p.name for p in (written / "imagesTs").iterdir()) == [
        "P4_0000.nii.gz", "P4_0001.nii.gz", "P5_0000.nii.gz", "P5_0001.nii.gz",
    ]  # fmt: skip
    assert [p.name for p in (written / "labelsTs").iterdir()] == ["P4.nii.gz"]


def test_folds_are_those_of_the_house(cases: list[RawCase], written: Path) -> None:
    names = {case.extra["original_id"]: case.case_id for case in read_manifest(written / "case_ids.csv")}
    folds = make_folds([(case.case_id, case.centre) for case in cases[:4]], 2, 0)
    splits = json.loads((written / "splits_final.json").read_text())
    for number, split in enumerate(splits):
        assert set(split["val"]) == {names[case_id] for case_id, fold in folds.items() if fold == number}
        assert set(split["val"]) | set(split["train"]) == {names[case.case_id] for case in cases[:4]}
    assert names["P.3_0001"] == "P_3-0001"


def test_it_comes_back_as_the_same_cases(cases: list[RawCase], written: Path) -> None:
    found = recognise(written)
    assert found.layout == "nnU-Net raw"
    assert sorted((c.case_id, c.split, c.target is None) for c in found.cases) == [
        ("P0", "train", False), ("P1", "train", False), ("P2", "train", False), ("P4", "test", False),
        ("P5", "test", True), ("P_3-0001", "train", False),
    ]  # fmt: skip
    for case in found.cases:
        check_case(case)


def test_the_command_lists_failures_and_never_writes_over(
    cases: list[RawCase], written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_manifest(tmp_path / "cases.csv", [*cases[:3], replace(cases[3], pet=None)])
    arguments = ["convert", f"cases={tmp_path / 'cases.csv'}", f"out={tmp_path / 'set'}", "data.n_folds=3"]
    assert run_command(arguments) == 1
    output = capsys.readouterr()
    assert "case P.3_0001: no PET file" in output.err
    assert "nnU-Net wants a folder named like Dataset501_HNGTV" in output.err
    assert len(json.loads((tmp_path / "set/splits_final.json").read_text())) == 3
    assert run_command(arguments) == 2
    assert "holds a data set already" in capsys.readouterr().err
    assert len(load_cases(tmp_path / "set")) == 3


def test_too_few_cases_for_the_folds_are_told(cases: list[RawCase], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot fill 5 folds"):
        write_nnunet(cases[:2], tmp_path / "set", FoldPlan(5, 0, False))
    assert not (tmp_path / "set").exists()
