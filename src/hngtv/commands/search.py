"""Search settings of an arm with Optuna: which learning rate, loss weights and so on serve it best?

    hngtv search experiment=two_stage_ag data.root=DIR n_trials=30 out=search_ag budget.steps=null budget.cpu_s=600
    hngtv search experiment=single_stage_ag data.root=DIR n_trials=20 out=search +space.network.n_gates.choices=[1,2]

Each trial is a run with other settings, trained on a part of the fold's training cases and scored on the rest of them:
its validation cases. The test cases of the fold are never looked at, so `hngtv run` with what was found may be tested
on them. Settings are chosen by TPE; a trial that is hopeless half-way is pruned.

The folder gets trials.csv, best.yaml (what to add to `hngtv run`), results.csv and a run folder for each trial below
trials/, whose scores.csv is about validation cases ("0-validation" for fold 0). The same command goes on: a kill costs
at most what the trial at work had done since its checkpoint. Several commands may work on one folder at the same time.

Exit status: 0 done, 1 some trials or cases failed (listed), 2 bad settings or input.
"""

import logging
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hngtv.commands.claim import check_settings, claimed
from hngtv.commands.costs import write_costs
from hngtv.commands.log import logging_to
from hngtv.commands.results import announce, write_results
from hngtv.commands.run import PLACES
from hngtv.commands.status import recorded
from hngtv.config import RunSettings, SearchSettings, plain
from hngtv.errors import CasesFailedError, InputError, PrunedError
from hngtv.run_folder import RunFolder, make_folder, write_json

MAY_DIFFER = ("run_dir", "work_dir", "logger", "out", "n_trials", "timeout_s")
"""Settings that may differ when a search goes on."""

log = logging.getLogger(__name__)


def run(settings: SearchSettings) -> None:
    """Run trials until there are `n_trials`; see the module docstring.

    Raises:
        InputError: Bad settings or input.
        CasesFailedError: Some trials or cases failed; everything else is finished.
    """
    study = _open(settings)
    with logging_to():
        prepared, failures = _prepare(settings)
    started = time.monotonic()
    while settings.timeout_s is None or time.monotonic() - started < settings.timeout_s:
        if not _run_next(study, settings, prepared):
            break
    study.write_tables()
    write_results(settings.out)
    print(study.summary())
    failures += study.failures()
    if failures:
        raise CasesFailedError("\n".join(failures))


def _open(settings: SearchSettings) -> Any:
    """The search folder, held against the settings.

    Raises:
        InputError: Optuna is not installed, or the folder holds another or a longer search.
    """
    from importlib.util import find_spec

    from filelock import FileLock

    if find_spec("optuna") is None:
        raise InputError("hngtv search needs Optuna: pip install 'hngtv[search]'")
    from hngtv.commands.study import SearchStudy

    make_folder(settings.out)
    with FileLock(settings.out / ".lock"):
        path = settings.out / "search.json"
        check_settings(path, settings, MAY_DIFFER)
        if not path.is_file():
            write_json(path, plain(settings))
    study = SearchStudy(settings)
    if study.n_finished > settings.n_trials:
        raise InputError(
            f"{settings.out} has {study.n_finished} finished trials already, but n_trials is {settings.n_trials}; "
            f"set n_trials={study.n_finished} or more"
        )
    return study


def _prepare(settings: SearchSettings) -> tuple[list[Any], list[str]]:
    """The cases, once for all trials, and a line for each that cannot be used.

    Raises:
        InputError: This machine cannot train as set.
    """
    from hngtv.cases.prepare import prepare_cohort
    from hngtv.training.machine import check_machine

    check_machine(settings)
    _, prepared, failures = prepare_cohort(settings.data, settings.work_dir)
    return prepared, failures


def _run_next(study: Any, settings: SearchSettings, prepared: Sequence[Any]) -> bool:
    """Run a trial from its settings to its value; False where none is left to begin."""
    with ExitStack() as stack:
        with study.lock:  # nobody may take a trial for dead before its folder is claimed
            trial = study.next_trial()
            if trial is None:
                return False
            try:
                run_settings = study.settings_of(trial)
            except InputError as error:
                study.fail(trial, str(error))
                return True
            folder = stack.enter_context(claimed(run_settings.run_dir, run_settings, (*PLACES, "arm")))
            announce(folder, run_settings.arm, settings.fold, settings.seed, study.overrides_of(trial))
        study.write_tables()
        try:
            with recorded(folder):
                value = _train_and_score(study, trial, run_settings, prepared, folder)
                write_costs(folder)
        except PrunedError as error:
            log.info("%s", error)
            study.prune(trial)
        except (InputError, CasesFailedError) as error:
            log.error("%s", error)
            study.fail(trial, str(error))
        except Exception as error:
            log.exception("trial %d: this is a bug of hngtv; please report it", trial.number)
            study.fail(trial, f"{type(error).__name__}: {error}")
        else:
            log.info("%s: %s of %s %.4f", folder.root.name, settings.metric, settings.class_name, value)
            study.complete(trial, value)
    study.write_tables()
    write_results(settings.out)
    return True


def _train_and_score(
    study: Any, trial: Any, settings: RunSettings, prepared: Sequence[Any], folder: RunFolder
) -> float:
    """Train on a part of the training cases; the mean score of the others."""
    from hngtv.arm import predict_and_locate, split_cases, train_arm, validation_split
    from hngtv.cases.manifest import write_manifest
    from hngtv.report.logged import show_results
    from hngtv.report.scores import VALIDATION, score_predictions, write_scores
    from hngtv.training.logger import RunName, open_logger
    from hngtv.training.validation import Milestones

    search: SearchSettings = study.settings
    write_manifest(folder.root / "cases.csv", [case.raw for case in prepared])
    split = validation_split(split_cases(prepared, settings, folder), settings, search.n_validation_folds)
    log.info("%s: %d cases to train on, %d to validate", settings.arm, len(split.train), len(split.test))
    name = RunName(folder.root.name, Path(search.out).name, "trial", (f"fold{settings.fold}", f"seed{settings.seed}"))
    with open_logger(settings.logger, folder.root, name, plain(settings)) as logger:
        milestones = Milestones(search.moments, lambda number, dice: study.report(trial, number, dice))
        train_arm(split, settings, folder, logger, milestones)
        predict_and_locate(split, settings, folder)
        fold = f"{settings.fold}{VALIDATION}"
        scores, unusable = score_predictions(
            [case.raw for case in split.test], folder.predictions, settings.arm, fold, settings.seed
        )
        for failure in unusable:
            log.error("%s", failure)
        rows = [score for score in scores if score.class_name == search.class_name]
        if not any(row.target_volume_ml > 0 for row in rows):
            raise InputError(f"no validation case with {search.class_name} could be scored; choose another class_name")
        values = [getattr(row, search.metric) for row in rows]
        write_scores(folder.scores, scores)
        logger.summarise({f"{search.metric}/{search.class_name}": statistics.fmean(values)})
        show_results(logger, folder)
    return statistics.fmean(values)
