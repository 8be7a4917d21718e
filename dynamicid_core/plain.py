"""Values that somebody else wrote as text: JSON with bounds, strictly into frozen dataclasses; text fit for one line.

What comes from a file is what its writer wanted it to be: nested as deeply as a parser's stack, a text where a number
belongs, a name with a line break. Each reader says what it expects by a dataclass's types, and gets that or an error.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import reprlib
import types
from collections.abc import Mapping
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from .types import DynamicIDError

LONGEST = 200  # characters of a text that is shown
DEEPEST = 100  # lists and objects within one another in JSON; how many a parser's stack holds differs between Pythons
_STRING_OR_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[{]|[\]}]', re.DOTALL)
_DEEPER = {"[": 1, "{": 1, "]": -1, "}": -1}
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def one_line(text: str, longest: int = LONGEST) -> str:
    """A text from elsewhere as it may be shown: printable, on one line, cut off after ``longest`` characters.

    Control characters (line breaks, what terminals obey) and what no encoding can write become spaces.
    """
    kept = "".join(letter if letter.isprintable() else " " for letter in text[: 2 * longest])
    line = " ".join(kept.split())
    return line if len(line) <= longest else line[: longest - 3] + "..."


def shown(value: Any) -> str:
    """A value from elsewhere, however large or deep, as a message names it."""
    return one_line(reprlib.repr(value), 60)


def parse_json(text: str) -> Any:
    """The values of a JSON text. Raises DynamicIDError that ends a sentence, for what is none, and what is nested too deeply."""

    def refuse(name: str) -> NoReturn:
        raise DynamicIDError(f"{name} is no number")

    depth = 0
    for found in _STRING_OR_BRACKET.finditer(text):
        depth += _DEEPER.get(found[0], 0)
        if depth > DEEPEST:
            raise DynamicIDError("it is nested too deeply")
    try:
        return json.loads(text, parse_constant=refuse)
    except DynamicIDError:
        raise
    except ValueError as error:
        raise DynamicIDError(f"it is no JSON: {one_line(str(error))}") from error


def build(kind: Any, value: Any, name: str) -> Any:
    """``value``, of plain JSON, as ``kind``: a frozen dataclass, ``tuple``, ``dict[str, ...]``, ``X | None``, ``Literal``,
    a plain type or ``Any``; ``name``: what an error calls it, "" for what is read as a whole.

    Nothing is guessed: a number is no text, true no number. Lists become tuples; numbers are finite. Raises DynamicIDError
    for values of another type, for names that the dataclass does not have, and for those that it needs; besides what the
    dataclass itself refuses.
    """
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value, name)
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        rest = [one for one in inner if one is not type(None)]
        return None if value is None and len(rest) < len(inner) else build(rest[0], value, name)
    if origin is Literal:
        if value not in inner or type(value) not in map(type, inner):
            raise _wrong(name, value, f"one of {', '.join(map(str, inner))}")
        return value
    if origin is tuple:
        return _build_tuple(inner, value, name)
    if origin is dict:
        entries = _mapping(value, name)
        return {key: build(inner[1], item, _inside(name, one_line(key, 40))) for key, item in entries.items()}
    return _plain(kind, value, name)


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise _wrong(name, value, "a set of names and values")
    return value


def _build_dataclass(kind: Any, value: Any, name: str) -> Any:
    values, hints, fields = _mapping(value, name), get_type_hints(kind), dataclasses.fields(kind)
    if unknown := sorted(values.keys() - {field.name for field in fields}):
        raise DynamicIDError(f"{name or 'it'} has {one_line(unknown[0], 40)!r}, which means nothing here")
    for field in fields:
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if needed and field.name not in values:
            raise DynamicIDError(f"{name or 'it'} lacks {field.name}")
    return kind(**{key: build(hints[key], item, _inside(name, key)) for key, item in values.items()})


def _inside(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _build_tuple(kinds: tuple[Any, ...], value: Any, name: str) -> tuple[Any, ...]:
    any_length = len(kinds) == 2 and kinds[1] is Ellipsis
    if not isinstance(value, (list, tuple)):
        raise _wrong(name, value, "a list")
    if not any_length and len(value) != len(kinds):
        raise _wrong(name, value, f"a list of {len(kinds)}")
    each = kinds[:1] * len(value) if any_length else kinds
    return tuple(build(one, item, f"{name}[{i}]") for i, (one, item) in enumerate(zip(each, value, strict=True)))


def _plain(kind: Any, value: Any, name: str) -> Any:
    if kind is float and type(value) is int:
        try:
            value = float(value)
        except OverflowError:
            raise _wrong(name, value, _KINDS[float]) from None
    broken = (kind is float and not math.isfinite(value)) if type(value) is kind else True
    if broken or (kind is str and any("\ud800" <= letter <= "\udfff" for letter in value)):  # halves of characters
        raise _wrong(name, value, _KINDS[kind])
    return value


def _wrong(name: str, value: Any, wanted: str) -> DynamicIDError:
    return DynamicIDError(f"{name or 'it'} is {shown(value)}; it must be {wanted}")
