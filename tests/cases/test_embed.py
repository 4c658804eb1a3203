"""A lesion set into a host stays what it was; about it the host takes over smoothly, and far off nothing changes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from hngtv.cases import embed_files, phantom_host
from hngtv.cases.checks import CheckedImages, check_case
from hngtv.cases.embed import (
    FADE_MM,
    FULL_MM,
    Embedded,
    Place,
    find_body,
    find_place,
    make_patient,
    patient_share,
    set_in,
)
from hngtv.cases.phantom_host import draw_host
from hngtv.errors import InputError
from hngtv.volume.grid import Grid
from hngtv.volume.nifti import Image
from tests.flat_host import HOST_HU, HOST_SUV, make_flat_host
from tests.tiny_cases import write_tiny_case

MIDDLE_MM = np.array([3.3, -8.1, -190.7])
PLACE = Place(MIDDLE_MM, "trunk", 1.0, 1.0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> CheckedImages:
    """Tiny images with both labels: a body in air, 5 mm voxels, PET of 7 mm."""
    return check_case(write_tiny_case(tmp_path_factory.mktemp("raw"), "tiny"))


@pytest.fixture(scope="module")
def embedded(tiny: CheckedImages) -> Embedded:
    return set_in(make_patient(tiny), make_flat_host(np.random.default_rng(0)), PLACE)


def world_of(grid: Grid) -> NDArray:
    return grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1))


def source_at(image: Image, embedded: Embedded, points_mm: NDArray) -> NDArray:
    """Values of the source, linear between its voxels, at world points (N, 3) of the host."""
    index = image.grid.to_index(points_mm - np.array(embedded.facts["offset_mm"]))
    return ndimage.map_coordinates(image.values.astype(np.float64), index.T, order=1, mode="nearest")


def distance_from_target(embedded: Embedded, grid: Grid) -> NDArray:
    """Distance [mm] of a grid's voxels (X, Y, Z) from the nearest target voxel, to about a voxel."""
    spacing = embedded.ct_grid.spacing_mm
    distance = np.asarray(ndimage.distance_transform_edt(embedded.target == 0, sampling=spacing))
    index = embedded.ct_grid.to_index(world_of(grid)).reshape(-1, 3)
    return ndimage.map_coordinates(distance, index.T, order=1, mode="nearest").reshape(grid.shape)


def everywhere(points_mm: NDArray) -> NDArray[np.bool_]:
    return np.ones(points_mm.shape[:-1], dtype=bool)


def one_ball(is_body: Callable[[NDArray], NDArray[np.bool_]], radius_mm: float = 15.0) -> CheckedImages:
    """A patient of 40 HU and SUV 2 where `is_body` says so, with a round target of 60 HU and SUV 9 in the middle."""
    grid = Grid.from_array((60, 60, 30), np.diag([2.5, 2.5, 4.0, 1.0]))
    points_mm = world_of(grid) - grid.bounds().centre_mm
    target = np.linalg.norm(points_mm, axis=-1) < radius_mm
    ct = np.where(target, 60, np.where(is_body(points_mm), 40, -1000)).astype(np.int16)
    pet = np.where(target, 9, np.where(is_body(points_mm), 2, 0)).astype(np.float32)
    return CheckedImages(Image(ct, grid, ""), Image(pet, grid, ""), target.astype(np.uint8))


def test_volume_and_labels_of_the_target_are_kept() -> None:
    images = one_ball(everywhere)
    assert images.target is not None
    images.target[30:] *= 2
    result = set_in(make_patient(images), make_flat_host(np.random.default_rng(0)), PLACE)
    for label in (1, 2):
        before = np.count_nonzero(images.target == label) * images.ct.grid.voxel_ml
        after = np.count_nonzero(result.target == label) * result.ct_grid.voxel_ml
        assert after == pytest.approx(before, rel=0.06)
    assert result.facts["target_ml"] == pytest.approx(result.facts["source_ml"], rel=0.03)


def test_the_target_lies_at_its_place(embedded: Embedded) -> None:
    points_mm = embedded.ct_grid.to_world(np.argwhere(embedded.target))
    middle = 0.5 * (points_mm.min(axis=0) + points_mm.max(axis=0))
    np.testing.assert_allclose(middle, MIDDLE_MM, atol=3.0)


