from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_calibration_error

from hngtv.errors import InputError
from hngtv.metrics.calibration import (
    FLOOR,
    N_BINS,
    BinCounts,
    add_counts,
    count_bins,
    expected_calibration_error,
    overconfidence,
    read_calibration,
    reliability,
    write_calibration,
)


def drawn(seed: int, n: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and a truth that is rarer than they say."""
    rng = np.random.default_rng(seed)
    probability = rng.beta(0.4, 1.2, n).astype(np.float32)
    return probability, rng.random(n) < probability**1.5


def test_error_is_that_of_another_library_above_the_floor() -> None:
    probability, truth = drawn(0)
    high = probability >= FLOOR
    # That of the other library is of the likelier class; at 0.5 and below it is given background. So: its curve of p.
    wanted = binary_calibration_error(
        torch.from_numpy(probability[high]), torch.from_numpy(truth[high].astype(int)), n_bins=N_BINS, norm="l1"
    )
    assert expected_calibration_error(count_bins(probability, truth)) == pytest.approx(float(wanted), abs=1e-5)


def test_counts_lose_no_voxel() -> None:
    probability, truth = drawn(1)
    counts = count_bins(probability.reshape(20, 20, 10), truth.reshape(20, 20, 10))
    assert counts.n_voxels.sum() == 4000
    assert counts.n_voxels.tolist() == np.histogram(probability, N_BINS, (0, 1))[0].tolist()
    assert counts.truth_sum.sum() == truth.sum()
    assert counts.probability_sum.sum() == pytest.approx(probability.sum(dtype=float))


def test_by_hand() -> None:
    counts = count_bins(np.array([0.01, 0.9, 0.9, 0.9, 0.3]), np.array([True, True, True, False, False]))
    probability, truth, weight = reliability(counts)
    assert (probability[17], truth[17], weight[17]) == pytest.approx((0.9, 2 / 3, 0.75))
    assert expected_calibration_error(counts) == pytest.approx(0.75 * (0.9 - 2 / 3) + 0.25 * 0.3)
    assert overconfidence(counts) == pytest.approx(expected_calibration_error(counts))
    assert np.isnan(probability[3])


def test_nothing_above_the_floor_has_no_error() -> None:
    counts = count_bins(np.zeros((3, 3, 3), np.float32), np.zeros((3, 3, 3), bool))
    assert np.isnan(expected_calibration_error(counts))
    assert add_counts([]).n_voxels.sum() == 0


def test_cases_are_summed_and_read_back(tmp_path: Path) -> None:
    counts = {name: count_bins(*drawn(seed)) for seed, name in enumerate(("a", "b,c"))}
    write_calibration(tmp_path / "calibration.csv", counts)
    read = read_calibration(tmp_path / "calibration.csv")
    assert list(read) == ["a", "b,c"]
    together = add_counts(list(read.values()))
    assert together.n_voxels.sum() == 8000
    assert expected_calibration_error(together) == pytest.approx(
        expected_calibration_error(add_counts(list(counts.values()))), abs=1e-5
    )


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "calibration.csv"
    write_calibration(path, {"a": BinCounts(*np.zeros((3, N_BINS)))})
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    with pytest.raises(InputError, match="case a has 19 bins"):
        read_calibration(path)
    path.write_text("".join([lines[0], "a,0,0.05,x,0,0\n"]))
    with pytest.raises(InputError, match="line 2"):
        read_calibration(path)
