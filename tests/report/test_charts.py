from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from hngtv.commands.compare import build_comparison
from hngtv.report import tables
from hngtv.report.charts import draw_charts, write_figures
from hngtv.report.page import render_report
from hngtv.report.runs import find_runs


def test_every_chart_is_written_as_svg_and_png_and_twice_the_same(fake_runs: Path, tmp_path: Path) -> None:
    comparison = build_comparison(*find_runs(fake_runs), reference=None, metric="dice")
    for folder in ("one", "two"):
        write_figures(tmp_path / folder, draw_charts(comparison))
    names = set(draw_charts(comparison))
    assert names == {"distributions", "differences", "coverage", "outside", "curves"}
    files = sorted((tmp_path / "one").iterdir())
    assert {path.name for path in files} == {f"{name}.{ending}" for name in names for ending in ("svg", "png")}
    for path in files:
        if path.suffix == ".svg":
            assert ElementTree.parse(path).getroot().tag.endswith("svg")
            assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
        else:
            assert Image.open(path).width > 300


@pytest.mark.parametrize("name", ["calibration_rows", "outside_rows"])
def test_what_charts_and_page_share_is_read_once(fake_runs: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    n_calls = 0
    compute = getattr(tables, name)

    def count(*given: object) -> object:
        nonlocal n_calls
        n_calls += 1
        return compute(*given)

    monkeypatch.setattr(tables, name, count)
    comparison = build_comparison(*find_runs(fake_runs), reference=None, metric="dice")
    render_report(comparison, draw_charts(comparison), n_viewer_cases=0)
    assert n_calls == 1
