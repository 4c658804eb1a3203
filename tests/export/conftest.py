"""A tiny run, exported; then the run and its cases are gone, as on another machine."""

import csv
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from hngtv.cases.manifest import RawCase
from hngtv.commands.entry import DONE, run_command
from hngtv.metrics.score import CLASS_NAMES
from tests.tiny_cases import write_tiny_case, write_tiny_cohort
from tests.tiny_run import tiny_run


@dataclass(frozen=True)
class Exported:
    """Attributes:
    package: With bundle and container.
    case: A patient that the run never saw.
    mask: What the run itself made of the patient.
    case_ids: Of all cases of the run.
    dice: Mean Dice of each class over its held-out cases.
    training_folder: Where run and cases were.
    """

    package: Path
    case: RawCase
    mask: Path
    case_ids: tuple[str, ...]
    dice: Mapping[str, float]
    training_folder: Path


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    here, there = tmp_path_factory.mktemp("there"), tmp_path_factory.mktemp("training")
    cases = write_tiny_cohort(there / "cases", 4)
    # So low a threshold that a hardly trained network outlines something.
    run = tiny_run(there / "cases", there, budget__steps=6, inference__threshold=0.2, inference__min_gtvp_share=0)
    assert run_command(run) == DONE
    rows = list(csv.DictReader((there / "run/scores.csv").open(newline="")))
    dices = {name: [float(row["dice"]) for row in rows if row["class_name"] == name] for name in CLASS_NAMES}
    dice = {name: sum(values) / len(values) for name, values in dices.items()}
    package = here / "package"
    formats = "formats=package,bundle,container"
    assert run_command(["export", f"model={there / 'run'}", f"out={package}", formats, "cohort=Tiny, of eggs"]) == DONE
    case = write_tiny_case(here / "new", "new_patient", seed=9)
    mask = here / "expected.nii.gz"
    files = [f"ct={case.ct}", f"pet={case.pet}", f"out={mask}"]
    assert run_command(["predict", f"model={there / 'run'}", *files]) == DONE
    shutil.rmtree(there)
    return Exported(package, case, mask, tuple(case.case_id for case in cases), dice, there)
