"""The list of nodes, for the host."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import animate, apply, cast, drawn, faces, load, motion, photos, refine, score, segs, tiles
from .folders import register_folders
from .world import fill_empty_models


class DynamicIDExtension(ComfyExtension):
    async def on_load(self) -> None:
        register_folders()
        fill_empty_models()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        parts = (load, faces, photos, motion, animate, cast, apply, score, refine, segs, tiles, drawn)
        return [node for part in parts for node in part.NODES]
