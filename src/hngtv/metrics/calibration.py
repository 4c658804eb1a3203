"""Whether a probability of 0.8 is right in 8 of 10 voxels: counts by bin of probability, and the expected error.

Voxels are those of the original CT grid inside the ROIs of a case, where the network spoke; what stage 1 left out is
an error of localisation and not counted. Nearly all voxels of a scan are background that any network calls background,
which would make every network look calibrated. So curve and error leave out the bin below `FLOOR`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import optimize
from scipy.special import expit, log_expit, logit

from hngtv.errors import InputError
from hngtv.run_folder import read_csv, write_csv

N_BINS = 20
"""Bins of equal width over [0, 1]. Source: our choice."""
FLOOR = 1 / N_BINS
"""Probability below which a voxel counts neither for the curve nor for the error. Source: our choice."""
CALIBRATION_BOUNDS = ((np.log(0.1), np.log(10.0)), (-4.0, 4.0))
"""Between which the logarithm of a temperature and a shift are looked for. Source: our choice."""
CALIBRATION_COLUMNS = ("case_id", "bin_low", "bin_high", "n_voxels", "probability_sum", "truth_sum")

Counts = NDArray[np.float64]


@dataclass(frozen=True)
class BinCounts:
    """Sums over the voxels of each bin of probability, arrays (bin,) from the lowest bin up.

    Attributes:
        n_voxels: Voxels.
        probability_sum: Sum of their probabilities of tumour, all classes together.
        truth_sum: How many of them are tumour.
    """

    n_voxels: Counts
    probability_sum: Counts
    truth_sum: Counts


def count_bins(probability: NDArray[np.floating], truth: NDArray[np.bool_]) -> BinCounts:
    """Count voxels by probability.

    Args:
        probability: Of tumour, in [0, 1], any shape.
        truth: Whether a voxel is tumour, same shape.
    """
    is_high = probability >= FLOOR
    high, tumour = probability[is_high].astype(np.float64), truth[is_high].astype(np.float64)

    def binned(weights: NDArray | None) -> Counts:
        return np.histogram(high, N_BINS, (0.0, 1.0), weights=weights)[0].astype(np.float64)

    counts = [binned(None), binned(high), binned(tumour)]
    # The bin below the floor holds nearly everything, so it is what is left.
    for count, total in zip(
        counts,
        (probability.size, probability.sum(dtype=np.float64), np.count_nonzero(truth)),
        strict=True,
    ):
        count[0] += max(float(total) - float(count.sum()), 0.0)
    return BinCounts(*counts)


def add_counts(counts: Sequence[BinCounts]) -> BinCounts:
    """The counts of several cases together, a voxel counting once; zeros for none."""
    names = ("n_voxels", "probability_sum", "truth_sum")
    return BinCounts(*(sum((getattr(one, name) for one in counts), np.zeros(N_BINS)) for name in names))


def reliability(counts: BinCounts) -> tuple[Counts, Counts, Counts]:
    """For each bin from `FLOOR` on: mean probability, share of tumour (NaN in an empty bin), share of the voxels."""
    n, probability, truth = (values[1:] for values in (counts.n_voxels, counts.probability_sum, counts.truth_sum))
    with np.errstate(invalid="ignore", divide="ignore"):
        return probability / n, truth / n, n / n.sum()


def expected_calibration_error(counts: BinCounts, from_floor: bool = True) -> float:
    """Mean size of (probability - share of tumour) over bins, weighted by their voxels; NaN without voxels.

    Args:
        counts: From `count_bins`.
        from_floor: Leave out the bin below `FLOOR`.

    Source:
        Naeini et al., AAAI 2015, over the voxels from `FLOOR` on.
    """
    if from_floor:
        return _weighted(counts, absolute=True)
    used = counts.n_voxels > 0
    gaps = abs(counts.probability_sum - counts.truth_sum)[used]
    return float(gaps.sum() / counts.n_voxels.sum()) if used.any() else float("nan")


def overconfidence(counts: BinCounts) -> float:
    """Mean of (probability - share of tumour), from `FLOOR` on: positive where the network promises too much."""
    return _weighted(counts, absolute=False)


LOGIT_EDGES = np.linspace(-8.0, 8.0, 161)
"""Bins of logit for fitting a calibration; a tenth wide. Source: our choice."""


def count_logits(probability: NDArray[np.floating], truth: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Voxels, and those of them that are tumour, in each bin of `LOGIT_EDGES`: (2, bin).

    Args:
        probability: Of tumour, in [0, 1], any shape; values below `FLOOR` are left out.
        truth: Whether a voxel is tumour, same shape.
    """
    is_high = probability >= FLOOR
    logits = np.clip(logit(probability[is_high].astype(np.float64)), LOGIT_EDGES[0], LOGIT_EDGES[-1])
    return np.stack([np.histogram(part, LOGIT_EDGES)[0] for part in (logits, logits[truth[is_high]])])


