"""Resample cases into the prepared store.

    hngtv prepare data.root=DIR
    hngtv prepare data.root=DIR/cases.csv n_workers=8
    hngtv prepare data=sts data.root=DIR data.spacing_mm=[2,2,2]

Reads CT, PET and target of every case, checks them, and writes CT in HU and PET in SUV on one grid along the axes
of the patient: at a fine spacing for segmentation, and at a coarse one for localisation. They go into
work_dir/prepared, one folder for each case, and may be deleted at any time. Finished cases are skipped, so the
same command continues where a stopped one left off. `hngtv run` does this by itself.

Exit status: 0 done, 1 some cases failed (each listed; the others are prepared), 2 bad settings or input.
"""

import sys
import time

from hngtv.cases.manifest import FolderLayout, load_cases
from hngtv.cases.prepare import STORE_NAME, Failure, prepare_cases, store_folder
from hngtv.cases.store import GridSettings
from hngtv.commands.log import logging_to
from hngtv.config import PrepareSettings
from hngtv.errors import CasesFailedError


def run(settings: PrepareSettings) -> None:
    """Fill the store.

    Raises:
        InputError: No cases found, or the store cannot be written.
        CasesFailedError: Some cases failed; each was told in a line of its own.
    """
    started = time.monotonic()
    data = settings.data
    cases = load_cases(data.root, FolderLayout.of(data))
    store_dir = settings.work_dir / STORE_NAME
    grids = GridSettings(data.spacing_mm, data.coarse_spacing_mm)
    with logging_to():
        prepared, failures = prepare_cases(cases, store_dir, grids, settings.n_workers)
    seconds = time.monotonic() - started
    print(f"{len(prepared)} of {len(cases)} cases are prepared ({seconds:.1f} s): {store_folder(store_dir, grids)}")
    report_failures(failures, len(cases))


def report_failures(failures: list[Failure], n_cases: int) -> None:
    """List failed cases on stderr, one line each.

    Raises:
        CasesFailedError: There are any.
    """
    for failure in failures:
        print(failure.reason, file=sys.stderr)
    if failures:
        raise CasesFailedError(f"{len(failures)} of {n_cases} cases failed (listed above)")
