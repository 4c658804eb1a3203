"""What every localiser is, and what it answers."""

from dataclasses import dataclass
from typing import Protocol

from hngtv.cases.prepare import Volume
from hngtv.volume.box import Box

BOXES_VERSION = 2
"""Raised when the code of a localiser or of the ROI policy changes its boxes: kept ones are then made anew."""
FOUND = "found"
"""Reason of a finding that is no fallback."""
EMPTY_TARGET = "fallback:whole_volume (empty target)"
"""Reason of the oracle's box where there is nothing to know."""


@dataclass(frozen=True)
class Finding:
    """Where the tumour is looked for.

    Attributes:
        boxes: World RAS mm, at least one, before the ROI policy of the run joins, resizes and widens them.
        confidence: How sure the localiser is, in [0, 1]; 0 for a fallback.
        reason: "found", or "fallback:<why>".
    """

    boxes: tuple[Box, ...]
    confidence: float
    reason: str


class Localiser(Protocol):
    """From a case to where its tumour is looked for."""

    def find(self, volume: Volume, case_id: str) -> Finding:
        """Look for the tumour.

        Args:
            volume: The whole case, at the level of the prepared cases that the localiser's settings name.
            case_id: For messages.
        Raises:
            InputError: Nothing is found and `on_empty` is "fail".
        """
        ...
