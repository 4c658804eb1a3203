"""The report: one HTML file that needs nothing else, pictures included."""

import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from operator import attrgetter
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.figure import Figure

from hngtv.errors import InputError
from hngtv.metrics.score import CaseScore
from hngtv.report import figures
from hngtv.report.answer import MIN_CASES, answer_question, effect_rows
from hngtv.report.attention import draw_history, load_history
from hngtv.report.browse import pick_cases, view_of
from hngtv.report.overlay import draw_case
from hngtv.report.runs import Run, describe_arm
from hngtv.report.statistics import METRICS, Values, mean_by_case
from hngtv.report.tables import (
    FULL_COVERAGE,
    Comparison,
    box_points,
    budget_text,
    count_fallbacks,
    failure_rows,
    score_problem,
    subgroup_rows,
    unequal_terms,
)
from hngtv.report.words import format_count, format_interval, format_number, format_p_cell, format_signed
from hngtv.run_folder import read_csv, write_text

TEMPLATE = "report.html.jinja"


def write_report(path: Path, comparison: Comparison) -> None:
    write_text(path, render_report(comparison))


def render_report(comparison: Comparison) -> str:
    """The report as HTML text."""
    loader = jinja2.PackageLoader("hngtv.report", ".")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": format_number, "signed": format_signed, "count": format_count, "p": format_p_cell}
    return environment.get_template(TEMPLATE).render(**_content(comparison))


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


def _content(comparison: Comparison) -> dict[str, Any]:
    arms = comparison.arms
    rows = comparison.table
    scores = comparison.scores
    unequal = unequal_terms(comparison.runs)
    return {
        "answer": answer_question(arms, scores, comparison.metric),
        "is_equal": not unequal,
        "warnings": _warnings(comparison, unequal),
        "comparison": comparison,
        "rows_of_class": {name: [r for r in rows if r["class_name"] == name] for name in comparison.class_names},
        "arm_rows": [_arm_row(arm, runs) for arm, runs in arms.items()],
        "effects": effect_rows(arms, scores, comparison.metric),
        "subgroups": subgroup_rows(comparison),
        "charts": _charts(comparison),
        "attention": _attention(comparison),
        "overlays": _overlays(comparison),
        "failures": failure_rows(comparison.runs),
        "boxes": {run.localiser: _box_row(comparison.runs, run.localiser) for run in comparison.runs if run.rois},
        "metric_label": figures.METRIC_LABELS[comparison.metric],
        "format_interval": format_interval,
        "full_coverage": FULL_COVERAGE,
        "min_cases": MIN_CASES,
        "version": _version(),
        "date": time.strftime("%Y-%m-%d %H:%M"),
    }


def _warnings(comparison: Comparison, unequal: Sequence[str]) -> list[str]:
    found = [f"The arms were not compared on equal terms. {line}" for line in unequal]
    if comparison.left_out:
        names = ", ".join(run.name for run in comparison.left_out)
        found.append(f"Left out, because not every arm has these folds: {names}.")
    if comparison.unfinished:
        found.append(f"Left out, because they have no scores yet: {', '.join(comparison.unfinished)}.")
    names = {str((run.settings.get("data") or {}).get("name")) for run in comparison.runs}
    if "phantom" in names:
        found.append(
            "These cases are phantoms drawn by a computer. They show that the software works; "
            "they say nothing about how well it outlines tumours of patients."
        )
    if comparison.n_cases < MIN_CASES:
        found.append(f"Only {comparison.n_cases} cases: far too few for any conclusion.")
    return found


def _arm_row(arm: str, runs: Sequence[Run]) -> dict[str, Any]:
    return {
        "arm": arm,
        "what": describe_arm(runs[0]),
        "folds": ", ".join(sorted({run.fold for run in runs})),
        "seeds": ", ".join(sorted({str(run.seed) for run in runs})),
        "n_cases": len({case_id for run in runs for case_id in run.case_ids}),
        "budget": ", ".join(sorted({budget_text(run.settings) for run in runs})),
        "data": ", ".join(sorted({str((run.settings.get("data") or {}).get("name", "?")) for run in runs})),
    }


