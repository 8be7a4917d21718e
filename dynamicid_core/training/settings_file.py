"""Settings of training as a TOML file and as `section.name=value`: read strictly, and written as a template."""

from __future__ import annotations

import dataclasses
import difflib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from ..plain import shown
from ..types import DynamicIDError
from .settings import Settings

Tree = dict[str, Any]
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", Path: "a path"}


def load_settings(path: Path | None = None, changes: Sequence[str] = ()) -> Settings:
    """The settings of a file, with ``changes`` like ``"anchor.learning_rate=5e-5"``, the last of which count.

    Paths in the file are relative to it; those in ``changes`` to the current folder. A value of a change is written as
    in TOML; texts need no quotes. Raises DynamicIDError for names that do not exist, values of another type, and values
    that are not possible.
    """
    tree = {} if path is None else _resolved(Settings, _read(path), Path(path).parent)
    for change in changes:
        _change(tree, change)
    made: Settings = _build(Settings, tree, "")
    return made


def template() -> str:
    """A TOML file of everything that can be set, with its default and what it does."""
    return "\n".join(_template_lines(Settings(), "")).strip() + "\n"


def as_tree(settings: Any) -> Tree:
    """Settings as plain values (paths as texts), as JSON and the tables of experiment trackers take them."""
    return {
        name: as_tree(value) if dataclasses.is_dataclass(value) else str(value) if isinstance(value, Path) else value
        for name, value in ((field.name, getattr(settings, field.name)) for field in dataclasses.fields(settings))
    }


# --- Reading ------------------------------------------------------------------------------------------------------


def _parse(text: str) -> Tree:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text)


def _read(path: Path) -> Tree:
    try:
        return _parse(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DynamicIDError(f"There is no configuration {path}.") from None
    except RecursionError:
        raise DynamicIDError(f"The configuration {path} cannot be read (it is nested too deeply).") from None
    except (OSError, ValueError) as error:  # tomllib's own error is a ValueError, as that of a wrong encoding
        raise DynamicIDError(f"The configuration {path} cannot be read ({error}).") from None


def _change(tree: Tree, change: str) -> None:
    """Put one ``section.name=value`` into a tree."""
    name, equals, text = (part.strip() for part in change.partition("="))
    if not equals or not name:
        raise DynamicIDError(
            f"{change!r} sets nothing; write it as section.name=value, e.g. anchor.learning_rate=5e-5."
        )
    *sections, last = name.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise DynamicIDError(f"{name} does not exist: {section} is a value, not a section.")
    try:
        tree[last] = _parse(f"x = {text}")["x"]
    except (ValueError, RecursionError):
        tree[last] = text


def _resolved(kind: Any, tree: Tree, folder: Path) -> Tree:
    """The same with relative paths taken from ``folder``."""
    hints = get_type_hints(kind)
    changed = dict(tree)
    for name, value in tree.items():
        hint = hints.get(name)
        if isinstance(value, Mapping) and dataclasses.is_dataclass(hint):
            changed[name] = _resolved(hint, dict(value), folder)
        elif isinstance(value, str) and value and _plain(hint)[0] is Path:
            changed[name] = str(folder / Path(value).expanduser())
    return changed


def _plain(hint: Any) -> tuple[Any, bool]:
    """A type without its None, and whether None was possible."""
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    if get_origin(hint) is tuple or not kinds:
        return hint, False
    return kinds[0], True


def _build(kind: Any, tree: Any, section: str) -> Any:
    if not isinstance(tree, Mapping):
        raise DynamicIDError(f"{section[:-1]} is a section: write [{section[:-1]}] and its values below.")
    hints = get_type_hints(kind)
    for name in tree:
        if name not in hints:
            near = difflib.get_close_matches(name, hints, 1, 0.5) or _elsewhere(name)
            meant = f" Did you mean {near[0]}?" if near else f" There are {', '.join(sorted(hints))}."
            where = f"section [{section[:-1]}]" if section else "the configuration"
            raise DynamicIDError(f"{section}{name} does not exist in {where}.{meant}")
    values = {
        name: _build(hints[name], value, f"{section}{name}.")
        if dataclasses.is_dataclass(hints[name])
        else _value(hints[name], value, f"{section}{name}")
        for name, value in tree.items()
    }
    return kind(**values)


def _elsewhere(name: str) -> list[str]:
    """A setting of that name in a section, for those who forgot the section."""
    return [full for full, *_ in _all(Settings(), "") if full.endswith(f".{name}")][:1]


def _all(settings: Any, section: str) -> Iterator[tuple[str, Any, str]]:
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            yield from _all(value, f"{section}{field.name}.")
        else:
            yield f"{section}{field.name}", value, field.metadata["says"]


def _value(hint: Any, value: Any, name: str) -> Any:
    kind, optional = _plain(hint)
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise _wrong(name, value, f'a list, e.g. ["a", "b"] of {_KINDS[get_args(kind)[0]]} each')
        return tuple(_value(get_args(kind)[0], item, name) for item in value)
    if kind is Path:
        if not isinstance(value, str):
            raise _wrong(name, value, _KINDS[Path])
        if not value and not optional:
            raise DynamicIDError(f"{name} is empty; give a path.")
        return Path(value).expanduser() if value else None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise _wrong(name, value, _KINDS[kind])
    return value


def _wrong(name: str, value: Any, wanted: str) -> DynamicIDError:
    return DynamicIDError(f"{name} is {shown(value)}; it must be {wanted}.")


# --- Writing ------------------------------------------------------------------------------------------------------


def _template_lines(settings: Any, section: str) -> Iterator[str]:
    fields = dataclasses.fields(settings)
    for field in fields:
        value = getattr(settings, field.name)
        if not dataclasses.is_dataclass(value):
            line = f"{field.name} = {_written(value)}"
            choices = field.metadata["choices"]
            says = field.metadata["says"] + (f" ({', '.join(choices)})" if choices else "")
            yield f"{line:<34} # {says}"
    for field in fields:
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            name = f"{section}{field.name}"
            yield from ("", f"[{name}]  # {(type(value).__doc__ or '').rstrip('.')}")
            yield from _template_lines(value, f"{name}.")


def _written(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_written, value))}]"
    if value is None:
        return '""'
    return json.dumps(value.as_posix() if isinstance(value, Path) else value)
