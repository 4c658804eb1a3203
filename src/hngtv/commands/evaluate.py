"""Score predictions against targets.

    hngtv evaluate predictions=DIR targets=DIR/cases.csv out=scores.csv

Every case of `targets` that has a target must have a prediction, `predictions/<case_id>.nii.gz`, on the target's grid
with labels 0 background, 1 GTVp, 2 GTVn. A missing or unusable prediction gets the worst score and is listed. To score
part of a cohort, such as one fold, give as `targets` a cases.csv that lists only those cases.

Exit status: 0 done, 1 some predictions are missing or unusable (listed), 2 bad settings or input.
"""

from pathlib import Path

from hngtv.cases.manifest import RawCase, load_cases
from hngtv.config import EvaluateSettings
from hngtv.errors import CasesFailedError, InputError
from hngtv.metrics.score import CaseScore, classes_present
from hngtv.report.scores import score_predictions, write_scores


def run(settings: EvaluateSettings) -> None:
    """Write `settings.out`, one row per case and class.

    Raises:
        InputError: There is no folder of predictions, or no case with a target.
        CasesFailedError: Some cases had no usable prediction; the scores of all are written.
    """
    if not settings.predictions.is_dir():
        raise InputError(f"predictions is {settings.predictions}; expected a folder of <case_id>.nii.gz files")
    cases = load_cases(settings.targets)
    with_target = [case for case in cases if case.target is not None]
    if not with_target:
        raise InputError(f"none of the {len(cases)} cases of {settings.targets} has a target to score against")
    _tell_unscored(cases, settings.predictions)
    scores, failures = score_predictions(with_target, settings.predictions, settings.arm, settings.fold, settings.seed)
    write_scores(settings.out, scores)
    print(f"{settings.out}: {len(with_target)} cases")
    for line in mean_lines(scores):
        print(line)
    for failure in failures:
        print(f"failed: {failure}")
    if failures:
        raise CasesFailedError(f"{len(failures)} of {len(with_target)} cases failed (listed above)")


def mean_lines(scores: list[CaseScore]) -> list[str]:
    """A line of text per class that occurs: number of cases and mean Dice."""
    lines = []
    for class_name in classes_present(scores):
        dice = [row.dice for row in scores if row.class_name == class_name]
        lines.append(f"  {class_name:<4}  mean Dice {sum(dice) / len(dice):.3f}  ({len(dice)} cases)")
    return lines


def _tell_unscored(cases: list[RawCase], predictions: Path) -> None:
    without = [case.case_id for case in cases if case.target is None]
    if without:
        print(f"not scored, no target: {', '.join(without)}")
    known = {case.case_id for case in cases}
    found = {path.name.removesuffix(".nii.gz") for path in predictions.glob("*.nii.gz")}
    if found - known:
        print(f"not scored, no such case in targets: {', '.join(sorted(found - known))}")
