from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from hngtv.cases.manifest import RawCase
from hngtv.localise.roi_table import Roi
from hngtv.metrics.uptake import measure_uptake
from hngtv.report.overlay import load_view
from hngtv.report.patient_page import COLUMNS, NOTICE, draw_patient_page, uptake_rows, write_patient_page
from hngtv.volume.nifti import read_image, write_labels_like
from tests.tiny_cases import write_tiny_case

FACTS = {"model": "two_stage_ag, hngtv 0.1.0", "SUV": "as in the PET file"}


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> RawCase:
    return write_tiny_case(tmp_path_factory.mktemp("cases"), "P$1", seed=3)


def mask_of(case: RawCase) -> Path:
    assert case.target is not None
    return case.target


def roi_of(case: RawCase, reason: str = "found") -> Roi:
    return Roi(case.case_id, "coarse", "ensemble", (read_image(case.ct).grid.bounds(),), 0.75, None, reason)


def words_of(case: RawCase, mask: Path, **changes: object) -> str:
    roi = replace(roi_of(case), **changes)  # pyright: ignore[reportArgumentType]
    return "\n".join(text.get_text() for text in draw_patient_page(case, mask, roi, FACTS, ["something odd"]).texts)


def test_the_table_holds_what_is_measured(case: RawCase) -> None:
    view = load_view(replace(case, target=None), mask_of(case))
    rows = {row[0]: dict(zip(COLUMNS[1:], row[1:], strict=True)) for row in uptake_rows(view)}
    assert list(rows) == ["GTVp", "GTVn", "both"]
    target = read_image(mask_of(case))
    assert view.pet is not None
    nodes = measure_uptake(target.values == 2, target.grid, view.pet.values, view.pet.grid)
    assert nodes is not None
    assert rows["GTVn"]["SUVmax"] == f"{nodes.suv_max:.1f}"
    assert rows["GTVn"]["volume, mL"] == f"{(target.values == 2).sum() * 5 * 5 * 6 / 1000:.1f}"
    assert rows["both"]["pieces"] == "2"


def test_what_the_page_says(case: RawCase) -> None:
    words = words_of(case, mask_of(case))
    for word in (NOTICE, r"Case P\$1", "coarse: found, confidence 0.75", *FACTS.values(), "Warning: something odd"):
        assert word in words
    assert "fallback" not in words
    words = words_of(case, mask_of(case), reason="fallback:pet_rule (nothing found)", confidence=0.0)
    assert "Stage 1 did not find the tumour (pet_rule (nothing found))" in words


def test_without_a_pet_no_uptake_is_given(case: RawCase) -> None:
    alone = replace(case, pet=None)
    assert "There was no PET" in words_of(alone, mask_of(case))
    rows = uptake_rows(load_view(replace(alone, target=None), mask_of(case)))
    assert {cell for row in rows for cell in row[3:]} == {"-"}


def test_an_empty_mask_is_told(case: RawCase, tmp_path: Path) -> None:
    empty = np.zeros(read_image(case.ct).grid.shape, np.uint8)
    write_labels_like(tmp_path / "mask.nii.gz", empty, case.ct)
    assert "Nothing was outlined. This does not say that there is no tumour." in words_of(
        case, tmp_path / "mask.nii.gz"
    )
    assert [row[1] for row in uptake_rows(load_view(case, tmp_path / "mask.nii.gz"))] == ["none", "none"]


def test_it_is_one_page_of_a4(case: RawCase, tmp_path: Path) -> None:
    write_patient_page(tmp_path / "report.pdf", case, mask_of(case), roi_of(case), FACTS)
    written = (tmp_path / "report.pdf").read_bytes()
    assert written.startswith(b"%PDF-")
    assert b"/Count 1" in written
    assert b"/MediaBox [ 0 0 595.44 841.68 ]" in written


def test_letters_and_places_of_the_slices_do_not_touch(case: RawCase) -> None:
    figure = draw_patient_page(case, mask_of(case), roi_of(case), FACTS)
    renderer = FigureCanvasAgg(figure).get_renderer()
    for axis in figure.axes:
        boxes = [text.get_window_extent(renderer) for text in axis.texts]
        assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
