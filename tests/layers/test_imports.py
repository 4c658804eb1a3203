"""Imports point down the layers, also inside functions; Lightning and Hydra live in one room each."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "hngtv"
LAYERS = (
    {"errors"},
    {"run_folder"},
    {"config", "volume"},
    {"cases", "networks", "metrics"},
    {"localise", "training"},
    {"model", "report"},
    {"segmentation"},
    {"two_stage"},
    {"ensemble", "out_of_fold", "robustness", "error_budget", "gate_maps", "delivery"},
    {"export"},
    {"arm"},
    {"localisation"},
    {"commands"},
)
"""From the bottom up; a room may import from rooms of lower layers and from itself."""
RANKS = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}
HOMES = {"pytorch_lightning": "training", "hydra": "commands", "omegaconf": "commands"}
"""Libraries that only one room may import."""
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def room_of(module: str) -> str:
    """`cases/store.py` is in room `cases`, `two_stage.py` in `two_stage`, `__init__.py` in none ("")."""
    return module.split("/")[0].removesuffix(".py").replace("__init__", "")


def imported_names(source: str, package: str) -> Iterator[str]:
    """Dotted names of everything imported anywhere in `source`, a module of the dotted `package`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = parents + ([node.module] if node.module else [])
            yield from (".".join([*origin, alias.name]) for alias in node.names)


def imports_of(module: str) -> list[str]:
    path = PACKAGE / module
    package = ".".join(["hngtv", *path.relative_to(PACKAGE).parts[:-1]])
    return list(imported_names(path.read_text(encoding="utf-8"), package))


def forbidden_imports(room: str, names: list[str]) -> list[str]:
    """Those of the imported names that break a rule in a module of `room`."""
    return [name for name in names if is_upward(room, name) or HOMES.get(name.split(".")[0], room) != room]


def is_upward(room: str, name: str) -> bool:
    """Whether `name` is in another room of the package that is not below `room`."""
    package, *inner = name.split(".")
    other = inner[0] if inner else ""
    return package == "hngtv" and other in RANKS and other != room and RANKS[other] >= RANKS[room]


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    room = room_of(module)
    if not room:
        assert not [name for name in imports_of(module) if name.startswith("hngtv")]
        return
    assert room in RANKS, f"{module} has no layer yet: give it one here"
    assert forbidden_imports(room, imports_of(module)) == []


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("volume/")])
def test_geometry_needs_few_libraries(module: str) -> None:
    tops = {name.split(".")[0] for name in imports_of(module)}
    assert tops - set(sys.stdlib_module_names) <= {"hngtv", "numpy", "scipy", "nibabel"}


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("metrics", "def f():\n    from hngtv.report import tables"),
        ("cases", "import hngtv.metrics.score"),
        ("volume", "from hngtv import config"),
        ("errors", "from hngtv.run_folder import write_text"),
        ("networks", "from ..training import fine"),
        ("two_stage", "import pytorch_lightning as pl"),
        ("config", "from omegaconf import DictConfig"),
    ],
)
def test_a_broken_arrow_is_found(room: str, source: str) -> None:
    assert len(forbidden_imports(room, list(imported_names(source, f"hngtv.{room}")))) == 1
