"""nnU-Net raw, JSON lists of the Decathlon and of MONAI, BIDS-like trees."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from hngtv.cases.layouts import Recognised, recognise
from hngtv.cases.manifest import RawCase, load_cases
from hngtv.errors import InputError
from tests.cases.layouts.test_hecktor import touch
from tests.tiny_dicom import write_ct


def by_id(found: Recognised) -> dict[str, RawCase]:
    return {case.case_id: case for case in found.cases}


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def write_nnunet_tree(root: Path, **changes: Any) -> Path:
    description = {
        "channel_names": {"0": "PET", "1": "CT"},
        "labels": {"background": 0, "GTVp": 1, "GTVn": 2},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    write_json(root / "dataset.json", description | changes)
    touch(root, "imagesTr/P1_0000.nii.gz", "imagesTr/P1_0001.nii.gz", "labelsTr/P1.nii.gz")
    touch(root, "imagesTs/P2_0000.nii.gz", "imagesTs/P2_0001.nii.gz")
    return root


def test_nnunet_channels_are_told_by_name_and_ts_is_test(tmp_path: Path) -> None:
    found = recognise(write_nnunet_tree(tmp_path / "Dataset001_X"))
    assert found.layout == "nnU-Net raw"
    cases = by_id(found)
    assert cases["P1"].ct.name == "P1_0001.nii.gz"
    assert cases["P1"].pet is not None
    assert cases["P1"].pet.name == "P1_0000.nii.gz"
    assert cases["P1"].target is not None
    assert (cases["P2"].split, cases["P2"].target) == ("test", None)
    assert recognise(tmp_path).cases == found.cases


def test_nnunet_of_version_1_has_labels_the_other_way_round(tmp_path: Path) -> None:
    labels = {"0": "background", "1": "tumour"}
    found = recognise(write_nnunet_tree(tmp_path, channel_names=None, modality={"0": "CT", "1": "PT"}, labels=labels))
    assert by_id(found)["P1"].ct.name == "P1_0000.nii.gz"
    assert "label 1, 'tumour', is taken as GTVp" in found.notes[0]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"channel_names": {"0": "CT", "1": "MR"}}, "expected one named CT and one named PET"),
        ({"labels": {"background": 0, "GTVn": 1, "GTVp": 2}}, "label gtvn is 1; expected 1 for GTVp"),
        ({"labels": {"background": 0, "whole": [1, 2]}}, "label whole is a region"),
        ({"file_ending": ".mha"}, "file_ending is '.mha'"),
        ({"labels": ["background", "GTVp"]}, r"labels is .*expected an object"),
        ({"labels": {"background": 0, "GTVp": "one"}}, "label gtvp is 'one'; expected a whole number"),
        ({"channel_names": ["CT", "PET"]}, "channel_names or modality is .*expected an object"),
    ],
)
def test_nnunet_that_cannot_be_read_safely_is_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        recognise(write_nnunet_tree(tmp_path, **changes))
    assert "dataset.json" in str(caught.value)


def test_an_nnunet_pet_without_a_ct_is_told(tmp_path: Path) -> None:
    root = write_nnunet_tree(tmp_path)
    touch(root, "imagesTr/P3_0000.nii.gz")
    assert "1 PET file(s) have no CT and were left out: P3_0000.nii.gz" in recognise(root).notes


def test_a_dataset_json_that_is_no_object_is_refused(tmp_path: Path) -> None:
    path = write_json(write_nnunet_tree(tmp_path) / "dataset.json", [])
    with pytest.raises(InputError, match=r"dataset.json is '\[\]'; expected an object"):
        recognise(tmp_path)
    with pytest.raises(InputError, match=r"dataset.json is '\[\]'; expected an object"):
        recognise(path)


def test_several_nnunet_sets_are_refused(tmp_path: Path) -> None:
    write_nnunet_tree(tmp_path / "Dataset001_A")
    write_nnunet_tree(tmp_path / "Dataset002_B")
    with pytest.raises(InputError, match="holds 2 nnU-Net data sets; give one"):
        recognise(tmp_path)


def test_a_list_of_ct_and_pet_files(tmp_path: Path) -> None:
    touch(tmp_path, "images/P1__CT.nii.gz", "images/P1__PT.nii.gz", "labels/P1.nii.gz", "images/P2_ct.nii.gz")
    entries = [
        {"image": ["images/P1__CT.nii.gz", "images/P1__PT.nii.gz"], "label": "labels/P1.nii.gz", "fold": 3},
        {"image": ["images/P9__CT.nii.gz", "images/P9__PT.nii.gz"]},
    ]
    test = [{"image": "images/P2_ct.nii.gz", "pet": "images/P2_pet.nii.gz"}]
    path = write_json(tmp_path / "datalist.json", {"training": entries, "testing": test})
    found = recognise(tmp_path)
    cases = by_id(found)
    assert sorted(cases) == ["P1", "P2"]
    assert (cases["P1"].extra, cases["P1"].split) == ({"official_fold": "3"}, "train")
    assert cases["P1"].target == tmp_path / "labels/P1.nii.gz"
    assert (cases["P2"].pet, cases["P2"].split) == (None, "test")
    assert "1 listed case(s) are not on disk and were left out: P9" in found.notes[0]
    (tmp_path / "labels/P1.nii.gz").unlink()
    found = recognise(tmp_path)
    assert by_id(found)["P1"].target is None
    assert "1 listed label(s) are not on disk: P1" in found.notes[1]
    assert recognise(path).cases == found.cases


@pytest.mark.parametrize("name", ["../../outside_ct.nii.gz", "/etc/outside_ct.nii.gz", "a/../../outside_ct.nii.gz"])
def test_a_list_never_leads_out_of_its_folder(tmp_path: Path, name: str) -> None:
    write_json(tmp_path / "in/dataset.json", {"training": [{"image": [name, "a_pt.nii.gz"]}]})
    with pytest.raises(InputError, match="which leaves"):
        recognise(tmp_path / "in")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"training": [{"image": ["a_ct.nii", "a_pt.nii"]}], "test": 5}, "test is '5'; expected a list"),
        ({"training": [{"image": ["a_ct.nii", "a_pt.nii"]}, {"label": "b.nii"}]}, "expected `image` in it"),
        ({"training": [{"image": "a.nii"}, {"image": ["b_ct.nii"]}], "modality": {"0": "CT", "1": "PT"}},
         "an image is .*expected a text"),
        ({"training": [{"image": "a.nii"}], "modality": ["CT", "PT"]}, "modality is .*expected an object"),
    ],
)  # fmt: skip
def test_a_malformed_list_is_refused_in_one_line(tmp_path: Path, content: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        recognise(write_json(tmp_path / "list.json", content))
    assert "list.json" in str(caught.value)


def test_one_id_in_training_and_test_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    content = {"training": [{"image": "imagesTr/P1.nii"}], "test": ["imagesTs/P1.nii"]}
    path = write_json(tmp_path / "dataset.json", content | {"modality": {"0": "CT", "1": "PT"}})
    with pytest.raises(InputError, match="has duplicate case ids: P1"):
        recognise(tmp_path)
    entry = {"image": ["P1_ct.nii", "P1_pt.nii"]}
    touch(tmp_path, "P1_ct.nii")
    write_json(path, {"training": [entry, entry]})
    with pytest.raises(InputError, match="has duplicate case ids: P1"):
        recognise(path)


def test_images_of_a_list_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "dataset.json", {"training": [{"image": ["a.nii.gz", "b.nii.gz"]}]})
    with pytest.raises(InputError, match="expected one CT and one PET, told by"):
        recognise(tmp_path)


def test_4d_images_of_the_decathlon_are_split_into_frames(tmp_path: Path) -> None:
    values = np.arange(2 * 3 * 4 * 2, dtype=np.int16).reshape(2, 3, 4, 2)
    (tmp_path / "msd/imagesTr").mkdir(parents=True)
    nib.save(nib.Nifti1Image(values, np.diag([1, 2, 3, 1])), tmp_path / "msd/imagesTr/P1.nii.gz")
    nib.save(nib.Nifti1Image(values[..., 0], np.eye(4)), tmp_path / "msd/imagesTr/P2.nii.gz")
    touch(tmp_path / "msd", "labelsTr/P1.nii.gz")
    training = [{"image": f"./imagesTr/P{i}.nii.gz", "label": f"./labelsTr/P{i}.nii.gz"} for i in (1, 2)]
    content = {"modality": {"0": "PET", "1": "CT"}, "training": training, "test": []}
    write_json(tmp_path / "msd/dataset.json", content)
    found = recognise(tmp_path / "msd")
    assert found.write is not None
    assert "1 listed label(s) are not on disk: P2" in found.notes[0]
    with pytest.raises(InputError, match=r"hngtv import source=.* out=NEW_FOLDER/cases\.csv"):
        load_cases(tmp_path / "msd")
    (case,), (finding,) = found.write(tmp_path / "out")
    assert case.pet is not None
    np.testing.assert_array_equal(nib.Nifti1Image.from_filename(case.ct).get_fdata(), values[..., 1])
    np.testing.assert_array_equal(nib.Nifti1Image.from_filename(case.pet).get_fdata(), values[..., 0])
    assert case.target == tmp_path / "msd/labelsTr/P1.nii.gz"
    assert (finding.case_id, finding.severity) == ("P2", "error")
    assert finding.text.startswith("case P2: ")
    assert "expected 4 axes" in finding.text


def test_dicom_beside_named_cases_is_told(tmp_path: Path) -> None:
    touch(tmp_path, "P1/ct.nii.gz", "P1/pet.nii.gz")
    assert recognise(tmp_path).notes == ()
    write_ct(tmp_path / "P2")
    (note,) = recognise(tmp_path).notes
    assert "holds DICOM too, which was not read" in note


def test_bids_like_tree_with_masks_in_derivatives(tmp_path: Path) -> None:
    touch(tmp_path, "sub-01/ct/sub-01_ct.nii.gz", "sub-01/pet/sub-01_trc-FDG_pet.nii.gz")
    touch(tmp_path, "sub-02/anat/sub-02_ct.nii.gz", "sub-02/pet/sub-02_pet.nii.gz")
    touch(tmp_path, "derivatives/manual/sub-01/sub-01_label-GTV_dseg.nii.gz")
    (tmp_path / "participants.tsv").write_text(
        "participant_id\tage\tcentre\nsub-01\t60\tX\nsub-02\t\tY\nsub-03\t50\tX\n"
    )
    write_json(tmp_path / "sub-02/pet/sub-02_pet.json", {"Units": "Bq/mL"})
    found = recognise(tmp_path)
    cases = by_id(found)
    assert found.layout == "BIDS-like"
    assert sorted(cases) == ["sub-01", "sub-02"]
    assert cases["sub-01"].target is not None
    assert (cases["sub-01"].extra["age"], cases["sub-02"].target) == ("60", None)
    assert [cases[case_id].centre for case_id in sorted(cases)] == ["X", "Y"]
    notes = "\n".join(found.notes)
    assert "says that the PET is in Bq/mL; give pet_unit and pet_factor" in notes
    assert "1 id(s) have no images here and were left out: sub-03" in notes


def test_several_files_of_one_subject_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "sub-01/sub-01_ct.nii.gz", "sub-01/sub-01_rec-a_pet.nii.gz", "sub-01/sub-01_rec-b_pet.nii.gz")
    with pytest.raises(InputError, match="sub-01 has 2 pet files"):
        recognise(tmp_path)


def test_a_mask_of_something_else_is_no_gtv(tmp_path: Path) -> None:
    touch(tmp_path, *(f"sub-{i}/sub-{i}_{kind}.nii.gz" for i in ("01", "GTV2") for kind in ("ct", "pet")))
    touch(tmp_path, "sub-01/sub-01_desc-brain_mask.nii.gz", "sub-01/sub-01_desc-tumor_mask.nii.gz")
    found = recognise(tmp_path)
    assert (by_id(found)["sub-01"].target or Path()).name == "sub-01_desc-tumor_mask.nii.gz"
    assert "1 mask(s) of other things are not used: sub-01_desc-brain_mask.nii.gz" in found.notes
    touch(tmp_path, "sub-GTV2/sub-GTV2_desc-brain_mask.nii.gz")
    with pytest.raises(InputError, match=r"sub-GTV2 has the mask .*whose name does not say of what"):
        recognise(tmp_path)


def test_two_sessions_of_one_subject_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, *(f"sub-01/ses-a/sub-01_ses-a_{kind}.nii.gz" for kind in ("ct", "pet")))
    assert list(by_id(recognise(tmp_path))) == ["sub-01_ses-a"]
    touch(tmp_path, *(f"sub-01/ses-b/sub-01_ses-b_{kind}.nii.gz" for kind in ("ct", "pet")))
    with pytest.raises(InputError, match=r"several sessions \(sub-01\)"):
        recognise(tmp_path)


def test_a_list_without_any_image_is_no_cohort(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(
        '{"channel_names": {"0": "CT", "1": "PET"}, "training": [{"image": ["a_ct.nii.gz", "a_pt.nii.gz"]}]}'
    )
    with pytest.raises(InputError, match="no case found"):
        recognise(tmp_path / "dataset.json")
