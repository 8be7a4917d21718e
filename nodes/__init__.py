"""ComfyUI's nodes: schemas only. A node validates, clones, makes one core call and returns."""

from __future__ import annotations

import logging
import os
import re

LOWEST_HOST = (0, 16, 0)  # Autogrow, BoundingBox with force_input, NodeReplace, search aliases
WEB_DIRECTORY = os.path.join(os.path.dirname(os.path.dirname(__file__)), "web")


def too_old() -> str | None:
    """A sentence for a host that is too old to load the pack, else None."""
    try:
        from comfyui_version import __version__ as version
    except ImportError:
        version = "0.0.0"
    numbers = tuple(map(int, re.findall(r"\d+", version)[:3]))
    if numbers >= LOWEST_HOST:
        return None
    needed = ".".join(map(str, LOWEST_HOST))
    return (
        f"DynamicID needs ComfyUI {needed} or newer, but this is {version}. Update ComfyUI; its nodes are left out now."
    )


async def comfy_entrypoint():
    """The host's entry: the extension with all nodes."""
    from .extension import DynamicIDExtension

    return DynamicIDExtension()


_message = too_old()
# None: loaded by comfy_entrypoint. An empty dictionary tells the host that the pack brings no nodes.
NODE_CLASS_MAPPINGS: dict | None = {} if _message else None
if _message:
    logging.error(_message)
