"""How far may a ROI be off? Dice of a run's fine stage as the true box is shifted and scaled, on its test cases.

    hngtv robustness model=RUN_DIR out=robustness
    hngtv robustness model=RUN_DIR out=robustness shifts_mm=[0,20,40] scales=[0.7,1,1.5]

The folder gets robustness.csv (a row for each case, change and direction) and robustness.png. Cases that are finished
are not done again.

Exit status: 0 done, 1 some cases could not be used (listed), 2 bad settings or input.
"""

import logging
from dataclasses import asdict
from pathlib import Path

from hngtv.config import RobustnessSettings
from hngtv.errors import CasesFailedError, InputError
from hngtv.run_folder import RunFolder, atomic_path, make_folder, read_json, write_csv, write_json

COLUMNS = ("case_id", "change", "amount", "direction", "dice")

VERSION = 2
"""Raised when the code changes what the rows hold."""

log = logging.getLogger(__name__)


def run(settings: RobustnessSettings) -> None:
    """Write the table and the picture; see the module docstring.

    Raises:
        InputError: The run is not finished, or has no test cases.
        CasesFailedError: Some cases could not be used; the others are finished.
    """
    import torch
    from tqdm import tqdm

    from hngtv.cases.manifest import load_cases
    from hngtv.cases.store import case_digests
    from hngtv.model import load_model
    from hngtv.report.figures import encode
    from hngtv.report.robustness import draw_robustness
    from hngtv.robustness import ChangedBox, change_boxes

    model = load_model(settings.model)
    if settings.n_threads:
        torch.set_num_threads(settings.n_threads)
    tested = _test_cases(RunFolder(settings.model), model.settings.fold)
    cases = [case for case in load_cases(settings.model / "cases.csv") if case.case_id in tested]
    parts = make_folder(make_folder(settings.out) / "cases")
    rows: list[ChangedBox] = []
    failures = []
    for case in tqdm(cases, unit="case", disable=None):
        part = parts / f"{case.case_id}.json"
        key = [VERSION, model.digest, case_digests(case), list(settings.shifts_mm), list(settings.scales)]
        if not (part.is_file() and read_json(part)["key"] == key):
            try:
                found = [asdict(row) for row in change_boxes(model, case, settings.shifts_mm, settings.scales)]
            except InputError as error:
                failures.append(str(error))
                continue
            write_json(part, {"key": key, "rows": found})
        rows += [ChangedBox(**row) for row in read_json(part)["rows"]]
    write_csv(settings.out / "robustness.csv", COLUMNS, map(asdict, rows))
    with atomic_path(settings.out / "robustness.png") as temporary:
        temporary.write_bytes(encode(draw_robustness(rows, model.settings.roi.margin_mm), "png"))
    print(settings.out / "robustness.csv")
    for failure in failures:
        print(f"failed: {failure}")
    if failures:
        raise CasesFailedError(f"{len(failures)} of {len(cases)} cases failed (listed above)")


def _test_cases(folder: RunFolder, fold: int | str) -> set[str]:
    """Ids of the cases that the run did not train on.

    Raises:
        InputError: It has none.
    """
    folds = read_json(folder.folds) if Path(folder.folds).is_file() else {}
    tested = {case_id for case_id, number in folds.items() if number == fold}
    if not tested:
        raise InputError(f"{folder.root} was trained on fold={fold} and has no test cases; give a run of one fold")
    return tested
