import html
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from hngtv.cases.manifest import RawCase
from hngtv.commands.compare import build_comparison
from hngtv.report.browse import case_table, pick_cases
from hngtv.report.charts import draw_charts, load_curves
from hngtv.report.page import MAX_FAILURES_SHOWN, render_report
from hngtv.report.runs import find_runs, read_run
from hngtv.report.stand_alone import policy_of
from hngtv.report.tables import Comparison
from hngtv.report.words import format_count, format_interval, format_number, format_signed
from tests.conftest import write_fake_run

VOID_TAGS = {"meta", "img", "br", "wbr", "input"}


def page_of(comparison: Comparison) -> str:
    return render_report(comparison, draw_charts(comparison))


@pytest.fixture(scope="module")
def page(fake_runs: Path) -> str:
    return page_of(build_comparison(*find_runs(fake_runs), reference=None, metric="dice"))


class Outline(HTMLParser):
    """Checks that tags close in order, and collects what the page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID_TAGS:
            self.open.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_well_formed_and_fetches_nothing(page: str) -> None:
    outline = Outline()
    outline.feed(page)
    assert outline.open == []
    viewer = page.count('class="ct"') + page.count("<image data-layer")
    assert viewer > 3 * 5 * 2  # CT and PET of some slices of three cases
    assert len(outline.links) == viewer + 5 + 3 + 3  # charts, then best, median and worst of two arms
    assert all(link.startswith("data:image/webp;base64,") for link in outline.links)
    assert not re.search(r"https?:|url\(|@import", re.sub(r"base64,[^\"]*", "", page))


def test_policy_allows_the_style_and_script_of_the_page_alone(page: str) -> None:
    policy = html.unescape(re.findall(r'Content-Security-Policy" content="([^"]*)"', page)[0])
    assert policy == policy_of(page)
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy
    assert not re.search(
        r"\son\w+=|\sstyle=", re.sub(r"<(script|style)>.*?</\1>|base64,[^\"]*", "", page, flags=re.DOTALL)
    )
    assert policy_of(page.replace("use strict", "use nothing")) != policy


def test_failures_come_before_the_numbers_and_many_are_folded(page: str) -> None:
    assert page.index("What went wrong") < page.index("How well each arm")
    assert 'class="screen-only"><summary>' not in page
    found = re.findall(r"<td>(phantom_\d+)</td><td class=\"text\">([^<]*)", page[: page.index("How well each arm")])
    assert [what.startswith("box by") for _, what in found] == sorted(what.startswith("box by") for _, what in found)
    assert 0 < len(found) <= MAX_FAILURES_SHOWN


def test_page_answers_in_words_and_says_how_far_to_trust_it(page: str) -> None:
    assert "Too few cases to say: the arms differ in 3 of 3, at least 6 are needed." in page
    assert "phantoms drawn by a computer" in page
    assert "Nothing is dropped." in page
    assert "two_stage_unet (crop) minus single_stage_ag (gate)" in page


def test_page_counts_cases_of_dice_0_and_says_what_a_box_is(page: str) -> None:
    assert "<th>Dice 0<br><small>cases</small></th>" in page
    assert "missed<br>" not in page
    assert "where the second stage may outline" in page
    assert "<td>coarse</td><td>3</td><td>2 of 3</td>" in page
    assert "cropped box" not in page


def test_caption_says_worst_only_of_the_worst(tmp_path: Path, phantom_cases: list[RawCase]) -> None:
    run = write_fake_run(tmp_path, phantom_cases[:1], "single_stage_ag")
    run.prediction("phantom_0000").unlink()
    page = page_of(build_comparison(*find_runs(tmp_path), reference=None, metric="dice"))
    assert "Prediction file removed after scoring." in page
    assert "scored as the worst" not in page


def test_page_lists_the_failures(page: str) -> None:
    assert "no prediction file; scored as the worst" in page
    assert "No prediction file; scored as the worst." in page
    assert "box by fallback:nothing above the threshold" in page


def test_one_arm_and_unreadable_images_still_make_a_page(tmp_path: Path, phantom_cases: list[RawCase]) -> None:
    run = write_fake_run(tmp_path, phantom_cases[:1], "single_stage_ag")
    (run.root / "cases.csv").unlink()
    page = page_of(build_comparison(*find_runs(tmp_path), reference=None, metric="hd95_mm"))
    assert "One arm only: nothing to compare." in page
    assert "No picture: case phantom_0000 is not in" in page


def test_a_hostile_name_is_text(tmp_path: Path, phantom_cases: list[RawCase]) -> None:
    run = write_fake_run(tmp_path, phantom_cases[:1], "single_stage_ag")
    run.settings.write_text(run.settings.read_text().replace('"single_stage_ag"', '"<script>alert(1)</script>"'))
    page = page_of(build_comparison(*find_runs(tmp_path), reference=None, metric="dice"))
    assert "<script>alert" not in page


def test_curves_keep_losses_and_leave_the_learning_rate(fake_runs: Path) -> None:
    curves = load_curves([read_run(fake_runs / "two_stage_unet" / "fold0-seed0")])
    assert [curve.panel for curve in curves] == ["coarse: train/loss", "fine: train/loss"]
    assert len(curves[0].steps) == 40


def test_numbers_of_tables() -> None:
    assert [format_number(0.12345), format_number(float("nan")), format_number(float("inf"))] == [
        "0.123",
        "\N{EN DASH}",
        "infinite",
    ]
    assert [format_signed(0.1), format_signed(-0.1)] == ["+0.100", "-0.100"]
    infinite = float("inf")
    assert [format_number(-infinite), format_signed(infinite), format_signed(-infinite)] == [
        "-infinite",
        "+infinite",
        "-infinite",
    ]
    assert format_interval(-2, infinite, "+") == "-2.000 to +infinite"
    assert format_interval("", "") == format_interval(float("nan"), float("nan")) == "no interval"
    assert format_count(1234567.0) == "1,234,567"


def test_best_median_and_worst_are_each_named_once(fake_runs: Path) -> None:
    scores = read_run(fake_runs / "single_stage_ag" / "fold0-seed0").scores
    assert list(pick_cases(scores)) == ["best", "median", "worst"]
    assert pick_cases(scores)["worst"].case_id == "phantom_0002"
    assert list(pick_cases([s for s in scores if s.case_id == "phantom_0000"])) == ["best"]
    assert pick_cases([]) == {}


def test_table_of_cases_starts_with_the_worst(fake_runs: Path) -> None:
    table = case_table(read_run(fake_runs / "single_stage_ag" / "fold0-seed0"))
    assert table.index("phantom_0002") < table.index("phantom_0000")
    assert "no prediction" in table
