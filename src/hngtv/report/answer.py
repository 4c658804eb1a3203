"""The answer in words: crop or gate? As sure as the numbers are, and no surer."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hngtv.metrics.score import CaseScore
from hngtv.report.figures import METRIC_LABELS
from hngtv.report.runs import Run
from hngtv.report.statistics import METRICS, PairedDifference, compare_arms, judge_margin
from hngtv.report.tables import count_fallbacks
from hngtv.report.terms import Conditions, unequal_budgets
from hngtv.report.words import format_interval, format_p, format_signed

MIN_CASES = 6
"""Where fewer cases differ the two-sided signed-rank test cannot reach p < 0.05 (2 / 2^5 = 0.0625)."""
SIGNIFICANCE = 0.05
PLAIN_ARM = "single_stage_unet"


@dataclass(frozen=True)
class Answer:
    """What the numbers say.

    Attributes:
        headline: The verdict.
        sentences: The difference, what it means, and how often the arms failed.
        notes: What else a reader has to know.
    """

    headline: str
    sentences: Sequence[str]
    notes: Sequence[str] = ()


def choose_reference(arms: Mapping[str, Sequence[Run]]) -> str:
    """The plain single-stage U-Net if it is among the arms, else the first arm."""
    return PLAIN_ARM if PLAIN_ARM in arms else next(iter(arms))


def find_crop_and_gate(arms: Mapping[str, Sequence[Run]]) -> tuple[str, str] | None:
    """The arms that stand for the two sides of the question.

    Crop is a two-stage arm with found boxes, without gates if there is one such; gate is a single-stage arm with gates.
    An arm with true boxes is a bound and answers nothing. None if a side has no arm.
    """
    kinds = _arms_by_kind(arms)
    crops = [*kinds.get((True, False), ()), *kinds.get((True, True), ())]
    gates = kinds.get((False, True))
    return (crops[0], gates[0]) if crops and gates else None


def _arms_by_kind(arms: Mapping[str, Sequence[Run]]) -> dict[tuple[bool, bool], list[str]]:
    """Arms by whether they crop and whether they have gates, without bounds; the first of a kind stands for it."""
    kinds: dict[tuple[bool, bool], list[str]] = {}
    for arm, (run, *_) in arms.items():
        if run.localiser != "oracle":
            kinds.setdefault((run.localiser != "whole", run.has_gates), []).append(arm)
    return kinds


def answer_question(
    arms: Mapping[str, Sequence[Run]],
    scores: Sequence[CaseScore],
    metric: str,
    conditions: Conditions = Conditions(),  # noqa: B008 - frozen
) -> Answer:
    """Crop or gate? By the paired difference on GTV (all labels together) between the two arms that stand for it.

    That one of them is better is not said where their training budgets differ, unless `conditions` ask for it.
    """
    if len(arms) == 1:
        return Answer(
            "One arm only: nothing to compare.",
            [
                "This report shows how the arm did. Run another arm on the same folds, then compare again.",
                _failures(arms, scores),
            ],
        )
    sides = find_crop_and_gate(arms)
    variants = _variant_caution(arms)
    if sides is None:
        return Answer(
            "Crop or gate? These arms cannot tell.",
            [
                "The question needs a two-stage arm with predicted boxes and a single-stage arm with attention gates; "
                "the table compares the arms that are here.",
                _failures(arms, scores),
            ],
            variants,
        )
    crop, gate = sides
    rows = [row for row in scores if row.arm in sides]
    pair = compare_arms(rows, "GTV", metric, reference=gate)[0]
    budgets = unequal_budgets([*arms[crop], *arms[gate]], conditions.budget_tolerance)
    return Answer(
        _headline(pair, bool(budgets), conditions.unequal_budgets),
        [
            _numbers(pair),
            _meaning(pair, budgets, conditions),
            _failures({arm: arms[arm] for arm in sides}, rows),
        ],
        [*_cautions(pair), *variants, *_seed_caution(rows)],
    )


def effect_rows(
    arms: Mapping[str, Sequence[Run]], scores: Sequence[CaseScore], metric: str
) -> list[tuple[str, PairedDifference]]:
    """What each change does alone: cropping with and without gates, gates with and without cropping (GTV)."""
    kinds = _arms_by_kind(arms)
    changes = (
        ("cropping, network without gates", (True, False), (False, False)),
        ("cropping, network with gates", (True, True), (False, True)),
        ("gates, whole image", (False, True), (False, False)),
        ("gates, inside the crop", (True, True), (True, False)),
    )
    found = []
    for name, after, before in changes:
        if after in kinds and before in kinds:
            two = (kinds[after][0], kinds[before][0])
            rows = [row for row in scores if row.arm in two]
            found.append((name, compare_arms(rows, "GTV", metric, reference=two[1])[0]))
    return found


def is_decided(pair: PairedDifference) -> bool:
    """Whether enough cases that differ, the interval and the test all say that the arms differ."""
    return _n_differing(pair) >= MIN_CASES and not _holds_zero(pair) and pair.p_holm < SIGNIFICANCE


def _n_differing(pair: PairedDifference) -> int:
    return pair.n_better + pair.n_worse


def _winner(pair: PairedDifference) -> tuple[str, str]:
    """The arm that did better, and its side of the question."""
    is_crop = (pair.difference > 0) == METRICS[pair.metric].higher_is_better
    return (pair.arm, "Crop") if is_crop else (pair.reference, "Gate")


def _headline(pair: PairedDifference, are_unequal: bool, is_asked_for: bool) -> str:
    if _n_differing(pair) < MIN_CASES:
        return (
            f"Too few cases to say: the arms differ in {_n_differing(pair)} of {pair.n_cases}, "
            f"at least {MIN_CASES} are needed."
        )
    if not is_decided(pair):
        return "No clear difference between cropping and gating on these cases."
    if are_unequal and not is_asked_for:
        return "Nothing is claimed: the arms were trained on unequal budgets."
    winner, side = _winner(pair)
    return f"{side}: {winner} did better on these cases{', on unequal training budgets' if are_unequal else ''}."


def _meaning(pair: PairedDifference, budgets: Sequence[str], conditions: Conditions) -> str:
    """What the difference says, what the margin makes of it, and whether a claim may rest on it: one sentence."""
    parts = [_certainty(pair)]
    if conditions.margin is not None:
        parts.append(_margin_verdict(pair, conditions.margin))
    if budgets and is_decided(pair):
        allowed = "the claim was asked for all the same" if conditions.unequal_budgets else "so no arm is called better"
        what = budgets[0].removeprefix("Different budget: ").removesuffix(".")
        parts.append(f"the training budgets differ by more than {conditions.budget_tolerance:.0%} ({what}), {allowed}")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _certainty(pair: PairedDifference) -> str:
    if _n_differing(pair) < MIN_CASES:
        return f"where fewer than {MIN_CASES} cases differ the test cannot reach p < 0.05 whatever the data say"
    if pair.note:
        return f"there is {pair.note}"
    if _holds_zero(pair):
        return "the interval includes 0: the data fit a gain as well as a loss, or no difference at all"
    if not is_decided(pair):
        return "interval and rank test disagree, so this is no more than a hint"
    size = "" if math.isnan(pair.effect_size) else f" (rank-biserial correlation {format_signed(pair.effect_size, 2)})"
    return f"the interval excludes 0 and the rank test agrees{size}: chance alone would seldom do this"


def _margin_verdict(pair: PairedDifference, margin: float) -> str:
    """Both ways round: is cropping no worse than gating, and gating no worse than cropping?"""
    turned = replace(pair, low=-pair.high, high=-pair.low)
    verdicts = {
        "cropping": (judge_margin(pair, margin), "gating"),
        "gating": (judge_margin(turned, margin), "cropping"),
    }
    words = {"non-inferior": "is non-inferior to", "inferior": "is inferior to", "undecided": "may be inferior to"}
    said = [f"{side} {words[verdict]} {other}" for side, (verdict, other) in verdicts.items()]
    return f"by the margin of {margin:g}{_unit(pair)}, {' and '.join(said)}"


def _failures(arms: Mapping[str, Sequence[Run]], scores: Sequence[CaseScore]) -> str:
    """How many predictions of each arm failed, counted as the worst value, and how often stage 1 found nothing."""
    rows = [row for row in scores if row.arm in arms and row.class_name == "GTV"]
    case_ids = {row.case_id for row in rows}
    found = []
    for arm, runs in arms.items():
        own = [row for row in rows if row.arm == arm]
        n_absent = len(case_ids - {row.case_id for row in own})
        n_failed = n_absent + sum(row.dice == 0 for row in own)
        n_without = n_absent + sum(_is_lost(row) for row in own)
        n_fallbacks = count_fallbacks(runs)
        more = [f"{n_without} without a mask"] if n_without else []
        more += [f"stage 1 fell back in {n_fallbacks} of {sum(len(run.rois) for run in runs)}"] if n_fallbacks else []
        found.append(f"{n_failed} of {n_absent + len(own)} by {arm}" + (f" ({', '.join(more)})" if more else ""))
    return f"Failures, predictions with Dice 0, count as the worst value: {', '.join(found)}."


def _is_lost(row: CaseScore) -> bool:
    """Whether a case was scored without a usable prediction; in a file from before this was kept, False."""
    return row.volume_ml == 0 and math.isinf(row.hd95_2021_mm)


def _unit(pair: PairedDifference) -> str:
    return " mm" if METRIC_LABELS[pair.metric].endswith("[mm]") else ""


def _numbers(pair: PairedDifference) -> str:
    unit = _unit(pair)
    name = METRIC_LABELS[pair.metric].removesuffix(" [mm]")
    n_ties = pair.n_cases - _n_differing(pair)
    interval = "" if pair.note else f"95 % interval {format_interval(pair.low, pair.high, '+')}, "
    return (
        f"Paired difference in {name}, {pair.arm} (crop) minus {pair.reference} (gate): "
        f"{format_signed(pair.difference)}{unit} "
        f"({pair.statistic} over {pair.n_cases} {'case' if pair.n_cases == 1 else 'cases'}, {interval}"
        f"Wilcoxon p {format_p(pair.p_value)}). Cropping was better in {pair.n_better} cases, gating in {pair.n_worse}"
        + (f", equal in {n_ties}." if n_ties else ".")
    )


def _cautions(pair: PairedDifference) -> list[str]:
    found = []
    if pair.note and _n_differing(pair) < MIN_CASES:
        found.append(f"There is {pair.note}.")
    if pair.n_missing:
        found.append(f"{pair.n_missing} cases are missing in one of the two arms and count there as the worst value.")
    return found


def _seed_caution(rows: Sequence[CaseScore]) -> list[str]:
    seeds = {arm: {row.seed for row in rows if row.arm == arm} for arm in {row.arm for row in rows}}
    if all(len(found) > 1 for found in seeds.values()):
        return []
    return ["One seed only: how much of this is the luck of a single training is unknown."]


def _variant_caution(arms: Mapping[str, Sequence[Run]]) -> list[str]:
    others = [arm for group in _arms_by_kind(arms).values() for arm in group[1:]]
    if not others:
        return []
    return [f"Of each kind of arm the first speaks here and in the table of changes; left out: {', '.join(others)}."]


def _holds_zero(pair: PairedDifference) -> bool:
    return not (pair.low > 0 or pair.high < 0)
