"""Frozen, validated settings: one dataclass per group of `conf/` and per command.

Hydra composes a tree of plain values; `parse_settings` turns it into one of these, or names the key that is wrong.
"""

import difflib
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform, get_args

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from hngtv.errors import InputError

STRICT = ConfigDict(extra="forbid")

UNKNOWN_KEY = ("unexpected_keyword_argument", "extra_forbidden")
MISSING_KEY = ("missing", "missing_argument", "missing_keyword_only_argument")
EXPECTED = {"fold": "expected the number of a fold or all"}
"""Own words where pydantic tells one mistake for each member of a union."""

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Triple = tuple[Positive, Positive, Positive]
Size = tuple[Count, Count, Count]
Interval = tuple[float, float]

Kind = TypeVar("Kind")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def settings_group(kind: type[Kind]) -> type[Kind]:
    """A frozen dataclass that checks its values and takes no unknown key."""
    return pydantic_dataclass(kind, config=STRICT, frozen=True, kw_only=True)  # pyright: ignore[reportReturnType]


@settings_group
class DataSettings:
    """Which cases, and the grids they are prepared on."""

    name: str
    root: Path
    ct: str = "{case}/ct.nii.gz"
    pet: str = "{case}/pet.nii.gz"
    target: str = "{case}/gtv.nii.gz"
    spacing_mm: Triple
    coarse_spacing_mm: Triple
    n_folds: Annotated[int, Field(ge=2)]
    group_by_centre: bool = False
    fold_seed: int = 0


@settings_group
class IntensitySettings:
    """Windows applied when a crop is read."""

    ct_windows_hu: Annotated[tuple[Interval, ...], Field(min_length=1)]
    pet_max_suv: Positive
    pet_scale: Literal["linear", "log"]

    def __post_init__(self) -> None:
        if any(low >= high for low, high in self.ct_windows_hu):
            raise ValueError("ct_windows_hu needs low < high in every window")

    @property
    def n_channels(self) -> int:
        """Channels of the network's input: one for each CT window, and PET."""
        return len(self.ct_windows_hu) + 1


@settings_group
class RoiSettings:
    """How a box becomes the crop of the fine stage."""

    margin_mm: NonNegative
    jitter_mm: NonNegative
    crop_voxels: Size | None
    foreground_share: Share


@settings_group
class NetworkSettings:
    """A U-Net, with or without attention gates on its skips."""

    name: Literal["unet", "attention_unet"]
    widths: Annotated[tuple[Count, ...], Field(min_length=2)]
    norm: Literal["batch", "instance", "group"]
    deep_supervision: Literal["none", "fused", "auxiliary"]
    gate_variant: Literal["paper", "reference"] = "reference"
    n_gates: Annotated[int, Field(ge=0)] = 0
    open_gates: bool = True
    leak: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def __post_init__(self) -> None:
        if self.name == "attention_unet" and (self.n_gates < 1 or len(self.widths) < 3):
            raise ValueError("attention_unet needs n_gates of 1 or more and at least 3 widths (the first skip is free)")

    @property
    def total_stride(self) -> int:
        """Voxels of the image to one of the coarsest level."""
        return 2 ** (len(self.widths) - 1)


@settings_group
class WholeLocaliser:
    """No localiser: the ROI is the whole image."""

    name: Literal["whole"]


@settings_group
class OracleLocaliser:
    """The true box, an upper bound; needs targets and cannot predict new patients."""

    name: Literal["oracle"]


@settings_group
class CoarseLocaliser:
    """A small U-Net on the whole field of view at coarse spacing."""

    name: Literal["coarse"]
    network: NetworkSettings
    n_inner_folds: Annotated[int, Field(ge=2)]
    budget_share: Annotated[float, Field(gt=0, lt=1)]
    crop_voxels: Size | None
    thresholds: Annotated[tuple[Share, ...], Field(min_length=1)]
    min_covered: Share
    min_component_ml: NonNegative
    on_empty: Literal["pet_rule", "whole_volume", "fail"]


