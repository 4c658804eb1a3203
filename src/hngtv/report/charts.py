"""The charts of a comparison, for the page and as files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from hngtv.report import figures
from hngtv.report.evidence import draw_outside, draw_reliability, located_cases, roi_names
from hngtv.report.localisers import draw_localisers
from hngtv.report.runs import Run
from hngtv.report.statistics import METRICS
from hngtv.report.tables import Comparison, box_points
from hngtv.run_folder import atomic_path, make_folder, read_csv

FORMATS = ("svg", "png")


def write_figures(folder: Path, charts: Mapping[str, Figure]) -> None:
    """Write charts into a folder, as SVG and as PNG.

    Raises:
        InputError: The folder cannot be written.
    """
    make_folder(folder)
    for name, figure in charts.items():
        for image_format in FORMATS:
            with atomic_path(folder / f"{name}.{image_format}") as temporary:
                temporary.write_bytes(figures.encode(figure, image_format))


def draw_charts(comparison: Comparison) -> dict[str, Figure]:
    """Charts by name; one that has nothing to show is absent."""
    runs = comparison.runs
    colours = figures.colours_of(list(comparison.arms))
    gtv = comparison.values["GTV"]
    values = dict(zip(gtv.arms, gtv.filled(comparison.metric, METRICS[comparison.metric].worst), strict=True))
    charts = {"distributions": figures.draw_distributions(values, comparison.metric, colours)}
    if pairs := comparison.pairs["GTV"]:
        charts["differences"] = figures.draw_differences(pairs, colours)
    if points := box_points(runs):
        charts["coverage"] = figures.draw_coverage(points)
    if located := located_cases(runs):
        charts["roi_curve"] = draw_localisers(located, _margins(runs), _learned(runs))
    if comparison.calibration:
        charts["calibration"] = draw_reliability(comparison.calibration, colours)
    charts["outside"] = draw_outside(comparison.outside, colours)
    if curves := load_curves(runs):
        charts["curves"] = figures.draw_curves(curves, colours)
    return charts


def load_curves(runs: Sequence[Run]) -> list[figures.Curve]:
    """Losses and scores over the steps of every stage; other curves (learning rate) are left out."""
    curves = []
    for run in runs:
        files = [*sorted(run.folder.coarse.rglob("curves.csv")), run.folder.fine / "curves.csv"]
        for path in filter(Path.is_file, files):
            stage = "fine" if path.parent == run.folder.fine else "coarse"
            points: dict[str, list[tuple[float, float]]] = {}
            for row in read_csv(path, ("step", "name", "value")):
                if any(word in row["name"] for word in ("loss", "dice")):
                    points.setdefault(row["name"], []).append((float(row["step"]), float(row["value"])))
            for name, pairs in points.items():
                steps, values = zip(*pairs, strict=True)
                curves.append(figures.Curve(run.arm, f"{stage}: {name}", steps, values))
    return curves


def _margins(runs: Sequence[Run]) -> Mapping[str, float]:
    names = roi_names(runs)
    return {names[run.name]: run.margin_mm for run in runs if run.name in names}


def _learned(runs: Sequence[Run]) -> list[str]:
    """Names of the localisers that have a network."""
    names = roi_names(runs)
    return [names[run.name] for run in runs if run.name in names and "network" in run.settings["localiser"]]
