"""Every file name inside a run, and the one way files are written: whole or not at all."""

import csv
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from hngtv.errors import InputError

TEMPORARY_PREFIX = ".tmp-"
TESTED_PACKAGES = (
    "hngtv",
    "torch",
    "pytorch-lightning",
    "monai",
    "nibabel",
    "numpy",
    "scipy",
    "hydra-core",
    "wandb",
)


@dataclass(frozen=True)
class RunFolder:
    """Names of the files of one run; nothing is created by asking for a name."""

    root: Path

    @property
    def settings(self) -> Path:
        return self.root / "settings.json"

    @property
    def provenance(self) -> Path:
        return self.root / "provenance.json"

    @property
    def log(self) -> Path:
        return self.root / "log.txt"

    @property
    def status(self) -> Path:
        """Whether the run is at work, done or failed, and why."""
        return self.root / "status.json"

    @property
    def lock(self) -> Path:
        """Held while a command writes into the folder."""
        return self.root / ".lock"

    @property
    def costs(self) -> Path:
        """Parameters, training, time of a prediction and memory."""
        return self.root / "costs.json"

    @property
    def job(self) -> Path:
        """Arm, fold, seed and settings of a job of a sweep, written before it begins."""
        return self.root / "job.json"

    @property
    def job_lock(self) -> Path:
        """Held by the sweep that runs the job."""
        return self.root / ".job.lock"

    @property
    def output(self) -> Path:
        """What a job of a sweep said on the terminal that it does not have."""
        return self.root / "output.txt"

    @property
    def folds(self) -> Path:
        return self.root / "folds.json"

    @property
    def rois(self) -> Path:
        return self.root / "rois.csv"

    @property
    def scores(self) -> Path:
        return self.root / "scores.csv"

    @property
    def gates(self) -> Path:
        """Alpha maps of the best, the median and the worst test case."""
        return self.root / "gates"

    @property
    def calibration(self) -> Path:
        """Counts by bin of probability, for each test case."""
        return self.root / "calibration.csv"

    @property
    def predictions(self) -> Path:
        return self.root / "predictions"

    @property
    def coarse(self) -> Path:
        return self.root / "coarse"

    @property
    def attention(self) -> Path:
        """Picture of the gates' alphas over training."""
        return self.root / "attention.png"

    @property
    def attention_boxes(self) -> Path:
        return self.coarse / "attention_boxes.csv"

    @property
    def coarse_threshold(self) -> Path:
        return self.coarse / "threshold.json"

    @property
    def fine(self) -> Path:
        return self.root / "fine"

    @property
    def error_budget(self) -> Path:
        """One row for each test case and way to choose where to look."""
        return self.root / "error_budget.csv"

    @property
    def error_budget_summary(self) -> Path:
        return self.root / "error_budget.json"

    @property
    def error_budget_picture(self) -> Path:
        return self.root / "error_budget.png"

    @property
    def slice_scores(self) -> Path:
        """What a localiser of slices says of each slice of the test cases."""
        return self.root / "slice_scores.csv"

    def error_budget_part(self, case_id: str) -> Path:
        """The error budget of one case, kept so that a killed run goes on."""
        return self.root / "error_budget" / f"{case_id}.json"

    def prediction(self, case_id: str) -> Path:
        return self.predictions / f"{case_id}.nii.gz"


def make_folder(folder: Path) -> Path:
    """Create a folder and check that it can be written.

    Raises:
        InputError: The folder cannot be created or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"cannot write into folder {folder} ({error.strerror}); choose another output folder or mend its rights"
        ) from None
    return folder


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success it is flushed to disk and takes the name `path`.

    The temporary name keeps the suffixes of `path`, since writers choose the format by them. On an error, or a kill,
    an earlier file of that name stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{path.name}")
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        fsync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success it takes that name, replacing what stood there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY_PREFIX}{path.name}-", dir=path.parent))
    temporary.chmod(0o755)
    try:
        yield temporary
        for file in temporary.iterdir():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
        fsync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def fsync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename survives a power cut. A no-op where folders cannot be opened."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep_temporaries(folder: Path) -> None:
    """Remove what killed writers left in `folder` more than a day ago (a younger one may be another run's)."""
    yesterday = time.time() - 86_400
    for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
        if leftover.stat().st_mtime > yesterday:
            continue
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, sort_keys=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: The file is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); delete it and run again") from None


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as UTF-8 CSV with a header line; a missing value becomes an empty cell."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, extrasaction="raise", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: Path, required: Sequence[str]) -> list[dict[str, str]]:
    """Read a CSV with a header line.

    Raises:
        InputError: The file is missing, is not text, or lacks a required column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            rows = list(reader)
            columns = reader.fieldnames or []
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a readable UTF-8 CSV file ({error})") from None
    missing = [column for column in required if column not in columns]
    if missing:
        raise InputError(f"{path} lacks the column(s) {', '.join(missing)}; it has {', '.join(columns) or 'none'}")
    return rows


def sha256_of(value: Any) -> str:
    """Digest of any JSON-able value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def installed_versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in TESTED_PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def git_revision() -> str | None:
    """Revision of the source tree the package runs from; None for an installed wheel."""
    source = Path(__file__).resolve().parents[2]
    if not (source / ".git").exists():
        return None
    answer = subprocess.run(
        ["git", "-C", str(source), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.stdout.strip() or None


def provenance() -> dict[str, Any]:
    """What a run was made with: command, versions, revision, processor count, start time."""
    return {
        "command": sys.argv,
        "versions": installed_versions(),
        "git": git_revision(),
        "n_processors": os.cpu_count(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
