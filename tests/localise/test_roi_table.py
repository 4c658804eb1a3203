"""`rois.csv`: what is written is read back, to the last digit of a box."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hngtv.errors import InputError
from hngtv.localise.roi_table import ROI_COLUMNS, Roi, read_rois, write_rois
from hngtv.volume.box import Box

MM = st.floats(-3000, 3000, allow_nan=False)
SHARE = st.integers(0, 10_000).map(lambda n: n / 10_000)
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=12)


@st.composite
def rois(draw: st.DrawFn) -> Roi:
    pairs = [sorted((draw(MM), draw(MM))) for _ in range(3)]
    box = Box.from_corners([low for low, _ in pairs], [high for _, high in pairs])
    covered = draw(st.none() | SHARE)
    return Roi(draw(TEXT), draw(TEXT), draw(TEXT), box, draw(SHARE), covered, draw(TEXT))


@settings(max_examples=15)
@given(st.lists(rois(), max_size=4))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, written: list[Roi]) -> None:
    path = tmp_path_factory.mktemp("rois") / "rois.csv"
    write_rois(path, written)
    assert read_rois(path) == written


def test_columns_and_reasons_with_commas(tmp_path: Path) -> None:
    roi = Roi(
        "a", "coarse", "1", Box((-1.0, 0.0, 2.0), (9.0, 10.0, 12.0)), 0.5, None, 'fallback:pet_rule (none, "of" 1 ml)'
    )
    write_rois(tmp_path / "rois.csv", [roi])
    lines = (tmp_path / "rois.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == ",".join(ROI_COLUMNS)
    assert ",1.0," in lines[1]
    assert read_rois(tmp_path / "rois.csv") == [roi]


@pytest.mark.parametrize(("found", "replaced"), [("-1.0", "left"), ("-1.0", "99"), ("-1.0", "nan"), ("0.5000", "sure")])
def test_bad_value_is_an_error_with_file_and_line(tmp_path: Path, found: str, replaced: str) -> None:
    path = tmp_path / "rois.csv"
    write_rois(path, [Roi("a", "coarse", "0", Box((-1.0, 0.0, 2.0), (9.0, 10.0, 12.0)), 0.5, None, "found")])
    path.write_text(path.read_text().replace(found, replaced))
    with pytest.raises(InputError, match=r"rois\.csv line 2"):
        read_rois(path)


def test_missing_column_and_missing_file_are_errors(tmp_path: Path) -> None:
    (tmp_path / "rois.csv").write_text("case_id,localiser\na,whole\n")
    with pytest.raises(InputError, match="x0_mm"):
        read_rois(tmp_path / "rois.csv")
    with pytest.raises(InputError, match="does not exist"):
        read_rois(tmp_path / "none.csv")
