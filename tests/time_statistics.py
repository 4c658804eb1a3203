"""How long the statistics of `hngtv compare` take for 10 arms and 1,000 patients: python -m tests.time_statistics

Everything that is computed from run folders but the page and its pictures: reading, summaries, paired differences by
metric, class and stratum, rankings, the answer and the tables.
"""

import resource
import tempfile
import time
from pathlib import Path

from hngtv.commands.compare import build_comparison
from hngtv.report.answer import answer_question, effect_rows
from hngtv.report.bootstrap import N_RESAMPLES
from hngtv.report.challenges import ranking_rows
from hngtv.report.latex import latex_table
from hngtv.report.runs import find_runs
from hngtv.report.strata import difference_rows, subgroup_rows
from hngtv.report.terms import Conditions
from tests.score_rows import write_sweep

N_CASES = 1000
ARMS = {f"{stage}_{network}": 0.7 for stage in ("single_stage", "two_stage") for network in ("unet", "ag")}
ARMS |= {f"two_stage_{margin}_ag": 0.7 + margin / 100 for margin in range(6)}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_sweep(Path(folder), ARMS, N_CASES)
        wall, cpu = time.perf_counter(), time.process_time()
        comparison = build_comparison(*find_runs(Path(folder)), None, "dice", Conditions(margin=0.02))
        rows = difference_rows(comparison)
        subgroup_rows(comparison)
        ranking_rows(comparison)
        latex_table(comparison.table)
        answer_question(comparison.arms, comparison.scores, "dice", comparison.conditions)
        effect_rows(comparison.arms, comparison.scores, "dice")
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{len(ARMS)} arms, {N_CASES} patients, {N_RESAMPLES} resamples, {len(rows)} rows of differences: "
        f"{wall:.1f} s, {cpu:.1f} processor seconds, {memory_mb:.0f} MB at most"
    )


if __name__ == "__main__":
    main()
