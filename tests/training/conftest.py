"""Prepared tiny cases for the tests of training."""

from pathlib import Path

import pytest

from hngtv.cases.manifest import load_cases
from hngtv.cases.prepare import prepare_cases
from hngtv.cases.store import GridSettings, PreparedCase


@pytest.fixture(scope="session")
def prepared(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> list[PreparedCase]:
    """Three prepared tiny cases, the last without GTVn."""
    grids = GridSettings((5.0, 5.0, 6.0), (10.0, 10.0, 12.0))
    cases, failures = prepare_cases(load_cases(tiny_cohort)[:3], tmp_path_factory.mktemp("store"), grids, n_workers=0)
    assert not failures
    return cases
