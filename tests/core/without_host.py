"""The pack's nodes without a host: as much of ComfyUI as they touch when they are imported and run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace

ROOT = Path(__file__).resolve().parents[2]
PACK = "pack_without_host"
STUBS = ("comfy_api", "folder_paths")


def _stub_of_the_host() -> dict[str, ModuleType]:
    io = SimpleNamespace(
        ComfyNode=object,
        Custom=lambda name: SimpleNamespace(name=name),
        NodeOutput=lambda *values, ui=None: values,
    )
    latest = ModuleType("comfy_api.latest")
    latest.io = io
    folders = ModuleType("folder_paths")
    folders.base_path, folders.models_dir = "/opt/comfy/ComfyUI", "/opt/comfy/ComfyUI/models"
    for kind in ("input", "output", "temp"):
        setattr(folders, f"get_{kind}_directory", lambda kind=kind: f"/opt/comfy/ComfyUI/{kind}")
    folders.folder_names_and_paths = {
        "dynamicid": (["/opt/comfy/ComfyUI/models/dynamicid", "/big/weights"], set()),
        "custom_nodes": (["/opt/comfy/ComfyUI/custom_nodes"], set()),
    }
    return {"comfy_api": ModuleType("comfy_api"), "comfy_api.latest": latest, "folder_paths": folders}


@contextmanager
def nodes_pack(**replaced: object) -> Iterator[ModuleType]:
    """The pack as a package with its own copy of the core; yields a function that imports one of its modules.

    ``replaced``: modules of the pack that only run inside a host, by their path with ``__`` between the parts, and what
    takes their place.
    """
    pack = ModuleType(PACK)
    pack.__path__ = [str(ROOT)]
    before = dict(sys.modules)
    sys.modules |= {PACK: pack, **_stub_of_the_host()}
    sys.modules |= {f"{PACK}.{name.replace('__', '.')}": module for name, module in replaced.items()}
    try:
        yield lambda name: import_module(f"{PACK}.{name}")
    finally:
        for name in set(sys.modules) - set(before):
            if name.startswith((PACK, *STUBS)):
                del sys.modules[name]
        sys.modules |= {name: module for name, module in before.items() if name.startswith(STUBS)}
