"""Settings of localisers: from a case to its ROI. `level` is the grid of the prepared cases that one works on."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from hngtv.config.networks import NetworkSettings
from hngtv.config.values import Count, Level, NonNegative, OnEmpty, Positive, Share, Size, Triple, settings_group


@settings_group
class WholeLocaliser:
    """No localiser: the ROI is the whole image."""

    name: Literal["whole"]


@settings_group
class OracleLocaliser:
    """The true box, an upper bound; needs targets and cannot predict new patients."""

    name: Literal["oracle"]


@settings_group
class FixedLocaliser:
    """A box of one size that hangs from the top of every image, in the middle of its axial plane."""

    level: ClassVar[Level] = "fine"
    name: Literal["fixed"]
    size_mm: Triple
    below_top_mm: NonNegative


@settings_group
class AtlasLocaliser:
    """A box of one size at fractions of the image's extent; long scans have their own fraction along z."""

    level: ClassVar[Level] = "fine"
    name: Literal["atlas"]
    size_mm: Triple
    centre: tuple[Share, Share, Share]
    long_mm: Positive
    long_centre_z: Share


@settings_group
class PetRuleLocaliser:
    """A box of one size, placed by a published rule on the PET."""

    level: ClassVar[Level] = "fine"
    name: Literal["hecktor2020", "nvauto", "medai", "hot_spot"]
    size_mm: Triple
    on_empty: OnEmpty


@settings_group
class CoarseLocaliser:
    """A small U-Net on the whole field of view at coarse spacing."""

    level: ClassVar[Level] = "coarse"
    name: Literal["coarse"]
    network: NetworkSettings
    n_inner_folds: Annotated[int, Field(ge=2)]
    budget_share: Annotated[float, Field(gt=0, lt=1)]
    crop_voxels: Size | None
    thresholds: Annotated[tuple[Share, ...], Field(min_length=1)]
    min_covered: Share
    min_component_ml: NonNegative
    mass: Annotated[float, Field(gt=0, le=1)] = 1.0
    min_peak: Share = 0.0
    on_empty: OnEmpty


@settings_group
class HeatMapLocaliser:
    """A small U-Net on the whole field of view at coarse spacing: centres of lesions, and the sizes of their boxes."""

    level: ClassVar[Level] = "coarse"
    name: Literal["heat_map"]
    network: NetworkSettings
    n_inner_folds: Annotated[int, Field(ge=2)]
    budget_share: Annotated[float, Field(gt=0, lt=1)]
    crop_voxels: Size | None
    sigma_mm: Positive
    extent_weight: NonNegative
    window_mm: Positive
    max_peaks: Count
    thresholds: Annotated[tuple[Share, ...], Field(min_length=1)]
    min_covered: Share
    on_empty: OnEmpty


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

    level: ClassVar[Level] = "fine"
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
    slice_margin_mm: NonNegative = 0.0
    top_k: Annotated[int, Field(ge=0)] = 0
    keep: Literal["longest_run", "all"]
    in_plane: Literal["attention", "whole"]
    attention: AttentionBoxSettings
    on_empty: OnEmpty

    def __post_init__(self) -> None:
        if self.in_plane == "attention" and not self.network.gated:
            raise ValueError("in_plane=attention needs network.gated=true: a plain SonoNet has no attention maps")


RuleLocaliser = FixedLocaliser | AtlasLocaliser | PetRuleLocaliser
UntrainedLocaliser = WholeLocaliser | OracleLocaliser | RuleLocaliser
TrainedLocaliser = CoarseLocaliser | HeatMapLocaliser | SliceLocaliser
LocaliserSettings = Annotated[UntrainedLocaliser | TrainedLocaliser, Field(discriminator="name")]
