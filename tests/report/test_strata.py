import numpy as np
import pytest

from hngtv.commands.compare import build_comparison
from hngtv.report.pooled import POOLED
from hngtv.report.runs import find_runs
from hngtv.report.statistics import METRICS, compare_arms
from hngtv.report.strata import DIFFERENCE_COLUMNS, difference_rows, strata, subgroup_rows
from hngtv.report.tables import Comparison
from hngtv.report.terms import Conditions
from tests.score_rows import outlined, run_of, write_sweep

ARMS = {"single_stage_unet": 0.70, "single_stage_ag": 0.72, "two_stage_unet": 0.78}


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    root = tmp_path_factory.mktemp("sweep")
    write_sweep(root, ARMS, n_cases=30, seeds=(0, 1))
    return build_comparison(*find_runs(root), reference=None, metric="dice", conditions=Conditions(margin=0.03))


def test_strata_part_the_cohort_twice(comparison: Comparison) -> None:
    groups = strata(comparison)
    assert [name.split(" (")[0] for name in groups] == [
        "centre a", "centre b", "centre c", "smallest third", "middle third", "largest third"
    ]  # fmt: skip
    everyone = set(comparison.values["GTV"].case_ids)
    for part in (list(groups)[:3], list(groups)[3:]):
        assert set.union(*(groups[name] for name in part)) == everyone
        assert sum(len(groups[name]) for name in part) == len(everyone)


def test_every_pair_metric_class_and_stratum_has_a_row(comparison: Comparison) -> None:
    rows = difference_rows(comparison)
    assert len(rows) == (1 + 3 + 3) * 3 * (len(METRICS) + len(POOLED)) * 2
    assert all(set(row) <= set(DIFFERENCE_COLUMNS) for row in rows)
    assert {row["reference"] for row in rows} == {"single_stage_unet"}
    assert {(row["metric"], row["margin"]) for row in rows if "margin" in row} == {("dice", "0.03")}


def test_a_stratum_is_what_comparing_its_cases_alone_gives(comparison: Comparison) -> None:
    name, members = next((k, v) for k, v in strata(comparison).items() if k.startswith("middle"))
    alone = [row for row in comparison.scores if row.case_id in members]
    for metric in ("dice", "hd95_mm"):
        expected = {pair.arm: pair for pair in compare_arms(alone, "GTVn", metric, "single_stage_unet")}
        found = [r for r in difference_rows(comparison) if (r["stratum"], r["class_name"]) == (name, "GTVn")]
        for row in (row for row in found if row["metric"] == metric):
            pair = expected[row["arm"]]
            assert row["n_cases"] == pair.n_cases == len(members)
            for column, value in (("difference", pair.difference), ("low", pair.low), ("p_holm", pair.p_holm)):
                assert float(row[column]) == pytest.approx(value, rel=1e-4)


def test_subgroups_show_the_metric_and_the_difference_to_the_reference(comparison: Comparison) -> None:
    row = subgroup_rows(comparison)[0]
    assert (row["group"], row["n_cases"]) == ("centre a", 10)
    assert set(row["value"]) == set(ARMS)
    assert set(row["pairs"]) == set(ARMS) - {"single_stage_unet"}
    for arm, pair in row["pairs"].items():
        assert pair.difference == pytest.approx(row["value"][arm] - row["value"]["single_stage_unet"])


def test_more_seeds_are_not_more_patients(comparison: Comparison) -> None:
    assert {row["n_cases"] for row in difference_rows(comparison) if row["stratum"] == "all"} == {30}
    assert np.isnan(comparison.values["GTV"].columns["dice"]).sum() == 0


def test_subgroups_average_the_rows_of_a_case_first_and_count_a_missing_one_as_0() -> None:
    small = [outlined(case_id, 0.6, 2.0, 2.0) for case_id in "cdef"]
    runs = [
        run_of("one", [outlined("a", 0.4, 14.0, 10.0), outlined("b", 0.8, 20.0, 20.0), *small], {}),
        run_of("one", [outlined("a", 0.0, 6.0, 10.0)], {"seed": 1}),
        run_of("two", [outlined("a", 0.0, 0.0, 10.0), *small], {}),
    ]
    *_, largest = subgroup_rows(build_comparison(runs, [], None, "dice"))
    assert largest["group"].startswith("largest third")
    assert largest["n_cases"] == 2
    assert largest["value"] == pytest.approx({"one": (0.2 + 0.8) / 2, "two": 0.0})


def test_one_centre_or_few_cases_make_no_strata() -> None:
    runs = [run_of(arm, [outlined(case_id, 0.6, 2.0, 2.0) for case_id in "abcde"], {}) for arm in ("one", "two")]
    assert strata(build_comparison(runs, [], None, "dice")) == {}