def _charts(comparison: Comparison) -> dict[str, str]:
    """Charts as data URLs; one that has nothing to show is absent."""
    colours = figures.colours_of(list(comparison.arms))
    values = {arm: _values_by_case(comparison.scores, arm, comparison.metric) for arm in comparison.arms}
    charts: dict[str, Callable[[], Figure]] = {
        "distributions": lambda: figures.draw_distributions(values, comparison.metric, colours)
    }
    pairs, points, curves = comparison.pairs["GTV"], box_points(comparison.runs), load_curves(comparison.runs)
    if pairs:
        charts["differences"] = lambda: figures.draw_differences(pairs, colours)
    if points:
        charts["coverage"] = lambda: figures.draw_coverage(points)
    if curves:
        charts["curves"] = lambda: figures.draw_curves(curves, colours)
    return {name: figures.data_url(draw()) for name, draw in charts.items()}


def _attention(comparison: Comparison) -> dict[str, str]:
    """For each arm with gates, what the gates of its first run looked at while they learnt, as a data URL."""
    pictures = {}
    for arm, runs in comparison.arms.items():
        histories = [run.folder.fine / "attention.npz" for run in runs]
        first = next((path for path in histories if path.is_file()), None)
        if first is not None:
            pictures[arm] = figures.data_url(draw_history(load_history(first)))
    return pictures


def _values_by_case(scores: Sequence[CaseScore], arm: str, metric: str) -> Values:
    """One value for each case of the cohort: the mean of its rows, or the worst value where the arm lacks it."""
    rows = [row for row in scores if row.arm == arm and row.class_name == "GTV"]
    case_ids = dict.fromkeys(row.case_id for row in scores)
    return mean_by_case(rows, case_ids, attrgetter(metric), METRICS[metric].worst)


def _overlays(comparison: Comparison) -> dict[str, list[dict[str, str]]]:
    """Best, median and worst case of each arm: caption, and a picture or the reason why there is none."""
    overlays: dict[str, list[dict[str, str]]] = {}
    for arm, runs in comparison.arms.items():
        rows = [row for run in runs for row in run.scores]
        overlays[arm] = [_overlay(runs, rank, row) for rank, row in pick_cases(rows).items()]
    return overlays


def _overlay(runs: Sequence[Run], rank: str, row: CaseScore) -> dict[str, str]:
    run = next(run for run in runs if (run.fold, run.seed) == (row.fold, row.seed))
    caption = (
        f"{rank.capitalize()} of {row.arm}: {row.case_id}, Dice {row.dice:.3f}, HD95 {row.hd95_mm:.1f} mm, "
        f"predicted {row.volume_ml:.1f} ml of {row.target_volume_ml:.1f} ml (fold {row.fold}, seed {row.seed})."
    )
    problem = score_problem(run, row)
    if problem:
        caption += f" {problem[0].upper()}{problem[1:]}."
    roi = run.rois.get(row.case_id)
    if roi is not None:
        covered = "" if roi.covered_fraction is None else f", holds {100 * roi.covered_fraction:.0f} % of the tumour"
        caption += f" Box {roi.reason}{covered}."
    try:
        return {"caption": caption, "picture": figures.data_url(draw_case(view_of(run, row.case_id))), "problem": ""}
    except InputError as error:
        return {"caption": caption, "picture": "", "problem": str(error)}


def _box_row(runs: Sequence[Run], localiser: str) -> Mapping[str, Any]:
    """Counts of all boxes of a localiser; the rest is about those of cases with a tumour."""
    runs = [run for run in runs if run.localiser == localiser]
    points = box_points(runs)
    return {
        "n": sum(len(run.rois) for run in runs),
        "n_fallbacks": count_fallbacks(runs),
        "n_with_tumour": len(points),
        "n_full": sum(p.covered_fraction >= FULL_COVERAGE for p in points),
        "ml": float(np.median([p.box_ml for p in points])) if points else None,
        "lowest": min((p.covered_fraction for p in points), default=None),
    }


def _version() -> str:
    try:
        return metadata.version("hngtv")
    except metadata.PackageNotFoundError:
        return "from a checkout"
