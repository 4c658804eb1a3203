"""The parts of the check report: outliers by hand, histograms, pictures, and a page that fetches nothing."""

import base64
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.patches import Rectangle
from PIL import Image as Picture

from hngtv.cases.checks import check_case
from hngtv.cases.findings import Finding, find_duplicates
from hngtv.cases.inspect import InspectPlan
from hngtv.cases.manifest import RawCase
from hngtv.cases.quantities import (
    Quantity,
    distance_quantity,
    find_outliers,
    list_quantities,
    outlier_finding,
    value_shares,
)
from hngtv.report.check_case import CheckedCase, check_one
from hngtv.report.check_charts import N_BINS, OUTLIER_COLOUR, draw_quantity
from hngtv.report.check_page import MAX_FINDINGS_SHOWN, CohortCheck, render_check
from hngtv.report.overlay import CaseView
from hngtv.report.stand_alone import policy_of
from hngtv.report.thumbnails import PANEL_PIXELS, draw_strip
from tests.report.test_page import Outline
from tests.tiny_cases import write_tiny_case


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> list[CheckedCase]:
    root = tmp_path_factory.mktemp("cases")
    return [check_one(write_tiny_case(root, f"c{i}", seed=i), InspectPlan(False)) for i in range(3)]


def quantity(*values: float, is_ratio: bool = False) -> Quantity:
    return Quantity("length", "mm", is_ratio, tuple((f"c{i}", value) for i, value in enumerate(values)))


def test_far_out_is_beyond_three_interquartile_ranges() -> None:
    # Quartiles 3.25 and 7.75, so the upper fence is 7.75 + 3 * 4.5 = 21.25.
    assert find_outliers(quantity(*range(1, 10), 21)) == []
    assert find_outliers(quantity(*range(1, 10), 22)) == [("c9", 22)]
    assert find_outliers(quantity(*range(1, 7), 100)) == []  # too few cases


def test_ratios_are_judged_by_their_logarithm() -> None:
    doubling = [2.0**i for i in range(10)]
    assert find_outliers(quantity(*doubling, is_ratio=True)) == []
    assert find_outliers(quantity(*doubling, 1e-9, is_ratio=True)) == [("c10", 1e-9)]


def test_rounding_is_no_outlier_where_all_others_are_equal_and_the_farthest_comes_first() -> None:
    assert find_outliers(quantity(*[3.27] * 9, 3.28)) == []
    assert find_outliers(quantity(*[3.27] * 12, 5.0, 1.0)) == [("c13", 1.0), ("c12", 5.0)]


def test_a_note_names_the_cases_up_to_a_limit() -> None:
    finding = outlier_finding(quantity(*[2.0] * 60, *[9.0] * 14))
    assert finding is not None
    assert (finding.case_id, finding.severity) == ("", "note")
    assert finding.text.startswith("length: c60 (9 mm), c61 (9 mm), ")
    assert "and 2 more lie far from the others (median 2 mm); it need not be wrong" in finding.text
    assert outlier_finding(quantity(*[2.0] * 60)) is None


def test_shares_leave_out_what_lies_below_and_keep_what_lies_beyond() -> None:
    edges = np.array([0.0, 1.0, 2.0])
    values = np.array([-5.0, 0.0, 0.5, 1.5, 99.0, 2.0]).reshape(1, 2, 3)
    np.testing.assert_allclose(value_shares(values, edges), [0.4, 0.6])
    np.testing.assert_allclose(value_shares(values - 500, edges), [0, 0])


def test_distance_is_how_far_values_are_moved() -> None:
    edges = np.arange(0.0, 60.0, 10.0)
    shares = {f"c{i}": np.array([0.0, 1.0, 0.0, 0.0, 0.0]) for i in range(3)} | {"off": np.array([0, 0, 0, 0.5, 0.5])}
    assert distance_quantity("d", "HU", shares, edges).values == (("c0", 0), ("c1", 0), ("c2", 0), ("off", 25))
    assert distance_quantity("d", "HU", {}, edges).values == ()


def test_a_distance_within_a_bin_is_not_far() -> None:
    alike = {f"c{i}": np.array([0.0, 1.0, 0.0, 0.0]) for i in range(9)}
    edges = np.arange(0.0, 50.0, 10.0)
    for share, far in (([0.0, 0.1, 0.9, 0.0], []), ([0.0, 0.0, 0.5, 0.5], [("off", 15.0)])):
        assert find_outliers(distance_quantity("d", "HU", alike | {"off": np.array(share)}, edges)) == far


def test_quantities_are_those_of_the_facts(checked: list[CheckedCase]) -> None:
    facts = [one.facts for one in checked if one.facts is not None]
    found = {q.name: q for q in list_quantities([replace(facts[0], lesions_gtvn_ml="4.000 1.500"), *facts[1:]])}
    assert found["CT slice distance"].values == (("c0", 6), ("c1", 6), ("c2", 6))
    assert found["CT height"].values[0] == ("c0", 96)
    lesions = found["volume of a lesion"]
    assert [value for case_id, value in lesions.values if case_id == "c0"][1:] == [4.0, 1.5]
    assert lesions.counted == "lesions"
    assert "GTVn volume" not in {q.name for q in list_quantities([replace(fact, gtvn_ml=0.0) for fact in facts])}


