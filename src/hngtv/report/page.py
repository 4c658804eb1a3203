"""The report: one HTML file that needs nothing else, pictures included."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hngtv.errors import InputError
from hngtv.metrics.score import CaseScore
from hngtv.report import figures
from hngtv.report.answer import MIN_CASES, answer_question, effect_rows
from hngtv.report.attention import draw_history, load_history
from hngtv.report.browse import outline_of, pick_cases, pick_contested, view_of
from hngtv.report.challenges import find_rankings, ranked_arms
from hngtv.report.failures import failure_rows, score_problem
from hngtv.report.overlay import draw_case
from hngtv.report.runs import Run, describe_arm
from hngtv.report.stand_alone import package_version, policy_of
from hngtv.report.strata import subgroup_rows
from hngtv.report.tables import (
    FULL_COVERAGE,
    Comparison,
    box_points,
    count_fallbacks,
)
from hngtv.report.terms import budget_text, unequal_terms
from hngtv.report.viewer import templates, viewer_case
from hngtv.report.words import format_interval
from hngtv.run_folder import write_text

TEMPLATE = "report.html.jinja"
N_VIEWER_CASES = 8
MAX_OVERLAYS = 36
"""Pictures of best, median and worst cases; arms after that many have none. Source: our choice, for the page's size."""
MAX_FAILURES_SHOWN = 15
"""More are folded away. Source: our choice."""


def write_report(
    path: Path, comparison: Comparison, charts: Mapping[str, Figure], n_viewer_cases: int = N_VIEWER_CASES
) -> None:
    write_text(path, render_report(comparison, charts, n_viewer_cases))


def render_report(comparison: Comparison, charts: Mapping[str, Figure], n_viewer_cases: int = N_VIEWER_CASES) -> str:
    """The report as HTML text, with the charts of `draw_charts`; the viewer holds so many cases."""
    page = templates().get_template(TEMPLATE).render(**_content(comparison, charts, n_viewer_cases))
    return page.replace("POLICY", policy_of(page), 1)


def _content(comparison: Comparison, charts: Mapping[str, Figure], n_viewer_cases: int) -> dict[str, Any]:
    arms = comparison.arms
    rows = comparison.table
    scores = comparison.scores
    unequal = unequal_terms(comparison.runs, comparison.conditions.budget_tolerance)
    return {
        "answer": answer_question(arms, scores, comparison.metric, comparison.conditions),
        "is_equal": not unequal,
        "warnings": _warnings(comparison, unequal),
        "comparison": comparison,
        "rows_of_class": {name: [r for r in rows if r["class_name"] == name] for name in comparison.class_names},
        "arm_rows": [_arm_row(arm, runs) for arm, runs in arms.items()],
        "effects": effect_rows(arms, scores, comparison.metric),
        "subgroups": subgroup_rows(comparison),
        "rankings": find_rankings(comparison),
        "ranked_arms": ranked_arms(comparison),
        "charts": {name: figures.data_url(chart, lossless=True) for name, chart in charts.items()},
        "viewer": _viewer(comparison, n_viewer_cases),
        "attention": _attention(comparison),
        "overlays": _overlays(comparison),
        "failures": sorted(failure_rows(comparison.runs), key=lambda row: row[2].startswith("box by")),
        "max_failures": MAX_FAILURES_SHOWN,
        "boxes": {run.localiser: _box_row(comparison.runs, run.localiser) for run in comparison.runs if run.rois},
        "metric_label": figures.METRIC_LABELS[comparison.metric],
        "format_interval": format_interval,
        "full_coverage": FULL_COVERAGE,
        "min_cases": MIN_CASES,
        "version": package_version(),
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


def _attention(comparison: Comparison) -> dict[str, str]:
    """For each arm with gates, what the gates of its first run looked at while they learnt, as a data URL."""
    pictures = {}
    for arm, runs in comparison.arms.items():
        histories = [run.folder.fine / "attention.npz" for run in runs]
        first = next((path for path in histories if path.is_file()), None)
        if first is not None:
            pictures[arm] = figures.data_url(draw_history(load_history(first)))
    return pictures


def _overlays(comparison: Comparison) -> dict[str, list[dict[str, str]]]:
    """Best, median and worst case of each arm: caption, and a picture or the reason why there is none."""
    chosen = []
    for arm, runs in comparison.arms.items():
        rows = [row for run in runs for row in run.scores]
        chosen += [(arm, rank, row) for rank, row in reversed(pick_cases(rows).items())]
    chosen = chosen[:MAX_OVERLAYS]
    drawn = {}
    for arm, rank, row in sorted(chosen, key=lambda one: one[2].case_id):  # so that files of a case are read once
        drawn[arm, rank] = _overlay(comparison.arms[arm], rank, row)
    return {
        arm: [drawn[a, rank] for a, rank, _ in chosen if a == arm] for arm in dict.fromkeys(a for a, _, _ in chosen)
    }


def _viewer(comparison: Comparison, n_cases: int) -> list[dict[str, Any]]:
    """The cases of the viewer; those without images are left out."""
    rows: dict[str, dict[str, list[tuple[Run, CaseScore]]]] = {arm: {} for arm in comparison.arms}
    for run in comparison.runs:
        for score in (row for row in run.scores if row.class_name == "GTV"):
            rows[run.arm].setdefault(score.case_id, []).append((run, score))
    gtv = comparison.values["GTV"]
    dice = {
        arm: dict(zip(gtv.case_ids, map(float, row), strict=True))
        for arm, row in zip(gtv.arms, gtv.filled("dice", 0.0), strict=True)
    }
    cases = []
    for case_id, why in pick_contested(dice, n_cases).items():
        found = [known[case_id][0] for known in rows.values() if case_id in known]
        try:
            view = view_of(found[0][0], case_id)
        except InputError:
            continue
        values = [arm[case_id] for arm in dice.values()]
        title = f"{why}, Dice {min(values):.2f}" + (f" to {max(values):.2f}" if len(values) > 1 else "")
        outlines = [outline_of(run, score, view) for run, score in found]
        cases.append(viewer_case(case_id, title, view, outlines))
    return cases


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
