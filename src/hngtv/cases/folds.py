"""Folds of cross-validation: made once, written to a file, reused by every arm. One case is one patient."""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from hngtv.errors import InputError
from hngtv.run_folder import read_json, write_json

SLACK = 1e-9
"""What a product of floats may lie above the whole number that is meant."""


def make_folds(
    cases: Sequence[tuple[str, str]],
    n_folds: int,
    seed: int,
    group_by_centre: bool = False,
    setting: str = "data.n_folds",
) -> dict[str, int]:
    """Assign each case to one fold; the order of the cases does not matter.

    Without grouping, folds differ by one case at most and every centre is spread evenly over them. With
    grouping, every centre lies wholly in one fold, and the folds are as even as the largest centres allow.

    Args:
        cases: Pairs of case id and centre, training cases with a target only.
        n_folds: Number of folds, numbered from 0.
        seed: Decides which cases meet; no random generator is involved, so all versions give the same folds.
        setting: What the messages call `n_folds`.
    Returns:
        Fold of each case id, sorted by id.
    Raises:
        InputError: Fewer cases than folds; with grouping, fewer centres than folds or a case without a centre.
    """
    if len(cases) < n_folds:
        raise InputError(f"{len(cases)} training cases with a target cannot fill {n_folds} folds; set {setting} lower")
    assign = _folds_of_centres if group_by_centre else _folds_of_cases
    folds = assign(sorted(cases), n_folds, seed)
    return dict(sorted(folds.items()))


def write_folds(path: Path, folds: Mapping[str, int]) -> None:
    """Write folds as JSON: case id to fold."""
    write_json(path, dict(folds))


def read_folds(path: Path, case_ids: Collection[str], n_folds: int) -> dict[str, int]:
    """Read folds, which must be about exactly these cases.

    Raises:
        InputError: The file is unreadable, is about other cases, or has other folds than 0 to `n_folds` - 1.
    """
    folds = read_json(path)
    advice = f"delete {path.name} and what was trained with it, or restore the earlier cases and settings"
    if not isinstance(folds, dict) or not all(type(fold) is int for fold in folds.values()):
        raise InputError(f"{path} does not hold case ids with whole-numbered folds; {advice}")
    new, gone = sorted(set(case_ids) - set(folds)), sorted(set(folds) - set(case_ids))
    if new or gone:
        raise InputError(f"{path} was made for other cases (new: {_listing(new)}; gone: {_listing(gone)}); {advice}")
    if set(folds.values()) != set(range(n_folds)):
        found = ", ".join(map(str, sorted(set(folds.values()))))
        raise InputError(f"{path} has the folds {found} but data.n_folds asks for 0 to {n_folds - 1}; {advice}")
    return folds


def load_or_make_folds(
    path: Path, cases: Sequence[tuple[str, str]], n_folds: int, seed: int, group_by_centre: bool = False
) -> dict[str, int]:
    """Folds of an existing file, else new ones, written to it."""
    if path.is_file():
        return read_folds(path, [case_id for case_id, _ in cases], n_folds)
    folds = make_folds(cases, n_folds, seed, group_by_centre)
    write_folds(path, folds)
    return folds


def thin(case_ids: Collection[str], share: float, seed: int) -> set[str]:
    """A share of the cases, rounded up; of two shares the smaller lies inside the larger.

    Args:
        case_ids: The training cases of a fold.
        share: More than 0, up to 1.
        seed: As of the folds; no random generator is involved.
    """
    order = sorted(case_ids, key=lambda case_id: _shuffled(seed, f"train {case_id}"))
    return set(order[: max(1, math.ceil(share * len(order) - SLACK))])


def _folds_of_cases(cases: Sequence[tuple[str, str]], n_folds: int, seed: int) -> dict[str, int]:
    """Deal the cases out like cards, one centre after the other."""
    dealt = sorted(cases, key=lambda case: (case[1], _shuffled(seed, case[0])))
    order = sorted(range(n_folds), key=lambda fold: _shuffled(seed, f"fold {fold}"))
    return {case_id: order[place % n_folds] for place, (case_id, _) in enumerate(dealt)}


def _folds_of_centres(cases: Sequence[tuple[str, str]], n_folds: int, seed: int) -> dict[str, int]:
    """Put the largest centre left into the smallest fold so far."""
    nameless = [case_id for case_id, centre in cases if not centre]
    if nameless:
        raise InputError(
            f"data.group_by_centre needs a centre for every case, but finds none for {_listing(nameless)}; "
            "fill the column centre of cases.csv"
        )
    members = defaultdict(list)
    for case_id, centre in cases:
        members[centre].append(case_id)
    if len(members) < n_folds:
        raise InputError(
            f"{len(members)} centres ({_listing(sorted(members))}) cannot fill {n_folds} folds when "
            f"data.group_by_centre is true; set data.n_folds={len(members)} or lower"
        )
    sizes: Counter[int] = Counter(dict.fromkeys(range(n_folds), 0))
    folds = {}
    for centre in sorted(members, key=lambda name: (-len(members[name]), _shuffled(seed, name))):
        fold = min(sizes, key=lambda number: (sizes[number], number))
        sizes[fold] += len(members[centre])
        folds |= dict.fromkeys(members[centre], fold)
    return folds


def _shuffled(seed: int, name: str) -> str:
    """A key that sorts names in an order that looks random and depends on nothing but seed and name."""
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def _listing(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5]) or "none"
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown
