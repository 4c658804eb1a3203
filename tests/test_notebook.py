"""The notebooks run from top to bottom, and are committed without outputs."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from hngtv.cases.manifest import RawCase
from hngtv.commands.entry import DONE, run_command
from tests.commands.test_localise import localise
from tests.tiny_cases import write_tiny_cohort

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def execute(name: str, folder: Path) -> list[dict[str, Any]]:
    """Outputs of all cells of a notebook, run in a folder."""
    notebook = nbformat.read(FOLDER / name, as_version=4)
    client = NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    done = client.execute()
    return [output.get("data", {}) for cell in done.cells if cell.cell_type == "code" for output in cell.outputs]


def test_predictions_are_sorted_opened_and_drawn(
    fake_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HNGTV_RUN", str(fake_runs / "two_stage_unet" / "fold0-seed0"))
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent / "src"))
    outputs = execute("inspect_predictions.ipynb", tmp_path)
    pages = [output["text/html"] for output in outputs if "text/html" in output]
    assert sum("image/png" in output for output in outputs) == 4  # worst, median, best, series
    assert "phantom_0000" in pages[0]
    assert pages[1].count("<details") == 3
    assert 'type="range"' in pages[1]


def test_cohort_shows_files_volumes_and_slices(
    phantom_cases: list[RawCase], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HNGTV_COHORT", str(phantom_cases[0].ct.parents[1] / "cases.csv"))
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent / "src"))
    outputs = execute("inspect_cohort.ipynb", tmp_path)
    pages = [output["text/html"] for output in outputs if "text/html" in output]
    assert sum("image/png" in output for output in outputs) == 1
    assert pages[0].count("<tr>") == 1 + 3
    assert pages[1].count("<details") == 3


def test_crop_or_gate_goes_from_runs_to_answer_and_figure(
    fake_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HNGTV_SWEEP", str(fake_runs))
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent / "src"))
    outputs = execute("crop_or_gate.ipynb", tmp_path)
    words = [output["text/markdown"] for output in outputs if "text/markdown" in output]
    assert "two_stage_unet (crop) minus single_stage_ag (gate)" in words[0]
    assert sum("image/png" in output for output in outputs) == 2 + 2  # the figure twice, coverage, outside
    assert any("two_stage_unet" in output.get("text/html", "") for output in outputs)


def test_localisation_shows_curve_tables_and_hardest_cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_cohort(tmp_path / "cases", 4)
    command = localise(tmp_path / "cases", tmp_path, "only=[oracle,nvauto]", "disturbances=[feet_first]", "folds=[0]")
    assert run_command(command) == DONE
    monkeypatch.setenv("HNGTV_LOCALISERS", str(tmp_path / "judged"))
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent / "src"))
    outputs = execute("localisation.ipynb", tmp_path)
    pages = [output["text/html"] for output in outputs if "text/html" in output]
    assert sum("image/png" in output for output in outputs) == 1 + 3  # the curve, and three scans
    assert "nvauto" in pages[0]
    assert "feet_first" in pages[1]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_holds_no_output_and_no_machine(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert all(not c.outputs and c.execution_count is None for c in notebook.cells if c.cell_type == "code")
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert "/home/" not in path.read_text(encoding="utf-8")
