"""Synthetic PET/CT cases small enough to make by the dozen in a test."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from hngtv.cases.manifest import RawCase, write_manifest

CT_SHAPE, CT_SPACING_MM = (24, 24, 16), (5.0, 5.0, 6.0)
PET_SHAPE, PET_SPACING_MM = (18, 18, 14), (7.0, 7.0, 7.0)
CENTRE_MM = (10.0, -20.0, 300.0)
"""World position of the middle of both images."""
CENTRES = ("north", "south")


def write_tiny_case(root: Path, case_id: str, seed: int = 0, has_nodes: bool = True, centre: str = "") -> RawCase:
    """Write `root/<case_id>/{ct,pet,gtv}.nii.gz`: an egg of tissue in air, a hot GTVp and maybe a hot GTVn.

    CT and PET have axes and spacings of their own, both with x and y flipped, as scanners write them.
    """
    rng = np.random.default_rng(seed)
    primary_mm = np.add(CENTRE_MM, rng.uniform(-12, 12, 3))
    nodes_mm = np.add(primary_mm, (25.0, 20.0, -20.0))
    ct_points, pet_points = (_points_mm(s, m) for s, m in ((CT_SHAPE, CT_SPACING_MM), (PET_SHAPE, PET_SPACING_MM)))
    target = (_distance_mm(ct_points, primary_mm) < 13).astype(np.uint8)
    if has_nodes:
        target[_distance_mm(ct_points, nodes_mm) < 9] = 2
    ct = np.where(_is_body(ct_points), 40, -1000) + rng.normal(0, 10, CT_SHAPE)
    pet = np.where(_is_body(pet_points), 1.0, 0.0) + 8.0 * np.exp(-((_distance_mm(pet_points, primary_mm) / 12) ** 2))
    if has_nodes:
        pet += 5.0 * np.exp(-((_distance_mm(pet_points, nodes_mm) / 10) ** 2))
    folder = root / case_id
    folder.mkdir(parents=True, exist_ok=True)
    write_nifti(folder / "ct.nii.gz", ct.astype(np.int16), scanner_affine(CT_SHAPE, CT_SPACING_MM))
    write_nifti(folder / "pet.nii.gz", pet.astype(np.float32), scanner_affine(PET_SHAPE, PET_SPACING_MM))
    write_nifti(folder / "gtv.nii.gz", target, scanner_affine(CT_SHAPE, CT_SPACING_MM))
    return RawCase(case_id, centre, folder / "ct.nii.gz", folder / "pet.nii.gz", folder / "gtv.nii.gz")


def write_tiny_cohort(root: Path, n_cases: int) -> list[RawCase]:
    """Write tiny_00, tiny_01, ... of two centres, every third without GTVn, and their `cases.csv`."""
    cases = [
        write_tiny_case(root, f"tiny_{i:02d}", seed=i, has_nodes=i % 3 != 2, centre=CENTRES[i % 2])
        for i in range(n_cases)
    ]
    write_manifest(root / "cases.csv", cases)
    return cases


def scanner_affine(shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> NDArray[np.float64]:
    """Affine with x and y flipped whose image is centred on `CENTRE_MM`."""
    affine = np.diag([-spacing_mm[0], -spacing_mm[1], spacing_mm[2], 1.0])
    affine[:3, 3] = CENTRE_MM - affine[:3, :3] @ (np.array(shape) - 1) / 2
    return affine


def write_nifti(path: Path, values: NDArray, affine: NDArray) -> None:
    image = nib.Nifti1Image(values, affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    nib.save(image, path)


def rewrite(
    path: Path | None,
    values: Callable[[NDArray], NDArray] = lambda values: values,
    affine: Callable[[NDArray], NDArray] = lambda affine: affine,
) -> None:
    """Change the voxels or the affine of a NIfTI file."""
    assert path is not None
    image = nib.Nifti1Image.from_filename(path)
    write_nifti(path, values(np.asanyarray(image.dataobj)), affine(np.array(image.affine)))


def _points_mm(shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> NDArray[np.float64]:
    affine = scanner_affine(shape, spacing_mm)
    return np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]


def _distance_mm(points: NDArray, centre_mm: NDArray) -> NDArray[np.float64]:
    return np.linalg.norm(points - centre_mm, axis=-1)


def _is_body(points: NDArray) -> NDArray[np.bool_]:
    return np.linalg.norm((points - CENTRE_MM) / (52.0, 50.0, 60.0), axis=-1) < 1
