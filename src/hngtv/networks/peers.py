"""Networks that others wrote, as drop-ins: MONAI's, and those that the user's own installed packages register."""

import math
import re
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from torch import Tensor, nn

from hngtv.config import (
    OWN_NETWORKS,
    DynUNetSettings,
    MonaiAttentionUNetSettings,
    OwnNetworkSettings,
    SegResNetSettings,
    SwinUNETRSettings,
)
from hngtv.errors import InputError
from hngtv.networks.blocks import N_GROUPS, crop_to, pad_to, padded_size
from hngtv.networks.checks import check_maps
from hngtv.networks.convolution import Conv3d
from hngtv.networks.output import NetworkOutput, SegmentationNetwork

PeerSettings = MonaiAttentionUNetSettings | SegResNetSettings | DynUNetSettings | SwinUNETRSettings | OwnNetworkSettings

MAP_NAME = re.compile(r"[A-Za-z0-9_-]+")
"""Names of attention maps, which become names of files."""


class PeerNetwork(SegmentationNetwork):
    """Another's network, fed with sides that suit it.

    Sides are padded at their end, by edge values, to multiples of `total_stride`, and the logits are cropped back. The
    coarsest level always has two voxels at least, since instance normalisation of a single one fails.

    Args:
        network: From (N, C, X, Y, Z) to logits (N, classes, X, Y, Z), or to these and a dict of attention maps
            (N, n_maps, X_l, Y_l, Z_l) by name; for sides that are multiples of `total_stride`.
        in_channels: Input channels.
        out_channels: Classes, background included.
        total_stride: Voxels of the image to one of its coarsest level.
        label: What messages call it.
    """

    def __init__(self, network: nn.Module, in_channels: int, out_channels: int, total_stride: int, label: str) -> None:
        super().__init__()
        self.network = network
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.total_stride = total_stride
        self.label = label
        _speed_up(network)

    def run(self, images: Tensor) -> NetworkOutput:
        """The whole output of a forward pass of images (N, C, X, Y, Z).

        Raises:
            InputError: The network returns something else than it should.
            ValueError: The images do not fit the network.
        """
        check_maps(f"images for {self.label}", images, self.in_channels, 3, "build with other in_channels")
        size = images.shape[2:]
        padded = pad_to(images, padded_size(size, [self.total_stride] * len(size)))
        answer = self.network(padded)
        logits, attention = answer if isinstance(answer, tuple) and len(answer) == 2 else (answer, {})
        levels = self._levels_of(logits)
        for level in levels:
            self._check_logits(level, (len(images), self.out_channels, *padded.shape[2:]))
        self._check_attention(attention, len(images))
        finest, *auxiliary = (crop_to(level, size) for level in levels)
        return NetworkOutput(finest, tuple(auxiliary), attention, padded.shape[2:])

    def _levels_of(self, logits: Any) -> Sequence[Any]:
        """Logits, then those of each auxiliary head, all of full size."""
        return [logits]

    def _check_logits(self, logits: Any, shape: tuple[int, ...]) -> None:
        if not isinstance(logits, Tensor):
            raise InputError(f"{self.label} returned {_kind_of(logits)} as logits, expected a tensor of shape {shape}")
        if tuple(logits.shape) != shape:
            raise InputError(f"{self.label} returned logits of shape {tuple(logits.shape)}, expected {shape}")

    def _check_attention(self, attention: Any, n_images: int) -> None:
        if not isinstance(attention, dict):
            raise InputError(f"{self.label} returned {_kind_of(attention)} as attention, expected a dict of tensors")
        for name, alpha in attention.items():
            if not isinstance(name, str) or not MAP_NAME.fullmatch(name):
                raise InputError(f"{self.label} named an attention map {name!r}, expected letters, digits, _ or -")
            if not isinstance(alpha, Tensor) or alpha.dim() != 5 or len(alpha) != n_images:
                got = f"shape {tuple(alpha.shape)}" if isinstance(alpha, Tensor) else _kind_of(alpha)
                raise InputError(
                    f"{self.label} returned attention {name!r} of {got}, expected ({n_images}, k, x, y, z)"
                )


class _DynUNet(PeerNetwork):
    """MONAI's DynUNet, which in training stacks the logits of all its heads as (N, heads, classes, X, Y, Z)."""

    def _levels_of(self, logits: Any) -> Sequence[Any]:
        return logits.unbind(1) if logits.dim() == 6 else [logits]


