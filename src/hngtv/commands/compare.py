"""Compare arms: table, statistics, report.

    hngtv compare runs=runs out=comparison
    hngtv compare runs=runs out=comparison reference=single_stage_ag metric=surface_dice_2mm
    hngtv compare runs=runs out=comparison non_inferiority_margin=0.02

Finds every run folder (settings.json and scores.csv) below `runs`, groups the runs by arm, and writes into `out`:
report.html (one file, pictures and a viewer inside), figures/ (its charts as SVG and PNG), table.csv and table.tex (a
row per arm and class), differences.csv (every arm against the reference by metric, class, centre and size of the
tumour), rankings.csv (as the challenges would have ranked the arms) and scores.csv (the scores of all runs). Arms are
compared on the folds that all of them have, patient by patient; several seeds of a patient are averaged first.

Exit status: 0 done, 2 bad settings or input.
"""

from hngtv.config import CompareSettings
from hngtv.errors import InputError
from hngtv.report.answer import choose_reference
from hngtv.report.challenges import RANKING_COLUMNS, find_rankings, ranking_rows
from hngtv.report.charts import draw_charts, write_figures
from hngtv.report.latex import latex_table
from hngtv.report.page import write_report
from hngtv.report.runs import Run, find_runs, keep_shared_folds, runs_by_arm
from hngtv.report.scores import write_scores
from hngtv.report.statistics import compare_values
from hngtv.report.strata import DIFFERENCE_COLUMNS, difference_rows
from hngtv.report.tables import TABLE_COLUMNS, Comparison, shown_classes, summarise_classes, values_of_classes
from hngtv.report.terms import Conditions, unequal_terms
from hngtv.run_folder import make_folder, write_csv, write_text


def run(settings: CompareSettings) -> None:
    """Write the comparison of all finished runs below `settings.runs`.

    Raises:
        InputError: No finished run, no shared fold, or an unknown reference arm.
    """
    found, unfinished = find_runs(settings.runs)
    conditions = Conditions(settings.non_inferiority_margin, settings.budget_tolerance, settings.unequal_budgets)
    comparison = build_comparison(found, unfinished, settings.reference, settings.metric, conditions)
    make_folder(settings.out)
    write_scores(settings.out / "scores.csv", (row for one in found for row in one.scores))
    write_csv(settings.out / "table.csv", TABLE_COLUMNS, comparison.table)
    write_text(settings.out / "table.tex", latex_table(comparison.table))
    write_csv(settings.out / "differences.csv", DIFFERENCE_COLUMNS, difference_rows(comparison))
    write_csv(settings.out / "rankings.csv", RANKING_COLUMNS, ranking_rows(comparison))
    charts = draw_charts(comparison)
    write_figures(settings.out / "figures", charts)
    write_report(settings.out / "report.html", comparison, charts, settings.n_viewer_cases)
    for line in (*unequal_terms(comparison.runs, conditions.budget_tolerance), *_unranked(comparison)):
        print(f"warning: {line}")
    print(settings.out / "report.html")


def build_comparison(
    found: list[Run],
    unfinished: list[str],
    reference: str | None,
    metric: str,
    conditions: Conditions = Conditions(),  # noqa: B008 - frozen
) -> Comparison:
    """Everything the report shows, from the runs.

    Raises:
        InputError: The arms share no fold, or the reference is not one of them.
    """
    runs, left_out = keep_shared_folds(found)
    arms = runs_by_arm(runs)
    if reference is not None and reference not in arms:
        raise InputError(f"reference is {reference!r}; expected one of the arms found: {', '.join(arms)}")
    reference = reference or choose_reference(arms)
    scores = [row for one in runs for row in one.scores]
    class_names = shown_classes(scores)
    values = values_of_classes(scores, class_names)
    return Comparison(
        runs=runs,
        left_out=left_out,
        unfinished=unfinished,
        scores=scores,
        class_names=class_names,
        reference=reference,
        metric=metric,
        conditions=conditions,
        values=values,
        summaries=summarise_classes(values, class_names),
        pairs={name: compare_values(values[name], metric, reference) for name in class_names},
    )


def _unranked(comparison: Comparison) -> list[str]:
    """One line on the rankings that older scores do not allow."""
    names = [ranking.name for ranking in find_rankings(comparison) if ranking.note]
    if not names:
        return []
    return [
        f"no ranking {', '.join(names)}: some scores.csv is from before lesions were counted; score again "
        "by the same hngtv run command, or by hngtv evaluate"
    ]
