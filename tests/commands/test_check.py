"""`hngtv check`: a page and tables that say of every case what is wrong with it, and never half of them."""

import csv
import dataclasses
import html
import re
from pathlib import Path

import numpy as np
import pytest

from hngtv.cases.manifest import RawCase, write_manifest
from hngtv.cases.processes import map_cases
from hngtv.commands import check
from hngtv.commands.entry import run_command
from tests.tiny_cases import rewrite, write_tiny_case

SHIFT_COMMAND = ["estimate_shift=true", "n_workers=0"]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def text_of(page: Path) -> str:
    plain = re.sub(r"<(style|script)>.*?</\1>|<[^>]*>", " ", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return " ".join(html.unescape(plain).split())


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten cases: three are refused, one is another's copy on the test side, one has no target, one is far too hot."""
    root = tmp_path_factory.mktemp("broken")
    cases = [write_tiny_case(root, f"c{i}", seed=i, centre="north" if i < 6 else "<b>s&th</b>") for i in range(9)]
    rewrite(cases[0].pet, lambda values: values * 5000)
    cases[1].ct.write_bytes(cases[1].ct.read_bytes()[:-40])
    cases[2] = dataclasses.replace(cases[2], pet=None)
    cases[4] = dataclasses.replace(cases[4], target=None)
    rewrite(cases[5].pet, lambda values: np.where(values > 8, values * 8, values).astype(np.float32))
    cases.append(dataclasses.replace(cases[8], case_id="c8_again", split="test"))
    write_manifest(root / "cases.csv", cases)
    return root / "cases.csv"


@pytest.fixture(scope="module")
def out(broken: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    assert run_command(["check", f"cases={broken}", f"out={folder}", "n_workers=2"]) == 1
    return folder


def test_refused_cases_are_counted_first_with_reason_and_advice_and_have_no_picture(out: Path) -> None:
    text = text_of(out / "check.html")
    assert text.index("10 cases: 7 can be used, 3 are refused.") < text.index("What was found")
    assert text.index("set pet_unit=BQML and pet_factor") < text.index("Every case")
    assert "no PET file beside" in text
    page = (out / "check.html").read_text(encoding="utf-8")
    cards = re.findall(r'<figure class="card( bad)?">(.*?)</figure>', page, re.DOTALL)
    assert [bool(bad) for bad, _ in cards] == [True] * 3 + [False] * 7
    assert [card.count("<img") for _, card in cards] == [0] * 3 + [2] * 7
    assert all('class="error">refused' in card for bad, card in cards if bad)


def test_tables_hold_every_finding_the_worst_first_and_facts_of_good_cases(out: Path) -> None:
    found = rows_of(out / "findings.csv")
    assert [row["case_id"] for row in found if row["severity"] == "error"] == ["c0", "c1", "c2"]
    order = [("error", "warning", "note").index(row["severity"]) for row in found]
    assert order == sorted(order)
    assert len(rows_of(out / "facts.csv")) == 7
    assert sorted(path.name for path in out.iterdir()) == ["check.html", "facts.csv", "findings.csv"]


def test_a_copy_is_told_in_its_own_table(out: Path) -> None:
    text = text_of(out / "check.html")
    assert "case same as in split c8_again c8 CT and PET train and test" in text
    (row,) = [row for row in rows_of(out / "findings.csv") if row["case_id"] == "c8_again"]
    assert row["severity"] == "warning"


def test_centres_count_refused_cases_and_are_escaped(out: Path) -> None:
    text = text_of(out / "check.html")
    assert re.search(r"<b>s&th</b> 3 1 4 0 [\d.]+ [\d.]+ 5 x 5 x 6", text)
    assert re.search(r"north 3 0 2 3 ", text)
    assert "<b>s" not in (out / "check.html").read_text(encoding="utf-8")


def test_import_and_check_measure_the_same(broken: Path, out: Path, tmp_path: Path) -> None:
    assert run_command(["import", f"source={broken}", f"out={tmp_path / 'cases.csv'}"]) == 1
    assert rows_of(tmp_path / "facts.csv") == rows_of(out / "facts.csv")
    imported = {(row["case_id"], row["finding"]) for row in rows_of(tmp_path / "findings.csv")}
    assert imported <= {(row["case_id"], row["finding"]) for row in rows_of(out / "findings.csv")}


def test_a_good_cohort_given_as_folder_ends_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tiny_case(tmp_path / "raw", "P1")
    command = ["check", f"cases={tmp_path / 'raw'}", f"out={tmp_path / 'out'}", "n_workers=0"]
    assert run_command(command) == 0
    assert "1 of 1 cases can be used; wrote" in capsys.readouterr().out
    assert "1 case: it can be used." in text_of(tmp_path / "out/check.html")


def test_a_cohort_of_refused_cases_has_a_page_too(tmp_path: Path) -> None:
    case = write_tiny_case(tmp_path / "raw", "P1")
    rewrite(case.ct, lambda values: values * np.int16(0))
    assert run_command(["check", f"cases={tmp_path / 'raw'}", f"out={tmp_path / 'out'}", "n_workers=0"]) == 1
    assert "1 case: 0 can be used, 1 is refused." in text_of(tmp_path / "out/check.html")


def test_the_shift_is_told_on_demand(tmp_path: Path) -> None:
    pytest.importorskip("SimpleITK", reason="the extra registration is not installed")
    case = write_tiny_case(tmp_path / "raw", "P1")

    def moved(affine: np.ndarray) -> np.ndarray:
        affine[:3, 3] += (12, 9, 0)
        return affine

    rewrite(case.pet, affine=moved)
    assert run_command(["check", f"cases={tmp_path / 'raw'}", f"out={tmp_path / 'out'}", *SHIFT_COMMAND]) == 0
    assert "PET seems to lie off the CT" in text_of(tmp_path / "out/check.html")
    assert float(rows_of(tmp_path / "out/facts.csv")[0]["shift_mm"]) == pytest.approx(15, abs=3)


def test_a_lost_library_is_told_once_and_not_as_faults_of_cases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "SimpleITK", None)
    write_tiny_case(tmp_path / "raw", "P1")
    assert run_command(["check", f"cases={tmp_path / 'raw'}", f"out={tmp_path / 'out'}", *SHIFT_COMMAND]) == 2
    assert "pip install 'hngtv[registration]'" in capsys.readouterr().err


def test_an_earlier_page_stays_whole_if_drawing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_case(tmp_path / "raw", "P1")
    command = ["check", f"cases={tmp_path / 'raw'}", f"out={tmp_path / 'out'}", "n_workers=0"]
    assert run_command(command) == 0
    before = (tmp_path / "out/check.html").read_bytes()

    def fail(*_: object) -> str:
        raise ValueError("no ink")

    monkeypatch.setattr(check, "render_check", fail)
    with pytest.raises(ValueError, match="no ink"):
        run_command(command)
    assert (tmp_path / "out/check.html").read_bytes() == before


def test_settings_and_sources_that_are_no_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["check", f"out={tmp_path / 'out'}"]) == 2
    assert "cases" in capsys.readouterr().err
    assert run_command(["check", f"cases={tmp_path / 'nowhere'}", f"out={tmp_path / 'out'}"]) == 2
    assert "nowhere is not a folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_killed_worker_makes_its_case_refused(tmp_path: Path) -> None:
    cases = [RawCase(f"P{i}", "", tmp_path / "ct.nii", None, None) for i in range(2)]
    results = dict(map_cases(_die, cases, 2, lambda case: f"{case.case_id} lost", "dying"))
    assert sorted(results.values()) == ["P0 lost", "P1 lost"]


def _die(case: RawCase) -> str:
    import os

    os._exit(9)
