"""The model card: what a model was trained on, how it did on held-out cases, and what it must not be taken for.

Cohort, centres and counts are named; no patient and no folder of the machine that trained is.
"""

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hngtv.cases.manifest import RawCase, read_manifest
from hngtv.config import RunSettings, parse_settings, plain
from hngtv.localise.roi_table import read_rois
from hngtv.metrics.score import CaseScore, classes_present
from hngtv.model import Model
from hngtv.networks.build import count_parameters
from hngtv.report.scores import read_scores
from hngtv.run_folder import RunFolder, read_json, write_text

UNKNOWN_CENTRE = "centre not given"
SYNTHETIC = {"phantom": "drawn phantoms, no patients", "sts_long": "lesions of patients in drawn bodies"}
"""Cohorts that are drawn, or in part, by `data.name`."""


def describe_runs(runs: Sequence[RunFolder], cohort: str | None) -> dict[str, Any]:
    """Plain facts about a finished run, or several of one arm: cases, budget, training, held-out scores, versions."""
    settings = [parse_settings(RunSettings, read_json(run.settings)) for run in runs]
    first = settings[0]
    cases = {case.case_id: case for run in runs for case in read_manifest(run.root / "cases.csv")}
    tested_of = [_tested(run, [*cases.values()], own.fold) for run, own in zip(runs, settings, strict=True)]
    seen = {
        roi.case_id
        for run, tested in zip(runs, tested_of, strict=True)
        for roi in read_rois(run.rois)
        if roi.case_id not in tested
    }
    tested = set().union(*tested_of)
    records = [read_json(path) for run in runs for path in sorted(run.root.glob("*/**/training.json"))]
    made_with = read_json(runs[0].provenance) if runs[0].provenance.is_file() else {}
    return {
        "cohort": cohort or first.data.name,
        "synthetic": SYNTHETIC.get(first.data.name, ""),
        "arm": first.arm,
        "fold": _each(own.fold for own in settings),
        "seed": _each(own.seed for own in settings),
        "n_runs": len(runs),
        "trained_on": {"n_cases": len(seen), "centres": _centres([cases[case_id] for case_id in sorted(seen)])},
        "held_out": {"n_cases": len(tested), "centres": _centres([cases[case_id] for case_id in sorted(tested)])},
        "budget": plain(first.budget),
        "steps": sum(record["steps"] for record in records),
        "processor_s": round(sum(record["cpu_s"] for record in records), 1),
        "scores": _mean_scores(runs),
        "versions": made_with.get("versions", {}),
        "git": made_with.get("git"),
        "trained": made_with.get("started"),
    }


def _each(values: Iterable[int | str]) -> str:
    """The different values, in their order."""
    return ", ".join(str(value) for value in dict.fromkeys(values))


def write_card(path: Path, facts: dict[str, Any], model: Model, class_names: Sequence[str]) -> None:
    """Write the card as Markdown."""
    sections = [
        _head(facts),
        _use(),
        _inputs(model, class_names),
        _training(facts, model),
        _scores(facts),
        _limits(facts),
    ]
    write_text(path, "\n".join("\n".join(lines) + "\n" for lines in sections))


def _tested(run: RunFolder, cases: Sequence[RawCase], fold: int | str) -> set[str]:
    """Ids of the cases that the run was tested on: those of its fold, or, trained on all, those of the test split."""
    folds = read_json(run.folds) if run.folds.is_file() else {}
    held_out = {case_id for case_id, number in folds.items() if number == fold}
    return held_out if fold != "all" else {case.case_id for case in cases if case.split == "test"}


def _centres(cases: Sequence[RawCase]) -> dict[str, int]:
    return dict(sorted(Counter(case.centre or UNKNOWN_CENTRE for case in cases).items()))


def _mean_scores(runs: Sequence[RunFolder]) -> list[dict[str, Any]]:
    """Mean Dice and median HD95 of each class that occurs, over the held-out cases; none without scores."""
    rows = [row for run in runs if run.scores.is_file() for row in read_scores(run.scores)]
    result = []
    for name in classes_present(rows):
        of_case: dict[str, list[CaseScore]] = {}  # of several seeds, a case has a row for each
        for row in rows:
            if row.class_name == name:
                of_case.setdefault(row.case_id, []).append(row)
        dice = statistics.fmean(statistics.fmean(row.dice for row in own) for own in of_case.values())
        hd95_mm = statistics.median(statistics.fmean(row.hd95_mm for row in own) for own in of_case.values())
        result.append({"class": name, "n_cases": len(of_case), "dice": round(dice, 4), "hd95_mm": round(hd95_mm, 2)})
    return result


def _head(facts: dict[str, Any]) -> list[str]:
    return [
        f"# {facts['arm']}: gross tumour volume on head-and-neck PET/CT",
        "",
        "**For research use. It is not a medical device; every mask must be looked at by a person.**",
    ]


def _use() -> list[str]:
    return [
        "## Use",
        "",
        "```",
        "hngtv predict model=THIS_FOLDER ct=CT.nii.gz pet=PET.nii.gz out=MASK.nii.gz",
        "hngtv predict model=THIS_FOLDER cases=FOLDER_OR_CSV out=masks",
        "```",
        "",
        "`manifest.json` holds the SHA-256 of the files a prediction depends on; a changed or missing one is refused.",
    ]


