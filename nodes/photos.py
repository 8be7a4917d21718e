"""Photos of several people to a cast, in one node: encoded, named and placed."""

from __future__ import annotations

from comfy_api.latest import io

from ..dynamicid_core.casting import PLACES, Places, encode_people, place_people
from ..dynamicid_core.faces import ON_NO_FACE, ORDERS
from ..dynamicid_core.groups import GROUP_CROP_FACTOR, PLACE_FACTOR, GroupOptions, encode_group
from ..dynamicid_core.layouts import LAYOUTS
from ..dynamicid_core.remembering import PhotoMemory
from ..dynamicid_core.types import DynamicIDError, Region
from .boxes import cells, to_frames
from .cast import MAX_SIZE, canvas_inputs, check_boxes, weight_input
from .hints import hinted
from .previews import sent_again
from .progress import steps, warn
from .sockets import CATEGORY, Cast, DynamicID, Face, FaceAnalysis, in_order, with_numbers

MEMORY = PhotoMemory()  # of this process: the host remembers a node's outputs, not what it did with each photo


def encoder_inputs() -> list[io.Input]:
    """What encoding photos needs."""
    return [
        DynamicID.Input("dynamicid", tooltip="From Load DynamicID."),
        io.ClipVision.Input("clip_vision", tooltip="CLIP-ViT-H-14-laion2B-s32B-b79K, from Load CLIP Vision."),
        FaceAnalysis.Input("face_analysis", tooltip="From Load Face Analysis."),
    ]


def crop_factor_input(default: float, tooltip: str) -> io.Float.Input:
    return io.Float.Input("crop_factor", default=default, min=0.0, max=10.0, step=0.1, tooltip=tooltip)


def growing(name: str, item: io.Input, least: int, tooltip: str, **more) -> io.Autogrow.Input:
    """A list with a slot for each person: ``photo0``, ``photo1``, ...; another appears when the last is used."""
    return io.Autogrow.Input(
        name, template=io.Autogrow.TemplatePrefix(item, item.id, min=least, max=32), tooltip=tooltip, **more
    )