Localiser = Annotated[WholeLocaliser | OracleLocaliser | CoarseLocaliser, Field(discriminator="name")]


@settings_group
class AugmentSettings:
    """Random changes of a training crop; probabilities in [0, 1], ranges symmetric about no change."""

    affine_probability: Share
    rotation_deg: NonNegative
    scale: Annotated[float, Field(ge=0, lt=1)]
    flip_axes: tuple[Literal["x", "y", "z"], ...]
    intensity_probability: Share
    ct_shift_hu: NonNegative
    ct_contrast: NonNegative
    ct_noise_hu: NonNegative
    pet_gain: NonNegative
    pet_gamma: NonNegative
    pet_noise: NonNegative
    blur_probability: Share


@settings_group
class LossSettings:
    """Soft Dice plus cross-entropy."""

    dice_weight: NonNegative
    cross_entropy_weight: NonNegative

    def __post_init__(self) -> None:
        if self.dice_weight == self.cross_entropy_weight == 0:
            raise ValueError("dice_weight and cross_entropy_weight must not both be 0")


@settings_group
class OptimiserSettings:
    """AdamW with warm-up and a cosine to zero, and an average of the weights."""

    learning_rate: Positive
    weight_decay: NonNegative
    warmup_share: Share
    batch_size: Count
    ema_decay: Annotated[float, Field(ge=0, lt=1)]
    gradient_clip: Positive


@settings_group
class BudgetSettings:
    """Training of all stages of an arm together: steps, or processor seconds (GPU seconds on a GPU)."""

    steps: Count | None = None
    cpu_s: Positive | None = None

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.cpu_s is None):
            raise ValueError("set exactly one of steps and cpu_s (the other to null)")


@settings_group
class TrainerSettings:
    """Where and how the networks run."""

    accelerator: Literal["cpu", "gpu"]
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
    channels_last: bool
    n_threads: Annotated[int, Field(ge=0)]
    n_workers: Annotated[int, Field(ge=0)]
    deterministic: bool
    checkpoint_every_s: Positive


@settings_group
class InferenceSettings:
    """From probabilities to a mask."""

    mode: Literal["whole_volume", "sliding_window"]
    overlap: Annotated[float, Field(ge=0, lt=1)]
    flip_axes: tuple[Literal["x", "y", "z"], ...]
    threshold: Share
    min_component_ml: NonNegative
    min_gtvp_share: Share


@settings_group
class LoggerSettings:
    """Where curves go beside the CSV file, which is always written."""

    name: Literal["csv", "wandb"]
    mode: Literal["offline", "online"] = "offline"
    project: str = "hngtv"


@settings_group
class RunSettings:
    """One arm on one fold with one seed."""

    arm: str
    run_dir: Path
    work_dir: Path
    fold: Literal["all"] | Annotated[int, Field(ge=0)]
    seed: Annotated[int, Field(ge=0)]
    data: DataSettings
    intensity: IntensitySettings
    localiser: Localiser
    roi: RoiSettings
    network: NetworkSettings
    augment: AugmentSettings
    loss: LossSettings
    optimiser: OptimiserSettings
    budget: BudgetSettings
    trainer: TrainerSettings
    inference: InferenceSettings
    logger: LoggerSettings

    def __post_init__(self) -> None:
        if self.budget.cpu_s is not None and self.trainer.accelerator == "cpu" and self.trainer.n_workers:
            raise ValueError("budget.cpu_s cannot see the time of loader processes: set trainer.n_workers=0")
        if self.fold != "all" and self.fold >= self.data.n_folds:
            raise ValueError(f"fold is {self.fold}, but there are folds 0 to {self.data.n_folds - 1} (data.n_folds)")


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


@settings_group
class ImportSettings:
    """`hngtv import`: check a folder of cases and write its manifest."""

    data: DataSettings
    out: Path | None


