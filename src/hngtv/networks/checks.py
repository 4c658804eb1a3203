"""Checks that our networks share; each message says what was got, what is allowed and what to do."""

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any, TypeGuard

from torch import Tensor


def check_choice(name: str, got: object, allowed: Sequence[object], fix: str = "choose one") -> None:
    """Raise ValueError unless `got` is one of those allowed."""
    if got not in allowed:
        raise ValueError(f"{name}: got {got!r}, allowed are {', '.join(map(str, allowed))}: {fix}")


def check_count(name: str, got: object, least: int, fix: str) -> None:
    """Raise ValueError unless `got` is a whole number of `least` or more."""
    if not _is_count(got, least):
        kind = "" if _is_whole(got) else "whole numbers, "
        raise ValueError(f"{name}: got {got!r}, allowed are {kind}{least} and more: {fix}")


def widths_of(widths: object) -> tuple[int, ...]:
    """Channels of each level, as a tuple.

    Raises:
        ValueError: They are no sequence of whole numbers of 1 or more.
    """
    if isinstance(widths, str) or not isinstance(widths, Iterable):
        raise ValueError(
            f"widths: got {widths!r}, allowed are whole numbers, one for each level: give such as (16, 32)"
        )
    checked = tuple(widths)
    for level, width in enumerate(checked):
        check_count(f"widths[{level}]", width, 1, "give the channels of each level")
    return checked


def step_of(stride: object, spatial_dims: int) -> tuple[int, ...] | None:
    """A stride along each axis, from one number for all or one for each; None if it is neither, or one is below 1."""
    numbers: tuple[Any, ...] = tuple(stride) if isinstance(stride, Iterable) else (stride,) * spatial_dims
    return numbers if len(numbers) == spatial_dims and all(_is_count(number, 1) for number in numbers) else None


def check_maps(kind: str, maps: Tensor, n_channels: int, spatial_dims: int, fix: str) -> None:
    """Raise ValueError unless maps are (N, n_channels, X, Y[, Z]) with sides of 1 and more."""
    got = f"got {kind} of shape {tuple(maps.shape)}"
    if maps.dim() != spatial_dims + 2 or maps.shape[1] != n_channels:
        axes = ("X, Y", "X, Y, Z")[spatial_dims - 2]
        raise ValueError(f"{got}, expected (N, {n_channels}, {axes}): reshape them, or {fix}")
    if min(maps.shape) < 1:
        raise ValueError(f"{got}, allowed are sides of 1 and more: leave empty images out")


def _is_whole(value: object) -> TypeGuard[Integral]:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_count(value: object, least: int) -> bool:
    return _is_whole(value) and int(value) >= least
