import pytest

from hngtv.commands.compare import build_comparison
from hngtv.report.challenges import RANKING_COLUMNS, find_rankings, ranked_arms, ranking_rows
from hngtv.report.runs import find_runs
from hngtv.report.tables import Comparison
from tests.score_rows import outlined, run_of, score, write_sweep


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    root = tmp_path_factory.mktemp("sweep")
    write_sweep(root, {"single_stage_ag": 0.6, "two_stage_unet": 0.8, "oracle_unet": 0.95}, n_cases=24)
    return build_comparison(*find_runs(root), reference=None, metric="dice")


def test_every_year_ranks_all_arms_but_the_bounds(comparison: Comparison) -> None:
    assert ranked_arms(comparison) == ["single_stage_ag", "two_stage_unet"]
    rows = ranking_rows(comparison)
    assert all(set(row) <= set(RANKING_COLUMNS) for row in rows)
    assert [(row["ranking"], row["arm"], row["rank"]) for row in rows] == [
        (f"hecktor_{year}", arm, rank)
        for year in ("2020", "2021_official", "2021_correct", "2022", "2025", "2026")
        for arm, rank in (("single_stage_ag", 2), ("two_stage_unet", 1))
    ]


def test_measures_are_those_of_the_table(comparison: Comparison) -> None:
    table = {(row["class_name"], row["arm"]): row for row in comparison.table}
    for row in ranking_rows(comparison):
        gtvp, gtvn = table["GTVp", row["arm"]], table["GTVn", row["arm"]]
        if row["ranking"] == "hecktor_2020":
            assert row["mean_dice"] == gtvp["dice_mean"]
        if row["ranking"] == "hecktor_2025":
            measures = ("mean_dice_gtvp", "dscagg_gtvn", "f1agg_gtvn")
            expected = (gtvp["dice_mean"], gtvn["dice_aggregated"], gtvn["f1_aggregated"])
            assert tuple(row[name] for name in measures) == expected


def test_a_patient_that_an_arm_lacks_counts_as_the_worst() -> None:
    both = {"n_lesions": 2.0, "n_lesions_found": 2.0, "n_lesions_false": 0.0, "hd95_2021_mm": 1.0}
    rows = {case: [score(case, name, 5.0, **both) for name in ("GTVp", "GTVn", "GTV")] for case in "abc"}
    runs = [run_of("one", [*rows["a"], *rows["b"], *rows["c"]], {}), run_of("two", rows["a"], {})]
    found = {ranking.name: ranking for ranking in find_rankings(build_comparison(runs, [], None, "dice"))}
    assert found["hecktor_2020"].measures["mean_dice"].tolist() == pytest.approx([0.5, 0.5 / 3])
    assert found["hecktor_2021_correct"].measures["median_hd95_mm"].tolist() == [5.0, float("inf")]
    assert found["hecktor_2021_official"].measures["median_hd95_mm"].tolist() == [1.0, float("inf")]
    assert found["hecktor_2022"].measures["dscagg_gtvn"].tolist() == pytest.approx([0.5, 5 / (10 + 5 + 5)])
    assert found["hecktor_2025"].measures["f1agg_gtvn"].tolist() == pytest.approx([1.0, 4 / (4 + 0 + 4)])


def test_one_label_has_the_rankings_of_one_class_and_no_gtvp_has_none() -> None:
    rows = [score("a", "GTVp", 5.0), score("a", "GTVn", 0.0, dice=1.0), score("a", "GTV", 5.0)]
    runs = [run_of(arm, rows, {}) for arm in ("one", "two")]
    names = [ranking.name for ranking in find_rankings(build_comparison(runs, [], None, "dice"))]
    assert names == ["hecktor_2020", "hecktor_2021_official", "hecktor_2021_correct"]
    runs = [run_of(arm, [outlined("a", 0.5, 5.0, 5.0)], {}) for arm in ("one", "two")]
    assert find_rankings(build_comparison(runs, [], None, "dice")) == []
