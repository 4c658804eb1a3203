"""The `hngtv` command: help, settings composed from `conf/`, and the exit status.

Exit status: 0 done, 1 some cases failed (each listed), 2 bad settings or input, 70 a bug of hngtv.
"""

import contextlib
import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hngtv.commands.overrides import group_choices, missing_value, quote, unknown_key, wrong_choice
from hngtv.errors import CasesFailedError, InputError

DONE, CASES_FAILED, BAD_INPUT, BUG, INTERRUPTED = 0, 1, 2, 70, 130


@dataclass(frozen=True)
class Command:
    """A command: the module with `run(settings)`, its settings class in `hngtv.config`, and one line of help."""

    module: str
    settings: str
    summary: str


COMMANDS = {
    "demo": Command("demo", "DemoSettings", "walk the whole line on a small phantom cohort and open the report"),
    "phantom": Command("phantom", "PhantomSettings", "write a phantom head-and-neck PET/CT cohort"),
    "embed": Command("embed", "EmbedSettings", "set the lesions of cropped cases into long phantom scans"),
    "import": Command("import_cases", "ImportSettings", "recognise a folder of patients, check it, write cases.csv"),
    "check": Command("check", "CheckSettings", "check a cohort: a page with findings and pictures of every case"),
    "convert": Command("convert", "ConvertSettings", "write cases as nnU-Net raw, with the same folds"),
    "prepare": Command("prepare", "PrepareSettings", "resample cases into the prepared store"),
    "run": Command("run", "RunSettings", "train and score one arm on one fold (-m: many)"),
    "search": Command("search", "SearchSettings", "search settings of an arm on validation cases (Optuna)"),
    "localise": Command("localise", "LocaliseSettings", "judge localisers: tumour inside the ROI against its volume"),
    "robustness": Command("robustness", "RobustnessSettings", "Dice of a run's fine stage on boxes that are off"),
    "ensemble": Command("ensemble", "EnsembleSettings", "join the runs of several folds into one model, calibrated"),
    "predict": Command("predict", "PredictSettings", "outline the tumour of new patients"),
    "export": Command("export", "ExportSettings", "write a run as a package, ONNX, MONAI bundle or container"),
    "challenge": Command("challenge", "ChallengeSettings", "segment one patient as a challenge entry does"),
    "evaluate": Command("evaluate", "EvaluateSettings", "score predictions against targets"),
    "compare": Command("compare", "CompareSettings", "compare arms: table, statistics, report"),
    "benchmark": Command("benchmark", "BenchmarkSettings", "measure speed on this machine, as ratios"),
}


def main() -> None:
    """Console script."""
    try:
        status = run_command(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = DONE
    except Exception:
        status = report_bug()
    sys.exit(status)


def run_command(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit status."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return DONE
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(version("hngtv"))
        return DONE
    name, *overrides = arguments
    try:
        command = _find_command(name)
        if any(flag in overrides for flag in ("-h", "--help")):
            print(_command_help(name, command))
            return DONE
        if any(flag in overrides for flag in ("-m", "--multirun")):
            return _multirun(name, [o for o in overrides if o not in ("-m", "--multirun")])
        for_sweeps = [o for o in overrides if o.partition("=")[0] in ("sweep", "launcher", "hydra/launcher")]
        if for_sweeps:
            raise InputError(f"{for_sweeps[0]} is for many runs: hngtv run -m {' '.join(overrides)}")
        return _run_once(name, compose(name, overrides))
    except (InputError, CasesFailedError) as error:
        return report_error(error)
    except KeyboardInterrupt:
        print("stopped; the same command continues where this left off", file=sys.stderr)
        return INTERRUPTED


def report_error(error: Exception) -> int:
    """Print an error a user can mend and return its exit status."""
    print(f"hngtv: {error}", file=sys.stderr)
    return CASES_FAILED if isinstance(error, CasesFailedError) else BAD_INPUT


def report_bug() -> int:
    """Print the traceback of an unexpected exception and return its exit status."""
    traceback.print_exc()
    print("hngtv: this is a bug; please report the lines above (a run also keeps them in its log.txt)", file=sys.stderr)
    return BUG


def conf_folder() -> Path:
    """`conf/` of the checkout this package runs from, else the copy inside the installed package."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parents[1] / "conf"
    return checkout if (checkout / "run.yaml").is_file() else package / "conf"


def compose(name: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Compose the settings tree of a command.

    Raises:
        InputError: An override or a choice that `conf/` does not know, or a value that must be given.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    groups = group_choices(conf_folder())
    if mistake := wrong_choice(overrides, groups):
        raise InputError(mistake)
    choices = [o for o in overrides if o.partition("=")[0] in groups]
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        try:
            config = hydra_compose(name, overrides=[quote(o) for o in overrides])
            missing = OmegaConf.missing_keys(config)
            tree = None if missing else OmegaConf.to_container(config, resolve=True)
        except (HydraException, OmegaConfBaseException) as error:
            with contextlib.suppress(HydraException):
                known = OmegaConf.to_container(hydra_compose(name, overrides=choices), resolve=False)
                if isinstance(known, dict) and (mistake := unknown_key(overrides, _named(known), list(groups))):
                    raise InputError(mistake) from None
            raise InputError(f"settings: {' '.join(str(error).partition('To append')[0].split())}") from None
    if missing:
        raise InputError(missing_value(list(missing)))
    assert isinstance(tree, dict)
    return {key: value for key, value in _named(tree).items() if key != "experiment"}


def _named(tree: dict[Any, Any]) -> dict[str, Any]:
    return {str(key): value for key, value in tree.items()}


def _run_once(name: str, tree: dict[str, Any]) -> int:
    from hngtv import config

    command = COMMANDS[name]
    settings = config.parse_settings(getattr(config, command.settings), tree)
    importlib.import_module(f"hngtv.commands.{command.module}").run(settings)
    return DONE


def _multirun(name: str, overrides: list[str]) -> int:
    if name != "run":
        raise InputError(f"-m (multirun) works with `hngtv run`, not with `hngtv {name}`")
    from hngtv.commands.sweep import run_sweep

    return run_sweep(overrides)


def _find_command(name: str) -> Command:
    if name in COMMANDS:
        return COMMANDS[name]
    nearest = difflib.get_close_matches(name, COMMANDS, n=2)
    hint = f"did you mean {' or '.join(nearest)}?" if nearest else "see hngtv --help"
    raise InputError(f"unknown command {name!r}; {hint}")


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "hngtv: find and outline the gross tumour volume on PET/CT; crop or gate?",
            "",
            "usage: hngtv COMMAND [key=value ...]     hngtv COMMAND --help",
            "",
            *lines,
            "",
            "Exit status: 0 done, 1 some cases failed (listed), 2 bad settings or input, 70 a bug of hngtv.",
        ]
    )


def _command_help(name: str, command: Command) -> str:
    """The command module's docstring (read without importing what it needs) and its settings with their defaults."""
    import ast

    source = Path(__file__).with_name(f"{command.module}.py").read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(source)) or command.summary
    root = (conf_folder() / f"{name}.yaml").read_text(encoding="utf-8")
    lines = [f"  {group}={'|'.join(choices)}" for group, choices in group_choices(conf_folder()).items()]
    choices = ["", "groups (files of conf/):", *lines] if name == "run" else []
    return "\n".join([f"hngtv {name}: {docstring}", "", f"settings (conf/{name}.yaml):", "", root.rstrip(), *choices])


if __name__ == "__main__":
    main()
