"""Compare arms: table, statistics, report.

    hngtv compare runs=runs out=comparison
    hngtv compare runs=runs out=comparison reference=single_stage_ag metric=surface_dice_2mm

Finds every run folder (settings.json and scores.csv) below `runs`, groups the runs by arm, and writes into `out`:
report.html (one file, pictures inside), table.csv (a row per arm and class) and scores.csv (the scores of all runs).
Arms are compared on the folds that all of them have, patient by patient; several seeds of a patient are averaged first.

Exit status: 0 done, 2 bad settings or input.
"""

from hngtv.config import CompareSettings
from hngtv.errors import InputError
from hngtv.report.answer import choose_reference
from hngtv.report.page import write_report
from hngtv.report.runs import Run, find_runs, keep_shared_folds, runs_by_arm
from hngtv.report.scores import write_scores
from hngtv.report.tables import (
    TABLE_COLUMNS,
    Comparison,
    compare_classes,
    shown_classes,
    summarise_classes,
    unequal_terms,
)
from hngtv.run_folder import make_folder, write_csv


def run(settings: CompareSettings) -> None:
    """Write the comparison of all finished runs below `settings.runs`.

    Raises:
        InputError: No finished run, no shared fold, or an unknown reference arm.
    """
    found, unfinished = find_runs(settings.runs)
    comparison = build_comparison(found, unfinished, settings.reference, settings.metric)
    make_folder(settings.out)
    write_scores(settings.out / "scores.csv", (row for one in found for row in one.scores))
    write_csv(settings.out / "table.csv", TABLE_COLUMNS, comparison.table)
    write_report(settings.out / "report.html", comparison)
    for line in unequal_terms(comparison.runs):
        print(f"warning: {line}")
    print(settings.out / "report.html")


def build_comparison(found: list[Run], unfinished: list[str], reference: str | None, metric: str) -> Comparison:
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
    return Comparison(
        runs=runs,
        left_out=left_out,
        unfinished=unfinished,
        scores=scores,
        class_names=class_names,
        reference=reference,
        metric=metric,
        summaries=summarise_classes(scores, class_names),
        pairs=compare_classes(scores, class_names, metric, reference),
    )
