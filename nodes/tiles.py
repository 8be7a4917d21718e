"""Regions that follow the picture when other packs cut it."""

from __future__ import annotations

from comfy_api.latest import io

from .hints import hinted
from .sockets import CATEGORY


class DynamicIDTileRegions(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynamicIDTileRegions",
            display_name="Regions for Tiles",
            category=CATEGORY,
            description="Lets people keep their places where Ultimate SD Upscale samples a picture tile by tile.",
            search_aliases=["ultimate sd upscale", "tiled upscale", "tile regions", "hires fix", "regional upscale"],
            inputs=[
                io.Conditioning.Input(
                    "conditioning", tooltip="The positive prompt, last thing before the node that works in tiles."
                )
            ],
            outputs=[io.Conditioning.Output(display_name="conditioning")],
        )

    @classmethod
    @hinted
    def execute(cls, conditioning) -> io.NodeOutput:
        from ..dynamicid_core.hosts import comfy as host

        return io.NodeOutput(host.with_map(conditioning))


NODES = [DynamicIDTileRegions]
