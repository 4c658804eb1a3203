"""`hngtv embed`: writes a cohort, says what failed, and continues after a stop."""

import json
from pathlib import Path

import numpy as np
import pytest

from hngtv.cases import embed_files
from hngtv.cases.checks import check_case
from hngtv.cases.manifest import read_manifest
from hngtv.commands.entry import run_command
from tests.flat_host import make_flat_host
from tests.tiny_cases import rewrite, write_tiny_cohort


@pytest.fixture(autouse=True)
def flat_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embed_files, "draw_host", make_flat_host)
    monkeypatch.setattr("hngtv.cases.embed.N_PLACES", 12)


def run_embed(root: Path, out: Path, *more: str) -> int:
    return run_command(["embed", f"data.root={root}", f"out={out}", "size=small", *more])


def records(out: Path) -> dict[str, int]:
    """When each case was finished."""
    return {path.parent.name: path.stat().st_mtime_ns for path in out.glob("*/embedded.json")}


def test_a_cohort_is_written_once_and_can_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = tmp_path / "raw", tmp_path / "long"
    sources = write_tiny_cohort(root, 2)
    assert run_embed(root, out) == 0
    assert "2 of 2 cases are embedded" in capsys.readouterr().out
    cases = read_manifest(out / "cases.csv")
    assert [(c.case_id, c.centre, c.split) for c in cases] == [(s.case_id, s.centre, s.split) for s in sources]
    images = check_case(cases[0])
    facts = json.loads((out / "tiny_00" / "embedded.json").read_text())
    assert images.target is not None
    assert np.count_nonzero(images.target) * images.ct.grid.voxel_ml == pytest.approx(facts["target_ml"], abs=0.01)
    assert (facts["seed"], facts["size"], facts["host"]["centre"]) == (0, "small", "flat")
    first = records(out)
    assert run_embed(root, out) == 0
    assert records(out) == first


def test_a_stopped_command_goes_on_and_another_seed_starts_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_cohort(tmp_path / "raw", 2)
    embed_case = embed_files.embed_case

    def stop_at_the_second(case, seed, size):
        if case.case_id == "tiny_01":
            raise KeyboardInterrupt
        return embed_case(case, seed, size)

    out = tmp_path / "long"
    with monkeypatch.context() as patch:
        patch.setattr(embed_files, "embed_case", stop_at_the_second)
        assert run_embed(tmp_path / "raw", out) == 130
    before = records(out)
    assert list(before) == ["tiny_00"]
    assert run_embed(tmp_path / "raw", out) == 0
    after = records(out)
    assert after["tiny_00"] == before["tiny_00"]
    assert len(read_manifest(out / "cases.csv")) == len(after) == 2
    assert run_embed(tmp_path / "raw", out, "seed=1") == 0
    assert all(records(out)[name] != time for name, time in after.items())


def test_failed_cases_are_listed_with_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    untold, empty, cut, _ = write_tiny_cohort(tmp_path / "raw", 4)
    assert untold.target is not None
    untold.target.unlink()
    manifest = tmp_path / "raw" / "cases.csv"
    manifest.write_text(manifest.read_text().replace("tiny_00/gtv.nii.gz", ""))
    rewrite(empty.target, lambda mask: mask * 0)
    cut.ct.write_bytes(cut.ct.read_bytes()[:-60])
    assert run_embed(tmp_path / "raw", tmp_path / "long") == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert [line.split(":")[0] for line in lines] == ["case tiny_00", "case tiny_01", "case tiny_02", "hngtv"]
    assert "no target" in lines[0]
    assert "gtv.nii.gz: an empty target" in lines[1]
    assert "is damaged or cut short" in lines[2]
    assert lines[3] == "hngtv: 3 of 4 cases failed (listed above)"
    assert [case.case_id for case in read_manifest(tmp_path / "long" / "cases.csv")] == ["tiny_03"]


def test_the_source_is_never_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (case,) = write_tiny_cohort(tmp_path, 1)
    before = case.ct.read_bytes()
    assert run_embed(tmp_path, tmp_path) == 2
    assert "expected a folder of its own" in capsys.readouterr().err
    assert case.ct.read_bytes() == before


def test_no_case_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_embed(tmp_path, tmp_path / "long") == 2
    assert "no case found" in capsys.readouterr().err
