"""The `hngtv` command: help, suggestions, exit statuses, and paths with any character in them."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from hngtv.commands import evaluate
from hngtv.commands.entry import (
    BAD_INPUT,
    CASES_FAILED,
    COMMANDS,
    DONE,
    compose,
    conf_folder,
    main,
    run_command,
)
from hngtv.commands.overrides import quote
from hngtv.errors import CasesFailedError, InputError

EVALUATE = ["evaluate", "predictions=p", "targets=t"]


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_overview_lists_every_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(arguments) == DONE
    shown = capsys.readouterr()
    assert all(f"  {name} " in shown.out for name in COMMANDS)
    assert shown.err == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_command_help_shows_docstring_settings_and_statuses(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([name, "--help"]) == DONE
    shown = capsys.readouterr().out
    assert shown.startswith(f"hngtv {name}: ")
    assert f"conf/{name}.yaml" in shown
    assert (conf_folder() / f"{name}.yaml").read_text(encoding="utf-8").strip() in shown


def test_help_of_run_lists_the_options_of_every_group(capsys: pytest.CaptureFixture[str]) -> None:
    run_command(["run", "-h"])
    shown = capsys.readouterr().out
    options = sorted(file.stem for file in (conf_folder() / "localiser").glob("*.yaml"))
    assert {"coarse", "nvauto", "oracle", "slices", "whole"} <= set(options)
    assert f"localiser={'|'.join(options)}" in shown
    assert "experiment=" in shown


def test_version(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: f"9.9 of {name}")
    assert run_command(["--version"]) == DONE
    assert capsys.readouterr().out == "9.9 of hngtv\n"


@pytest.mark.parametrize(("typed", "meant"), [("runn", "run"), ("preduct", "predict"), ("evalute", "evaluate")])
def test_unknown_command_suggests_the_nearest(typed: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([typed, "x=1"]) == BAD_INPUT
    assert f"{typed!r}; did you mean {meant}?" in capsys.readouterr().err


def test_unknown_command_like_no_other_points_to_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["zzz"]) == BAD_INPUT
    assert "hngtv --help" in capsys.readouterr().err


def raising(error: BaseException | None) -> Callable[[Any], None]:
    def run(settings: Any) -> None:
        if error is not None:
            raise error

    return run


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, DONE), (CasesFailedError("1 case(s) failed"), CASES_FAILED), (InputError("bad file"), BAD_INPUT)],
)
def test_exit_status(
    error: Exception | None, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evaluate, "run", raising(error))
    assert run_command(EVALUATE) == status
    assert capsys.readouterr().err == (f"hngtv: {error}\n" if error else "")


def test_interrupt_tells_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(evaluate, "run", raising(KeyboardInterrupt()))
    assert run_command(EVALUATE) == 130
    assert "same command continues" in capsys.readouterr().err


def test_multirun_is_for_run_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([*EVALUATE, "-m"]) == BAD_INPUT
    assert "hngtv evaluate" in capsys.readouterr().err


@pytest.mark.parametrize("override", ["experiment=typo", "bugdet.steps=1"])
def test_mistake_in_a_sweep_is_bad_input(
    override: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(["run", "-m", "data.root=cases", "fold=0,1", override]) == BAD_INPUT
    assert override.partition("=")[0].split(".")[0] in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_sweep_names_a_missing_value_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(["run", "-m", "fold=0,1"]) == BAD_INPUT
    assert "data.root" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if path.name != "runs"] == []


@pytest.mark.parametrize(
    "path",
    [
        "/a b/c", "/a,b/c", "/a=b/c", "/a[1]/b", "/a(1)/b{x}", "/it's/x", "/a\"b/c", "/a#b/%d", "~/x", "/ü/é",
        "/a:b/c", "/a\\b/c", "/a/b\\", "/a/$b", "./-x/y", "a b/c", " /a/b ", "my file.csv",
    ],
)  # fmt: skip
def test_path_of_any_name_reaches_the_settings(path: str) -> None:
    tree = compose("evaluate", [f"predictions={path}", "targets=t"])
    assert str(tree["predictions"]) == path


@given(st.text(st.characters(exclude_categories=("C",), exclude_characters="${}"), max_size=20))
def test_any_absolute_path_survives_hydra_s_grammar(name: str) -> None:
    override = OverridesParser.create().parse_override(quote(f"predictions=/data/{name}"))
    assert override.value() == f"/data/{name}"


@pytest.mark.parametrize(
    "override",
    ["budget.steps=3", "network.widths=[4,8]", "out='/a b/c'", "run_dir=runs/${arm}/x", "-m", "arms=[a/b,c/d]"],
)
def test_what_is_no_bare_path_is_left_alone(override: str) -> None:
    assert quote(override) == override


def test_help_does_not_load_what_commands_need() -> None:
    program = (
        "import sys; from hngtv.commands.entry import run_command; run_command(['run', '--help']); "
        "print(sorted({'torch', 'monai', 'scipy', 'matplotlib', 'pytorch_lightning'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", ["a=b.csv", "a[1].csv", "a (1).csv", "a,b.csv", "[x].csv"])
def test_file_name_without_a_folder_needs_no_quotes(name: str) -> None:
    assert compose("evaluate", [f"predictions={name}", "targets=t"])["predictions"] == name


def test_case_pattern_needs_no_quotes() -> None:
    assert compose("import", ["data.root=x", "data.ct={case}/a b.nii.gz"])["data"]["ct"] == "{case}/a b.nii.gz"


def test_overrides_of_the_demo_need_no_quotes() -> None:
    tree = compose("demo", ["overrides=[budget.steps=3,network.widths=[4,8,8]]"])
    assert tree["overrides"] == ["budget.steps=3", "network.widths=[4,8,8]"]


def test_unexpected_exception_is_told_as_a_bug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evaluate, "run", raising(RuntimeError("oh")))
    monkeypatch.setattr(sys, "argv", ["hngtv", *EVALUATE])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 70
    assert "RuntimeError: oh" in (shown := capsys.readouterr().err)
    assert "this is a bug" in shown.splitlines()[-1]
