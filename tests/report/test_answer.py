import math
from dataclasses import replace
from pathlib import Path

import pytest

from hngtv.metrics.score import CaseScore
from hngtv.report.answer import answer_question, choose_reference, effect_rows, find_crop_and_gate
from hngtv.report.runs import Run
from hngtv.report.terms import Conditions
from hngtv.run_folder import RunFolder

DICES = (0.5, 0.6, 0.55, 0.7, 0.65, 0.52, 0.61, 0.58)


def arm_runs(*names: str) -> dict[str, list[Run]]:
    return {name: [Run(name, RunFolder(Path(name)), _settings(name), ())] for name in names}


def _settings(arm: str) -> dict[str, object]:
    localiser = {"single": "whole", "two": "coarse", "oracle": "oracle"}[arm.split("_")[0]]
    network = "attention_unet" if arm.endswith("ag") else "unet"
    return {"arm": arm, "fold": 0, "seed": 0, "localiser": {"name": localiser}, "network": {"name": network}}


def rows(arm: str, dices: tuple[float, ...] | list[float], seed: int = 0) -> list[CaseScore]:
    return [
        CaseScore(
            f"case{i}", arm, "0", seed, "GTV", dice, dice, dice, 20 * (1 - dice), 20 * (1 - dice), dice, 10.0, 10.0
        )
        for i, dice in enumerate(dices)
    ]


@pytest.mark.parametrize(("gain", "winner"), [(0.1, "Crop: two_stage_unet"), (-0.1, "Gate: single_stage_ag")])
@pytest.mark.parametrize("metric", ["dice", "hd95_mm"])
def test_a_steady_gain_names_the_winner_in_either_direction_of_the_metric(
    gain: float, winner: str, metric: str
) -> None:
    scores = rows("two_stage_unet", [d + gain + i / 1000 for i, d in enumerate(DICES)]) + rows("single_stage_ag", DICES)
    answer = answer_question(arm_runs("two_stage_unet", "single_stage_ag"), scores, metric)
    assert answer.headline.startswith(winner)
    assert "8 cases" in answer.sentences[0]


def test_an_interval_with_zero_is_said_and_no_winner_is_named() -> None:
    changes = (0.1, -0.1, 0.05, -0.04, 0.02, -0.03, 0.06, -0.05)
    scores = rows("two_stage_unet", [d + c for d, c in zip(DICES, changes, strict=True)]) + rows(
        "single_stage_ag", DICES
    )
    answer = answer_question(arm_runs("two_stage_unet", "single_stage_ag"), scores, "dice")
    assert answer.headline.startswith("No clear difference")
    assert any("includes 0" in sentence for sentence in answer.sentences)


def test_few_cases_name_no_winner_however_large_the_gain() -> None:
    scores = rows("two_stage_unet", (0.9, 0.9, 0.9)) + rows("single_stage_ag", (0.1, 0.2, 0.3))
    answer = answer_question(arm_runs("two_stage_unet", "single_stage_ag"), scores, "dice")
    assert answer.headline.startswith("Too few cases")


def test_cases_that_tie_are_too_few_to_say_however_many_they_are() -> None:
    gains = [0.5] * 20 + [0.6, 0.61, 0.62, 0.63, 0.64]
    scores = rows("two_stage_unet", gains) + rows("single_stage_ag", [0.5] * 25)
    answer = answer_question(arm_runs("two_stage_unet", "single_stage_ag"), scores, "dice")
    assert answer.headline == "Too few cases to say: the arms differ in 5 of 25, at least 6 are needed."
    assert any("fewer than 6 cases differ" in sentence for sentence in answer.sentences)


def test_one_case_has_no_interval_and_so_none_that_includes_0() -> None:
    scores = rows("two_stage_unet", (0.6,)) + rows("single_stage_ag", (0.5,))
    answer = answer_question(arm_runs("two_stage_unet", "single_stage_ag"), scores, "dice")
    assert "(mean over 1 case, Wilcoxon p = 1.000)" in answer.sentences[0]
    assert "There is no interval: one case only." in answer.notes
    assert not any("includes 0" in sentence for sentence in answer.sentences)


def test_an_infinite_difference_keeps_its_sign_and_its_interval() -> None:
    gate = rows("single_stage_ag", DICES)
    crop = rows("two_stage_unet", DICES)[:1]
    answer = answer_question(arm_runs("two_stage_unet", "single_stage_ag"), crop + gate, "hd95_mm")
    assert "+infinite mm (median over 8 cases, 95 % interval +infinite to +infinite" in answer.sentences[0]
    assert answer.headline.startswith("Gate")


def test_a_single_seed_is_said() -> None:
    arms = arm_runs("two_stage_unet", "single_stage_ag")
    one = rows("two_stage_unet", DICES) + rows("single_stage_ag", DICES)
    two = one + rows("two_stage_unet", DICES, seed=1) + rows("single_stage_ag", DICES, seed=1)
    assert "One seed only" in answer_question(arms, one, "dice").notes[-1]
    assert not answer_question(arms, two, "dice").notes


SIDES = ("two_stage_unet", "single_stage_ag")
BETTER = tuple(d + 0.1 + i / 1000 for i, d in enumerate(DICES))


def with_budgets(crop_s: float, gate_s: float) -> dict[str, list[Run]]:
    runs = {}
    for arm, seconds in zip(SIDES, (crop_s, gate_s), strict=True):
        run = Run(arm, RunFolder(Path(arm)), _settings(arm) | {"budget": {"cpu_s": seconds}}, ())
        runs[arm] = [run]
    return runs