class DynamicIDCast(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        photo = io.MultiType.Input("photo", [io.Image, Face], tooltip="One person: a photo, several photos, or a face.")
        mask = io.Mask.Input("mask", tooltip="Where that person may be, as any soft mask of any size.")
        return io.Schema(
            node_id="DynamicIDCast",
            display_name="Cast from Photos",
            category=CATEGORY,
            description="Who appears where, from photos in one step: each person encoded, named and placed.",
            search_aliases=["several people", "two people", "multiple faces", "couple", "photos to cast", "all in one"],
            is_input_list=True,
            **sent_again(),
            inputs=[
                *encoder_inputs(),
                growing(
                    "photos", photo, 1, "One slot for each person. A batch or a list is several photos of that person."
                ),
                io.String.Input(
                    "names",
                    default="",
                    multiline=True,
                    tooltip="The people's names, in the order of their photos, with commas or line breaks between them.",
                ),
                io.Combo.Input(
                    "layout",
                    options=list(PLACES),
                    default=LAYOUTS[0],
                    tooltip="Where people stand: arranged, 'drawn' as in drawn_boxes, or 'free', which gives nobody a place.",
                ),
                io.String.Input(
                    "drawn_boxes",
                    default="",
                    tooltip="One box for each person: left,top,right,bottom as fractions of the picture, with ; between boxes. "
                    "Drawing below writes them. Whoever has none takes what others leave free.",
                ),
                io.String.Input(
                    "weights",
                    default="1",
                    advanced=True,
                    tooltip="How strongly identities act: one number for all, or one for each person, such as '1, 0.8'.",
                ),
                crop_factor_input(
                    0.0,
                    "0: the whole photo, as published. For photos of more than one person about 2: a square of twice the face.",
                ),
                io.Combo.Input(
                    "on_no_face",
                    options=list(ON_NO_FACE),
                    default="error",
                    advanced=True,
                    tooltip="A photo without a face: stop, take its appearance only, or leave it out of a person's photos.",
                ),
                io.BoundingBox.Input(
                    "bboxes",
                    force_input=True,
                    optional=True,
                    tooltip="Boxes of another node, in pixels; where they are connected, layout and drawn_boxes do nothing.",
                ),
                *canvas_inputs(),
                growing("masks", mask, 0, "Masks by person: a person's mask comes before any box.", optional=True),
                Cast.Input("cast", optional=True, tooltip="People placed before; those of this node come after them."),
                io.Latent.Input("latent", optional=True, tooltip="What is sampled: the preview gets its shape."),
            ],
            outputs=[Cast.Output(display_name="cast"), io.Image.Output(display_name="preview")],
        )

    @classmethod
    def validate_inputs(
        cls, bboxes=None, photos=None, masks=None
    ) -> bool | str:  # the host gives growing lists in any case
        return check_boxes(bboxes[0] if bboxes else None)

    @classmethod
    @hinted
    def execute(
        cls, dynamicid, clip_vision, face_analysis, photos: io.Autogrow.Type, masks=None, **given
    ) -> io.NodeOutput:
        from ..dynamicid_core.hosts import comfy as host
        from ..dynamicid_core.previews import draw_people
        from .pictures import picture_size, preview_of, to_images

        dynamicid, clip_vision, detector = dynamicid[0], clip_vision[0], face_analysis[0]
        one = {name: values[0] for name, values in given.items() if values and name != "names"}
        encoded = encode_people(
            people_of(in_order(photos)),
            MEMORY.watching(detector),
            host.ClipVision(clip_vision, dynamicid.saa.origin),
            dynamicid.token_encoder,
            names="\n".join(given.get("names", ())),
            crop_factor=one["crop_factor"],
            on_no_face=one["on_no_face"],
            progress=steps,
            encode=MEMORY.encode,
            before=len(one["cast"].people) if one.get("cast") else 0,
        )
        if encoded.messages:
            warn("\n".join(encoded.messages))
        placed = place_people(one.get("cast"), encoded.faces, places_of(one, masks or {}), one["weights"])
        height, width = picture_size(one["latent"]) if one.get("latent") else (one["height"], one["width"])
        drawn = to_images(draw_people(encoded, placed, width, height))
        return io.NodeOutput(placed, drawn, ui=preview_of(cls, drawn))


def people_of(slots: list[list]) -> list:
    """What the slots of a growing list hold -> people, each a face or their photos: a list of faces is so many people."""
    from ..dynamicid_core.types import Face as FaceValue
    from .pictures import to_arrays

    people: list = []
    for values in slots:
        people += [value for value in values if isinstance(value, FaceValue)]
        batches = [value for value in values if not isinstance(value, FaceValue)]
        if photos := [photo for batch in batches for photo in to_arrays(batch)]:
            people.append(photos)
    return people


def places_of(one: dict, masks: dict[str, list]) -> Places:
    """Where people stand, out of the node's inputs."""
    from .pictures import to_mask

    width, height, bboxes = one["width"], one["height"], one.get("bboxes")
    return Places(
        one["layout"],
        one["drawn_boxes"],
        None if bboxes is None else to_frames(bboxes, width, height),
        cells(width, height),
        None if bboxes is None else (height, width),
        {number: to_mask(values[0]) for number, values in with_numbers(masks).items()},
    )


def corners(region: Region | None) -> tuple[float, ...] | None:
    """Left, top, right and bottom of a person's box, as the page draws it; None for somebody without a place."""
    if region is None:
        return None
    y0, x0, y1, x1 = region.box
    return x0, y0, x1, y1


class DynamicIDEncodeGroup(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynamicIDEncodeGroup",
            display_name="Encode Group Photo",
            category=CATEGORY,
            description="Everybody in one photo: a cast whose people stand where the photo shows them, with their names.",
            search_aliases=["group photo", "all faces", "family photo", "several faces", "multiple people", "team"],
            **sent_again(),
            inputs=[
                *encoder_inputs(),
                io.Image.Input("image", tooltip="One photo of several people."),
                io.String.Input(
                    "names",
                    default="",
                    multiline=True,
                    tooltip="The people's names, a line for each, in the order of face_order; - leaves a face out.",
                ),
                io.Combo.Input(
                    "face_order",
                    options=list(ORDERS),
                    default="left-right",
                    tooltip="In which order people are numbered and named.",
                ),
                crop_factor_input(
                    GROUP_CROP_FACTOR,
                    "How much of the photo is encoded for each person, in sizes of the face; 0 is all of it for everybody.",
                ),
                io.Float.Input(
                    "place_factor",
                    default=PLACE_FACTOR,
                    min=1.0,
                    max=10.0,
                    step=0.1,
                    tooltip="How large each one's place is, in sizes of the face. Places never overlap.",
                ),
                io.Int.Input(
                    "smallest",
                    default=0,
                    min=0,
                    max=MAX_SIZE,
                    tooltip="Faces of less than so many pixels are left out, as those of people in the background.",
                ),
                weight_input(),
            ],
            outputs=[
                Face.Output(display_name="faces", is_output_list=True),
                Cast.Output(display_name="cast"),
                io.Image.Output(display_name="preview"),
            ],
        )

    @classmethod
    @hinted
    def execute(
        cls,
        dynamicid,
        clip_vision,
        face_analysis,
        image,
        names,
        face_order,
        crop_factor,
        place_factor,
        smallest,
        weight,
    ) -> io.NodeOutput:
        from ..dynamicid_core.hosts import comfy as host
        from ..dynamicid_core.previews import draw_group
        from .pictures import preview_of, to_arrays, to_images

        photo, *others = to_arrays(image)
        if others:
            raise DynamicIDError(
                f"There are {1 + len(others)} pictures where one group photo belongs. Give one of them."
            )
        encoded = encode_group(
            photo,
            MEMORY.watching(face_analysis),
            host.ClipVision(clip_vision, dynamicid.saa.origin),
            dynamicid.token_encoder,
            GroupOptions(names, face_order, smallest, crop_factor, place_factor, weight),
            MEMORY.encode,
        )
        if encoded.message:
            warn(encoded.message)
        drawn = to_images([draw_group(encoded)])
        places = [corners(person.region) for person in encoded.cast.people]
        shown = preview_of(cls, drawn).as_dict() | {"places": places}  # which Place Face draws beside its own
        return io.NodeOutput(encoded.faces, encoded.cast, drawn, ui=shown)


NODES = [DynamicIDCast, DynamicIDEncodeGroup]
