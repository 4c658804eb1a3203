"""Work on many cases in a few processes, each with one case in memory."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
"""A case, or what is to be done with one."""
Result = TypeVar("Result")


def map_cases(
    work: Callable[[Item], Result],
    cases: Sequence[Item],
    n_workers: int,
    killed: Callable[[Item], Result],
    doing: str,
) -> Iterator[tuple[Item, Result]]:
    """Do something with each case, here or in worker processes, with a progress bar on a terminal.

    Args:
        work: Can be pickled, and answers what is small: results wait here for the last case.
        cases: Can be pickled.
        n_workers: Processes at work; 0 or 1 works in this one.
        killed: What a case gets whose worker was killed, most likely for lack of memory.
        doing: A word before the bar.
    Returns:
        Each case with its result, in the order in which they are done.
    """
    with tqdm(total=len(cases), desc=doing, unit="case", disable=None if cases else True) as bar:
        if n_workers <= 1 or len(cases) <= 1:
            for case in cases:
                yield case, work(case)
                bar.update()
            return
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(n_workers, len(cases)), spawn, initializer=_follow_parent) as pool:
            jobs = {pool.submit(work, case): case for case in cases}
            try:
                for job in as_completed(jobs):
                    case = jobs[job]
                    yield case, killed(case) if isinstance(job.exception(), BrokenProcessPool) else job.result()
                    bar.update()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


def _follow_parent() -> None:
    """In a worker: leave Ctrl-C to the parent, and end with it: a worker of a killed one would wait forever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_after_parent, daemon=True).start()


def _exit_after_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
