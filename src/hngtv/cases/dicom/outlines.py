"""Outlines of a patient, from whatever file they come, and their labels on the CT grid."""

from abc import ABC, abstractmethod
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hngtv.cases.dicom.find import Series
from hngtv.cases.dicom.names import OutlinePatterns, match_names
from hngtv.cases.dicom.read import shown
from hngtv.errors import InputError
from hngtv.volume.grid import Grid

MAX_NAMES_SHOWN = 8


@dataclass(frozen=True)
class Drawn:
    """One outline on the grid: its voxels (X, Y, Z), how it was encoded, and what is odd, one line each."""

    voxels: NDArray[np.bool_]
    encoding: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class OutlineFile(ABC):
    """An RTSTRUCT or a DICOM SEG.

    Attributes:
        kind: "RTSTRUCT" or "SEG".
        frames: Frames of reference it is drawn in.
        series: Image series it refers to.
        names: Name of each outline by its number.
    """

    path: Path
    kind: str
    uid: str
    frames: frozenset[str]
    series: frozenset[str]
    names: dict[int, str]

    @abstractmethod
    def draw(self, number: int, grid: Grid, frame: str) -> Drawn:
        """One outline on a grid that lies in the given frame of reference."""


@dataclass(frozen=True)
class Target:
    """The labels of a patient on the CT grid, and where they come from."""

    labels: NDArray[np.uint8]
    facts: dict[str, Any]
    warnings: tuple[str, ...] = field(default=())


def choose_outlines(
    files: Sequence[OutlineFile], ct: Series, patterns: OutlinePatterns
) -> tuple[OutlineFile | None, tuple[str, ...]]:
    """The file with the outlines of a CT, or None, and what is odd.

    A file that refers to the CT series goes before one that only shares its frame of reference.

    Raises:
        InputError: Several files are equally good.
    """
    warnings, fitting = [], []
    for file in files:
        if ct.frame not in file.frames:
            frames = ", ".join(sorted(file.frames)) or "none"
            warnings.append(
                f"{file.kind} {shown(file.path)} is drawn in another frame of reference ({frames}) than the CT "
                f"({ct.frame}); it was not used, so redraw or copy its outlines onto this CT"
            )
        elif not match_names(file.names.values(), patterns):
            names = sorted(repr(name) for name in file.names.values())
            more = f" and {len(names) - MAX_NAMES_SHOWN} more" if len(names) > MAX_NAMES_SHOWN else ""
            warnings.append(
                f"{file.kind} {shown(file.path)} has no outline whose name says GTV, but "
                f"{', '.join(names[:MAX_NAMES_SHOWN]) or 'none at all'}{more}; add a pattern for yours"
            )
        else:
            fitting.append(file)
    best = [file for file in fitting if ct.uid in file.series] or fitting
    if len(best) > 1:
        raise InputError(
            f"{len(best)} files hold GTV outlines of one CT: {', '.join(shown(file.path) for file in best)}; expected "
            "one, so keep the right one"
        )
    if best and ct.uid not in best[0].series:
        warnings.append(f"{best[0].kind} {shown(best[0].path)} was drawn on another series than the CT, in its frame")
    return (best[0] if best else None), tuple(warnings)


def draw_target(file: OutlineFile, grid: Grid, frame: str, patterns: OutlinePatterns) -> Target:
    """Labels (X, Y, Z) on the CT grid: 0 background, 1 GTVp, 2 GTVn.

    Outlines of one label are joined. Where GTVp and GTVn overlap, the voxel is GTVn, since a "GTV" may hold both. Names
    of outlines without a voxel, as templates leave them, do not decide what the other names mean.

    Raises:
        InputError: An outline cannot be drawn.
    """
    names = set(file.names.values())
    label_of = match_names(names, patterns)
    drawn_of = _draw(file, label_of, grid, frame)
    empty = label_of.keys() - {file.names[number] for number, drawn in drawn_of.items() if drawn.voxels.any()}
    if shut_out := {n: label for n, label in match_names(names - empty, patterns).items() if n not in label_of}:
        label_of |= shut_out
        drawn_of |= _draw(file, shut_out, grid, frame)
    labels = np.zeros(grid.shape, dtype=np.uint8)
    drawn_facts, warnings, n_overlap = [], [], 0
    for label, number in sorted((label_of[file.names[number]], number) for number in drawn_of):
        name, drawn = file.names[number], drawn_of[number]
        n_overlap += int((labels[drawn.voxels] == 3 - label).sum())
        labels[drawn.voxels] = label
        n_voxels = int(drawn.voxels.sum())
        lines = drawn.warnings if n_voxels else (*drawn.warnings, "is empty")
        warnings += [f"outline {name!r} {line}" for line in lines]
        fact = {"name": name, "number": number, "label": label, "encoding": drawn.encoding}
        drawn_facts.append(fact | {"volume_ml": round(n_voxels * grid.voxel_ml, 4)})
    primaries = [fact["name"] for fact in drawn_facts if fact["label"] == 1 and fact["volume_ml"]]
    if len(primaries) > 1:
        named = ", ".join(map(repr, primaries[:MAX_NAMES_SHOWN]))
        warnings.append(
            f"{len(primaries)} outlines became one GTVp: {named}; if they are versions of one, choose by outlines.gtvp"
        )
    if n_overlap:
        warnings.append(f"GTVp and GTVn overlap in {n_overlap} voxels, which became GTVn")
    unused = sorted(name for name in file.names.values() if name not in label_of)
    if gtv_like := [name for name in unused if "gtv" in name.lower()]:
        named = ", ".join(map(repr, gtv_like[:MAX_NAMES_SHOWN]))
        warnings.append(f"outlines not used, since no pattern matches their names: {named}")
    facts = {"kind": file.kind, "sop_instance_uid": file.uid, "outlines": drawn_facts, "not_used": unused}
    return Target(labels, facts, tuple(warnings))


def _draw(file: OutlineFile, names: Container[str], grid: Grid, frame: str) -> dict[int, Drawn]:
    """The outlines of these names, by number."""
    drawn = {}
    for number, name in file.names.items():
        if name in names:
            try:
                drawn[number] = file.draw(number, grid, frame)
            except InputError as error:
                raise InputError(f"{file.kind} {shown(file.path)}, outline {name!r}: {error}") from None
    return drawn
