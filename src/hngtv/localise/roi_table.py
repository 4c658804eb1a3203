"""The ROI table `rois.csv`: one row per case and localiser."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hngtv.errors import InputError
from hngtv.run_folder import read_csv, write_csv
from hngtv.volume.box import Box

CORNER_COLUMNS = ("x0_mm", "y0_mm", "z0_mm", "x1_mm", "y1_mm", "z1_mm")
ROI_COLUMNS = (
    "case_id", "localiser", "fold", *CORNER_COLUMNS, "confidence", "covered_fraction", "box_ml", "reason",
)  # fmt: skip

FOUND = "found"
"""Reason of a box that is no fallback."""


@dataclass(frozen=True)
class Roi:
    """Where a localiser says the tumour is.

    Attributes:
        case_id: The case.
        localiser: Name of the localiser.
        fold: Which inner model made the row: its number for a training case (that model never saw the case),
            "ensemble" for a case outside training, empty for a localiser without a model.
        box: World RAS mm, before the margin of the fine stage.
        confidence: In [0, 1]; mean probability inside what was found, 0 for a fallback.
        covered_fraction: Share of the target inside the box with its margin; None where the truth is unknown or empty.
        reason: "found", or "fallback:<why>".
    """

    case_id: str
    localiser: str
    fold: str
    box: Box
    confidence: float
    covered_fraction: float | None
    reason: str

    @property
    def is_fallback(self) -> bool:
        return self.reason != FOUND


def write_rois(path: Path, rois: Iterable[Roi]) -> None:
    write_csv(path, ROI_COLUMNS, map(_as_row, rois))


def read_rois(path: Path) -> list[Roi]:
    """Read a `rois.csv`.

    Raises:
        InputError: A column is missing or a value is not a number.
    """
    return [_parse_row(path, number, row) for number, row in enumerate(read_csv(path, ROI_COLUMNS), start=2)]


def _as_row(roi: Roi) -> dict[str, object]:
    corners = (*roi.box.lower_mm, *roi.box.upper_mm)
    return {
        "case_id": roi.case_id,
        "localiser": roi.localiser,
        "fold": roi.fold,
        # Unrounded: what is trained on boxes read back must be what was trained on boxes just found.
        **dict(zip(CORNER_COLUMNS, corners, strict=True)),
        "confidence": f"{roi.confidence:.4f}",
        "covered_fraction": "" if roi.covered_fraction is None else f"{roi.covered_fraction:.4f}",
        "box_ml": f"{roi.box.volume_ml:.1f}",
        "reason": roi.reason,
    }


def _parse_row(path: Path, number: int, row: dict[str, str]) -> Roi:
    try:
        corners = [float(row[name]) for name in CORNER_COLUMNS]
        box = Box.from_corners(corners[:3], corners[3:])
        covered = float(row["covered_fraction"]) if row["covered_fraction"] else None
        confidence = float(row["confidence"])
    except ValueError as error:
        raise InputError(f"{path} line {number}: {error}") from None
    return Roi(row["case_id"], row["localiser"], row["fold"], box, confidence, covered, row["reason"])
