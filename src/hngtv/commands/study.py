"""The trials of `hngtv search`: an Optuna study in a journal that survives kills, and the tables made of it."""

import json
import logging
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from hngtv.commands.claim import is_claimed
from hngtv.config import Range, RunSettings, SearchSettings, trial_settings
from hngtv.errors import PrunedError
from hngtv.run_folder import RunFolder, write_csv, write_text

MINIMISED = ("hd95_mm", "msd_mm")
REASON, KILLED_TRIAL = "reason", "killed_trial"
"""Attributes of a trial: why it failed; the killed one whose settings it tries again."""
STATES = {TrialState.COMPLETE: "done", TrialState.PRUNED: "pruned", TrialState.RUNNING: "running"}

log = logging.getLogger(__name__)


class SearchStudy:
    """An Optuna study in a search folder, which several processes may share.

    Settings are drawn from the seed and the number of trials before, so a search that was killed draws what the
    unbroken one would have drawn.

    Attributes:
        settings: Of the search.
        lock: Held while a trial is chosen.
    """

    def __init__(self, settings: SearchSettings) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        # A trial that goes on from its checkpoint tells the moments before it again.
        warnings.filterwarnings("ignore", message="The reported value is ignored")
        self.settings = settings
        self.sign = -1.0 if settings.metric in MINIMISED else 1.0
        self.lock = FileLock(settings.out / ".lock")
        journal = settings.out / "journal.log"
        with self.lock:
            _drop_torn_line(journal)
            lock: Any = _KernelLock(journal)
            self.study = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(journal), lock_obj=lock)),
                study_name="search",
                direction="minimize" if self.sign < 0 else "maximize",
                pruner=optuna.pruners.MedianPruner(settings.n_startup_trials, settings.n_warmup_moments),
                load_if_exists=True,
            )

    @property
    def counted(self) -> list[FrozenTrial]:
        """All trials but those that were killed, which are tried again, and those that wait for it."""
        return [trial for trial in self.study.get_trials() if not _is_killed(trial) and not _waits(trial)]

    @property
    def n_finished(self) -> int:
        return sum(trial.state.is_finished() for trial in self.counted)

    def next_trial(self) -> Trial | None:
        """Begin a trial, killed ones first; None where there are enough. The lock must be held."""
        self._retry_killed()
        n_before = len(self.counted)
        if n_before >= self.settings.n_trials:
            return None
        self.study.sampler = optuna.samplers.TPESampler(
            seed=self.settings.seed + n_before, n_startup_trials=self.settings.n_startup_trials, constant_liar=True
        )
        trial = self.study.ask({found.key: _distribution(found) for found in self.settings.ranges})
        killed = trial.user_attrs.get(KILLED_TRIAL)
        if killed is not None:
            self._take_over(self.folder(killed), self.folder(trial.number))
            # What a training that is over does not tell again.
            for number, value in self.study.get_trials(deepcopy=False)[killed].intermediate_values.items():
                trial.report(value, number)
        return trial

    def folder(self, number: int) -> RunFolder:
        return RunFolder(self.settings.out / "trials" / f"trial_{number:03d}")

    def settings_of(self, trial: Trial | FrozenTrial) -> RunSettings:
        """Settings of a trial's run.

        Raises:
            InputError: They do not go together.
        """
        root = self.folder(trial.number).root
        return trial_settings(self.settings, self._values(trial), root, f"{self.settings.arm} {root.name}")

    def overrides_of(self, trial: Trial | FrozenTrial) -> list[str]:
        """What to add to `hngtv run` for the settings of a trial."""
        return [f"{key}={json.dumps(value, separators=(',', ':'))}" for key, value in self._values(trial).items()]

    def report(self, trial: Trial, number: int, dice: float) -> None:
        """Note the Dice at a moment of training.

        Raises:
            PrunedError: The trial is hopeless: worse than the median of those before it.
        """
        trial.report(self.sign * dice, number)
        if trial.should_prune():
            moment = self.settings.moments[number]
            raise PrunedError(f"pruned: Dice {dice:.3f} after {moment:g} of the training is below the median")

    def complete(self, trial: Trial, value: float) -> None:
        self.study.tell(trial, value)

    def prune(self, trial: Trial) -> None:
        self.study.tell(trial, state=TrialState.PRUNED)

    def fail(self, trial: Trial, reason: str) -> None:
        trial.set_user_attr(REASON, " ".join(reason.split()))
        self.study.tell(trial, state=TrialState.FAIL)

    def failures(self) -> list[str]:
        """A line for each trial that failed."""
        failed = [trial for trial in self.counted if trial.state == TrialState.FAIL]
        return [f"{self.folder(trial.number).root.name} failed: {trial.user_attrs[REASON]}" for trial in failed]

    def write_tables(self) -> None:
        """Write `trials.csv` and, once a trial is done, `best.yaml`."""
        with self.lock:
            keys = [found.key for found in self.settings.ranges]
            moments = [f"dice_at_{moment:g}" for moment in self.settings.moments]
            columns = ("trial", "state", "value", *keys, *moments, "seconds", "reason", "run_dir")
            rows = [self._row(trial) for trial in self.study.get_trials() if not _waits(trial)]
            write_csv(self.settings.out / "trials.csv", columns, rows)
            if best := self._best():
                write_text(self.settings.out / "best.yaml", self._best_yaml(best))

    def summary(self) -> str:
        """The best trial in words, and where its settings lie."""
        best = self._best()
        if best is None:
            return f"no trial is done; see {self.settings.out / 'trials.csv'}"
        name, metric = self.folder(best.number).root.name, f"{self.settings.metric} of {self.settings.class_name}"
        return f"{name}: {metric} {best.value:.4f} on its validation cases\n{self.settings.out / 'best.yaml'}"

    def _best(self) -> FrozenTrial | None:
        done = [trial for trial in self.counted if trial.state == TrialState.COMPLETE]
        return max(done, key=lambda trial: (self.sign * (trial.value or 0.0), -trial.number), default=None)

    def _best_yaml(self, best: FrozenTrial) -> str:
        lines = [
            "# The best trial of this search, and what to add to `hngtv run` for its settings.",
            f"trial: {self.folder(best.number).root.name}",
            f"{self.settings.metric}: {best.value!r}  # of {self.settings.class_name}, mean over validation cases",
            "overrides:",
            *(f"  - {json.dumps(override)}" for override in self.overrides_of(best)),
        ]
        return "\n".join(lines) + "\n"

    def _row(self, trial: FrozenTrial) -> dict[str, Any]:
        folder = self.folder(trial.number).root
        values = {key: json.dumps(value) for key, value in self._values(trial).items()}
        at = {f"dice_at_{self.settings.moments[n]:g}": self.sign * v for n, v in trial.intermediate_values.items()}
        state = "killed" if _is_killed(trial) else STATES.get(trial.state, "failed")
        return values | at | {
            "trial": trial.number,
            "state": state,
            "value": trial.value if trial.state == TrialState.COMPLETE else None,
            "seconds": None if trial.duration is None else round(trial.duration.total_seconds(), 1),
            "reason": "tried again" if state == "killed" else trial.user_attrs.get(REASON, ""),
            "run_dir": folder.relative_to(self.settings.out).as_posix() if folder.is_dir() else "",
        }  # fmt: skip

    def _values(self, trial: Trial | FrozenTrial) -> dict[str, Any]:
        """Value of each searched setting; choices are kept as JSON, since Optuna takes no lists."""
        drawn = {found.key: found for found in self.settings.ranges if found.key in trial.params}
        return {
            key: json.loads(trial.params[key]) if found.choices else trial.params[key] for key, found in drawn.items()
        }

    def _retry_killed(self) -> None:
        """Line up the settings of each trial that says it runs, but whose folder nobody works on."""
        lined_up = {trial.user_attrs.get(KILLED_TRIAL) for trial in self.study.get_trials()}
        for trial in self.study.get_trials(states=(TrialState.RUNNING,)):
            if not is_claimed(self.folder(trial.number)):
                if trial.number not in lined_up:  # by a command that was killed in between
                    self.study.enqueue_trial(trial.params, user_attrs={KILLED_TRIAL: trial.number})
                self.study.tell(trial.number, state=TrialState.FAIL)

    @staticmethod
    def _take_over(killed: RunFolder, folder: RunFolder) -> None:
        """Go on with the checkpoint and the networks of a killed trial, whose folder is no more."""
        shutil.rmtree(folder.root, ignore_errors=True)
        if killed.root.is_dir():
            killed.settings.unlink(missing_ok=True)  # they hold its name and place
            os.replace(killed.root, folder.root)


def _is_killed(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.FAIL and REASON not in trial.user_attrs


def _waits(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.WAITING


def _distribution(found: Range) -> BaseDistribution:
    if found.choices:
        return CategoricalDistribution([json.dumps(choice) for choice in found.choices])
    if found.is_whole:
        return IntDistribution(int(found.low), int(found.high), log=found.log, step=int(found.step or 1))
    return FloatDistribution(found.low, found.high, log=found.log, step=found.step)


class _KernelLock:
    """A lock of the journal that ends with the process; one of Optuna's own outlives a kill by half a minute."""

    def __init__(self, journal: Path) -> None:
        self.lock = FileLock(journal.with_suffix(".lock"))

    def acquire(self) -> bool:
        self.lock.acquire()
        return True

    def release(self) -> None:
        self.lock.release()


def _drop_torn_line(journal: Path) -> None:
    """Cut off a last line without its end, which a power cut leaves."""
    if journal.is_file():
        whole = journal.read_bytes()
        if whole and not whole.endswith(b"\n"):
            os.truncate(journal, whole.rfind(b"\n") + 1)