def build_peer(settings: PeerSettings, in_channels: int, out_channels: int) -> SegmentationNetwork:
    """The network that the settings name.

    Raises:
        InputError: The user's own network cannot be loaded or built.
    """
    kind, label = PeerNetwork, f"network {settings.name}"
    match settings:
        case MonaiAttentionUNetSettings():
            network = _build_monai_attention_unet(settings, in_channels, out_channels)
        case SegResNetSettings():
            network = _build_segresnet(settings, in_channels, out_channels)
        case DynUNetSettings():
            kind, network = _DynUNet, _build_dynunet(settings, in_channels, out_channels)
        case SwinUNETRSettings():
            network = _build_swin_unetr(settings, in_channels, out_channels)
        case OwnNetworkSettings():
            label = f"own network {settings.entry_point}"
            network = _build_own(settings, in_channels, out_channels)
    return kind(network, in_channels, out_channels, settings.total_stride, label)


def _build_monai_attention_unet(settings: MonaiAttentionUNetSettings, in_channels: int, out_channels: int) -> nn.Module:
    from monai.networks.nets.attentionunet import AttentionUnet

    strides = [2] * (len(settings.widths) - 1)
    return AttentionUnet(
        3,
        in_channels,
        out_channels,
        settings.widths,
        strides,
        kernel_size=settings.kernel_size,
        up_kernel_size=settings.up_kernel_size,
        dropout=settings.dropout,
    )


def _build_segresnet(settings: SegResNetSettings, in_channels: int, out_channels: int) -> nn.Module:
    from monai.networks.nets.segresnet import SegResNet

    return SegResNet(
        3,
        settings.init_filters,
        in_channels,
        out_channels,
        dropout_prob=settings.dropout or None,
        norm=_norm(settings.norm, [settings.init_filters]),
        blocks_down=settings.blocks_down,
        blocks_up=settings.blocks_up,
        upsample_mode=settings.upsample_mode,
    )


def _build_dynunet(settings: DynUNetSettings, in_channels: int, out_channels: int) -> nn.Module:
    from monai.networks.nets.dynunet import DynUNet

    return DynUNet(
        3,
        in_channels,
        out_channels,
        settings.kernel_sizes,
        settings.strides,
        settings.strides[1:],
        settings.widths,
        settings.dropout or None,
        norm_name=_norm(settings.norm, settings.widths),
        deep_supervision=settings.deep_supervision_heads > 0,
        deep_supr_num=max(1, settings.deep_supervision_heads),
        res_block=settings.res_block,
    )


def _build_swin_unetr(settings: SwinUNETRSettings, in_channels: int, out_channels: int) -> nn.Module:
    from monai.networks.nets.swin_unetr import SwinUNETR

    return SwinUNETR(
        in_channels,
        out_channels,
        depths=settings.depths,
        num_heads=settings.num_heads,
        window_size=settings.window_size,
        feature_size=settings.feature_size,
        # The published network's instance normalisation has no scale and shift.
        norm_name="instance" if settings.norm == "instance" else _norm(settings.norm, [settings.feature_size]),
        drop_rate=settings.drop_rate,
        attn_drop_rate=settings.attn_drop_rate,
        dropout_path_rate=settings.dropout_path_rate,
        use_v2=settings.use_v2,
    )


def _norm(kind: str, widths: Sequence[int]) -> tuple[str, dict[str, Any]]:
    """MONAI's name of a normalisation; groups are as many as divide all widths, `N_GROUPS` at most."""
    match kind:
        case "group":
            return "group", {"num_groups": math.gcd(N_GROUPS, *widths)}
        case "instance":
            return "instance", {"affine": True}
        case _:
            return kind, {}


def _build_own(settings: OwnNetworkSettings, in_channels: int, out_channels: int) -> nn.Module:
    """The network of an entry point, called as f(in_channels=, out_channels=, **arguments)."""
    label = f"own network {settings.entry_point}"
    point = _find_own(settings.entry_point)
    try:
        build = point.load()
    except Exception as error:
        raise InputError(f"{label}: {point.value} cannot be imported ({type(error).__name__}: {error})") from error
    given = {"in_channels": in_channels, "out_channels": out_channels, **(settings.arguments or {})}
    try:
        network = build(**given)
    except Exception as error:
        raise InputError(f"{label}: {point.value} fails with {given} ({type(error).__name__}: {error})") from error
    if not isinstance(network, nn.Module):
        raise InputError(f"{label}: {point.value} returned {_kind_of(network)}, expected a torch.nn.Module")
    return network


def _find_own(name: str) -> EntryPoint:
    """The first entry point of that name; the settings have checked that there is one."""
    return next(iter(entry_points(group=OWN_NETWORKS, name=name)))


def _speed_up(network: nn.Module) -> None:
    """Make plain 3D convolutions ours, which are the same to rounding and no slower (see `Conv3d`)."""
    for layer in network.modules():
        if type(layer) is nn.Conv3d:
            layer.__class__ = Conv3d


def _kind_of(value: object) -> str:
    return f"a {type(value).__name__}"
