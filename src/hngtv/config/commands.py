"""Settings of the other commands."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from hngtv.config.networks import NetworkSettings
from hngtv.config.run import DataSettings
from hngtv.config.values import Count, NonNegative, Positive, Share, Size, settings_group


@settings_group
class DemoSettings:
    """`hngtv demo`: all arms on a phantom cohort."""

    out: Path
    work_dir: Path
    n_cases: Count
    seed: int
    arms: tuple[str, ...]
    small: tuple[str, ...]
    overrides: tuple[str, ...]


@settings_group
class BenchmarkSettings:
    """`hngtv benchmark`: speed of this machine, as ratios."""

    n_steps: Count
    n_threads: Annotated[int, Field(ge=0)]
    crop_voxels: Size
    batch_size: Count
    network: NetworkSettings


@settings_group
class PhantomSettings:
    """`hngtv phantom`: write a phantom cohort."""

    out: Path
    n_cases: Count
    seed: int
    size: Literal["small", "full"]
    field_of_view: Literal["mixed", "long"]


@settings_group
class EmbedSettings:
    """`hngtv embed`: set cropped cases into long phantom scans."""

    data: DataSettings
    out: Path
    seed: Annotated[int, Field(ge=0)]
    size: Literal["small", "full"]


@settings_group
class OutlineSettings:
    """Names of outlines in DICOM, as regular expressions; None for those built in."""

    gtvp: tuple[str, ...] | None = None
    gtvn: tuple[str, ...] | None = None
    gtv: tuple[str, ...] | None = None


@settings_group
class ImportSettings:
    """`hngtv import`: recognise and check a folder of cases and write its manifest."""

    data: DataSettings
    source: Path | None = None
    out: Path | None
    estimate_shift: bool = False
    correct_shift: bool = False
    outlines: OutlineSettings = OutlineSettings()
    hide_ids: bool = False

    def __post_init__(self) -> None:
        _check_one_root("source", self.source, self.data)


def _check_one_root(name: str, given: Path | None, data: DataSettings) -> None:
    """A command's own word for data.root sets it; both together may not differ."""
    if given is not None and given != data.root:
        raise ValueError(f"give either {name}=DIR or data.root=DIR")


@settings_group
class CheckSettings:
    """`hngtv check`: a page on the cases of a cohort."""

    data: DataSettings
    cases: Path | None = None
    out: Path
    estimate_shift: bool
    n_workers: Annotated[int, Field(ge=0)]

    def __post_init__(self) -> None:
        _check_one_root("cases", self.cases, self.data)


@settings_group
class ConvertSettings:
    """`hngtv convert`: write cases in the layout of another tool."""

    data: DataSettings
    cases: Path | None = None
    out: Path
    format: Literal["nnunet"]

    def __post_init__(self) -> None:
        _check_one_root("cases", self.cases, self.data)


@settings_group
class PrepareSettings:
    """`hngtv prepare`: fill the prepared store."""

    data: DataSettings
    work_dir: Path
    n_workers: Annotated[int, Field(ge=0)]


def _split(value: Any) -> Any:
    """The items of a list that was typed without brackets."""
    return value.strip("[]").replace(" ", "").split(",") if isinstance(value, str) else value


@settings_group
class PredictSettings:
    """`hngtv predict`: segment one patient (ct, and pet if there is one) or many (cases, dicom)."""

    model: Path
    out: Path
    ct: Path | None
    pet: Path | None
    cases: Path | None
    attention: bool
    n_threads: Annotated[int, Field(ge=0)]
    dicom: Path | None = None
    hide_ids: bool = False
    formats: Annotated[tuple[Literal["nifti", "rtstruct", "seg", "pdf"], ...], BeforeValidator(_split)] = ("nifti",)
    probability: bool = False
    uncertainty: bool = False
    n_workers: Annotated[int, Field(ge=0)] = 0

    def __post_init__(self) -> None:
        given = [self.ct, self.cases, self.dicom]
        if sum(path is not None for path in given) != 1 or (self.ct is None and self.pet is not None):
            raise ValueError("give either ct=FILE and pet=FILE, or cases=FOLDER_OR_CSV, or dicom=FOLDER")
        if self.dicom is None and (lost := [name for name in self.formats if name in ("rtstruct", "seg")]):
            raise ValueError(f"formats={','.join(lost)} refers to the CT series it is made on; give dicom=FOLDER")


@settings_group
class EnsembleSettings:
    """`hngtv ensemble`: runs of several folds as one model."""

    runs: Path
    arm: str | None
    out: Path
    flip_axes: tuple[Literal["x", "y", "z"], ...] | None
    thresholds: tuple[Share, ...]
    min_component_ml: tuple[NonNegative, ...]
    min_component_suv: tuple[NonNegative, ...]
    min_gain: NonNegative
    review_share: Share
    low_dice: Share
    n_threads: Annotated[int, Field(ge=0)]


@settings_group
class ExportSettings:
    """`hngtv export`: a finished run as what others can use."""

    model: Path
    out: Path
    formats: Annotated[tuple[Literal["package", "onnx", "bundle", "container"], ...], BeforeValidator(_split)]
    cohort: str | None


@settings_group
class ChallengeSettings:
    """`hngtv challenge`: one patient, as an entry of a challenge does it."""

    year: Literal[2025, 2026]
    input: Path
    output: Path
    model: Path
    t_stage: Literal["T1", "T2", "T3", "T4"] | None
    n_stage: Literal["N0", "N1", "N2", "N3"] | None
    rfs: float | None
    n_threads: Annotated[int, Field(ge=0)]


@settings_group
class EvaluateSettings:
    """`hngtv evaluate`: score predictions against targets."""

    predictions: Path
    targets: Path
    out: Path
    arm: str
    fold: int | str
    seed: Annotated[int, Field(ge=0)]


@settings_group
class CompareSettings:
    """`hngtv compare`: arms against each other, with statistics and a report."""

    runs: Path
    out: Path
    reference: str | None
    metric: Literal["dice", "precision", "recall", "hd95_mm", "msd_mm", "surface_dice_2mm"]
    non_inferiority_margin: Positive | None
    budget_tolerance: NonNegative
    unequal_budgets: bool
    n_viewer_cases: Annotated[int, Field(ge=0)]


@settings_group
class RobustnessSettings:
    """`hngtv robustness`: the fine stage of a run on boxes that are off."""

    model: Path
    out: Path
    shifts_mm: tuple[NonNegative, ...]
    scales: tuple[Positive, ...]
    n_threads: Annotated[int, Field(ge=0)]
