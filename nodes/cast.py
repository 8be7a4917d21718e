"""Who appears where."""

from __future__ import annotations

from comfy_api.latest import io

from ..dynamicid_core import placing
from ..dynamicid_core.types import Cast as CastValue
from .boxes import cells, to_frames
from .hints import hinted
from .sockets import CATEGORY, Cast, Face, growing_faces, in_order

MAX_SIZE = 16384


def weight_input() -> io.Float.Input:
    return io.Float.Input(
        "weight", default=1.0, min=-1.0, max=5.0, step=0.05, tooltip="How strongly this person's identity acts."
    )


class DynamicIDPlaceFace(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynamicIDPlaceFace",
            display_name="Place Face",
            category=CATEGORY,
            description="Adds a person to the cast, in a painted region or where others leave room.",
            search_aliases=["face mask", "assign person", "regional face", "cast"],
            inputs=[
                Face.Input("face", tooltip="Who."),
                Cast.Input("cast", optional=True, tooltip="The people so far; leave empty for the first."),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where, as any soft mask of any size. Without one the person takes what others leave free.",
                ),
                weight_input(),
            ],
            outputs=[Cast.Output(display_name="cast")],
        )

    @classmethod
    @hinted
    def execute(cls, face, weight: float = 1.0, cast: CastValue | None = None, mask=None) -> io.NodeOutput:
        from .pictures import to_mask

        return io.NodeOutput(placing.place(cast, face, None if mask is None else to_mask(mask), weight))


class DynamicIDPlaceFaces(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynamicIDPlaceFaces",
            display_name="Place Faces in Boxes",
            category=CATEGORY,
            description="Adds several people to the cast: box 1 belongs to face 1, and so on.",
            search_aliases=["face boxes", "bounding boxes", "assign people", "regional faces"],
            inputs=[
                growing_faces("One face for each box, in the same order."),
                io.BoundingBox.Input(
                    "bboxes",
                    force_input=True,
                    tooltip="Boxes in pixels, e.g. from Create Bounding Boxes, where you draw them.",
                ),
                io.Int.Input(
                    "width", default=1024, min=8, max=MAX_SIZE, tooltip="Width of the canvas that the boxes refer to."
                ),
                io.Int.Input("height", default=1024, min=8, max=MAX_SIZE, tooltip="Height of that canvas."),
                Cast.Input("cast", optional=True, tooltip="People placed before."),
                weight_input(),
            ],
            outputs=[Cast.Output(display_name="cast")],
        )

    @classmethod
    @hinted
    def execute(
        cls, faces: io.Autogrow.Type, bboxes, width: int, height: int, weight: float = 1.0, cast=None
    ) -> io.NodeOutput:
        frames, grid = to_frames(bboxes, width, height), cells(width, height)
        return io.NodeOutput(placing.place_in_boxes(cast, in_order(faces), frames, weight, grid))


class DynamicIDPreviewCast(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynamicIDPreviewCast",
            display_name="Preview Cast",
            category=CATEGORY,
            description="Draws who appears where, before anything is sampled.",
            search_aliases=["preview regions", "show masks", "face layout"],
            is_output_node=True,
            inputs=[
                Cast.Input("cast", tooltip="The people to draw."),
                io.Int.Input("width", default=1024, min=16, max=MAX_SIZE, tooltip="Width of the drawing."),
                io.Int.Input("height", default=1024, min=16, max=MAX_SIZE, tooltip="Height of the drawing."),
                io.Image.Input("image", optional=True, tooltip="A picture to draw on, e.g. the finished one."),
            ],
            outputs=[io.Image.Output(display_name="image")],
        )

    @classmethod
    @hinted
    def execute(cls, cast: CastValue, width: int, height: int, image=None) -> io.NodeOutput:
        from ..dynamicid_core.drawing import draw_cast
        from .pictures import preview_of, to_arrays, to_images

        background = to_arrays(image)[0] if image is not None else None
        drawn = to_images([draw_cast(cast, width, height, background)])
        return io.NodeOutput(drawn, ui=preview_of(cls, drawn))


NODES = [DynamicIDPlaceFace, DynamicIDPlaceFaces, DynamicIDPreviewCast]
