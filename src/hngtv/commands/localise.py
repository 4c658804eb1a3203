"""Judge localisers: how often is the tumour inside the ROI, and how large is it?

    hngtv localise data=phantom data.root=DIR run_dir=localisers budget.steps=null budget.cpu_s=600
    hngtv localise data.root=DIR run_dir=localisers only=[nvauto,coarse] folds=[0,1] disturbances=[feet_first]

Each localiser looks at the test cases of each fold; one that learns is trained on the other folds, with its share of
the budget. The folder gets localisers.csv and localisers.png (share of patients with 100, 99 and 95 % of the tumour
inside against volume), located.csv, and disturbed.csv: what each one does with bad scans. A command that was stopped
goes on with the fold where it was; trained localisers are kept in work_dir and shared with `hngtv run`.

Exit status: 0 done, 1 some cases could not be used (listed), 2 bad settings or input.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace

from hngtv.commands.claim import claimed
from hngtv.config import LocaliseSettings, LoggerSettings, TrainedLocaliser, plain
from hngtv.errors import CasesFailedError
from hngtv.run_folder import RunFolder, atomic_path, write_csv

CASE_COLUMNS = (
    "case_id", "localiser", "fold", "disturbance", "n_rois", "volume_ml", "margin_for_all_mm", "margin_for_99_mm",
    "margin_for_95_mm", "target_ml", "confidence", "reason", "seconds",
)  # fmt: skip
PLACES = ("run_dir", "work_dir", "logger", "only", "folds", "disturbances")
"""Settings that may differ when the command goes on."""

log = logging.getLogger(__name__)


def run(settings: LocaliseSettings) -> None:
    """Train and judge; see the module docstring.

    Raises:
        InputError: Bad settings or input.
        CasesFailedError: Some cases could not be prepared; the others are finished.
    """
    with claimed(settings.run_dir, settings, PLACES) as folder:
        failures = _walk(folder, settings)
    print(folder.root / "localisers.csv")
    if failures:
        raise CasesFailedError(f"{len(failures)} case(s) failed, each named above; the others are finished")


def _walk(folder: RunFolder, settings: LocaliseSettings) -> list[str]:
    import torch

    from hngtv.cases.manifest import write_manifest
    from hngtv.cases.prepare import prepare_cohort
    from hngtv.localisation import LocalisedCase, judge_fold, split_folds
    from hngtv.training.logger import open_logger
    from hngtv.training.machine import check_machine

    for localiser in settings.chosen.values():
        check_machine(replace(settings, localiser=localiser, logger=LoggerSettings(name="csv")))
    if settings.trainer.n_threads:
        torch.set_num_threads(settings.trainer.n_threads)
    cases, prepared, failures = prepare_cohort(settings.data, settings.work_dir)
    write_manifest(folder.root / "cases.csv", cases)
    rows: list[LocalisedCase] = []
    with open_logger(LoggerSettings(name="csv"), folder.root, settings.arm, plain(settings)) as logger:
        for fold, split in split_folds(prepared, settings, folder).items():
            rows += judge_fold(split, fold, settings, folder.root / f"fold_{fold}", logger)
    _write(folder, settings, rows)
    return failures


def _write(folder: RunFolder, settings: LocaliseSettings, rows: Sequence) -> None:
    from hngtv.report.figures import encode
    from hngtv.report.localisers import (
        DISTURBED_COLUMNS,
        LOCALISER_COLUMNS,
        disturbed_rows,
        draw_localisers,
        localiser_rows,
        volume_ml,
    )

    margin_mm, root = settings.roi.margin_mm, folder.root
    order = {name: place for place, name in enumerate(settings.chosen)}
    rows = sorted(rows, key=lambda row: order[row.localiser])
    table = localiser_rows(rows, margin_mm)
    write_csv(root / "localisers.csv", LOCALISER_COLUMNS, map(_rounded, table))
    write_csv(root / "disturbed.csv", DISTURBED_COLUMNS, map(_rounded, disturbed_rows(rows, margin_mm)))
    cases = (
        {
            "case_id": row.case_id,
            "localiser": row.localiser,
            "fold": row.fold,
            "disturbance": row.disturbance or "none",
            "n_rois": len(row.boxes),
            "volume_ml": volume_ml(row, margin_mm),
            **dict(zip(CASE_COLUMNS[6:9], row.margins_mm or ("", "", ""), strict=True)),
            "target_ml": row.target_ml,
            "confidence": row.confidence,
            "reason": row.reason,
            "seconds": row.seconds,
        }
        for row in rows
    )
    write_csv(root / "located.csv", CASE_COLUMNS, map(_rounded, cases))
    learned = [name for name, localiser in settings.chosen.items() if isinstance(localiser, TrainedLocaliser)]
    figure = draw_localisers(rows, margin_mm, learned)
    for kind in ("png", "svg"):
        with atomic_path(root / f"localisers.{kind}") as temporary:
            temporary.write_bytes(encode(figure, kind))
    for row in table:
        print(
            f"{row['localiser']:<14} all of the tumour in {100 * row['share_all']:5.1f} % of patients, "
            f"{row['volume_ml_mean']:8.0f} ml; {row['seconds_mean']:.2f} s"
        )


def _rounded(row: dict[str, object]) -> dict[str, object]:
    return {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in row.items()}
