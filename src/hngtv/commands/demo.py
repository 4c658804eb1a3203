"""Walk the whole line on phantoms: cohort, four arms on equal terms, comparison.

    hngtv demo
    hngtv demo out=runs/demo arms=[single_stage_ag,two_stage_ag]
    hngtv demo overrides=[budget.cpu_s=300]

Ends with the path of report.html; scores.csv lies beside it. A demo that was stopped goes on where it was.

Exit status: 0 done, 1 some cases failed (listed), 2 bad settings or input.
"""

import concurrent.futures
import multiprocessing
import os
from pathlib import Path

from hngtv.config import DemoSettings, RunSettings, parse_settings
from hngtv.errors import CasesFailedError
from hngtv.run_folder import make_folder


def run(settings: DemoSettings) -> None:
    """Walk the line; arms that share no station run side by side, one thread each."""
    from hngtv.commands.entry import compose
    from hngtv.config import CompareSettings, PhantomSettings

    cohort = settings.work_dir / f"phantom_{settings.n_cases}_{settings.seed}"
    runs = [_run_settings(settings, arm, cohort) for arm in settings.arms]
    from hngtv.commands import compare, phantom  # slow to import, so only once the settings are right

    make_folder(settings.out)
    if not (cohort / "cases.csv").is_file():
        phantom.run(
            PhantomSettings(
                out=cohort, n_cases=settings.n_cases, seed=settings.seed, size="small", field_of_view="mixed"
            )
        )
    failures = _run_side_by_side(runs)
    compare.run(parse_settings(CompareSettings, compose("compare", [f"runs={settings.out}", f"out={settings.out}"])))
    if failures:
        raise CasesFailedError("; ".join(failures))


def _run_settings(settings: DemoSettings, arm: str, cohort: Path) -> RunSettings:
    from hngtv.commands.entry import compose

    overrides = [
        f"experiment={arm}", "data=phantom", f"data.root={cohort.resolve()}", f"run_dir={settings.out.resolve() / arm}",
        f"work_dir={settings.work_dir.resolve()}", f"seed={settings.seed}", *settings.small, *settings.overrides,
    ]  # fmt: skip
    return parse_settings(RunSettings, compose("run", overrides))


def _run_side_by_side(runs: list[RunSettings]) -> list[str]:
    """Run arms in as many processes as there are processors, each with the threads its settings ask for.

    Returns:
        A line for each arm in which some cases failed.
    """
    from hngtv.commands.run import run as run_arm

    n_processes = max(1, min(len(runs), (os.cpu_count() or 1) // max(1, runs[0].trainer.n_threads)))
    spawn = multiprocessing.get_context("spawn")
    failures = []
    with concurrent.futures.ProcessPoolExecutor(n_processes, mp_context=spawn) as pool:
        futures = [(settings.arm, pool.submit(run_arm, settings)) for settings in runs]
        for arm, future in futures:
            try:
                future.result()
            except CasesFailedError as error:
                failures.append(f"{arm}: {error}")
    return failures
