"""One case of a cohort as the check report needs it: checked, measured and pictured, its images read once."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hngtv.cases.checks import CheckedImages
from hngtv.cases.findings import CaseFacts, Finding
from hngtv.cases.inspect import InspectPlan, inspect_images
from hngtv.cases.manifest import RawCase
from hngtv.cases.quantities import HU_EDGES, SUV_EDGES, value_shares
from hngtv.errors import InputError
from hngtv.report.overlay import CaseView
from hngtv.report.thumbnails import draw_strip


@dataclass(frozen=True)
class Look:
    """What is shown of a good case.

    Attributes:
        pictures: Data URLs.
        hu, suv: Share of voxels in the bins of `HU_EDGES` and `SUV_EDGES`.
    """

    pictures: tuple[str, ...]
    hu: NDArray[np.float64]
    suv: NDArray[np.float64]


@dataclass(frozen=True)
class CheckedCase:
    """A case with what was found; without facts and look it is refused, and the findings say why."""

    case: RawCase
    findings: tuple[Finding, ...]
    facts: CaseFacts | None = None
    look: Look | None = None


def check_one(case: RawCase, plan: InspectPlan) -> CheckedCase:
    """Inspect a case as `hngtv import` does, and picture it; whatever is wrong with it becomes a finding."""
    try:
        inspected, images = inspect_images(case, plan)
        return CheckedCase(case, inspected.findings, inspected.facts, _look_at(images))
    except InputError as error:
        return refuse(case, str(error))
    except (OSError, MemoryError) as error:
        return refuse(case, f"case {case.case_id}: {type(error).__name__}: {error}")


def refuse(case: RawCase, reason: str) -> CheckedCase:
    return CheckedCase(case, (Finding(case.case_id, "error", reason),))


def _look_at(images: CheckedImages) -> Look:
    view = CaseView(images.ct, images.pet, images.target, None, None)
    return Look(draw_strip(view), value_shares(images.ct.values, HU_EDGES), value_shares(images.pet.values, SUV_EDGES))