def fit_calibration(counts: Sequence[NDArray[np.int64]]) -> tuple[float, float]:
    """Temperature and shift of the logit that make the truth likeliest; 1 and 0 without voxels of both kinds.

    Networks that are trained on crops around tumours with a Dice loss call too much tumour, which a temperature alone
    cannot mend; hence the shift. A voxel counts once, whichever case it is of, as in the calibration error.

    Args:
        counts: Of each case, see `count_logits`.
    Source:
        Platt 1999; with the shift 0 it is temperature scaling (Guo et al., ICML 2017). Over the voxels from `FLOOR` on.
    """
    n_all, n_tumour = np.sum([np.zeros((2, len(LOGIT_EDGES) - 1)), *counts], axis=0)
    if n_tumour.sum() in (0, n_all.sum()):
        return 1.0, 0.0
    middles = (LOGIT_EDGES[1:] + LOGIT_EDGES[:-1]) / 2

    def loss(values: NDArray[np.float64]) -> float:
        logits = middles / np.exp(values[0]) + values[1]
        lost = n_tumour * log_expit(logits) + (n_all - n_tumour) * log_expit(-logits)
        return float(-lost.sum() / n_all.sum())

    log_temperature, shift = optimize.fmin_l_bfgs_b(loss, [0.0, 0.0], approx_grad=True, bounds=CALIBRATION_BOUNDS)[0]
    return float(np.exp(log_temperature)), float(shift)


def calibrated(probability: NDArray[np.float32], temperature: float, shift: float) -> NDArray[np.float32]:
    """Probability whose logit is divided by a temperature, then shifted; 0 and 1 stay; same shape."""
    if temperature == 1 and shift == 0:
        return probability
    return expit(logit(probability) / np.float32(temperature) + np.float32(shift))


def write_calibration(path: Path, counts: Mapping[str, BinCounts]) -> None:
    """Write the counts of each case, one row for each bin."""
    edges = np.linspace(0, 1, N_BINS + 1)
    write_csv(
        path,
        CALIBRATION_COLUMNS,
        (
            {
                "case_id": case_id,
                "bin_low": f"{edges[i]:.2f}",
                "bin_high": f"{edges[i + 1]:.2f}",
                "n_voxels": f"{one.n_voxels[i]:.0f}",
                "probability_sum": f"{one.probability_sum[i]:.4f}",
                "truth_sum": f"{one.truth_sum[i]:.0f}",
            }
            for case_id, one in counts.items()
            for i in range(N_BINS)
        ),
    )


def read_calibration(path: Path) -> dict[str, BinCounts]:
    """Read a `calibration.csv`, by case.

    Raises:
        InputError: The file is missing, a value is no number, or a case has not `N_BINS` bins.
    """
    rows: dict[str, list[list[float]]] = {}
    for number, row in enumerate(read_csv(path, CALIBRATION_COLUMNS), start=2):
        try:
            rows.setdefault(row["case_id"], []).append([float(row[name]) for name in CALIBRATION_COLUMNS[3:]])
        except (TypeError, ValueError) as error:
            raise InputError(f"{path} line {number}: {error}; delete the file and run again") from None
    return {case_id: _parse_case(path, case_id, values) for case_id, values in rows.items()}


def _parse_case(path: Path, case_id: str, rows: Iterable[Sequence[float]]) -> BinCounts:
    table = np.array(list(rows))
    if len(table) != N_BINS:
        raise InputError(f"{path}: case {case_id} has {len(table)} bins, expected {N_BINS}; delete it and run again")
    return BinCounts(*table.T)


def _weighted(counts: BinCounts, absolute: bool) -> float:
    probability, truth, weight = reliability(counts)
    gap = probability - truth
    used = counts.n_voxels[1:] > 0
    return float((weight * (abs(gap) if absolute else gap))[used].sum()) if used.any() else float("nan")
