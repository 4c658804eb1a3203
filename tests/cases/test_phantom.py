"""The phantom is reproducible, looks like what its facts say, and cannot be solved by a threshold."""

import json

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine
from scipy import ndimage

from hngtv.cases.phantom import BLOCK_OF_CASES, CENTRES, PhantomCase, make_phantom, write_phantom
from hngtv.errors import InputError

SEED = 11


@pytest.fixture(scope="module")
def cohort() -> list[PhantomCase]:
    return [make_phantom(SEED, index) for index in range(BLOCK_OF_CASES)]


def zooms_mm(affine: np.ndarray) -> np.ndarray:
    return np.linalg.norm(affine[:3, :3], axis=0)


def box_corners(case: PhantomCase) -> np.ndarray:
    return np.array([[0, 0, 0], case.ct.shape])


def is_oblique(affine: np.ndarray) -> bool:
    return bool(np.count_nonzero(np.abs(affine[:3, :3]) > 1e-6) > 3)


def find_parts(mask: np.ndarray) -> np.ndarray:
    parts = np.zeros(mask.shape, dtype=np.int32)
    ndimage.label(mask, output=parts)
    return parts


def airway_distance_mm(case: PhantomCase) -> float:
    """From the nearest GTVp voxel to air inside the body."""
    air = find_parts(case.ct < -400)
    sizes = np.bincount(air.ravel())
    sizes[0] = 0
    inside = (air != sizes.argmax()) & (sizes[air] > 30)
    distances = ndimage.distance_transform_edt(~inside, sampling=tuple(zooms_mm(case.ct_affine)))
    return float(np.asarray(distances)[case.target == 1].min())


def otsu(values: np.ndarray) -> float:
    counts, edges = np.histogram(values, bins=256)
    middles = 0.5 * (edges[1:] + edges[:-1])
    below, above = np.cumsum(counts), counts.sum() - np.cumsum(counts)
    total = np.cumsum(counts * middles)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (total / below - (total[-1] - total) / above) ** 2
    return float(middles[np.nanargmax(between)])


def threshold_dice(case: PhantomCase, threshold_suv: float) -> float:
    """Dice on the PET grid of the largest component above a threshold against GTVp and GTVn together."""
    to_ct = np.linalg.inv(case.ct_affine) @ case.pet_affine
    truth = ndimage.affine_transform(case.target, to_ct, output_shape=case.pet.shape, order=0)
    parts = find_parts(case.pet >= threshold_suv)
    if not parts.any():
        return 0.0
    found = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    return float(2 * np.count_nonzero(found & (truth > 0)) / (np.count_nonzero(found) + np.count_nonzero(truth)))


def test_same_seed_and_index_give_the_same_patient(cohort):
    again = make_phantom(SEED, 7)
    for name in ("ct", "ct_affine", "pet", "pet_affine", "target"):
        np.testing.assert_array_equal(getattr(again, name), getattr(cohort[7], name))
    assert again.facts == cohort[7].facts


def test_another_seed_gives_another_patient(cohort):
    other = make_phantom(SEED + 1, 7)
    assert other.pet.shape != cohort[7].pet.shape or not np.array_equal(other.pet, cohort[7].pet)


def test_a_long_field_of_view_shows_the_same_patient_down_to_the_heart(cohort):
    index = next(index for index, case in enumerate(cohort) if not case.facts["long"])
    short, long = cohort[index], make_phantom(SEED, index, field_of_view="long")
    heights_mm = [float(np.ptp(apply_affine(case.ct_affine, box_corners(case))[:, 2])) for case in (short, long)]
    assert heights_mm[0] < 310
    assert heights_mm[1] > 480
    assert long.facts["long"]
    assert long.facts["lesions"] == short.facts["lesions"]
    assert long.centre == short.centre


def test_types_and_labels(cohort):
    for case in cohort:
        assert (case.ct.dtype, case.pet.dtype, case.target.dtype) == (np.int16, np.float32, np.uint8)
        assert case.target.shape == case.ct.shape
        assert set(np.unique(case.target)) <= {0, 1, 2}
        assert np.isfinite(case.pet).all()
        assert case.pet.min() >= 0
        assert -1024 <= case.ct.min() < -900
        assert 700 < case.ct.max() <= 3071


def test_facts_agree_with_the_labels(cohort):
    for case in cohort:
        assert json.loads(json.dumps(case.facts)) == case.facts
        assert case.facts["no_gtvp"] == (not (case.target == 1).any())
        assert case.facts["no_gtvn"] == (not (case.target == 2).any())
        voxel_ml = np.prod(zooms_mm(case.ct_affine)) / 1000
        assert case.facts["gtvp_ml"] == pytest.approx((case.target == 1).sum() * voxel_ml, abs=0.01)
        assert case.facts["gtvn_ml"] == pytest.approx((case.target == 2).sum() * voxel_ml, abs=0.01)


