"""Functions that a user names: ``module:function``, or ``path/to/file.py:function``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..types import DynamicIDError


def load_function(name: str, what: str) -> Callable[..., Any]:
    """The function of that name; ``what`` it is for goes into the DynamicIDError if it cannot be had.

    The current folder is searched too.
    """
    place, _, function = name.rpartition(":")
    if not place or not function:
        raise DynamicIDError(f"{what} {name!r} names no function; write module:function or file.py:function.")
    try:
        module = _from_file(Path(place)) if place.endswith(".py") else _from_module(place)
    except Exception as error:  # whatever a user's file raises while it is imported
        raise DynamicIDError(f"{what} {name} cannot be loaded ({type(error).__name__}: {error}).") from error
    found = getattr(module, function, None)
    if not callable(found):
        raise DynamicIDError(f"{what} {name}: there is no function {function} in {place}.")
    return found


def _from_module(name: str) -> Any:
    here = str(Path.cwd())
    if here in sys.path or "" in sys.path:
        return importlib.import_module(name)
    sys.path.append(here)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(here)  # or other programs' imports would find what lies there


def _from_file(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    name = f"dynamicid_named_{path.resolve().as_posix().replace('/', '_')}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # the name ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
