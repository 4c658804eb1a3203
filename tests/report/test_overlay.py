import dataclasses

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from hngtv.cases.checks import check_case
from hngtv.cases.manifest import RawCase
from hngtv.report.figures import encode
from hngtv.report.overlay import (
    CaseView,
    axial_indices,
    central_voxel,
    draw_axial_series,
    draw_case,
    load_view,
    view_region,
)
from hngtv.volume.box import Box
from hngtv.volume.grid import Grid
from hngtv.volume.nifti import Image

SHAPE = (100, 100, 60)
GRID = Grid.from_array(SHAPE, np.diag([2.0, 2.0, 3.0, 1.0]))
EMPTY = np.zeros(SHAPE, np.uint8)


def labels_at(x: int, y: int, z: int, label: int = 1) -> np.ndarray:
    labels = EMPTY.copy()
    labels[x - 3 : x + 4, y - 3 : y + 4, z - 2 : z + 3] = label
    return labels


def view(
    target: np.ndarray | None, prediction: np.ndarray | None, box: Box | None = None, pet: bool = True
) -> CaseView:
    coarse = Grid.from_array((50, 50, 45), np.diag([4.0, 4.0, 4.0, 1.0]))
    image = Image(np.full(coarse.shape, 2.0, np.float32), coarse, "") if pet else None
    return CaseView(Image(np.zeros(SHAPE, np.int16), GRID, ""), image, target, prediction, box)


def test_slices_go_through_the_most_of_the_tumour() -> None:
    target = labels_at(30, 60, 20)
    target[30, 60, 40] = 1
    assert central_voxel(view(target, None))[0] == 30
    assert 18 <= central_voxel(view(target, EMPTY))[2] <= 22


def test_without_tumour_slices_go_through_the_prediction_then_the_box_then_the_middle() -> None:
    assert central_voxel(view(EMPTY, labels_at(70, 20, 30)))[:1] == (67,)
    box = Box((20, 20, 30), (40, 40, 60))
    assert central_voxel(view(EMPTY, EMPTY, box)) == (15, 15, 15)
    assert central_voxel(view(None, None)) == (50, 50, 30)


def test_region_holds_tumour_and_prediction_with_margin_and_stays_inside() -> None:
    region = view_region(view(labels_at(5, 50, 30), labels_at(60, 50, 30)))
    assert region[0].start == 0
    assert region[0].stop >= 64 + 12
    assert all(0 <= s.start < s.stop <= n for s, n in zip(region, SHAPE, strict=True))
    assert (region[1].stop - region[1].start) * 2 >= 140


@pytest.mark.parametrize("pet", [True, False])
@pytest.mark.parametrize(
    ("target", "prediction"),
    [(labels_at(30, 60, 20), labels_at(32, 60, 20, 2)), (EMPTY, EMPTY), (EMPTY, None), (None, labels_at(30, 60, 20))],
    ids=["both", "both empty", "no prediction", "no truth"],
)
def test_draws_every_kind_of_case(target: np.ndarray | None, prediction: np.ndarray | None, pet: bool) -> None:
    figure = draw_case(view(target, prediction, Box((40, 90, 30), (90, 150, 90)), pet), "title")
    assert len(figure.axes) == (6 if pet else 3)


@pytest.mark.parametrize("unit", ["SUV", "BQML"])
def test_pet_is_what_the_network_sees(phantom_cases: list[RawCase], unit: str) -> None:
    case = dataclasses.replace(phantom_cases[0], pet_unit=unit, pet_factor=0.5)
    pet = load_view(case).pet
    assert pet is not None
    assert np.maximum(pet.values, 0).max() == pytest.approx(check_case(case).pet.values.max())


def test_a_title_with_dollars_is_no_formula() -> None:
    assert encode(draw_case(view(labels_at(30, 60, 20), None, pet=False), "a$^$"))


def test_patient_right_is_on_the_left_and_head_is_up() -> None:
    axial, coronal, sagittal = draw_case(view(labels_at(30, 60, 20), None, pet=False)).axes
    for axis in (axial, coronal, sagittal):
        assert axis.get_xlim()[0] > axis.get_xlim()[1]  # x and y grow to the left
        assert axis.get_ylim()[0] < axis.get_ylim()[1]
    letters = [[t.get_text() for t in axis.texts[:4]] for axis in (axial, coronal, sagittal)]
    assert letters == [list("RLAP"), list("RLSI"), list("APSI")]


def test_box_is_drawn_where_it_cuts_the_slice_only() -> None:
    target = labels_at(30, 60, 20)
    inside = draw_case(view(target, None, Box((40, 100, 40), (80, 140, 80)), pet=False))
    apart = draw_case(view(target, None, Box((40, 100, 120), (80, 140, 150)), pet=False))
    assert [len(axis.patches) for axis in inside.axes] == [1, 1, 1]
    assert [len(axis.patches) for axis in apart.axes] == [0, 1, 1]
    rectangle = inside.axes[0].patches[0]
    assert isinstance(rectangle, Rectangle)
    assert (rectangle.get_width(), rectangle.get_height()) == (pytest.approx(42, abs=2), pytest.approx(42, abs=2))


def test_series_runs_from_the_lower_to_the_upper_end() -> None:
    case = view(labels_at(30, 60, 20), labels_at(30, 60, 26))
    assert axial_indices(case, 3) == [18, 23, 28]
    assert len(draw_axial_series(case, 5).axes) == 8  # two rows of four, three of them blank
