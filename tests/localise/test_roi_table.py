"""`rois.csv`: what is written is read back, to the last digit of a box."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hngtv.errors import InputError
from hngtv.localise.roi_table import ROI_COLUMNS, Roi, read_rois, write_rois
from hngtv.run_folder import read_csv, write_csv
from hngtv.volume.box import Box

MM = st.floats(-3000, 3000, allow_nan=False)
SHARE = st.integers(0, 10_000).map(lambda n: n / 10_000)
ONE, OTHER = Box((-1.0, 0.0, 2.0), (9.0, 10.0, 12.0)), Box((30.0, 40.0, 50.0), (31.0, 44.0, 55.0))
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=12)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    pairs = [sorted((draw(MM), draw(MM))) for _ in range(3)]
    return Box.from_corners([low for low, _ in pairs], [high for _, high in pairs])


@st.composite
def rois(draw: st.DrawFn) -> Roi:
    covered = draw(st.none() | SHARE)
    several = tuple(draw(st.lists(boxes(), min_size=1, max_size=3)))
    return Roi(draw(TEXT), draw(TEXT), draw(TEXT), several, draw(SHARE), covered, draw(TEXT))


@settings(max_examples=15)
@given(st.lists(rois(), max_size=4, unique_by=lambda roi: (roi.case_id, roi.localiser, roi.fold)))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, written: list[Roi]) -> None:
    path = tmp_path_factory.mktemp("rois") / "rois.csv"
    write_rois(path, written)
    assert read_rois(path) == written


def test_columns_and_reasons_with_commas(tmp_path: Path) -> None:
    roi = Roi("a", "coarse", "1", (ONE,), 0.5, None, 'fallback:pet_rule (none, "of" 1 ml)')
    write_rois(tmp_path / "rois.csv", [roi])
    lines = (tmp_path / "rois.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == ",".join(ROI_COLUMNS)
    assert ",1.0," in lines[1]
    assert read_rois(tmp_path / "rois.csv") == [roi]


@pytest.mark.parametrize(("found", "replaced"), [("-1.0", "left"), ("-1.0", "99"), ("-1.0", "nan"), ("0.5000", "sure")])
def test_bad_value_is_an_error_with_file_and_line(tmp_path: Path, found: str, replaced: str) -> None:
    path = tmp_path / "rois.csv"
    write_rois(path, [Roi("a", "coarse", "0", (ONE,), 0.5, None, "found")])
    path.write_text(path.read_text().replace(found, replaced))
    with pytest.raises(InputError, match=r"rois\.csv line 2"):
        read_rois(path)


def test_missing_column_and_missing_file_are_errors(tmp_path: Path) -> None:
    (tmp_path / "rois.csv").write_text("case_id,localiser\na,whole\n")
    with pytest.raises(InputError, match="x0_mm"):
        read_rois(tmp_path / "rois.csv")
    with pytest.raises(InputError, match="does not exist"):
        read_rois(tmp_path / "none.csv")


def test_every_roi_has_its_row_and_what_is_said_of_the_case_stands_in_each(tmp_path: Path) -> None:
    path = tmp_path / "rois.csv"
    several = Roi("a", "coarse", "1", (OTHER, ONE), 0.5, 0.75, "found")
    single = Roi("b", "coarse", "0", (ONE,), 0.25, None, "found")
    write_rois(path, [several, single])
    rows = read_csv(path, ROI_COLUMNS)
    assert [(row["case_id"], row["roi"], row["x0_mm"], row["box_ml"]) for row in rows] == [
        ("a", "0", "30.0", "0.0"), ("a", "1", "-1.0", "1.0"), ("b", "0", "-1.0", "1.0"),
    ]  # fmt: skip
    assert [row["covered_fraction"] for row in rows] == ["0.7500", "0.7500", ""]
    assert read_rois(path) == [several, single]


def test_rows_of_another_localiser_or_fold_stay_apart(tmp_path: Path) -> None:
    path = tmp_path / "rois.csv"
    one = Roi("a", "coarse", "1", (ONE,), 0.5, None, "found")
    written = [one, replace(one, fold="ensemble"), replace(one, localiser="slices"), replace(one, case_id="b")]
    write_rois(path, written)
    assert read_rois(path) == written


def test_a_table_of_an_earlier_version_with_one_box_for_each_case_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rois.csv"
    columns = [name for name in ROI_COLUMNS if name != "roi"]
    write_csv(
        path, columns, [dict(zip(columns, ["a", "coarse", "1", -1, 0, 2, 9, 10, 12, 0.5, "", 1, "found"], strict=True))]
    )
    assert read_rois(path) == [Roi("a", "coarse", "1", (ONE,), 0.5, None, "found")]


def test_hull_and_volume_of_several_boxes() -> None:
    roi = Roi("a", "coarse", "1", (ONE, OTHER), 0.5, None, "found")
    assert roi.box == Box((-1.0, 0.0, 2.0), (31.0, 44.0, 55.0))
    assert roi.volume_ml == pytest.approx(1.0 + 0.02)
