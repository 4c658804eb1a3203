"""Cases that went wrong, and how."""

from collections.abc import Sequence

from hngtv.metrics.score import CaseScore
from hngtv.report.runs import Run


def failure_rows(runs: Sequence[Run]) -> list[tuple[str, str, str]]:
    """Run, case and what went wrong: no prediction, tumour missed entirely, tumour invented, box by fallback."""
    found = []
    for run in runs:
        for row in run.scores:
            if row.class_name != "GTV":
                continue
            problem = score_problem(run, row)
            if problem:
                found.append((run.name, row.case_id, problem))
            roi = run.rois.get(row.case_id)
            if roi is not None and roi.is_fallback:
                found.append((run.name, row.case_id, f"box by {roi.reason}"))
    return found


def score_problem(run: Run, row: CaseScore) -> str:
    """Why a case has the worst score, or what it lacks; empty if nothing is wrong."""
    has_file = run.folder.prediction(row.case_id).is_file()
    if row.dice > 0:
        return "" if has_file else "prediction file removed after scoring"
    if row.volume_ml == 0 and not has_file:
        return "no prediction file; scored as the worst"
    if row.target_volume_ml == 0:
        found = f"{row.volume_ml:.1f} ml predicted where there is no tumour"
        return found if row.volume_ml > 0 else "no usable prediction; scored as the worst"
    what = "prediction does not meet the tumour" if row.volume_ml > 0 else "nothing predicted, or nothing usable"
    return f"{what} ({row.target_volume_ml:.1f} ml missed)"
