"""What all tests share: this tree's core, scripts and devtools are those under test, and the root is no package."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOM = 20 * 2**30  # bytes of memory that two processes of tests want: at the highest point one holds 11 GB, the other 5


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


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two processes for whole folders of tests, where there is room; else none."""
    whole = all((config.invocation_params.dir / argument).is_dir() for argument in config.args)
    return 2 if whole and (os.cpu_count() or 1) > 1 and psutil.virtual_memory().total > ROOM else 0


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What shares a process: with tests in ComfyUI, those in the process apart from all others, the server's among them;
    without, the tests of a file. The published UNet takes gigabytes: its tests come first, and one after another."""
    heavy = {item for item in items if {"full_unet", "unet"} & set(getattr(item, "fixturenames", ()))}
    items.sort(key=lambda item: item not in heavy)
    folder = [item.path.relative_to(ROOT / "tests").parts[0] for item in items]
    for item, where in zip(items, folder, strict=True):
        in_process = where == "host" and "server" not in getattr(item, "fixturenames", ())
        group = "here" if in_process or item in heavy else "elsewhere" if "host" in folder else item.path.name
        item.add_marker(pytest.mark.xdist_group(group))


_load_core()
_find_tools()
