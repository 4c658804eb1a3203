"""Contours against masks known from geometry: the same disk, ring or square in every encoding."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from hngtv.cases.dicom.geometry import grid_of_lps
from hngtv.cases.dicom.rtstruct import RtStruct, read_rtstruct
from hngtv.errors import InputError
from tests.tiny_dicom import AXIAL, CT_SCAN, OBLIQUE, Place, write_rtstruct

SHAPE = (40, 30, 8)
PLANAR, XOR = "CLOSED_PLANAR", "CLOSEDPLANAR_XOR"
CENTRE = (19.3, 14.2)
"""In voxels, beside the centres of all of them."""


def circle(radius: float, z: float = 2.0, centre: tuple[float, float] = CENTRE) -> NDArray[np.float64]:
    """Points (N, 3) of a circle, in voxels."""
    angles = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    x, y = centre[0] + radius * np.cos(angles), centre[1] + radius * np.sin(angles)
    return np.stack([x, y, np.full_like(x, z)], axis=1)


def square(low: float, high: float, z: float = 2.0) -> NDArray[np.float64]:
    return np.array([(low, low, z), (high, low, z), (high, high, z), (low, high, z)])


def disk(radius: float, z: int = 2, centre: tuple[float, float] = CENTRE) -> NDArray[np.bool_]:
    """Voxels whose centre lies in a circle."""
    x, y, slices = np.indices(SHAPE)
    return (np.hypot(x - centre[0], y - centre[1]) < radius) & (slices == z)


def keyhole(outer: NDArray[np.float64], inner: NDArray[np.float64]) -> NDArray[np.float64]:
    """One line: around the outside, to the hole, around it the other way, and back."""
    return np.concatenate([outer, outer[:1], inner[:1], inner[::-1], outer[:1]])


def read(
    folder: Path, contours: Sequence[tuple[NDArray[np.float64], str]], place: Place = AXIAL, name: str = "GTVp"
) -> RtStruct:
    """An RTSTRUCT of contours given in voxels."""
    in_mm = [(place.to_lps(points), kind) for points, kind in contours]
    return read_rtstruct(write_rtstruct(folder / "rs.dcm", [(name, in_mm)]))


def draw(folder: Path, contours: Sequence[tuple[NDArray[np.float64], str]], place: Place = AXIAL) -> NDArray[np.bool_]:
    grid = grid_of_lps(SHAPE, place.lps_affine)
    return read(folder, contours, place).draw(1, grid, CT_SCAN.frame_uid).voxels


def test_what_it_refers_to(tmp_path: Path) -> None:
    outlines = read(tmp_path, [(circle(5), PLANAR)], name="GTV été")
    assert outlines.names == {1: "GTV été"}
    assert outlines.frames == {CT_SCAN.frame_uid}
    assert outlines.series == {CT_SCAN.series_uid}


def test_an_outline_in_two_items_is_whole(tmp_path: Path) -> None:
    def split(dataset: Dataset) -> None:
        first = dataset.ROIContourSequence[0]
        rest = Dataset()
        rest.ReferencedROINumber, rest.ContourSequence = 1, [first.ContourSequence.pop()]
        dataset.ROIContourSequence.append(rest)

    contours = [(AXIAL.to_lps(circle(9, z)), PLANAR) for z in (2, 3)]
    outlines = read_rtstruct(write_rtstruct(tmp_path / "rs.dcm", [("GTVp", contours)], edit=split))
    voxels = outlines.draw(1, grid_of_lps(SHAPE, AXIAL.lps_affine), CT_SCAN.frame_uid).voxels
    assert np.array_equal(voxels, disk(9, 2) | disk(9, 3))


@pytest.mark.parametrize(
    ("number", "words"),
    [(1, r"has two outlines of ROINumber \(3006,0022\) = 1"), ([1, 2], r"has ROINumber .* expected 1 number")],
)
def test_a_number_that_names_no_outline_is_refused(tmp_path: Path, number: int | list[int], words: str) -> None:
    def renumber(dataset: Dataset) -> None:
        dataset.StructureSetROISequence[1].ROINumber = number

    with pytest.raises(InputError, match=words):
        read_rtstruct(write_rtstruct(tmp_path / "rs.dcm", [("GTVp", []), ("GTVn", [])], edit=renumber))


@pytest.mark.parametrize("place", [AXIAL, OBLIQUE])
def test_a_disk(tmp_path: Path, place: Place) -> None:
    assert np.array_equal(draw(tmp_path, [(circle(9), PLANAR)], place), disk(9))


@pytest.mark.parametrize("place", [AXIAL, OBLIQUE])
@pytest.mark.parametrize(
    "contours",
    [
        [(circle(9), PLANAR), (circle(4), PLANAR)],
        [(circle(4), PLANAR), (circle(9), PLANAR)],
        [(circle(9), PLANAR), (circle(4)[::-1], PLANAR)],
        [(circle(9), XOR), (circle(4), XOR)],
        [(keyhole(circle(9), circle(4)), PLANAR)],
    ],
    ids=["nested", "hole first", "hole the other way round", "xor", "keyhole"],
)
def test_a_ring_in_every_encoding(tmp_path: Path, contours, place: Place) -> None:
    assert np.array_equal(draw(tmp_path, contours, place), disk(9) & ~disk(4))


def test_an_island_in_a_hole(tmp_path: Path) -> None:
    contours = [(circle(radius), PLANAR) for radius in (2, 12, 7)]
    assert np.array_equal(draw(tmp_path, contours), disk(12) & ~disk(7) | disk(2))


def test_separate_and_overlapping_contours_are_joined(tmp_path: Path) -> None:
    left, right, far = (12.3, 14.2), (18.3, 14.2), (33.3, 14.2)
    contours = [(circle(5, centre=centre), PLANAR) for centre in (left, right, far)]
    expected = disk(5, centre=left) | disk(5, centre=right) | disk(5, centre=far)
    assert np.array_equal(draw(tmp_path, contours), expected)


def test_overlapping_xor_contours_take_out_what_they_share(tmp_path: Path) -> None:
    left, right = (12.3, 14.2), (18.3, 14.2)
    contours = [(circle(5, centre=centre), XOR) for centre in (left, right)]
    assert np.array_equal(draw(tmp_path, contours), disk(5, centre=left) ^ disk(5, centre=right))


def test_a_contour_drawn_twice_is_no_hole(tmp_path: Path) -> None:
    assert np.array_equal(draw(tmp_path, [(circle(9), PLANAR), (circle(9)[::-1], PLANAR)]), disk(9))


def test_a_hole_that_touches_the_line(tmp_path: Path) -> None:
    inner = np.array([(10.5, 10.5, 2.0), (15.5, 10.5, 2.0), (15.5, 15.5, 2.0), (10.5, 15.5, 2.0)])
    voxels = draw(tmp_path, [(square(10.5, 20.5), PLANAR), (inner, PLANAR)])
    assert voxels.sum() == 100 - 25


def test_lines_through_centres_fill_as_much_as_they_enclose(tmp_path: Path) -> None:
    assert draw(tmp_path, [(square(10, 20), PLANAR)]).sum() == 100
    ring = [(square(10, 20), PLANAR), (square(13, 16), PLANAR)]
    assert draw(tmp_path, ring).sum() == 100 - 9
    assert draw(tmp_path, [(keyhole(square(10, 20), square(13, 16)), PLANAR)]).sum() == 100 - 9


def test_each_slice_for_itself(tmp_path: Path) -> None:
    contours = [(circle(9, z=1), PLANAR), (circle(4, z=2), PLANAR), (circle(6, z=3), PLANAR)]
    assert np.array_equal(draw(tmp_path, contours), disk(9, z=1) | disk(4, z=2) | disk(6, z=3))


def test_small_nodes_may_lie_on_single_slices(tmp_path: Path) -> None:
    contours = [(circle(3, z=z), PLANAR) for z in (1, 4, 7)]
    assert np.array_equal(draw(tmp_path, contours), disk(3, z=1) | disk(3, z=4) | disk(3, z=7))


def test_no_contour_is_an_empty_mask(tmp_path: Path) -> None:
    assert not draw(tmp_path, []).any()


def test_points_and_open_lines_are_told(tmp_path: Path) -> None:
    contours = [(circle(9), PLANAR), (circle(3)[:1], "POINT"), (circle(3), "OPEN_PLANAR"), (circle(3)[:2], PLANAR)]
    drawn = read(tmp_path, contours).draw(1, grid_of_lps(SHAPE, AXIAL.lps_affine), CT_SCAN.frame_uid)
    assert np.array_equal(drawn.voxels, disk(9))
    assert [line.split(" that")[0] for line in drawn.warnings] == [
        "has 1 contour(s) of type CLOSED_PLANAR",
        "has 1 contour(s) of type OPEN_PLANAR",
        "has 1 contour(s) of type POINT",
    ]


@pytest.mark.parametrize(
    ("contours", "words"),
    [
        ([(circle(9, z=2.4), PLANAR)], r"0\.40 slices off"),
        ([(circle(9)[:, [0, 2, 1]] + (0, 5, -12), PLANAR)], "slices off"),
        ([(circle(9, z=17), PLANAR)], "outside the CT"),
        ([(circle(9, centre=(100, 14)), PLANAR)], "outside the CT"),
        ([(circle(9, z=z), PLANAR) for z in (0, 2, 4, 6)], "2 or more slices apart"),
    ],
)
def test_contours_that_do_not_fit_the_ct(tmp_path: Path, contours, words: str) -> None:
    with pytest.raises(InputError, match=words):
        draw(tmp_path, contours)


def test_contour_data_that_are_no_points(tmp_path: Path) -> None:
    def edit(dataset: Dataset) -> None:
        dataset.ROIContourSequence[0].ContourSequence[0].ContourData = ["1", "2", "3", "4"]

    path = write_rtstruct(tmp_path / "rs.dcm", [("GTVp", [(AXIAL.to_lps(circle(5)), PLANAR)])], edit=edit)
    with pytest.raises(InputError, match=r"ContourData \(3006,0050\)"):
        read_rtstruct(path).draw(1, grid_of_lps(SHAPE, AXIAL.lps_affine), CT_SCAN.frame_uid)


def test_a_file_without_outlines(tmp_path: Path) -> None:
    assert read_rtstruct(write_rtstruct(tmp_path / "rs.dcm", [])).names == {}


@pytest.mark.parametrize("is_undefined_length", [False, True])
def test_a_file_cut_short_anywhere_is_never_a_smaller_outline(tmp_path: Path, is_undefined_length: bool) -> None:
    def edit(dataset: Dataset) -> None:
        for element in dataset.iterall():
            if element.VR == "SQ":
                element.is_undefined_length = is_undefined_length

    contours = [(AXIAL.to_lps(circle(9, z=z)), PLANAR) for z in (1, 2)]
    path = write_rtstruct(tmp_path / "rs.dcm", [("GTVp", contours)], edit=edit)
    whole, n_refused = path.read_bytes(), 0
    for n_bytes in range(400, len(whole), 197):
        path.write_bytes(whole[:n_bytes])
        try:
            n_refused += not read_rtstruct(path).names
        except InputError:
            n_refused += 1
    assert n_refused == len(range(400, len(whole), 197))
