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
    calibrated,
    count_bins,
    count_logits,
    expected_calibration_error,
    fit_calibration,
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


def miscalibrated(temperature: float, shift: float, n: int = 200_000) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of a network that is off by a temperature and a shift, and the truth that was drawn."""
    rng = np.random.default_rng(5)
    honest = rng.normal(0, 2, n)
    truth = rng.random(n) < 1 / (1 + np.exp(-honest))
    return (1 / (1 + np.exp(-(honest - shift) * temperature))).astype(np.float32), truth


@pytest.mark.parametrize(("temperature", "shift"), [(2.0, 0.0), (0.5, 0.0), (1.5, -0.8), (1.0, 0.6)])
def test_calibration_finds_what_a_network_is_off_by(temperature: float, shift: float) -> None:
    probability, truth = miscalibrated(temperature, shift)
    found = fit_calibration([count_logits(probability, truth)])
    assert found == pytest.approx((temperature, shift), abs=0.06)
    after = expected_calibration_error(count_bins(calibrated(probability, *found), truth))
    assert after < 0.01
    assert after < expected_calibration_error(count_bins(probability, truth))


def test_nothing_to_calibrate_by_changes_nothing() -> None:
    all_tumour = count_logits(np.full(9, 0.7), np.ones(9, bool))
    nothing = count_logits(np.zeros(9), np.zeros(9, bool))
    assert fit_calibration([]) == fit_calibration([all_tumour]) == fit_calibration([nothing]) == (1.0, 0.0)


def test_certainty_stays_and_order_stays() -> None:
    probability = np.array([0, 0.1, 0.5, 0.9, 1], np.float32)
    found = calibrated(probability, 2.0, -0.5)
    assert found.dtype == np.float32
    assert (found[0], found[-1]) == (0, 1)
    assert (np.diff(found) > 0).all()
    assert calibrated(probability, 1.0, 0.0) is probability