def test_ct_and_pet_on_the_target_are_those_of_the_source(tiny: CheckedImages, embedded: Embedded) -> None:
    points_mm = embedded.ct_grid.to_world(np.argwhere(embedded.target))
    source = source_at(tiny.ct, embedded, points_mm)
    np.testing.assert_allclose(embedded.ct[embedded.target > 0], source, atol=0.51)
    index = np.rint(embedded.ct_grid.to_index(world_of(embedded.pet_grid))).astype(int)
    index = np.clip(index, 0, np.array(embedded.ct_grid.shape) - 1)
    on_target = embedded.target[tuple(np.moveaxis(index, -1, 0))] > 0
    source = source_at(tiny.pet, embedded, embedded.pet_grid.to_world(np.argwhere(on_target)))
    np.testing.assert_allclose(embedded.pet[on_target], source, atol=0.02)


def test_the_host_is_unchanged_far_from_the_target(embedded: Embedded) -> None:
    host = make_flat_host(np.random.default_rng(0))
    for values, before, grid in (
        (embedded.ct, host.ct, embedded.ct_grid),
        (embedded.pet, host.pet, embedded.pet_grid),
    ):
        far = distance_from_target(embedded, grid) > FULL_MM + FADE_MM + 8.0
        assert far.mean() > 0.5
        np.testing.assert_array_equal(values[far], before[far])


def test_the_share_is_one_near_the_target_and_falls_smoothly_to_zero() -> None:
    patient = make_patient(one_ball(everywhere))
    host = make_flat_host(np.random.default_rng(0))
    share = patient_share(patient, host, patient.ct_grid)
    along = share[30:, 30, 15]  # from the middle outwards, 2.5 mm a step; the ball ends after 6
    assert np.all(along[:10] == 1.0)
    assert np.all(along[18:] < 0.01)
    assert np.all(np.diff(along) <= 0)
    assert np.abs(np.diff(along)).max() < 0.25


def test_air_beside_the_target_leaves_no_hole() -> None:
    images = one_ball(lambda points: points[..., 0] < 17.0)
    result = set_in(make_patient(images), make_flat_host(np.random.default_rng(0)), PLACE)
    around = distance_from_target(result, result.ct_grid) < FULL_MM + FADE_MM
    assert result.ct[around].min() >= HOST_HU - 6
    around = distance_from_target(result, result.pet_grid) < FULL_MM + FADE_MM
    assert result.pet[around].min() >= HOST_SUV - 0.2


def test_the_share_is_one_on_a_target_at_the_skin_also_on_coarse_voxels() -> None:
    images = one_ball(lambda points: points[..., 0] < 15.0)
    assert images.target is not None
    patient = make_patient(images)
    coarse = Grid.axis_aligned(patient.ct_grid.bounds(), (7.0, 7.0, 7.0))
    share = patient_share(patient, make_flat_host(np.random.default_rng(0)), coarse)
    nearest = np.rint(patient.ct_grid.to_index(world_of(coarse))).astype(int)
    nearest = np.clip(nearest, 0, np.array(patient.ct_grid.shape) - 1)
    np.testing.assert_array_equal(share[images.target[tuple(np.moveaxis(nearest, -1, 0))] > 0], 1.0)


def test_nothing_hangs_in_the_air_of_the_host() -> None:
    images = one_ball(everywhere)
    host = make_flat_host(np.random.default_rng(0))
    outside = host.ct_grid.to_world(np.argwhere(host.ct > -9999))[:, 0].reshape(host.ct.shape) > MIDDLE_MM[0] + 20
    host.ct[outside] = -1000
    object.__setattr__(host, "depth_mm", lambda points: (MIDDLE_MM[0] + 20 - points[..., 0]).astype(np.float32))
    result = set_in(make_patient(images), host, PLACE)
    assert result.ct[outside].max() < -900


def test_where_the_pet_of_the_source_ends_the_host_stays() -> None:
    images = one_ball(everywhere)
    half = Image(images.pet.values[:30], images.pet.grid.crop((slice(0, 30), slice(0, 60), slice(0, 30))), "")
    images = CheckedImages(images.ct, half, images.target)
    result = set_in(make_patient(images), make_flat_host(np.random.default_rng(0)), PLACE)
    x_mm = world_of(result.pet_grid)[..., 0] - MIDDLE_MM[0]
    assert result.pet[x_mm > 4.0].max() < HOST_SUV + 0.2
    assert result.pet.max() > 8.5


