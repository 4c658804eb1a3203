from dataclasses import asdict
from pathlib import Path

from hngtv.commands.results import mean_scores
from hngtv.metrics.score import SCORE_COLUMNS
from hngtv.run_folder import RunFolder, write_csv
from tests.score_rows import score


def test_a_class_that_nobody_has_has_no_means(tmp_path: Path) -> None:
    rows = [score("a", "GTV", 5.0), score("a", "GTVn", 0.0, dice=1.0)]
    write_csv(RunFolder(tmp_path).scores, SCORE_COLUMNS, [asdict(row) for row in rows])
    means = mean_scores(RunFolder(tmp_path))
    assert means["GTV_dice"] == 0.5
    assert "GTVn_dice" not in means
