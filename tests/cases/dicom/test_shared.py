"""Real DICOM of the soft-tissue-sarcoma patients against the same patients as NIfTI.

Runs where the environment variable HNGTV_STS names a folder with `sts/STS_xxx/{ct,pet,gtv}.nii.gz` and
`sts_dicom/STS_xxx/{CT,PET}/{image,mask}`.
"""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from hngtv.cases.dicom import convert_patients, holds_dicom
from hngtv.cases.manifest import RawCase

ROOT = Path(os.environ.get("HNGTV_STS", ""))
pytestmark = pytest.mark.skipif(
    "HNGTV_STS" not in os.environ or not (ROOT / "sts_dicom").is_dir(),
    reason="HNGTV_STS does not name a folder with sts/ and sts_dicom/",
)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[RawCase]:
    source = ROOT / "sts_dicom"
    assert holds_dicom(source)
    cases, findings = convert_patients(source, tmp_path_factory.mktemp("cases"))
    assert findings == []
    assert [case.case_id for case in cases] == sorted(path.name for path in source.iterdir())
    return cases


def load(path: Path | None) -> nib.Nifti1Image:
    assert path is not None
    return nib.Nifti1Image.from_filename(path)


def test_images_are_equal_to_rounding(cases: list[RawCase]) -> None:
    for case in cases:
        for name, path, tolerance in (("ct", case.ct, 0.5), ("pet", case.pet, 1e-5)):
            image, expected = load(path), load(ROOT / "sts" / case.case_id / f"{name}.nii.gz")
            assert np.allclose(np.asarray(image.affine), np.asarray(expected.affine), atol=1e-4)
            assert np.abs(image.get_fdata() - expected.get_fdata()).max() <= tolerance


def test_masks_agree(cases: list[RawCase]) -> None:
    for case in cases:
        mask = load(case.target).get_fdata() > 0
        expected = load(ROOT / "sts" / case.case_id / "gtv.nii.gz").get_fdata() > 0
        assert 2 * (mask & expected).sum() / (mask.sum() + expected.sum()) >= 0.98
