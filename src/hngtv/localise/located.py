"""What a localiser made of a scan, held against the truth, and the file of many such."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hngtv.run_folder import read_json, write_json
from hngtv.volume.box import Box

SHARES = (1.0, 0.99, 0.95)
"""Shares of the tumour that a box is asked to hold."""


@dataclass(frozen=True)
class LocalisedCase:
    """What one localiser made of one scan.

    Attributes:
        case_id: The case; it was in no training of the localiser.
        localiser: Its name in the settings.
        fold: Outer fold.
        disturbance: Name of what was done to the scan; "" for nothing.
        boxes: World RAS mm, as the ROI policy placed them, before the margin.
        image: Bounds of the scan.
        margins_mm: For each of `SHARES`, the least margin with which the boxes hold that share of the tumour; None
            where there is no tumour.
        target_ml: Volume of the tumour.
        confidence: See `Finding`.
        reason: See `Finding`; "refused: <why>" where the scan did not pass the checks.
        seconds: From the checked images to the boxes.
    """

    case_id: str
    localiser: str
    fold: str
    disturbance: str
    boxes: tuple[Box, ...]
    image: Box
    margins_mm: tuple[float, ...] | None
    target_ml: float
    confidence: float
    reason: str
    seconds: float

    @property
    def is_refused(self) -> bool:
        return not self.boxes


def write_located(path: Path, key: str, rows: Sequence[LocalisedCase]) -> None:
    """Write rows under the key of what they depend on."""
    write_json(path, {"key": key, "rows": [asdict(row) for row in rows]})


def is_located(path: Path, key: str) -> bool:
    """Whether a file holds rows of this key."""
    return path.is_file() and read_json(path).get("key") == key


def read_located(path: Path) -> list[LocalisedCase]:
    """Read rows, of whatever key."""
    return [_parse_row(row) for row in read_json(path)["rows"]]


def _parse_row(row: dict[str, Any]) -> LocalisedCase:
    def box(corners: dict[str, list[float]]) -> Box:
        return Box.from_corners(corners["lower_mm"], corners["upper_mm"])

    needed = row["margins_mm"]
    return LocalisedCase(
        **{
            **row,
            "boxes": tuple(map(box, row["boxes"])),
            "image": box(row["image"]),
            "margins_mm": None if needed is None else tuple(needed),
        }
    )
