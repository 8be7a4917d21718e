"""Who appears where."""

from __future__ import annotations

from comfy_api.latest import io

from ..dynamicid_core import placing
from ..dynamicid_core.layouts import LAYOUTS, arranged, parse_boxes
from ..dynamicid_core.outlines import outlined, parse_outlines
from ..dynamicid_core.types import Cast as CastValue
from ..dynamicid_core.types import DynamicIDError
from .boxes import cells, check, to_frames
from .hints import hinted
from .sockets import CATEGORY, Cast, Face, growing_faces, in_order

MAX_SIZE = 16384


def weight_input() -> io.Float.Input:
    return io.Float.Input(
        "weight", default=1.0, min=-1.0, max=5.0, step=0.05, tooltip="How strongly this person's identity acts."
    )


def canvas_inputs() -> list[io.Int.Input]:
    """The canvas that boxes' pixels refer to."""
    texts = {
        "width": "For bboxes alone: width of the canvas that they refer to.",
        "height": "For bboxes alone: height of that canvas.",
    }
    how = {"default": 1024, "min": 8, "max": MAX_SIZE, "advanced": True}
    return [io.Int.Input(name, tooltip=text, **how) for name, text in texts.items()]


def check_boxes(bboxes: object) -> bool | str:
    """A node's ``validate_inputs``: boxes of a script; what a node will give is not known yet."""
    try:
        check(bboxes)
    except DynamicIDError as error:
        return str(error)
    return True


class DynamicIDPlaceFace(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynamicIDPlaceFace",
            display_name="Place Face",
            category=CATEGORY,
            description="Adds a person to the cast: where you draw, where a mask says, or where others leave room.",
            search_aliases=["face mask", "paint region", "assign person", "regional face", "cast", "character"],
            inputs=[
                Face.Input("face", tooltip="Who."),
                Cast.Input("cast", optional=True, tooltip="The people so far; leave empty for the first."),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where, as any soft mask of any size; where one is connected, outline does nothing.",
                ),
                weight_input(),
                io.String.Input(
                    "outline",
                    default="",
                    optional=True,
                    tooltip="Where, drawn by hand: points x,y as fractions of the picture, with ; between outlines. Drawing "
                    "below writes them. Empty: what others leave free.",
                ),
            ],
            outputs=[Cast.Output(display_name="cast")],
        )

    @classmethod
    def validate_inputs(cls, outline: str | None = None) -> bool | str:
        try:
            parse_outlines(outline or "")  # what another node will give is not known yet
        except DynamicIDError as error:
            return str(error)
        return True

    @classmethod
    @hinted
    def execute(
        cls, face, weight: float = 1.0, cast: CastValue | None = None, mask=None, outline: str = ""
    ) -> io.NodeOutput:
        from .pictures import to_mask

        region = outlined(outline) if mask is None else to_mask(mask)
        return io.NodeOutput(placing.place(cast, face, region, weight, any_shape=mask is None))


class DynamicIDPlaceFaces(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynamicIDPlaceFaces",
            display_name="Place Faces in Boxes",
            category=CATEGORY,
            description="Adds several people to the cast, each in a box: drawn here, arranged, or from another node.",
            search_aliases=["face boxes", "bounding boxes", "assign people", "regional faces", "group photo"],
            inputs=[
                growing_faces("One face for each box, in the same order."),
                io.BoundingBox.Input(
                    "bboxes",
                    force_input=True,
                    optional=True,
                    tooltip="Boxes of another node, in pixels; where they are connected, layout and drawn_boxes do nothing.",
                ),
                *canvas_inputs(),
                Cast.Input("cast", optional=True, tooltip="People placed before."),
                weight_input(),
                io.Combo.Input(
                    "layout",
                    options=list(LAYOUTS),
                    default=LAYOUTS[0],
                    optional=True,
                    tooltip="Where people stand, without bboxes: arranged, or 'drawn' as in drawn_boxes.",
                ),
                io.String.Input(
                    "drawn_boxes",
                    default="",
                    optional=True,
                    tooltip="One box for each person: left,top,right,bottom as fractions of the picture, with ; between boxes. "
                    "Drawing below writes them.",
                ),
            ],
            outputs=[Cast.Output(display_name="cast")],
        )

    @classmethod
    def validate_inputs(cls, bboxes=None, faces=None) -> bool | str:  # the host gives growing lists in any case
        return check_boxes(bboxes)

    @classmethod
    @hinted
    def execute(
        cls,
        faces: io.Autogrow.Type,
        bboxes=None,
        width: int = 1024,
        height: int = 1024,
        weight: float = 1.0,
        cast=None,
        layout: str = LAYOUTS[0],
        drawn_boxes: str = "",
    ) -> io.NodeOutput:
        people, canvas = in_order(faces), None
        if bboxes is not None:
            frames, canvas = to_frames(bboxes, width, height), (height, width)
        else:
            frames = [parse_boxes(drawn_boxes) if layout == LAYOUTS[-1] else arranged(layout, len(people))]
        return io.NodeOutput(placing.place_in_boxes(cast, people, frames, weight, cells(width, height), canvas))


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
                io.Latent.Input(
                    "latent",
                    optional=True,
                    tooltip="What is sampled, e.g. an empty latent image: the drawing gets its size, not width and height.",
                ),
            ],
            outputs=[io.Image.Output(display_name="image")],
        )

    @classmethod
    @hinted
    def execute(cls, cast: CastValue, width: int, height: int, image=None, latent=None) -> io.NodeOutput:
        from ..dynamicid_core.drawing import draw_cast, preview_size
        from .pictures import picture_size, preview_of, to_arrays, to_images

        if latent is not None:
            height, width = picture_size(latent)
        background = to_arrays(image[:1])[0] if image is not None else None
        drawn = to_images([draw_cast(cast, width, height, background)])
        shown = to_images([draw_cast(cast, *preview_size(width, height), background)])
        return io.NodeOutput(drawn, ui=preview_of(cls, shown))


NODES = [DynamicIDPlaceFace, DynamicIDPlaceFaces, DynamicIDPreviewCast]
