"""The report in a real browser, where Chromium and Playwright are installed."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hngtv.commands.compare import build_comparison
from hngtv.report.charts import draw_charts
from hngtv.report.page import write_report
from hngtv.report.runs import find_runs

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def report(fake_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    comparison = build_comparison(*find_runs(fake_runs), reference=None, metric="dice")
    write_report(path, comparison, draw_charts(comparison), n_viewer_cases=2)
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as engine:
        # No sandbox: a container's root has none. The page is our own.
        opened = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_page_opens_without_error_request_or_overflow_and_its_slider_moves(
    report: Path, browser: Any, width: int
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800})
    errors, requests = [], []
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(report.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    n_wide = page.evaluate(
        "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth).length"
    )
    assert width < 1280 or n_wide == 0
    viewer = page.locator(".viewer").first
    shown = viewer.locator(".slice.on figcaption")
    before = shown.text_content()
    viewer.locator("input").focus()
    page.keyboard.press("ArrowRight")
    after = shown.text_content()
    assert before != after
    _drag(page, viewer.locator(".slices"), -12)
    assert shown.text_content() == before
    viewer.get_by_role("button", name="truth").click()
    assert viewer.locator('.slice.on path[data-layer="truth"]:visible').count() == 0
    page.close()
    assert errors == []
    assert [url for url in requests if not url.startswith("data:")] == [report.as_uri()]


def test_without_scripts_all_slices_are_a_strip(report: Path, browser: Any) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    viewer = page.locator(".viewer").first
    assert viewer.locator(".slice:visible").count() == viewer.locator(".slice").count() > 3
    assert not viewer.locator("input").is_visible()
    context.close()


def test_paper_has_the_pictures_but_not_the_viewer(report: Path, browser: Any) -> None:
    page = browser.new_page()
    page.emulate_media(media="print")
    page.goto(report.as_uri())
    assert page.locator(".viewer:visible").count() == 0
    assert page.locator(".overlay img:visible").count() == 6
    page.close()


def _drag(page: Any, stage: Any, pixels: int) -> None:
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + pixels, y)
    page.mouse.up()
