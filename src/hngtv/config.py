"""Frozen, validated settings: one dataclass per group of `conf/` and per command.

Hydra composes a tree of plain values; `parse_settings` turns it into one of these, or names the key that is wrong.
"""

import difflib
import math
from dataclasses import fields, is_dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform, get_args

from pydantic import ConfigDict, Field, JsonValue, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from hngtv.errors import InputError

STRICT = ConfigDict(extra="forbid")

UNKNOWN_KEY = ("unexpected_keyword_argument", "extra_forbidden")
MISSING_KEY = ("missing", "missing_argument", "missing_keyword_only_argument")
OWN_NETWORKS = "hngtv.networks"
"""Group of entry points in which packages register networks."""
EXPECTED = {"fold": "expected the number of a fold or all"}
"""Own words where pydantic tells one mistake for each member of a union."""

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Triple = tuple[Positive, Positive, Positive]
Size = tuple[Count, Count, Count]
KernelSize = Literal[1, 3, 5, 7]
DropRate = Annotated[float, Field(ge=0, lt=1)]
Interval = tuple[float, float]
OnEmpty = Literal["pet_rule", "whole_volume", "fail"]
"""What a localiser that found nothing does."""

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
class UNetSettings:
    """A U-Net, with or without attention gates on its skips; `fusion` says how it brings CT and PET together."""

    name: Literal["unet", "attention_unet"]
    widths: Annotated[tuple[Count, ...], Field(min_length=2)]
    norm: Literal["batch", "instance", "group"]
    deep_supervision: Literal["none", "fused", "auxiliary"]
    gate_variant: Literal["paper", "reference"] = "reference"
    n_gates: Annotated[int, Field(ge=0)] = 0
    open_gates: bool = True
    leak: Annotated[float, Field(ge=0, lt=1)] = 0.0
    strides: tuple[Size, ...] | None = None
    fusion: Literal["early", "stems", "pet_gated", "ct_only", "pet_only"] = "early"

    def __post_init__(self) -> None:
        if self.name == "attention_unet" and (self.n_gates < 1 or len(self.widths) < 3):
            raise ValueError("attention_unet needs n_gates of 1 or more and at least 3 widths (the first skip is free)")
        if self.strides is not None and len(self.strides) != len(self.widths) - 1:
            raise ValueError(
                f"strides needs one less entry than widths, {len(self.widths) - 1}: one for each step down"
            )
        if self.name == "unet" and self.fusion == "pet_gated":
            raise ValueError("fusion=pet_gated needs gates, which unet has not; take attention_unet")
        if self.fusion == "stems" and self.widths[0] < 2:
            raise ValueError("fusion=stems divides the first level between CT and PET, so it needs 2 widths[0] or more")

    @property
    def total_stride(self) -> int:
        """Voxels of the image to one of the coarsest level; for unlike axes the least that suits them all."""
        if self.strides is None:
            return 2 ** (len(self.widths) - 1)
        return math.lcm(*(math.prod(along) for along in zip(*self.strides, strict=True)))


@settings_group
class MonaiAttentionUNetSettings:
    """MONAI's `AttentionUnet`: gates on all skips, strided convolutions. Its batch normalisation is fixed."""

    name: Literal["monai_attention_unet"]
    widths: Annotated[tuple[Count, ...], Field(min_length=2)]
    kernel_size: KernelSize
    up_kernel_size: KernelSize
    dropout: DropRate

    @property
    def total_stride(self) -> int:
        """Voxels of the image to one of the coarsest level."""
        return 2 ** (len(self.widths) - 1)


@settings_group
class SegResNetSettings:
    """MONAI's `SegResNet` (Myronenko 2018), without its variational branch."""

    name: Literal["segresnet"]
    init_filters: Annotated[int, Field(ge=2, multiple_of=2)]
    blocks_down: Annotated[tuple[Count, ...], Field(min_length=2)]
    blocks_up: tuple[Count, ...]
    norm: Literal["batch", "instance", "group"]
    upsample_mode: Literal["nontrainable", "deconv", "pixelshuffle"]
    dropout: DropRate

    def __post_init__(self) -> None:
        if len(self.blocks_up) != len(self.blocks_down) - 1:
            raise ValueError(f"blocks_up needs one value less than blocks_down, that is {len(self.blocks_down) - 1}")

    @property
    def total_stride(self) -> int:
        """Voxels of the image to one of the coarsest level."""
        return 2 ** (len(self.blocks_down) - 1)