def test_twelve_cases_hold_every_kind(cohort):
    facts = [case.facts for case in cohort]
    for kind in (
        "no_gtvp",
        "no_gtvn",
        "cold",
        "necrotic",
        "long",
        "oblique",
        "streaks",
        "brown_fat",
        "contrast",
    ):
        assert 1 <= sum(fact[kind] for fact in facts) <= 7, kind
    assert {case.centre for case in cohort} == {centre.name for centre in CENTRES}


def test_lesions_lie_in_tissue(cohort):
    for case in cohort:
        values = case.ct[case.target > 0]
        assert np.mean((values > -150) & (values < 450)) > 0.97, case.case_id


def test_the_primary_touches_the_airway(cohort):
    distances = {case.case_id: airway_distance_mm(case) for case in cohort if not case.facts["no_gtvp"]}
    assert max(distances.values()) < 6.0, distances


def test_hot_lesions_are_hotter_than_their_surroundings_on_pet(cohort):
    for case in cohort:
        if case.facts["no_gtvp"] or any(lesion["cold"] for lesion in case.facts["lesions"]):
            continue
        world = apply_affine(case.ct_affine, np.argwhere(case.target == 1))
        index = apply_affine(np.linalg.inv(case.pet_affine), world)
        uptake = ndimage.map_coordinates(case.pet, index.T, order=1)
        assert np.median(uptake) > 2.5 * np.median(case.pet[case.pet > 0.4]), case.case_id


def test_ct_and_pet_are_on_different_grids(cohort):
    for case in cohort:
        assert case.ct.shape != case.pet.shape
        assert not np.allclose(case.ct_affine, case.pet_affine)
    assert len({nib.aff2axcodes(case.ct_affine) for case in cohort}) >= 4
    assert 0 < sum(is_oblique(case.ct_affine) for case in cohort) < len(cohort)


def test_ct_and_pet_show_the_same_body(cohort):
    for case in cohort:
        to_pet = np.linalg.inv(case.pet_affine) @ case.ct_affine
        pet = ndimage.affine_transform(case.pet, to_pet, output_shape=case.ct.shape, order=1)
        flesh = np.abs(case.ct) < 200
        assert pet[flesh].mean() > 8 * pet[(case.ct < -950)].mean(), case.case_id
        assert np.linalg.norm(case.facts["shift_mm"]) < 5


def test_no_pet_threshold_solves_it(cohort):
    rules = {
        "SUV 2.5": lambda pet: 2.5,
        "41 % of SUVmax": lambda pet: 0.41 * pet.max(),
        "Otsu": otsu,
    }
    means = {name: np.mean([threshold_dice(case, rule(case.pet)) for case in cohort]) for name, rule in rules.items()}
    assert max(means.values()) < 0.35, means


def test_written_files_hold_the_case_and_one_affine(tmp_path, cohort):
    seen = []
    rows = write_phantom(tmp_path, 2, SEED, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
    for row, case in zip(rows, cohort, strict=False):
        assert row == {
            "case_id": case.case_id,
            "centre": case.centre,
            "ct": f"{case.case_id}/ct.nii.gz",
            "pet": f"{case.case_id}/pet.nii.gz",
            "target": f"{case.case_id}/gtv.nii.gz",
            "pet_unit": "SUV",
            "pet_factor": 1.0,
            "split": "train",
        }
        stored = (("ct", case.ct, case.ct_affine), ("pet", case.pet, case.pet_affine))
        for name, values, affine in (*stored, ("target", case.target, case.ct_affine)):
            image = nib.Nifti1Image.from_filename(tmp_path / row[name])
            np.testing.assert_array_equal(np.asanyarray(image.dataobj), values)
            assert image.get_data_dtype() == values.dtype
            np.testing.assert_allclose(np.asarray(image.affine), affine, atol=1e-3)
            np.testing.assert_allclose(np.asarray(image.header.get_qform()), np.asarray(image.header.get_sform()))
            assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (1, 1)
            np.testing.assert_allclose(image.header.get_zooms(), zooms_mm(affine), atol=1e-5)
            assert image.header.get_xyzt_units()[0] == "mm"
    assert sorted(path.name for path in (tmp_path / "phantom_0000").iterdir()) == [
        "ct.nii.gz",
        "gtv.nii.gz",
        "pet.nii.gz",
    ]


@pytest.mark.parametrize("n_cases", [0, -3])
def test_no_cases_are_refused(tmp_path, n_cases):
    with pytest.raises(InputError, match="n_cases"):
        write_phantom(tmp_path, n_cases, SEED)


def test_bad_arguments_are_refused():
    with pytest.raises(InputError, match="size"):
        make_phantom(0, 0, "huge")
    with pytest.raises(InputError, match="field_of_view: got 'short', expected mixed or long"):
        make_phantom(0, 0, field_of_view="short")
    with pytest.raises(InputError, match="seed"):
        make_phantom(-1, 0)