def test_each_case_is_in_one_bar_and_outliers_are_orange() -> None:
    axis = draw_quantity(quantity(*[2.0] * 9, 9.0)).axes[0]
    bars = [bar for bar in axis.patches if isinstance(bar, Rectangle)]
    usual, orange = bars[:N_BINS], bars[N_BINS:]
    assert sum(bar.get_height() for bar in usual) == 9
    assert sum(bar.get_height() for bar in orange) == 1
    assert orange[0].get_facecolor()[:3] == pytest.approx([int(OUTLIER_COLOUR[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def test_duplicates_are_told_for_ct_and_pet_apart(checked: list[CheckedCase]) -> None:
    first, second, third = (one.facts for one in checked)
    assert first is not None
    assert second is not None
    assert third is not None
    pet = replace(third, contents=(third.contents[0], first.contents[1]), split="test")
    (pair,) = find_duplicates([pet, second, first])
    assert (pair.case_id, pair.first_id, pair.kinds, pair.is_across_splits) == ("c2", "c0", ("PET",), True)
    assert find_duplicates([first, second, third]) == []


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("case c1: it is 3; expected 4; mend it", ("it is 3", "expected 4; mend it")),
        ("case c1: it is odd", ("it is odd", "")),
        ("of all", ("of all", "")),
    ],
)
def test_a_finding_is_told_in_two_parts(text: str, parts: tuple[str, str]) -> None:
    assert Finding("c1", "warning", text).parts == parts


def test_pictures_show_the_outline_where_the_patient_has_it(tmp_path: Path) -> None:
    case = write_tiny_case(tmp_path, "c", has_nodes=False)
    images = check_case(case)
    assert images.target is not None
    target = np.zeros_like(images.target)
    x, y, z = (n // 2 for n in target.shape)
    target[x + 4 : x + 8, y - 3 : y + 3, z + 2 : z + 5] = 2  # the patient's right, and above the middle
    view = CaseView(images.ct, images.pet, target, None, None)
    for picture in map(pixels_of, draw_strip(view)):
        assert picture.shape == (PANEL_PIXELS, 2 * PANEL_PIXELS, 3)
        for panel in (picture[:, :PANEL_PIXELS], picture[:, PANEL_PIXELS:]):
            green = np.argwhere((panel[..., 1] > 180) & (panel[..., 0] < 150) & (panel[..., 2] < 170))
            assert len(green) > 50
    plain = [pixels_of(url) for url in draw_strip(replace(view, target=None))]
    assert all(np.abs(p[:, :PANEL_PIXELS, 0] - p[:, :PANEL_PIXELS, 1]).max() < 12 for p in plain)  # CT alone is grey
    axial = pixels_of(draw_strip(replace(view, target=mark(target, x + 8)))[0])[:, :PANEL_PIXELS]
    green = np.argwhere((axial[..., 1] > 180) & (axial[..., 0] < 150) & (axial[..., 2] < 170))
    assert green[:, 1].mean() < PANEL_PIXELS / 2  # the patient's right is on the left


def mark(target: np.ndarray, right: int) -> np.ndarray:
    """A plate of nodes on the right, and a dot of primary tumour far on the left that widens the view."""
    marked = np.zeros_like(target)
    marked[right - 3 : right, 8:16, 6:10] = 2
    marked[2, 12, 8] = 1
    return marked


def pixels_of(url: str) -> np.ndarray:
    data = base64.b64decode(url.removeprefix("data:image/webp;base64,"))
    return np.asarray(Picture.open(io.BytesIO(data)).convert("RGB")).astype(int)


def test_page_is_well_formed_stands_alone_and_names_the_far_ones(checked: list[CheckedCase]) -> None:
    facts = checked[0].facts
    assert facts is not None
    many = [
        replace(checked[i % 3], case=replace(checked[0].case, case_id=f"m{i}"), facts=replace(facts, case_id=f"m{i}"))
        for i in range(9)
    ]
    many.append(replace(many[0], facts=replace(facts, case_id="hot", suv_max=400.0), case=case_named("hot")))
    page = render_check(CohortCheck("list.csv", many, [Finding("", "note", "an archive; extract it")]))
    assert "SUVmax: 10 cases, median" in page
    assert "Far from the others: hot (400)" in page
    outline = Outline()
    outline.feed(page)
    assert outline.open == []
    assert len(outline.links) == page.count("<img")
    assert all(link.startswith("data:image/webp;base64,") for link in outline.links)
    assert not re.search(r"https?:|url\(|@import|\sstyle=|<script", re.sub(r"base64,[^\"]*", "", page))
    assert policy_of(page).startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "script-src 'none'" in page


def case_named(case_id: str) -> RawCase:
    return RawCase(case_id, "", Path("ct.nii"), None, None)


def test_many_findings_are_folded_and_a_page_without_good_cases_works() -> None:
    n = MAX_FINDINGS_SHOWN + 5
    bad = [CheckedCase(case_named(f"c{i}"), (Finding(f"c{i}", "error", f"case c{i}: gone; get it"),)) for i in range(n)]
    page = render_check(CohortCheck("list.csv", bad))
    assert f"{n} cases: 0 can be used, {n} are refused." in page
    assert "5 more (all are in findings.csv)" in page
    assert "<img" not in page