@settings_group
class DynUNetSettings:
    """MONAI's `DynUNet`, the U-Net of nnU-Net: kernel and stride of each level and axis; the first stride is 1."""

    name: Literal["dynunet"]
    widths: Annotated[tuple[Count, ...], Field(min_length=3)]
    kernel_sizes: tuple[tuple[KernelSize, KernelSize, KernelSize], ...]
    strides: tuple[Size, ...]
    norm: Literal["batch", "instance", "group"]
    res_block: bool
    deep_supervision_heads: Annotated[int, Field(ge=0)]
    dropout: DropRate

    def __post_init__(self) -> None:
        if not len(self.widths) == len(self.kernel_sizes) == len(self.strides):
            raise ValueError("widths, kernel_sizes and strides need the same number of levels")
        if self.strides[0] != (1, 1, 1):
            raise ValueError(
                f"strides must begin with [1, 1, 1], for logits of the image's size, not {self.strides[0]}"
            )
        for kernels, strides in zip(self.kernel_sizes, self.strides, strict=True):
            if any(stride > kernel + 1 for kernel, stride in zip(kernels, strides, strict=True)):
                raise ValueError(f"strides may exceed kernel_sizes by at most 1, not {strides} with {kernels}")
        if self.deep_supervision_heads > len(self.widths) - 2:
            raise ValueError(f"deep_supervision_heads can be at most {len(self.widths) - 2} with these widths")

    @property
    def total_stride(self) -> int:
        """Voxels of the image to one of the coarsest level; for unlike axes the least that suits them all."""
        return math.lcm(*(math.prod(strides) for strides in zip(*self.strides, strict=True)))


@settings_group
class SwinUNETRSettings:
    """MONAI's `SwinUNETR` (Hatamizadeh et al. 2022): shifted-window attention in four stages."""

    name: Literal["swinunetr"]
    feature_size: Annotated[int, Field(ge=12, multiple_of=12)]
    depths: tuple[Count, Count, Count, Count]
    num_heads: tuple[Count, Count, Count, Count]
    window_size: Annotated[int, Field(ge=2)]
    norm: Literal["batch", "instance", "group"]
    use_v2: bool
    drop_rate: DropRate
    attn_drop_rate: DropRate
    dropout_path_rate: DropRate

    def __post_init__(self) -> None:
        for stage, n_heads in enumerate(self.num_heads):
            if self.feature_size * 2**stage % n_heads:
                raise ValueError(
                    f"num_heads[{stage}] must divide {self.feature_size * 2**stage} channels, not {n_heads}"
                )

    @property
    def total_stride(self) -> int:
        """Voxels of the image to one of the coarsest level."""
        return 32


@settings_group
class OwnNetworkSettings:
    """A network that the user's own installed package registers; see docs/own_network.md."""

    name: Literal["own"]
    entry_point: str
    arguments: dict[str, JsonValue] | None
    total_stride: Count

    def __post_init__(self) -> None:
        installed = sorted(point.name for point in entry_points(group=OWN_NETWORKS))
        if self.entry_point not in installed:
            raise ValueError(
                f"entry_point: expected one of the installed networks ({', '.join(installed) or 'there are none'}), "
                f"got {self.entry_point!r}; install the package that registers it in the group {OWN_NETWORKS!r}"
            )


NetworkSettings = Annotated[
    UNetSettings
    | MonaiAttentionUNetSettings
    | SegResNetSettings
    | DynUNetSettings
    | SwinUNETRSettings
    | OwnNetworkSettings,
    Field(discriminator="name"),
]
"""Each has `total_stride`, the number that the sides of its training crops are multiples of."""


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
    on_empty: OnEmpty

    @property
    def level(self) -> Literal["fine", "coarse"]:
        """Grid of the prepared cases that it works on."""
        return "coarse"


