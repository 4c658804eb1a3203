"""What a run shows beside its files: scores, pictures and the ROI curve; and nothing that fails stops it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hngtv.localise.located import LocalisedCase
from hngtv.report.logged import roi_curve, show_results
from hngtv.run_folder import RunFolder
from hngtv.training.logger import RunLogger
from hngtv.volume.box import Box


class Recorder(RunLogger):
    service = "recorder"

    def __init__(self) -> None:
        self.shown: dict[str, Any] = {}

    def _table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        self.shown[name] = (columns, rows)

    def _image(self, name: str, path: Path, caption: str) -> None:
        self.shown[name] = (path.read_bytes()[:4], caption)


def test_scores_and_the_best_median_and_worst_case(fake_runs: Path) -> None:
    recorder = Recorder()
    (run,) = (fake_runs / "two_stage_unet").iterdir()
    show_results(recorder, RunFolder(run))
    columns, rows = recorder.shown["scores"]
    assert len(rows) == 9
    dices = {row[columns.index("case_id")]: row[columns.index("dice")] for row in rows if "GTV" in row}
    worst = min(dices, key=lambda case_id: dices[case_id])
    start, caption = recorder.shown["cases/worst"]
    assert start == b"\x89PNG"
    assert caption == f"{worst}: Dice {dices[worst]:.3f}"
    assert {"cases/best", "cases/median"} < recorder.shown.keys()
    assert not recorder.has_failed


def test_a_run_that_cannot_be_read_is_told_and_survived(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()
    show_results(recorder, RunFolder(tmp_path))
    assert "recorder: the results not shown" in caplog.text
    show_results(RunLogger(), RunFolder(tmp_path))


def test_roi_curve_by_hand() -> None:
    """Boxes of 1 and 8 ml in an image of 1 l; the tumours come in at margins of 0 and 10 mm."""
    image = Box.from_corners((-50, -50, -50), (50, 50, 50))
    boxes = [Box.from_corners((0, 0, 0), (side, side, side)) for side in (10, 20)]
    cases = [
        LocalisedCase("a", "coarse", "0", "", (box,), image, (margin, 0.0, 0.0), 1.0, 1.0, "found", 0.0)
        for box, margin in zip(boxes, (10.0, 0.0), strict=True)
    ]
    assert roi_curve(cases) == ([pytest.approx(4.5), pytest.approx((27 + 64) / 2)], [0.5, 1.0])
