"""Settings of segmenting networks."""

import math
from importlib.metadata import entry_points
from typing import Annotated, Literal

from pydantic import Field, JsonValue

from hngtv.config.values import Count, DropRate, KernelSize, Size, settings_group

OWN_NETWORKS = "hngtv.networks"
"""Group of entry points in which packages register networks."""


@settings_group
class UNetSettings:
    """A U-Net, with or without attention gates on its skips; `fusion` says how it brings CT and PET together.

    With `spatial_dims` of 2 it sees each axial slice for itself.
    """

    name: Literal["unet", "attention_unet"]
    widths: Annotated[tuple[Count, ...], Field(min_length=2)]
    norm: Literal["batch", "instance", "group"]
    deep_supervision: Literal["none", "fused", "auxiliary"]
    gate_variant: Literal["paper", "reference"] = "reference"
    n_gates: Annotated[int, Field(ge=0)] = 0
    open_gates: bool = True
    leak: Annotated[float, Field(ge=0, lt=1)] = 0.0
    strides: tuple[Size, ...] | None = None
    spatial_dims: Literal[2, 3] = 3
    fusion: Literal["early", "stems", "pet_gated", "ct_only", "pet_only"] = "early"

    def __post_init__(self) -> None:
        if self.name == "attention_unet" and self.n_gates < 1:
            raise ValueError(
                f"attention_unet needs n_gates of 1 or more, got {self.n_gates}; take network=unet for a plain U-Net"
            )
        if self.name == "attention_unet" and len(self.widths) < 3:
            raise ValueError(
                f"attention_unet needs at least 3 widths (the first skip is free), got {len(self.widths)}; "
                "add a level, or take network=unet for a plain U-Net"
            )
        if self.strides is not None and len(self.strides) != len(self.widths) - 1:
            raise ValueError(
                f"strides needs one less entry than widths, {len(self.widths) - 1}: one for each step down"
            )
        if self.spatial_dims == 2 and any(step[2] != 1 for step in self.strides or ()):
            raise ValueError(
                "strides: the third number of each step must be 1 with spatial_dims=2, which joins no slices"
            )
        if self.name == "unet" and self.fusion == "pet_gated":
            raise ValueError("fusion=pet_gated needs gates, which unet has not; take attention_unet")
        if self.fusion == "stems" and self.widths[0] < 2:
            raise ValueError("fusion=stems divides the first level between CT and PET, so it needs 2 widths[0] or more")

    @property
    def total_stride(self) -> Size:
        """Voxels of the image to one of the coarsest level, along x, y and z."""
        step = (2, 2, 2 if self.spatial_dims == 3 else 1)
        steps = self.strides if self.strides is not None else (step,) * (len(self.widths) - 1)
        x, y, z = (math.prod(along) for along in zip(*steps, strict=True))
        return x, y, z


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
"""Each has `total_stride`: the number that the sides of its training crops are multiples of, or one for each axis."""
