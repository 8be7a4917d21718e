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


def _stub_of_the_host() -> dict[str, ModuleType]:
    io = SimpleNamespace(
        ComfyNode=object,
        Custom=lambda name: SimpleNamespace(name=name),
        NodeOutput=lambda *values, ui=None: values,
    )
    latest = ModuleType("comfy_api.latest")
    latest.io = io
    return {"comfy_api": ModuleType("comfy_api"), "comfy_api.latest": latest}


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
            if name.startswith((PACK, "comfy_api")):
                del sys.modules[name]
        sys.modules |= {name: module for name, module in before.items() if name.startswith("comfy_api")}
