"""What all tests share: this tree's core, scripts and devtools are those under test, and the root is no package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _load_core() -> None:
    """Make ``dynamicid_core`` of this tree importable, whatever is installed, without the root on ``sys.path``.

    On the path, the root would offer its folder ``nodes`` in the place of ComfyUI's module of that name.
    """
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
    folder = ROOT / "dynamicid_core"
    spec = importlib.util.spec_from_file_location(
        "dynamicid_core", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules["dynamicid_core"] = module
    spec.loader.exec_module(module)


def _find_tools() -> None:
    """``comfyui`` and the scripts, ``standins`` and the builders: last on the path, where their names hide nothing."""
    sys.path += [str(ROOT / folder) for folder in ("scripts", "devtools")]


class RootIsNoTestPackage:
    """Collects the root as a plain folder; pytest would import its ``__init__.py``, which is ComfyUI's entry."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collect_directory(self, path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        return pytest.Dir.from_parent(parent, path=path) if path == ROOT else None


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(RootIsNoTestPackage())


_load_core()
_find_tools()
