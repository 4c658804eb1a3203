"""The ROI table `rois.csv`: one row per region of interest."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from hngtv.errors import InputError
from hngtv.localise.finding import FOUND
from hngtv.run_folder import read_csv, write_csv
from hngtv.volume.box import Box, hull, union_ml

CORNER_COLUMNS = ("x0_mm", "y0_mm", "z0_mm", "x1_mm", "y1_mm", "z1_mm")
ROI_COLUMNS = (
    "case_id", "localiser", "fold", "roi", *CORNER_COLUMNS, "confidence", "covered_fraction", "box_ml", "reason",
)  # fmt: skip
READ_COLUMNS = tuple(name for name in ROI_COLUMNS if name != "roi")


@dataclass(frozen=True)
class Roi:
    """Where a localiser says the tumour is.

    Attributes:
        case_id: The case.
        localiser: Name of the localiser.
        fold: Which inner model made the row: its number for a training case (that model never saw the case),
            "ensemble" for a case outside training, empty for a localiser without a model.
        boxes: World RAS mm, at least one; as the ROI policy placed them, before the margin of the fine stage.
        confidence: In [0, 1]; mean probability inside what was found, 0 for a fallback.
        covered_fraction: Share of the target inside the boxes with their margin; None where the truth is unknown or
            empty.
        reason: "found", or "fallback:<why>".
    """

    case_id: str
    localiser: str
    fold: str
    boxes: tuple[Box, ...]
    confidence: float
    covered_fraction: float | None
    reason: str

    @property
    def box(self) -> Box:
        """The box around all boxes."""
        return hull(self.boxes)

    @property
    def volume_ml(self) -> float:
        """That the boxes hold together."""
        return union_ml(self.boxes)

    @property
    def is_fallback(self) -> bool:
        return self.reason != FOUND


def write_rois(path: Path, rois: Iterable[Roi]) -> None:
    write_csv(path, ROI_COLUMNS, (_as_row(roi, number) for roi in rois for number in range(len(roi.boxes))))


def read_rois(path: Path) -> list[Roi]:
    """Read a `rois.csv`; the boxes of a case and localiser are brought together, in the order of their rows.

    The number of a ROI is for readers: tables of earlier versions, with one box for each case, lack it.

    Raises:
        InputError: A column is missing or a value is not a number.
    """
    rows = [_parse_row(path, number, row) for number, row in enumerate(read_csv(path, READ_COLUMNS), start=2)]
    cases: dict[tuple[str, str, str], Roi] = {}
    for roi in rows:
        key = (roi.case_id, roi.localiser, roi.fold)
        cases[key] = replace(cases[key], boxes=cases[key].boxes + roi.boxes) if key in cases else roi
    return list(cases.values())


def _as_row(roi: Roi, number: int) -> dict[str, object]:
    box = roi.boxes[number]
    return {
        "case_id": roi.case_id,
        "localiser": roi.localiser,
        "fold": roi.fold,
        "roi": number,
        # Unrounded: what is trained on boxes read back must be what was trained on boxes just found.
        **dict(zip(CORNER_COLUMNS, (*box.lower_mm, *box.upper_mm), strict=True)),
        "confidence": f"{roi.confidence:.4f}",
        "covered_fraction": "" if roi.covered_fraction is None else f"{roi.covered_fraction:.4f}",
        "box_ml": f"{box.volume_ml:.1f}",
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
    return Roi(row["case_id"], row["localiser"], row["fold"], (box,), confidence, covered, row["reason"])
