"""Settings of `hngtv run`: one dataclass per group of `conf/`, and the tree of them all."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from hngtv.config.localisers import (
    LocaliserSettings,
    PetRuleLocaliser,
    SliceLocaliser,
    SonoNetSettings,
    TrainedLocaliser,
)
from hngtv.config.networks import MonaiAttentionUNetSettings, NetworkSettings
from hngtv.config.values import Count, Interval, NonNegative, Positive, Share, Size, Triple, settings_group

Disturbance = Literal["pet_too_bright", "pet_in_bqml", "head_cut", "feet_first", "arms_in_view", "no_tumour"]
"""What `hngtv localise` can do to a scan."""


@settings_group
class DataSettings:
    """Which cases, and the grids they are prepared on.

    `train_share` is the part of the training cases of each fold that a run learns from.
    """

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
    train_share: Annotated[float, Field(gt=0, le=1)] = 1.0


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
    """How boxes become regions of interest (ROIs), and these the training crops of the fine stage.

    Of the crops `foreground_share` aim at tumour, the others at a ROI.
    """

    margin_mm: NonNegative
    jitter_mm: NonNegative | Literal["matched"]
    crop_voxels: Size | None
    foreground_share: Share
    shape: Literal["tight", "fixed", "slab"] = "tight"
    size_mm: Triple | None = None
    join_mm: NonNegative | None = None

    def __post_init__(self) -> None:
        if (self.shape == "fixed") != (self.size_mm is not None):
            raise ValueError("size_mm is the size of shape=fixed: give both, or neither (size_mm=null)")


@settings_group
class AugmentSettings:
    """Random changes of a training crop; probabilities in [0, 1], ranges symmetric about no change.

    `rotation_deg` is about each axis, or about x, y and z.
    """

    affine_probability: Share
    rotation_deg: NonNegative | tuple[NonNegative, NonNegative, NonNegative]
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
    """Soft Dice plus cross-entropy; `absent_share` decides what takes Dice's place in a batch without tumour."""

    dice_weight: NonNegative
    cross_entropy_weight: NonNegative
    absent_share: Share = 0.0

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
    n_devices: Count = 1
    n_nodes: Count = 1

    @property
    def n_processes(self) -> int:
        """Processes that share each batch, one for each device of each node."""
        return self.n_devices * self.n_nodes


@settings_group
class InferenceSettings:
    """From probabilities to a mask."""

    mode: Literal["whole_volume", "sliding_window"]
    overlap: Annotated[float, Field(ge=0, lt=1)]
    flip_axes: tuple[Literal["x", "y", "z"], ...]
    threshold: Share
    min_component_ml: NonNegative
    min_gtvp_share: Share
    min_component_suv: NonNegative = 0.0
    temperature: Positive = 1.0
    logit_shift: float = 0.0
    review_below: Share = 0.0


@settings_group
class LoggerSettings:
    """Where curves go beside the CSV file, which is always written."""

    name: Literal["csv", "tensorboard", "wandb"]
    mode: Literal["auto", "offline", "online"] = "auto"
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
    localiser: LocaliserSettings
    roi: RoiSettings
    network: NetworkSettings
    augment: AugmentSettings
    loss: LossSettings
    optimiser: OptimiserSettings
    budget: BudgetSettings
    trainer: TrainerSettings
    inference: InferenceSettings
    logger: LoggerSettings
    error_budget: bool = False

    def __post_init__(self) -> None:
        if self.budget.cpu_s is not None and self.trainer.accelerator == "cpu" and self.trainer.n_workers:
            raise ValueError("budget.cpu_s cannot see the time of loader processes: set trainer.n_workers=0")
        self._check_batches()
        self._check_batch_norm()
        if self.fold != "all" and self.fold >= self.data.n_folds:
            raise ValueError(f"fold is {self.fold}, but there are folds 0 to {self.data.n_folds - 1} (data.n_folds)")
        if self.augment.pet_dropout > 0 and "pet_only" in self.fusions:
            raise ValueError("augment.pet_dropout leaves nothing to see where fusion is pet_only: set it to 0")

    def _check_batches(self) -> None:
        """Raise ValueError for a batch that the devices cannot share evenly."""
        sizes = {"optimiser.batch_size": self.optimiser.batch_size}
        if isinstance(self.localiser, SliceLocaliser):
            sizes["localiser.batch_size"] = self.localiser.batch_size
        n = self.trainer.n_processes
        for key, size in sizes.items():
            if size % n:
                raise ValueError(
                    f"{key} is {size}, but {n} devices share each batch (trainer.n_devices times trainer.n_nodes): "
                    f"set a multiple of {n}"
                )

    def _check_batch_norm(self) -> None:
        """Raise ValueError for one that processes on CPUs cannot share; what an own network has is seen later."""
        if self.trainer.n_processes == 1 or self.trainer.accelerator != "cpu":
            return
        for key, network in self._networks.items():
            is_fixed = isinstance(network, MonaiAttentionUNetSettings | SonoNetSettings)
            if is_fixed or getattr(network, "norm", "") == "batch":
                remedy = f"choose another {key}" if is_fixed else f"another norm ({key}.norm=group)"
                raise ValueError(
                    f"{key} has batch normalisation, which cannot share its statistics between processes on CPUs: "
                    f"set trainer.n_devices=1, or {remedy}"
                )

    @property
    def _networks(self) -> dict[str, Any]:
        """The settings of the network of each stage, by their key."""
        networks: dict[str, Any] = {"network": self.network}
        if isinstance(self.localiser, TrainedLocaliser):
            networks["localiser.network"] = self.localiser.network
        return networks

    @property
    def fusions(self) -> set[str]:
        """How the networks of all stages bring CT and PET together; "early" for those that leave no choice."""
        return {getattr(network, "fusion", "early") for network in self._networks.values()}

    @property
    def copes_without_pet(self) -> bool:
        """Whether a missing PET may count as SUV 0: all stages saw crops that had lost theirs, or none looks at PET."""
        if isinstance(self.localiser, PetRuleLocaliser):
            return False
        return self.augment.pet_dropout > 0 or self.fusions == {"ct_only"}


@settings_group
class LocaliseSettings(RunSettings):
    """`hngtv localise`: the settings of a run, and the localisers to judge."""

    localisers: dict[str, LocaliserSettings]
    only: tuple[str, ...] | None
    folds: tuple[Annotated[int, Field(ge=0)], ...] | None
    disturbances: tuple[Disturbance, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = sorted(set(self.only or ()) - set(self.localisers))
        if unknown:
            raise ValueError(f"only names {', '.join(unknown)}; there are {', '.join(self.localisers)}")
        beyond = [fold for fold in self.folds or () if fold >= self.data.n_folds]
        if beyond:
            raise ValueError(f"folds has {beyond[0]}, but there are folds 0 to {self.data.n_folds - 1} (data.n_folds)")

    @property
    def chosen(self) -> dict[str, LocaliserSettings]:
        """The localisers to judge, in the order of the settings."""
        return {name: found for name, found in self.localisers.items() if self.only is None or name in self.only}