def test_the_answer_is_three_sentences() -> None:
    scores = rows("two_stage_unet", BETTER) + rows("single_stage_ag", DICES)
    for arms in (arm_runs(*SIDES), with_budgets(600, 900)):
        for conditions in (Conditions(), Conditions(margin=0.02), Conditions(unequal_budgets=True)):
            assert len(answer_question(arms, scores, "dice", conditions).sentences) == 3


def test_unequal_budgets_claim_nothing_unless_asked_and_then_say_so() -> None:
    scores = rows("two_stage_unet", BETTER) + rows("single_stage_ag", DICES)
    near = answer_question(with_budgets(600, 655), scores, "dice")
    assert near.headline == "Crop: two_stage_unet did better on these cases."
    refused = answer_question(with_budgets(600, 670), scores, "dice")
    assert refused.headline == "Nothing is claimed: the arms were trained on unequal budgets."
    assert "differ by more than 10% (two_stage_unet has 600 s; single_stage_ag has 670 s (" in refused.sentences[1]
    assert refused.sentences[1].endswith("so no arm is called better.")
    assert "better on these cases" not in " ".join([refused.headline, *refused.sentences])
    asked = answer_question(with_budgets(600, 670), scores, "dice", Conditions(unequal_budgets=True))
    assert asked.headline == "Crop: two_stage_unet did better on these cases, on unequal training budgets."
    assert asked.sentences[1].endswith("the claim was asked for all the same.")
    wider = answer_question(with_budgets(600, 670), scores, "dice", Conditions(budget_tolerance=0.2))
    assert wider.headline == near.headline


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        (0.1, "cropping is non-inferior to gating and gating is inferior to cropping"),
        (-0.1, "cropping is inferior to gating and gating is non-inferior to cropping"),
        (-0.003, "cropping is non-inferior to gating and gating is non-inferior to cropping"),
    ],
)
def test_margin_is_judged_both_ways_round(gain: float, words: str) -> None:
    crop = [d + gain + i / 1000 for i, d in enumerate(DICES)]
    scores = rows("two_stage_unet", crop) + rows("single_stage_ag", DICES)
    answer = answer_question(arm_runs(*SIDES), scores, "dice", Conditions(margin=0.02))
    assert f"by the margin of 0.02, {words}" in answer.sentences[1]
    assert "margin" not in answer_question(arm_runs(*SIDES), scores, "dice").sentences[1]


def test_failures_are_counted_with_those_that_have_no_mask() -> None:
    lost = replace(rows("single_stage_ag", (0.0,))[0], volume_ml=0.0, hd95_2021_mm=math.inf)
    gate = [lost, *rows("single_stage_ag", DICES)[1:]]
    crop = [row for row in rows("two_stage_unet", (0.0, 0.0, *DICES[2:])) if row.case_id != "case7"]
    answer = answer_question(arm_runs(*SIDES), crop + gate, "dice")
    assert answer.sentences[2] == (
        "Failures, predictions with Dice 0, count as the worst value: "
        "3 of 8 by two_stage_unet (1 without a mask), 1 of 8 by single_stage_ag (1 without a mask)."
    )


def test_a_failure_of_one_seed_is_one_of_the_predictions_of_all() -> None:
    scores = [row for arm in SIDES for seed in (0, 1) for row in rows(arm, (0.5 * seed, *DICES[1:]), seed=seed)]
    answer = answer_question(arm_runs(*SIDES), scores, "dice")
    assert answer.sentences[2].endswith("1 of 16 by two_stage_unet, 1 of 16 by single_stage_ag.")


def test_one_arm_compares_nothing() -> None:
    assert (
        "nothing to compare" in answer_question(arm_runs("two_stage_ag"), rows("two_stage_ag", DICES), "dice").headline
    )


def test_arms_that_lack_a_side_cannot_tell() -> None:
    scores = rows("oracle_unet", DICES) + rows("single_stage_ag", DICES)
    assert "cannot tell" in answer_question(arm_runs("oracle_unet", "single_stage_ag"), scores, "dice").headline


def test_crop_prefers_the_arm_without_gates() -> None:
    arms = arm_runs("oracle_unet", "two_stage_ag", "two_stage_unet", "single_stage_unet", "single_stage_ag")
    assert find_crop_and_gate(arms) == ("two_stage_unet", "single_stage_ag")
    assert choose_reference(arms) == "single_stage_unet"


def test_variants_of_a_kind_are_left_out_alike_and_named() -> None:
    arms = arm_runs("single_stage_unet", "single_stage_ag", "single_stage_b_ag", "two_stage_ag", "two_stage_b_ag")
    scores = [row for arm in arms for row in rows(arm, DICES)]
    assert find_crop_and_gate(arms) == ("two_stage_ag", "single_stage_ag")
    compared = {arm for _, pair in effect_rows(arms, scores, "dice") for arm in (pair.arm, pair.reference)}
    assert compared == {"single_stage_unet", "single_stage_ag", "two_stage_ag"}
    notes = answer_question(arms, scores, "dice").notes
    assert sum("left out: single_stage_b_ag, two_stage_b_ag." in note for note in notes) == 1


def test_effects_compare_arms_that_differ_in_one_thing() -> None:
    arms = arm_runs("single_stage_unet", "single_stage_ag", "two_stage_unet", "oracle_ag")
    scores = [row for arm in arms for row in rows(arm, DICES)]
    found = [(name, pair.arm, pair.reference) for name, pair in effect_rows(arms, scores, "dice")]
    assert found == [
        ("cropping, network without gates", "two_stage_unet", "single_stage_unet"),
        ("gates, whole image", "single_stage_ag", "single_stage_unet"),
    ]
