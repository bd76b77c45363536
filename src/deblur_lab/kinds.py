"""What an annotation asks for: whether a plain value is of it, and how to say so in words."""

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from deblur_lab.ranges import Range

_NAMES: Mapping[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    NoneType: "null",
}


def kinds_of(target: Any) -> dict[str, Any]:  # noqa: ANN401 - a class or a function
    """What its signature asks for, by argument; nothing if that cannot be told."""
    try:
        return get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)
    except (AttributeError, NameError, TypeError):
        return {}


def problems(value: Any, kind: Any, key: str) -> list[str]:  # noqa: ANN401 - any plain value
    """What is wrong with a value, one line each that begins with the key of what is wrong.

    Args:
        value: plain: dicts, lists, strings, numbers, None; anything else counts as right.
        kind: an annotation; every `Range` in it, of items too, is looked at.
        key: of the value.
    """
    if not _fits(value, kind):
        return [f"{key}={shown(value)}: {name_of(kind)} is expected"]
    return [
        f"{place}={shown(item)}: {expected} is expected"
        for place, item, expected in _out_of_range(value, kind, key)
    ]


def shown(value: Any) -> str:  # noqa: ANN401
    """A value as it is typed."""
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)


def name_of(kind: Any) -> str:  # noqa: ANN401
    """What an annotation asks for, in words."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return name_of(parts[0])
    if origin in (Union, UnionType):
        # Of what a number may be as well (a Tensor, for AdamW), nothing can be typed.
        typeable = [part for part in parts if part in _NAMES or get_args(part) or _is_of_ours(part)]
        return " or ".join(dict.fromkeys(name_of(part) for part in typeable or parts))
    if origin is Literal:
        return f"one of {', '.join(map(shown, parts))}"
    if origin is tuple and parts[-1] is not Ellipsis:
        return f"[{', '.join(map(name_of, parts))}]"
    if parts:
        return f"[{name_of(parts[0])}, ...]"
    if inspect.isclass(kind) and kind not in _NAMES:
        return f"{kind.__name__} by _target_"
    return _NAMES.get(kind, str(kind))


def _is_of_ours(kind: Any) -> bool:  # noqa: ANN401
    return str(getattr(kind, "__module__", "")).startswith("deblur_lab.")


def _fits(value: Any, kind: Any) -> bool:  # noqa: ANN401
    """Whether a plain value is of the type that an annotation asks for; true where that cannot be told."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _fits(value, parts[0])
    if kind is Any:
        return True
    plain_dict = isinstance(value, dict) and "_target_" not in value
    if not plain_dict and not isinstance(value, str | int | float | list | None):
        return True  # an object, or what one will be built from
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is Literal:
        return any(value == part and type(value) is type(part) for part in parts)
    family = origin or kind
    if isinstance(value, list):
        # Constructors take a list for a tuple, which YAML does not have.
        if not (family is tuple or _is_a(list, family)):
            return False
        each = _parts_of_items(kind, len(value))
        return len(each) == len(value) and all(map(_fits, value, each))
    if parts and not plain_dict:
        return False
    if isinstance(value, str) and kind is Path:
        return True
    if isinstance(value, int) and not isinstance(value, bool) and kind is float:
        return True
    if isinstance(value, bool) and kind is int:
        return False
    return not inspect.isclass(family) or _is_a(type(value), family)


def _parts_of_items(kind: Any, count: int) -> list[Any]:  # noqa: ANN401
    """What each of so many items must be; as many as a tuple has if it says how many."""
    parts = get_args(kind)
    if get_origin(kind) is tuple and parts[-1] is not Ellipsis:
        return list(parts)
    return [parts[0] if parts else Any] * count


def _out_of_range(value: Any, kind: Any, key: str) -> Iterator[tuple[str, Any, Range]]:  # noqa: ANN401
    """The numbers in a value that fits which are outside of the annotation's ranges, with their keys."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        for extra in parts[1:]:
            if isinstance(extra, Range) and isinstance(value, int | float) and value not in extra:
                yield key, value, extra
        yield from _out_of_range(value, parts[0], key)
    elif origin in (Union, UnionType):
        yield from _out_of_range(value, next(part for part in parts if _fits(value, part)), key)
    elif isinstance(value, list) and parts:
        for number, (item, part) in enumerate(zip(value, _parts_of_items(kind, len(value)), strict=True)):
            yield from _out_of_range(item, part, f"{key}[{number}]")


def _is_a(kind: type, family: Any) -> bool:  # noqa: ANN401
    try:
        return issubclass(kind, family)
    except TypeError:  # no class; or a Protocol, which nothing plain is
        return False
