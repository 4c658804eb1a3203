"""What every settings group is made of: value types, and the decorator that checks them."""

from typing import Annotated, Literal, TypeVar, dataclass_transform

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as pydantic_dataclass

STRICT = ConfigDict(extra="forbid")

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Triple = tuple[Positive, Positive, Positive]
Size = tuple[Count, Count, Count]
KernelSize = Literal[1, 3, 5, 7]
DropRate = Annotated[float, Field(ge=0, lt=1)]
Interval = tuple[float, float]
Level = Literal["fine", "coarse"]
"""A grid of the prepared cases."""
OnEmpty = Literal["pet_rule", "whole_volume", "fail"]
"""What a localiser that found nothing does."""

Kind = TypeVar("Kind")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def settings_group(kind: type[Kind]) -> type[Kind]:
    """A frozen dataclass that checks its values and takes no unknown key."""
    return pydantic_dataclass(kind, config=STRICT, frozen=True, kw_only=True)  # pyright: ignore[reportReturnType]