def _inputs(model: Model, class_names: Sequence[str]) -> list[str]:
    settings = model.settings
    labels = ", ".join(f"{label} {name}" for label, name in enumerate(class_names))
    return [
        "## Input and output",
        "",
        "- Input: a CT in HU and a PET in SUV (body weight) of one examination, each on its own grid.",
        *(["- A missing PET is taken as SUV 0, with a warning."] if settings.copes_without_pet else []),
        "- Networks see, each scaled to [-1, 1]: " + "; ".join(channel_names(settings)) + ".",
        f"- Spacing: {_triple(settings.data.spacing_mm)} mm"
        + (f", stage 1 {_triple(settings.data.coarse_spacing_mm)} mm." if model.coarse else "."),
        f"- Output: labels on the grid of the CT: {labels}.",
    ]


def channel_names(settings: RunSettings) -> list[str]:
    """What each input channel of the networks is, in their order."""
    intensity = settings.intensity
    windows = [f"CT from {low:g} to {high:g} HU" for low, high in intensity.ct_windows_hu]
    scale = "log(1 + SUV)" if intensity.pet_scale == "log" else "SUV"
    return [*windows, f"PET from 0 to {intensity.pet_max_suv:g} SUV as {scale}"]


def _training(facts: dict[str, Any], model: Model) -> list[str]:
    trained = facts["trained_on"]
    synthetic = f" ({facts['synthetic']})" if facts["synthetic"] else ""
    budget = facts["budget"]
    each = " for each run" if facts["n_runs"] > 1 else ""
    given = f"{budget['steps']} steps" if budget["steps"] else f"{budget['cpu_s']:g} processor seconds"
    parameters = ", ".join(f"{count_parameters(network):,}" for network in (*model.coarse, *model.fine))
    return [
        "## Training",
        "",
        f"- Cohort: {facts['cohort']}{synthetic}, {trained['n_cases']} cases: {_listed(trained['centres'])}.",
        f"- Arm {facts['arm']}, localiser {model.settings.localiser.name}, network {model.settings.network.name}, "
        f"fold {facts['fold']}, seed {facts['seed']}.",
        f"- Budget of all stages together{each}: {given}; used {facts['steps']} steps, "
        f"{facts['processor_s']:g} processor seconds.",
        f"- Parameters of each network, stage 1 first: {parameters}.",
        f"- Made with: {', '.join(f'{name} {version}' for name, version in facts['versions'].items())}.",
    ]


def _scores(facts: dict[str, Any]) -> list[str]:
    if not facts["scores"]:
        return ["## Scores", "", "No case was held out, so there are no scores of this model."]
    held_out = facts["held_out"]
    return [
        "## Scores on held-out cases",
        "",
        f"{held_out['n_cases']} cases, {_not_seen(facts)}: {_listed(held_out['centres'])}.",
        "",
        "| class | cases | mean Dice | median HD95 (mm) |",
        "| --- | --- | --- | --- |",
        *(
            f"| {row['class']} | {row['n_cases']} | {row['dice']:.3f} | {row['hd95_mm']:.1f} |"
            for row in facts["scores"]
        ),
        "",
        "Empty masks and missing predictions are counted, as `hngtv.metrics.score` says.",
        *_last_steps(facts),
    ]


def _not_seen(facts: dict[str, Any]) -> str:
    if facts["n_runs"] == 1:
        return "that it was not trained on"
    return (
        f"each predicted by the runs of its own fold, which were not trained on it; all {facts['n_runs']} runs "
        "together have seen every case, so there are no scores of the ensemble as a whole"
    )


def _last_steps(facts: dict[str, Any]) -> list[str]:
    """What post-processing, calibration and the rule for review did, where an ensemble chose them."""
    own = facts["ensemble"]
    if own is None:
        return []
    low = f"{own['n_low_flagged']} of the {own['n_low']} with a Dice below {own['low_dice']:g}"
    return [
        "",
        "Post-processing, calibration and the rule for review were chosen on these cases; judged fold by fold, "
        "each case by what the other folds chose:",
        "",
        f"- Dice of all tumour {own['dice_before']:.3f} before, {own['dice']:.3f} after post-processing.",
        f"- Calibration error {_rounded(own['calibration_error_before'])} before, {_rounded(own['calibration_error'])} "
        "after, of the networks of one fold.",
        f"- Flagged for review: {own['n_flagged']} of {own['n_cases']}, among them {low}.",
    ]


def _rounded(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def _limits(facts: dict[str, Any]) -> list[str]:
    return [
        "## Limits",
        "",
        *([f"- Trained on {facts['synthetic']}: its scores say nothing about patients."] if facts["synthetic"] else []),
        "- Nothing is known of scanners, centres and patients unlike those above.",
        "- It outlines nothing outside the region that it looked in; where stage 1 finds nothing, the note beside the "
        "mask says so.",
        "- It outlines the classes above and nothing else, and says nothing on stage or outcome.",
    ]


def _listed(centres: dict[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in centres.items()) or "none"


def _triple(values: Sequence[float]) -> str:
    return " x ".join(f"{value:g}" for value in values)