@settings_group
class PrepareSettings:
    """`hngtv prepare`: fill the prepared store."""

    data: DataSettings
    work_dir: Path
    n_workers: Annotated[int, Field(ge=0)]


@settings_group
class PredictSettings:
    """`hngtv predict`: segment one patient (ct, pet) or many (cases)."""

    model: Path
    out: Path
    ct: Path | None
    pet: Path | None
    cases: Path | None
    n_threads: Annotated[int, Field(ge=0)]

    def __post_init__(self) -> None:
        one, many = (self.ct, self.pet), self.cases
        if (many is None) == (one == (None, None)) or (many is None and None in one):
            raise ValueError("give either ct=FILE and pet=FILE, or cases=FOLDER_OR_CSV")


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
    metric: Literal["dice", "precision", "recall", "hd95_mm", "surface_dice_2mm"]


def parse_settings(kind: type[Kind], tree: dict[str, Any]) -> Kind:
    """Validate a plain tree of values.

    Raises:
        InputError: One line for each key that is unknown, missing or of a wrong value, with the nearest valid names.
    """
    try:
        return TypeAdapter(kind).validate_python(tree)
    except ValidationError as error:
        raise InputError("\n".join(_explain(kind, detail) for detail in _one_for_each_key(kind, error))) from None


def plain(settings: Any) -> dict[str, Any]:
    """Settings as JSON-able numbers, strings, lists and dicts: the only form that enters a checkpoint or a file."""
    return TypeAdapter(type(settings)).dump_python(settings, mode="json")


def _one_for_each_key(kind: type, error: ValidationError) -> list[Any]:
    """One mistake for each key: pydantic tells one for each member of a union and each item of a tuple."""
    kept: dict[str, Any] = {}
    for detail in error.errors():
        key = _key(kind, detail)
        if key not in kept or _lacks_items(detail):
            kept[key] = detail
    return list(kept.values())


def _explain(kind: type, detail: Any) -> str:
    key, got = _key(kind, detail), detail["input"]
    if detail["type"] in UNKNOWN_KEY:
        nearest = difflib.get_close_matches(key.split(".")[-1], _names_beside(kind, detail["loc"]), n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(nearest)}?" if nearest else ""
        return f"settings: unknown key {key}{hint}"
    if _lacks_items(detail):
        return f"settings: {key}: expected {detail['loc'][-1] + 1} values, got {list(got)}"
    if detail["type"] in MISSING_KEY:
        return f"settings: {key} is missing; give {key}=VALUE"
    message = EXPECTED.get(key) or detail["msg"].removeprefix("Value error, ")
    place = f"{key}: " if key else ""
    return f"settings: {place}{message}" + ("" if isinstance(got, dict) or not key else f", got {got!r}")


def _lacks_items(detail: Any) -> bool:
    """Whether the mistake is a tuple with too few items; its place ends with the index of the last one."""
    return detail["type"] == "missing" and isinstance(detail["loc"][-1], int)


def _key(kind: type, detail: Any) -> str:
    """Dotted key of a mistake, without indices and without the names of members of a union."""
    path, members = [], _members(kind)
    for part in detail["loc"]:
        field = next((f for member in members for f in fields(member) if f.name == part), None)
        if field is not None:
            path.append(field.name)
            members = _members(field.type)
    return ".".join([*path, str(detail["loc"][-1])] if detail["type"] in UNKNOWN_KEY else path)


def _names_beside(kind: type, place: tuple[Any, ...]) -> list[str]:
    """Names valid where an unknown key was found."""
    members = _members(kind)
    for part in place[:-1]:
        inner = [f for member in members for f in fields(member) if f.name == part]
        members = _members(inner[0].type) if inner else members
    return [f.name for member in members for f in fields(member)]


def _members(annotation: Any) -> list[Any]:
    """The settings classes in a type, which may be a union or annotated."""
    if isinstance(annotation, type) and is_dataclass(annotation):
        return [annotation]
    return [member for part in get_args(annotation) for member in _members(part)]
