"""Join finished runs of one arm on several folds into one model, with its last steps chosen on held-out cases.

    hngtv ensemble runs=SWEEP arm=two_stage_ag out=ENSEMBLE
    hngtv predict model=ENSEMBLE cases=FOLDER_OR_CSV out=DIR uncertainty=true
    hngtv export model=ENSEMBLE out=PACKAGE

All networks of a stage are averaged. Each case is looked at by the networks of the fold that held it out; on what they
say are chosen the post-processing (threshold, smallest piece, coldest piece), the calibration of the probability, and
the agreement below which a patient is flagged for review: the mean Dice of each network's outline with those that it
draws on the flipped image, which costs a prediction three more passes. What is said of these choices is measured fold
by fold: chosen on the other folds, judged on this one. So it holds for the networks of one fold. Of all networks
together nothing is known, since some of them saw each case: their mean is less sure than each of them.

The folder gets ensemble.json, held_out.csv (a row for each case), post_processings.csv, calibration.png, review.png and
what was seen of each case (cases/, for going on after a stop; it can be deleted). The runs stay where they are.

Exit status: 0 done, 1 some cases could not be used (listed), 2 bad settings or input.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hngtv.config import EnsembleSettings, InferenceSettings, plain
from hngtv.errors import CasesFailedError, InputError
from hngtv.run_folder import atomic_path, make_folder, write_csv, write_json

if TYPE_CHECKING:
    from hngtv.ensemble.choices import Evidence, Judged
    from hngtv.ensemble.members import Member

COLUMNS = ("case_id", "fold", "target_ml", "dice_before", "dice", "agreement", "flagged")
OPTION_COLUMNS = ("threshold", "min_component_ml", "min_component_suv", "mean_dice", "chosen")

log = logging.getLogger(__name__)


def run(settings: EnsembleSettings) -> None:
    """Choose, judge and write; see the module docstring.

    Raises:
        InputError: The runs do not fit together, or hold no case out.
        CasesFailedError: Some cases could not be used; the ensemble is made with the others.
    """
    import torch

    from hngtv.commands.log import logging_to
    from hngtv.ensemble.choices import candidates, gather, judge
    from hngtv.ensemble.members import RECORD, find_members, places

    if settings.n_threads:
        torch.set_num_threads(settings.n_threads)
    with logging_to():
        members = find_members(settings.runs, settings.arm)
        make_folder(settings.out)
        files, failures = _see_all(members, settings)
        options = candidates(_inference(members, settings), settings)
        evidence = gather(files, options)
        chosen, judged = judge(files, evidence, options, settings)
        measured = _write(settings, options, evidence, chosen, judged)
        record = {"members": places(settings.out, members), "inference": plain(chosen), "measured": measured}
        write_json(settings.out / RECORD, record)
    for line in _in_words(members, chosen, measured):
        print(line)
    print(settings.out / RECORD)
    if failures:
        raise CasesFailedError(f"{len(failures)} case(s) failed, each named above; the others were used")


def _inference(members: "Sequence[Member]", settings: EnsembleSettings) -> InferenceSettings:
    """Of the runs, with the flips that are asked for."""
    inference = members[0].model.settings.inference
    return inference if settings.flip_axes is None else replace(inference, flip_axes=settings.flip_axes)


def _see_all(members: "Sequence[Member]", settings: EnsembleSettings) -> tuple[list[Path], list[str]]:
    """What is kept of each held-out case, and one line for each case that failed.

    Raises:
        InputError: No case could be used, or only those of one fold.
    """
    from tqdm import tqdm

    from hngtv.ensemble.held_out import held_out, load_seen, see

    folder = make_folder(settings.out / "cases")
    inference = _inference(members, settings)
    todo = list(held_out(members, inference))
    files, failures = [], []
    for case, model in tqdm(todo, unit="case", disable=None):
        try:
            files.append(see(case, model, folder))
        except InputError as error:
            failures.append(str(error))
            log.error("%s", error)
    if len({load_seen(file).fold for file in files}) < 2:
        raise InputError(
            f"{len(files)} of {len(todo)} held-out cases can be used; cases of two folds are needed, so mend "
            "those named above"
        )
    return files, failures


def _write(
    settings: EnsembleSettings,
    options: Sequence[InferenceSettings],
    evidence: "Evidence",
    chosen: InferenceSettings,
    judged: "Sequence[Judged]",
) -> dict[str, Any]:
    """Write tables and pictures; returns what was measured."""
    from hngtv.ensemble.choices import is_same_post_processing, summarise
    from hngtv.report.ensemble import draw_calibration, draw_review
    from hngtv.report.figures import encode

    measured = summarise(judged, settings.low_dice)
    write_csv(settings.out / "held_out.csv", COLUMNS, map(_as_row, judged))
    write_csv(
        settings.out / "post_processings.csv",
        OPTION_COLUMNS,
        (
            {
                **{name: f"{getattr(option, name):g}" for name in OPTION_COLUMNS[:3]},
                "mean_dice": f"{mean:.4f}",
                "chosen": int(is_same_post_processing(option, chosen)),
            }
            for option, mean in zip(options, evidence.dice.mean(axis=0), strict=True)
        ),
    )
    pictures = {
        "calibration": draw_calibration(judged),
        "review": draw_review(judged, chosen.review_below, settings.low_dice),
    }
    for name, figure in pictures.items():
        with atomic_path(settings.out / f"{name}.png") as temporary:
            temporary.write_bytes(encode(figure, "png"))
    return measured


def _as_row(row: "Judged") -> dict[str, object]:
    return {
        "case_id": row.case_id,
        "fold": row.fold,
        "target_ml": f"{row.target_ml:.2f}",
        "dice_before": f"{row.dice_before:.4f}",
        "dice": f"{row.dice:.4f}",
        "agreement": f"{row.agreement:.4f}",
        "flagged": int(row.flagged),
    }


def _in_words(members: "Sequence[Member]", chosen: InferenceSettings, measured: dict[str, Any]) -> list[str]:
    own = measured
    errors = " -> ".join(_or_none(own[name], 3) for name in ("calibration_error_before", "calibration_error"))
    return [
        f"{len(members)} runs; threshold {chosen.threshold:g}, pieces from {chosen.min_component_ml:g} ml and SUV "
        f"{chosen.min_component_suv:g} on, temperature {chosen.temperature:.2f} and shift "
        f"{chosen.logit_shift:.2f}, review below an agreement of {chosen.review_below:.2f}",
        f"{own['n_cases']} held-out cases, each seen by the runs of its fold and judged by what the other folds chose: "
        f"Dice {own['dice_before']:.3f} -> {own['dice']:.3f}, calibration error {errors}",
        f"review: {own['n_flagged']} flagged, mean Dice {_or_none(own['dice_flagged'])}, the others "
        f"{_or_none(own['dice_unflagged'])}; {own['n_low_flagged']} of the {own['n_low']} with a Dice below "
        f"{own['low_dice']:g} are among them; rank correlation of agreement and Dice "
        f"{_or_none(own['rank_correlation'])}",
    ]


def _or_none(value: float | None, n_digits: int = 2) -> str:
    return "unknown" if value is None else f"{value:.{n_digits}f}"