def test_a_target_at_the_end_of_its_scan_is_told() -> None:
    images = one_ball(everywhere)
    assert images.target is not None
    for end, told in ((14, True), (30, False)):
        grid = images.ct.grid.crop((slice(0, 60), slice(0, 60), slice(0, end)))
        ct, pet = (Image(image.values[..., :end], grid, "") for image in (images.ct, images.pet))
        cropped = CheckedImages(ct, pet, images.target[..., :end])
        host = make_flat_host(np.random.default_rng(0))
        assert set_in(make_patient(cropped), host, PLACE).facts["target_at_face"] is told


def test_couch_and_other_limb_are_no_body_and_enclosed_gas_is() -> None:
    points_mm = np.moveaxis(np.indices((80, 60, 5)), 0, -1) * 1.0 - (40.0, 30.0, 2.0)
    leg = np.hypot(points_mm[..., 0] + 18, points_mm[..., 1]) < 17
    gas = np.hypot(points_mm[..., 0] + 12, points_mm[..., 1]) < 4
    other = np.hypot(points_mm[..., 0] - 19, points_mm[..., 1]) < 17
    couch = np.abs(points_mm[..., 1] + 18) < 2
    ct = np.where((leg & ~gas) | other | couch, 40, -1000)
    target = np.hypot(points_mm[..., 0] + 28, points_mm[..., 1]) < 4
    body = find_body(ct, target, (1.0, 1.0, 3.0))
    assert body[target].all()
    assert body[gas].all()
    assert body[leg].mean() > 0.97
    assert not body[other].any()
    assert body[couch & ~leg].mean() < 0.2


def test_a_case_without_lesion_is_refused(tiny: CheckedImages) -> None:
    for target, told in ((None, "no target"), (np.zeros(tiny.ct.grid.shape, np.uint8), "an empty target")):
        with pytest.raises(InputError, match=told):
            make_patient(CheckedImages(tiny.ct, tiny.pet, target))


def test_a_lesion_larger_than_the_view_is_refused() -> None:
    patient = make_patient(one_ball(everywhere))
    host = make_flat_host(np.random.default_rng(0))
    object.__setattr__(host, "ct_grid", Grid.from_array((4, 4, 4), np.eye(4)))
    with pytest.raises(InputError, match="too large"):
        find_place(np.random.default_rng(0), patient, host)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small scans made tiny, so that they are drawn in a fraction of a second."""
    monkeypatch.setitem(phantom_host.CT_SHAPE, "small", (22, 22, 50))
    monkeypatch.setitem(phantom_host.IN_PLANE_MM, "small", 9.0)
    monkeypatch.setattr(phantom_host, "SMALL_PET_MM", (9.0, 12.0))
    monkeypatch.setattr(phantom_host, "PET_WIDER_MM", (0.0, 0.0, 0.0))
    monkeypatch.setattr("hngtv.cases.embed.N_PLACES", 18)


@pytest.mark.usefixtures("narrow")
def test_seed_and_case_id_decide_host_and_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phantom_host, "BOTTOM_MM", -135.0)
    first, second = (write_tiny_case(tmp_path, name) for name in ("a", "b"))
    once, again = (embed_files.embed_case(first, 0, "small") for _ in range(2))
    for name in ("ct", "pet", "target"):
        np.testing.assert_array_equal(getattr(once, name), getattr(again, name))
    assert once.facts == again.facts
    other = embed_files.embed_case(second, 0, "small")
    assert other.facts["host"]["origin_mm"] != once.facts["host"]["origin_mm"]
    assert other.facts["centre_mm"] != once.facts["centre_mm"]
    assert once.facts["share_in_body"] > 0.9
    assert once.target.any()


@pytest.mark.usefixtures("narrow")
def test_a_host_is_long_and_its_brain_is_hot() -> None:
    host = draw_host(np.random.default_rng(1), "small")
    assert host.ct.shape == (22, 22, 50)
    assert host.ct_grid.bounds().size_mm[2] > 500
    brain_mm = host.body.to_world(np.array([0.0, -12.0, 100.0]))
    near = np.linalg.norm(world_of(host.pet_grid) - brain_mm, axis=-1) < 60
    assert np.percentile(host.pet[near], 90) > 4
    assert host.depth_mm(brain_mm) > 40
    assert host.depth_mm(np.add(brain_mm, (0.0, 0.0, 200.0))) < 0
