"""The answer in words: crop or gate? As sure as the numbers are, and no surer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hngtv.metrics.score import CaseScore
from hngtv.report.figures import METRIC_LABELS
from hngtv.report.runs import Run
from hngtv.report.statistics import METRICS, PairedDifference, compare_arms
from hngtv.report.words import format_interval, format_p, format_signed

MIN_CASES = 6
"""Where fewer cases differ the two-sided signed-rank test cannot reach p < 0.05 (2 / 2^5 = 0.0625)."""
SIGNIFICANCE = 0.05
PLAIN_ARM = "single_stage_unet"


@dataclass(frozen=True)
class Answer:
    """Headline and the sentences that carry it."""

    headline: str
    sentences: Sequence[str]


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


def answer_question(arms: Mapping[str, Sequence[Run]], scores: Sequence[CaseScore], metric: str) -> Answer:
    """Crop or gate? By the paired difference on GTV (all labels together) between the two arms that stand for it."""
    if len(arms) == 1:
        return Answer(
            "One arm only: nothing to compare.",
            ["This report shows how the arm did. Run another arm on the same folds, then compare again."],
        )
    sides = find_crop_and_gate(arms)
    variants = _variant_caution(arms)
    if sides is None:
        return Answer(
            "Crop or gate? These arms cannot tell.",
            [
                "The question needs a two-stage arm with predicted boxes and a single-stage arm with attention gates; "
                "the table compares the arms that are here.",
                *variants,
            ],
        )
    crop, gate = sides
    rows = [row for row in scores if row.arm in sides]
    pair = compare_arms(rows, "GTV", metric, reference=gate)[0]
    return Answer(_headline(pair, crop, gate), [_numbers(pair), *_cautions(pair), *variants, *_seed_caution(rows)])


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


def _headline(pair: PairedDifference, crop: str, gate: str) -> str:
    if _n_differing(pair) < MIN_CASES:
        return (
            f"Too few cases to say: the arms differ in {_n_differing(pair)} of {pair.n_cases}, "
            f"at least {MIN_CASES} are needed."
        )
    if not is_decided(pair):
        return "No clear difference between cropping and gating on these cases."
    better_if_positive = METRICS[pair.metric].higher_is_better
    winner = (crop, "Crop") if (pair.difference > 0) == better_if_positive else (gate, "Gate")
    return f"{winner[1]}: {winner[0]} did better on these cases."


def _numbers(pair: PairedDifference) -> str:
    unit = " mm" if METRIC_LABELS[pair.metric].endswith("[mm]") else ""
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
    is_few = _n_differing(pair) < MIN_CASES
    if pair.note:
        found.append(f"There is {pair.note}.")
    elif _holds_zero(pair):
        found.append("The interval includes 0: the data fit a gain as well as a loss, or no difference at all.")
    elif not is_decided(pair) and not is_few:
        found.append("Interval and rank test disagree, so this is no more than a hint.")
    if is_few:
        found.append(f"Where fewer than {MIN_CASES} cases differ the test cannot reach p < 0.05 whatever the data say.")
    if pair.n_missing:
        found.append(f"{pair.n_missing} cases are missing in one of the two arms and count there as the worst value.")
    return found


def _seed_caution(rows: Sequence[CaseScore]) -> list[str]:
    if len({row.seed for row in rows}) > 1:
        return []
    return ["One seed only: how much of this is the luck of a single training is unknown."]


def _variant_caution(arms: Mapping[str, Sequence[Run]]) -> list[str]:
    others = [arm for group in _arms_by_kind(arms).values() for arm in group[1:]]
    if not others:
        return []
    return [f"Of each kind of arm the first speaks here and in the table of changes; left out: {', '.join(others)}."]


def _holds_zero(pair: PairedDifference) -> bool:
    return not (pair.low > 0 or pair.high < 0)
