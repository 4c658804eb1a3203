"""Launchers: engines that run the jobs of a sweep one after another, side by side, on Slurm or on a Ray cluster.

Whatever the engine, a job is a child process that leaves its results in its run folder; an engine only says when.
"""

import importlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from hngtv.commands.job import POLL_S, STOPPING, Job, record_end, run_job
from hngtv.commands.results import write_results
from hngtv.commands.status import MAX_REASON, Status, read_status
from hngtv.config import (
    BasicLauncher,
    JoblibLauncher,
    LauncherSettings,
    RayLauncher,
    SubmititLocalLauncher,
    SubmititSlurmLauncher,
)
from hngtv.errors import InputError

EXTRAS = {"joblib": "joblib", "submitit": "slurm", "ray": "ray"}
"""Extra of this package that brings a library."""

Ended = tuple[Job, bool]
"""A job, and whether it was ours: not left to another process that is at work on it."""


def launch(jobs: Sequence[Job], settings: LauncherSettings, wait: bool) -> Iterator[Ended]:
    """Run jobs, and yield each one as it ends.

    Args:
        jobs: None finished.
        settings: Of the engine.
        wait: For jobs that another process is at work on.
    """
    match settings:
        case BasicLauncher():
            for job in jobs:
                yield job, run_job(job, wait)
        case JoblibLauncher():
            yield from _with_joblib(jobs, settings, wait)
        case SubmititLocalLauncher() | SubmititSlurmLauncher():
            yield from _with_submitit(jobs, settings, wait)
        case RayLauncher():
            yield from _with_ray(jobs, settings, wait)


def check_engine(settings: LauncherSettings) -> None:
    """Raise InputError if the engine is not installed."""
    library = settings.name.partition("_")[0]
    if library != "basic":
        _engine(library)
    missing = [name for name in ("srun", "sbatch") if shutil.which(name) is None]
    if isinstance(settings, SubmititSlurmLauncher) and missing:
        raise InputError(
            f"launcher={settings.name} needs Slurm, and there is no {' and no '.join(missing)} here; start it on a "
            "node of the cluster, or choose another launcher"
        )


@contextmanager
def _starting(settings: LauncherSettings) -> Iterator[None]:
    """Turn an engine's own error into one line: it has an address, a partition and so on from the settings."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"launcher={settings.name} cannot start: {reason[:MAX_REASON]}; see its settings") from None


def _engine(library: str) -> Any:
    try:
        return importlib.import_module(library)
    except ImportError:
        extra = EXTRAS[library]
        raise InputError(f"launcher needs {library}, which is not installed; pip install 'hngtv[{extra}]'") from None


def _with_joblib(jobs: Sequence[Job], settings: JoblibLauncher, wait: bool) -> Iterator[Ended]:
    """Threads are enough: each waits for the process of its job."""
    joblib = _engine("joblib")
    side_by_side = joblib.Parallel(settings.n_jobs, backend="threading", return_as="generator_unordered", batch_size=1)
    yield from side_by_side(joblib.delayed(_ended)(job, wait) for job in jobs)


def _ended(job: Job, wait: bool) -> Ended:
    return job, run_job(job, wait)


def _with_submitit(
    jobs: Sequence[Job], settings: SubmititLocalLauncher | SubmititSlurmLauncher, wait: bool
) -> Iterator[Ended]:
    submitit = _engine("submitit")
    log_dir = jobs[0].root / ".submitit"
    with _starting(settings):
        executor = submitit.AutoExecutor(log_dir, cluster=settings.name.partition("_")[2])
    executor.update_parameters(name="hngtv", timeout_min=settings.timeout_min)
    if isinstance(settings, SubmititSlurmLauncher):
        executor.update_parameters(
            cpus_per_task=settings.cpus_per_task,
            gpus_per_node=settings.gpus_per_node,
            slurm_array_parallelism=settings.n_jobs,
            slurm_setup=list(settings.setup),
            slurm_additional_parameters=settings.additional or {},
            **{"slurm_partition": settings.partition} if settings.partition else {},
            **{"mem_gb": settings.mem_gb} if settings.mem_gb else {},
        )
        with _starting(settings), executor.batch():
            submitted = [(job, executor.submit(run_job, job, wait)) for job in jobs]
        running, waiting = dict(submitted), iter(())
    else:
        running, waiting = {}, iter(jobs)
    yield from _poll(
        running,
        waiting,
        start=lambda job: executor.submit(run_job, job, wait),
        n_jobs=settings.n_jobs,
        has_ended=lambda task: task.done(),
        answer=lambda task: task.result(),
        cancel=lambda task: task.cancel(),
    )


def _with_ray(jobs: Sequence[Job], settings: RayLauncher, wait: bool) -> Iterator[Ended]:
    ray = _engine("ray")
    handler = signal.getsignal(signal.SIGTERM)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would send reports to its makers
    with _starting(settings):
        ray.init(settings.address, include_dashboard=False, log_to_driver=False, configure_logging=False)
    signal.signal(signal.SIGTERM, handler)  # Ray's own would leave jobs at work
    remote = ray.remote(num_cpus=settings.cpus_per_job, num_gpus=settings.gpus_per_job, max_retries=0)(run_job)
    try:
        yield from _poll(
            {job: remote.remote(job, wait) for job in jobs},
            iter(()),
            start=partial(remote.remote, wait=wait),
            n_jobs=len(jobs),
            has_ended=lambda task: bool(ray.wait([task], timeout=0)[0]),
            answer=ray.get,
            cancel=ray.cancel,
        )
    finally:
        ray.shutdown()


def _poll(
    running: dict[Job, Any],
    waiting: Iterator[Job],
    start: Callable[[Job], Any],
    n_jobs: int,
    has_ended: Callable[[Any], bool],
    answer: Callable[[Any], bool],
    cancel: Callable[[Any], Any],
) -> Iterator[Ended]:
    """Ask an engine which of its tasks have ended, until all have; start one of those waiting where there is room."""
    while True:
        while len(running) < n_jobs and (job := next(waiting, None)) is not None:
            running[job] = start(job)
        if not running:
            return
        if STOPPING.is_set():
            for task in running.values():
                cancel(task)
            return
        for job in [job for job, task in running.items() if has_ended(task)]:
            yield job, _answer_of(job, partial(answer, running.pop(job)))
        time.sleep(POLL_S)


def _answer_of(job: Job, answer: Callable[[], bool]) -> bool:
    """What the engine's task returned; where it was lost, this is noted in the run folder."""
    try:
        return answer()
    except Exception as error:  # a lost node, a time limit: every engine has its own
        start = Status("running", started=time.time())
        if read_status(job.folder).exit_status is None:
            record_end(job.folder, start, 1, [f"lost by the launcher: {' '.join(str(error).split())}"])
        write_results(job.root)
        return True
