"""The notebook runs from top to bottom on a run folder, and is committed without outputs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "inspect_predictions.ipynb"


def test_runs_and_shows_table_planes_slider_and_still_picture(
    fake_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HNGTV_RUN", str(fake_runs / "two_stage_unet" / "fold0-seed0"))
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1] / "src"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    done = client.execute()
    outputs = [output for cell in done.cells if cell.cell_type == "code" for output in cell.outputs]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    pages = [output["data"]["text/html"] for output in outputs if "text/html" in output.get("data", {})]
    assert len(pictures) == 4  # worst, median, best, series
    assert "phantom_0000" in pages[0]
    assert 'type="range"' in pages[1]


def test_holds_no_output_and_no_machine() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert all(not c.outputs and c.execution_count is None for c in notebook.cells if c.cell_type == "code")
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert "/home/" not in NOTEBOOK.read_text(encoding="utf-8")
