"""What a finished run shows in W&B or TensorBoard: scores, the best, median and worst case, and the ROI curve."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from hngtv.localise.located import LocalisedCase
from hngtv.metrics.score import SCORE_COLUMNS, CaseScore
from hngtv.report.browse import pick_cases, view_of
from hngtv.report.evidence import located_cases
from hngtv.report.figures import encode
from hngtv.report.localisers import share_held, volume_ml
from hngtv.report.overlay import draw_case
from hngtv.report.runs import Run, read_run
from hngtv.run_folder import RunFolder
from hngtv.training.logger import RunLogger


def show_results(logger: RunLogger, folder: RunFolder) -> None:
    """Show the results of a scored run; what cannot be drawn is told in the log and left out."""
    if not logger.shows:
        return
    logger.attempt("the results", _show, logger, folder)


def _show(logger: RunLogger, folder: RunFolder) -> None:
    run = read_run(folder.root)
    logger.show_table("scores", SCORE_COLUMNS, [list(asdict(row).values()) for row in run.scores])
    located = located_cases([run])
    if located:
        volumes, shares = roi_curve(located)
        logger.show_line("roi_curve", ("mean ROI volume [ml]", volumes), ("share of patients inside", shares))
    with tempfile.TemporaryDirectory() as scratch:
        for rank, row in pick_cases(run.scores).items():
            logger.attempt(f"picture of case {row.case_id}", _show_case, logger, run, rank, row, scratch)


def _show_case(logger: RunLogger, run: Run, rank: str, row: CaseScore, scratch: str) -> None:
    caption = f"{row.case_id}: Dice {row.dice:.3f}"
    picture = Path(scratch) / f"{rank}.png"
    picture.write_bytes(encode(draw_case(view_of(run, row.case_id), caption), "png"))
    logger.show_image(f"cases/{rank}", picture, caption)


def roi_curve(cases: Sequence[LocalisedCase]) -> tuple[list[float], list[float]]:
    """Mean volume of the ROIs in ml, and the share of the patients whose whole tumour they hold, as margins grow.

    One point for each margin at which a patient comes in; empty without any tumour.
    """
    margins_mm = sorted({case.margins_mm[0] for case in cases if case.margins_mm is not None})
    volumes = [sum(volume_ml(case, margin) for case in cases) / len(cases) for margin in margins_mm]
    return volumes, [share_held(cases, 0, margin) for margin in margins_mm]