@settings_group
class SonoNetSettings:
    """A classifier of slices, with or without attention gates."""

    name: Literal["sononet"]
    width: Literal[8, 16, 32]
    gated: bool
    aggregation: Literal["concat", "mean", "deep_supervision", "ft"]
    zoom: Count

    @property
    def total_stride(self) -> int:
        """Sides of training crops are multiples of this."""
        return 16


@settings_group
class AttentionBoxSettings:
    """From attention maps to a region."""

    merge: Literal["mean", "max", "product"]
    smoothing_mm: NonNegative
    threshold: Share
    largest_component: bool


@settings_group
class SliceLocaliser:
    """A classifier of axial slices at the fine spacing: the slices that may hold tumour, and where in them."""

    name: Literal["slices"]
    network: SonoNetSettings
    n_inner_folds: Annotated[int, Field(ge=2)]
    budget_share: Annotated[float, Field(gt=0, lt=1)]
    crop_voxels: tuple[Count, Count]
    batch_size: Annotated[int, Field(ge=2)]
    thresholds: Annotated[tuple[Share, ...], Field(min_length=1)]
    min_covered: Share
    smoothing_mm: NonNegative
    max_gap_mm: NonNegative
    keep: Literal["longest_run", "all"]
    in_plane: Literal["attention", "whole"]
    attention: AttentionBoxSettings
    on_empty: OnEmpty

    def __post_init__(self) -> None:
        if self.in_plane == "attention" and not self.network.gated:
            raise ValueError("in_plane=attention needs network.gated=true: a plain SonoNet has no attention maps")

    @property
    def level(self) -> Literal["fine", "coarse"]:
        """Grid of the prepared cases that it works on."""
        return "fine"


TrainedLocaliser = CoarseLocaliser | SliceLocaliser
Localiser = Annotated[WholeLocaliser | OracleLocaliser | TrainedLocaliser, Field(discriminator="name")]


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
    pet_dropout: Share = 0.0


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
        if self.augment.pet_dropout > 0 and "pet_only" in self.fusions:
            raise ValueError("augment.pet_dropout leaves nothing to see where fusion is pet_only: set it to 0")

    @property
    def fusions(self) -> set[str]:
        """How the networks of all stages bring CT and PET together; "early" for those that leave no choice."""
        networks: list[Any] = [self.network]
        if isinstance(self.localiser, TrainedLocaliser):
            networks.append(self.localiser.network)
        return {getattr(network, "fusion", "early") for network in networks}

    @property
    def copes_without_pet(self) -> bool:
        """Whether a missing PET may count as SUV 0: all stages saw crops that had lost theirs, or none looks at PET."""
        return self.augment.pet_dropout > 0 or self.fusions == {"ct_only"}


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
    """`hngtv predict`: segment one patient (ct, and pet if there is one) or many (cases)."""

    model: Path
    out: Path
    ct: Path | None
    pet: Path | None
    cases: Path | None
    attention: bool
    n_threads: Annotated[int, Field(ge=0)]

    def __post_init__(self) -> None:
        if (self.cases is None) == (self.ct is None) or (self.ct is None and self.pet is not None):
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


def parse_network(tree: dict[str, Any]) -> NetworkSettings:
    """As `parse_settings`, for any network."""
    kind: Any = NetworkSettings
    return parse_settings(kind, tree)


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
        members = _members(inner[0].type) if inner else _called(members, part)
    return [f.name for member in members for f in fields(member)]


def _called(members: list[Any], name: Any) -> list[Any]:
    """Those members of a union that a name picks, or all where it is none of their names."""
    picked = [m for m in members for f in fields(m) if f.name == "name" and name in get_args(f.type)]
    return picked or members


def _members(annotation: Any) -> list[Any]:
    """The settings classes in a type, which may be a union or annotated."""
    if isinstance(annotation, type) and is_dataclass(annotation):
        return [annotation]
    return [member for part in get_args(annotation) for member in _members(part)]
