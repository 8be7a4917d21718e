"""Drawn people, in place of photos: every graph can be tried before any photo is at hand."""

from __future__ import annotations

from comfy_api.latest import io

from ..dynamicid_core import prompts
from .hints import hinted
from .previews import sent_again
from .sockets import CATEGORY


class DynamicIDDrawnPerson(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynamicIDDrawnPerson",
            display_name="Drawn Person",
            category=CATEGORY,
            description="A drawn person in place of a photo, to try a graph with. A seed is always the same person.",
            search_aliases=["example face", "sample photo", "cartoon portrait", "test image", "character", "group"],
            **sent_again(),
            inputs=[
                io.Int.Input(
                    "seed",
                    default=10000,
                    min=0,
                    max=999_999,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    tooltip="Who is drawn. The small example models never saw those from 10000 up.",
                ),
                io.Combo.Input(
                    "expression",
                    options=list(prompts.GRID_EXPRESSIONS),
                    default="neutral",
                    tooltip="What the face shows.",
                ),
                io.Combo.Input(
                    "pose", options=list(prompts.GRID_POSES), default="front view", tooltip="Where the head points."
                ),
                io.Int.Input(
                    "size", default=512, min=32, max=4096, step=8, tooltip="Width and height of the picture in pixels."
                ),
                io.Int.Input(
                    "people",
                    default=1,
                    min=1,
                    max=6,
                    optional=True,
                    tooltip="More than one is a group photo: the people of the next seeds beside the first; size is its height.",
                ),
            ],
            outputs=[io.Image.Output(display_name="image")],
        )

    @classmethod
    @hinted
    def execute(cls, seed: int, expression: str, pose: str, size: int, people: int = 1) -> io.NodeOutput:
        from ..dynamicid_core.datasets.labels import expression_of
        from ..dynamicid_core.drawn.make import group_photo, posed
        from .pictures import preview_of, to_images

        motion = posed(expression_of(expression), pose)
        drawn = to_images([group_photo(range(seed, seed + people), motion, size)])
        return io.NodeOutput(drawn, ui=preview_of(cls, drawn))


NODES = [DynamicIDDrawnPerson]
