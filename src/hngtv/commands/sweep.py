"""`hngtv run -m`: the same command over all combinations of comma-separated values, one after the other.

All jobs are checked before the first one starts. A job that fails does not stop the others; jobs that are finished have
nothing left to do, so a broken sweep is continued by the same command. Hydra's launchers are not used: to run jobs side
by side, start several commands with different folds or arms.
"""

import itertools

from hngtv.commands.entry import DONE, compose, report_bug, report_error
from hngtv.commands.overrides import quote
from hngtv.config import RunSettings, parse_settings
from hngtv.errors import CasesFailedError, InputError

RUN_DIR = "run_dir=runs/${arm}/fold_${fold}_seed_${seed}"
"""Where a job of a sweep goes unless told otherwise: one folder for each arm, fold and seed."""


def run_sweep(overrides: list[str]) -> int:
    """Run all jobs, list them with their statuses, and return the worst one.

    Raises:
        InputError: A mistake in the settings of any job, or two jobs with one run folder.
    """
    if not any(o.lstrip("+").startswith("run_dir=") for o in overrides):
        overrides = [RUN_DIR, *overrides]
    jobs = [parse_settings(RunSettings, compose("run", job)) for job in split_jobs(overrides)]
    folders = [job.run_dir for job in jobs]
    if len(set(folders)) < len(folders):
        raise InputError("run_dir is the same for several jobs; leave it out, or use ${arm}, ${fold} and ${seed} in it")
    statuses = [run_job(job) for job in jobs]
    for job, status in zip(jobs, statuses, strict=True):
        print(f"{job.arm} fold {job.fold} seed {job.seed}: exit status {status}, {job.run_dir}")
    return max(statuses)


def split_jobs(overrides: list[str]) -> list[list[str]]:
    """The overrides of each job.

    Raises:
        InputError: An override that Hydra's grammar does not know, or one of Hydra's own settings.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    for override in overrides:
        if override.lstrip("+~").startswith(("hydra.", "hydra/")):
            raise InputError(
                f"{override}: Hydra's own settings are not used; start several commands to run side by side"
            )
    try:
        parsed = OverridesParser.create().parse_overrides([quote(o, in_sweep=True) for o in overrides])
    except HydraException as error:
        raise InputError(f"settings: {' '.join(str(error).split())}") from None
    values = [
        [f"{one.get_key_element()}={value}" for value in one.sweep_string_iterator()]
        if one.is_sweep_override()
        else [str(one.input_line)]
        for one in parsed
    ]
    return [list(job) for job in itertools.product(*values)]


def run_job(settings: RunSettings) -> int:
    """Run one job of a sweep and return its exit status."""
    from hngtv.commands import run

    try:
        run.run(settings)
    except (InputError, CasesFailedError) as error:
        return report_error(error)
    except Exception:
        return report_bug()
    return DONE
