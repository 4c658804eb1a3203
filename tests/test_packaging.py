"""The installed command starts light, and a built wheel is complete."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = (
    "torch",
    "numpy",
    "scipy",
    "hydra",
    "omegaconf",
    "monai",
    "pytorch_lightning",
    "matplotlib",
    "pydantic",
)
MODULES = {"hydra_core": "hydra", "pillow": "PIL", "scikit_image": "skimage"}
"""Packages that are imported by another name."""


def python(code: str, *arguments: str, path: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh interpreter that imports hngtv from `path`, standing in `folder`."""
    code = f"import sys; sys.path.insert(0, {str(path)!r})\n{code}"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("arguments", [["--help"], ["phantom", "--help"], ["nonsense"]])
def test_help_loads_no_heavy_library(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "from hngtv.commands.entry import run_command\n"
        "run_command(sys.argv[1:])\n"
        f"print('heavy:', [name for name in {HEAVY} if name in sys.modules])"
    )
    answer = python(code, *arguments, path=ROOT / "src", folder=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines()[-1] == "heavy: []"


def test_importing_the_package_loads_nothing_else(tmp_path: Path) -> None:
    code = "before = set(sys.modules)\nimport hngtv\nprint(sorted(set(sys.modules) - before))"
    answer = python(code, path=ROOT / "src", folder=tmp_path)
    assert answer.stdout.strip() == "['hngtv']", answer.stderr


def test_tested_set_is_exact_and_within_the_ranges() -> None:
    requirements = pytest.importorskip("packaging.requirements", reason="packaging is not installed")
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.lower().split("==") for line in lines if not line.startswith("#"))
    assert not [pin for pin in pins.values() if "+" in pin], "a local label shuts out every other build"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for line in project["dependencies"]:
        requirement = requirements.Requirement(line)
        assert requirement.specifier.contains(pins[requirement.name]), line


def test_every_imported_package_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    declared = modules_of(project["dependencies"])
    optional = modules_of([line for name, lines in extras.items() if name != "dev" for line in lines])
    imported: set[str] = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                imported.add(node.module.split(".")[0])
    imported -= set(sys.stdlib_module_names) | {"hngtv"}
    assert declared - imported == set(), "declared, but imported nowhere"
    assert imported - declared - optional == set(), "imported, but not declared"


def modules_of(requirements: list[str]) -> set[str]:
    """What the packages are imported as."""
    names = {re.split(r"[<>=\[]", line)[0].replace("-", "_") for line in requirements}
    return {MODULES.get(name, name) for name in names}


@pytest.fixture(scope="module")
def unpacked_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a wheel of this tree unpacks to."""
    pytest.importorskip("hatchling", reason="hatchling, which builds the wheel, is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.mark.parametrize(("folder", "shipped"), [("conf", "hngtv/conf"), ("src/hngtv", "hngtv")])
def test_wheel_ships_every_file(folder: str, shipped: str, unpacked_wheel: Path) -> None:
    source, target = ROOT / folder, unpacked_wheel / shipped
    names = [p.relative_to(source) for p in source.rglob("*") if p.suffix in (".py", ".yaml", ".typed", ".html")]
    assert names
    assert [name for name in names if not (target / name).is_file()] == []


def test_wheel_works_from_any_folder(unpacked_wheel: Path, tmp_path: Path) -> None:
    code = (
        "from hngtv.commands.entry import conf_folder, run_command\n"
        "assert run_command(['phantom', '--help']) == 0\n"
        "print(conf_folder())"
    )
    answer = python(code, path=unpacked_wheel, folder=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert Path(answer.stdout.splitlines()[-1]) == unpacked_wheel / "hngtv" / "conf"
