from pathlib import Path
from xml.etree import ElementTree

from PIL import Image

from hngtv.commands.compare import build_comparison
from hngtv.report.charts import draw_charts, write_figures
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
