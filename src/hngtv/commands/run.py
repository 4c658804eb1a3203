"""Train and score one arm on one fold, from raw files to scores.

    hngtv run experiment=two_stage_ag data=folder data.root=DIR fold=0 run_dir=runs/ag_0 budget.steps=500
    hngtv run experiment=two_stage_ag data=folder data.root=DIR fold=all run_dir=runs/ag_all budget.steps=900
    hngtv run -m experiment=single_stage_ag,two_stage_ag fold=0,1,2,3,4 data.root=DIR hydra.sweep.dir=runs
    hngtv run -m sweep=arms,folds data.root=DIR launcher=joblib launcher.n_jobs=2

The run folder gets settings.json, cases.csv, folds.json, rois.csv, coarse/ and fine/ (weights and curves),
predictions/<case_id>.nii.gz, calibration.csv, gates/ (alphas of the best, the median and the worst test case) and
scores.csv, costs.json and status.json; with error_budget=true also error_budget.{csv,json,png}: the same fine stage
inside the true ROI and without stage 1. Prepared cases and coarse stages are kept in work_dir and shared by runs.
A killed run goes on where it was when the same command is given again; a finished one has nothing left to do. With -m,
values separated by commas are swept, sweep= names lists of them (conf/sweep), launcher= says what runs the jobs
(conf/launcher), and the sweep folder gets results.csv with a row for each job.

Exit status: 0 done, 1 some cases could not be used or predicted (listed), 2 bad settings or input.
"""

import logging
from typing import Any

from hngtv.commands.claim import claimed
from hngtv.commands.costs import write_costs
from hngtv.commands.status import recorded
from hngtv.config import LoggerSettings, RunSettings, plain
from hngtv.errors import CasesFailedError
from hngtv.run_folder import RunFolder

PLACES = ("run_dir", "work_dir", "logger", "error_budget")
"""Settings that may differ when a run goes on: they do not change its result."""

log = logging.getLogger(__name__)


def run(settings: RunSettings) -> None:
    """Walk the arm; see the module docstring.

    Raises:
        InputError: Bad settings or input.
        CasesFailedError: Some cases failed; everything else is finished.
    """
    with claimed(settings.run_dir, settings, PLACES) as folder, recorded(folder, settings.error_budget):
        failures = _walk(folder, settings)
        write_costs(folder)
        print(folder.scores if folder.scores.is_file() else folder.root)
        if failures:
            raise CasesFailedError(f"{len(failures)} case(s) failed, each named above; the others are finished")


def _walk(folder: RunFolder, settings: RunSettings) -> list[str]:
    """All stations of the line; returns one line for each failed case."""
    from hngtv.arm import predict_and_locate, split_cases, train_arm
    from hngtv.cases.manifest import write_manifest
    from hngtv.cases.prepare import prepare_cohort
    from hngtv.gate_maps import keep_gate_maps
    from hngtv.report.logged import show_results
    from hngtv.report.scores import score_predictions, write_scores
    from hngtv.training.logger import open_logger
    from hngtv.training.machine import check_machine

    if not _is_trained(folder):
        check_machine(settings)
    cases, prepared, failures = prepare_cohort(settings.data, settings.work_dir)
    write_manifest(folder.root / "cases.csv", cases)
    split = split_cases(prepared, settings, folder)
    log.info("%s: %d cases to train on, %d to test", settings.arm, len(split.train), len(split.test))
    name = _name_for_loggers(folder, settings)
    with open_logger(_logger_settings(folder, settings), folder.root, name, plain(settings)) as logger:
        train_arm(split, settings, folder, logger)
        failures += predict_and_locate(split, settings, folder)
        scored = [case.raw for case in split.test if case.has_target]
        if scored:
            fold, seed = str(settings.fold), settings.seed
            scores, unusable = score_predictions(scored, folder.predictions, settings.arm, fold, seed)
            # A case without a mask is in the list already.
            for failure in (f for f in unusable if folder.prediction(f.case_id).is_file()):
                log.error("%s", failure)
                failures.append(str(failure))
            write_scores(folder.scores, scores)
            logger.summarise(_means(scores))
            keep_gate_maps(folder, scored, scores)
            show_results(logger, folder)
            if settings.error_budget:
                from hngtv.error_budget import write_error_budget

                write_error_budget(split.test, folder)
    return failures


def _name_for_loggers(folder: RunFolder, settings: RunSettings) -> Any:
    """How W&B files the run: with its sweep, if it has one, else with its arm."""
    from hngtv.training.logger import RunName

    fold, seed = f"fold{settings.fold}", f"seed{settings.seed}"
    group = folder.root.resolve().parents[1].name if folder.job.is_file() else settings.arm
    tags = (fold, seed, settings.data.name, settings.localiser.name, settings.network.name)
    return RunName(f"{settings.arm}-{fold}-{seed}", group, settings.arm, tags)


def _logger_settings(folder: RunFolder, settings: RunSettings) -> LoggerSettings:
    """The settings' logger; none beside the CSV files when nothing is left to train."""
    return LoggerSettings(name="csv") if _is_trained(folder) else settings.logger


def _is_trained(folder: RunFolder) -> bool:
    from hngtv.training.trainer import StageFolder

    fine = StageFolder(folder.fine)
    return fine.record.is_file() and fine.weights.is_file()


def _means(scores: Any) -> dict[str, float]:
    names = {score.class_name for score in scores}
    dices = {name: [s.dice for s in scores if s.class_name == name] for name in names}
    return {f"dice/{name}": sum(values) / len(values) for name, values in dices.items()}
