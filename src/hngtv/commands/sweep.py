"""`hngtv run -m`: the same command over all combinations of comma-separated values, by Hydra's sweeper and launchers.

A job that fails does not stop the others; jobs that are finished have nothing left to do, so a broken sweep is
continued by the same command.
"""

import sys

from hngtv.commands.entry import BAD_INPUT, CASES_FAILED, DONE, conf_folder, quote, report_error
from hngtv.errors import CasesFailedError, InputError

RUN_DIR = "run_dir=runs/${arm}/fold_${fold}_seed_${seed}"
"""Where a job of a sweep goes unless told otherwise: one folder for each arm, fold and seed."""


def run_sweep(overrides: list[str]) -> int:
    """Run all jobs and return the worst exit status."""
    import hydra

    if not any(o.lstrip("+").startswith("run_dir=") for o in overrides):
        overrides = [RUN_DIR, *overrides]
    statuses: list[int] = []

    def job(config: object) -> int:
        status = run_job(config)
        statuses.append(status)
        return status

    quiet = ["hydra.mode=MULTIRUN", "hydra.sweep.dir=.", "hydra.sweep.subdir=.", "hydra.output_subdir=null"]
    arguments, sys.argv = sys.argv, ["hngtv", "--multirun", *quiet, *map(quote, overrides)]
    try:
        hydra.main(config_path=str(conf_folder()), config_name="run", version_base="1.3")(job)()
    finally:
        sys.argv = arguments
    return max(statuses, default=BAD_INPUT)


def run_job(config: object) -> int:
    """One job of a sweep."""
    from omegaconf import OmegaConf

    from hngtv.commands import run
    from hngtv.config import RunSettings, parse_settings

    tree = OmegaConf.to_container(config, resolve=True)  # pyright: ignore[reportArgumentType]
    assert isinstance(tree, dict)
    try:
        run.run(parse_settings(RunSettings, {str(k): v for k, v in tree.items() if k != "experiment"}))
    except (InputError, CasesFailedError) as error:
        return report_error(error)
    return DONE


__all__ = ["CASES_FAILED", "run_job", "run_sweep"]
