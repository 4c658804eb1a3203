"""Folds are even, fixed, and kept."""

import itertools
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hngtv.cases.folds import load_or_make_folds, make_folds, read_folds, thin, write_folds
from hngtv.errors import InputError

CASES = [(f"P{i:02d}", ("north", "south", "east")[i % 3]) for i in range(23)]

cohorts = st.dictionaries(
    st.text("abc123", min_size=1, max_size=6), st.sampled_from(["north", "south", "east", "west"]), min_size=5
).map(lambda centres: list(centres.items()))


@given(cohorts, st.integers(0, 9), st.integers(2, 5), st.randoms(use_true_random=False))
def test_folds_do_not_depend_on_the_order_of_cases(cases: list, seed: int, n_folds: int, random) -> None:
    shuffled = random.sample(cases, len(cases))
    assert make_folds(cases, n_folds, seed) == make_folds(shuffled, n_folds, seed)


@given(cohorts, st.integers(0, 9), st.integers(2, 5))
def test_folds_are_even_overall_and_within_each_centre(cases: list, seed: int, n_folds: int) -> None:
    folds = make_folds(cases, n_folds, seed)
    assert folds.keys() == dict(cases).keys()
    sizes = Counter(folds.values())
    assert max(sizes.values()) - min(sizes[fold] for fold in range(n_folds)) <= 1
    for centre in {centre for _, centre in cases}:
        here = Counter(folds[case_id] for case_id, c in cases if c == centre)
        assert max(here.values()) - min(here[fold] for fold in range(n_folds)) <= 1


def test_another_seed_gives_other_folds() -> None:
    assert len({tuple(make_folds(CASES, 4, seed).items()) for seed in range(5)}) == 5


def test_folds_stay_what_they_were() -> None:
    expected = {"P00": 2, "P01": 1, "P02": 1, "P03": 1, "P04": 0, "P05": 0, "P06": 0, "P07": 2}
    assert make_folds(CASES[:8], 3, seed=0) == expected


@given(cohorts, st.integers(0, 9))
def test_grouped_by_centre_every_centre_lies_in_one_fold(cases: list, seed: int) -> None:
    centres = {centre for _, centre in cases}
    n_folds = max(2, len(centres))
    if len(centres) < 2:
        with pytest.raises(InputError, match="cannot fill 2 folds"):
            make_folds(cases, n_folds, seed, group_by_centre=True)
        return
    folds = make_folds(cases, n_folds, seed, group_by_centre=True)
    assert len({(centre, folds[case_id]) for case_id, centre in cases}) == len(centres) == len(set(folds.values()))


def test_grouped_folds_are_as_even_as_centres_allow() -> None:
    cases = [(f"{centre}{i}", centre) for centre, n in (("a", 9), ("b", 5), ("c", 4), ("d", 2)) for i in range(n)]
    assert sorted(Counter(make_folds(cases, 2, 0, group_by_centre=True).values()).values()) == [9, 11]


def test_impossible_folds_are_told() -> None:
    with pytest.raises(InputError, match=r"2 training cases with a target cannot fill 3 folds; set data\.n_folds"):
        make_folds(CASES[:2], 3, 0)
    with pytest.raises(InputError, match=r"3 centres \(east, north, south\) cannot fill 4 folds"):
        make_folds(CASES, 4, 0, group_by_centre=True)
    with pytest.raises(InputError, match="none for P99; fill the column centre"):
        make_folds([*CASES, ("P99", "")], 3, 0, group_by_centre=True)


def test_written_folds_are_used_again_whatever_the_seed(tmp_path: Path) -> None:
    path = tmp_path / "folds.json"
    first = load_or_make_folds(path, CASES, 5, seed=1)
    assert load_or_make_folds(path, CASES, 5, seed=2) == first
    assert read_folds(path, [case_id for case_id, _ in CASES], 5) == first


def test_changed_cohort_settings_or_file_are_told(tmp_path: Path) -> None:
    path = tmp_path / "folds.json"
    write_folds(path, make_folds(CASES, 5, 0))
    ids = [case_id for case_id, _ in CASES]
    with pytest.raises(InputError, match=r"new: P99; gone: P00\); delete folds.json"):
        read_folds(path, [*ids[1:], "P99"], 5)
    with pytest.raises(InputError, match=r"folds 0, 1, 2, 3, 4 but data\.n_folds asks for 0 to 3"):
        read_folds(path, ids, 4)
    path.write_text('{"P00": "one"}')
    with pytest.raises(InputError, match="whole-numbered folds"):
        read_folds(path, ["P00"], 2)


def test_a_smaller_share_of_the_training_cases_lies_inside_a_larger_one() -> None:
    names = [case_id for case_id, _ in CASES]
    shares = [thin(names, share, seed=1) for share in (0.01, 0.25, 0.5, 1.0)]
    assert [len(kept) for kept in shares] == [1, 6, 12, 23]
    assert all(smaller < larger for smaller, larger in itertools.pairwise(shares))
    assert shares[1] == thin(names[::-1], 0.25, seed=1)
    assert shares[1] != thin(names, 0.25, seed=2)


def test_a_share_that_makes_a_whole_number_is_not_rounded_up() -> None:
    assert len(thin([str(n) for n in range(30)], 0.1 * 3, seed=0)) == 9
