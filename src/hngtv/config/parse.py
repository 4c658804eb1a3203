"""From a plain tree of values to settings and back; each mistake is told with its key."""

import difflib
from dataclasses import fields, is_dataclass
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from hngtv.config.networks import NetworkSettings
from hngtv.config.values import Kind
from hngtv.errors import InputError

UNKNOWN_KEY = ("unexpected_keyword_argument", "extra_forbidden")
MISSING_KEY = ("missing", "missing_argument", "missing_keyword_only_argument")
EXPECTED = {
    "data.root": "expected a folder of cases or a cases.csv",
    "fold": "expected the number of a fold or all",
    "roi.jitter_mm": "expected a number of mm, 0 or more, or matched",
}
"""Own words where pydantic tells one mistake for each member of a union."""


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
