"""Photos to faces, and faces to files and back."""

from __future__ import annotations

import dataclasses
import os

from comfy_api.latest import io

from ..dynamicid_core.face_files import load_face, save_face
from ..dynamicid_core.faces import ON_NO_FACE, ORDERS
from ..dynamicid_core.names import LONGEST_NAME
from ..dynamicid_core.plain import one_line
from ..dynamicid_core.types import DynamicIDError
from .folders import face_files, face_path, new_face_path
from .hints import hinted
from .previews import sent_again
from .progress import steps, warn
from .sockets import CATEGORY, DynamicID, Face, FaceAnalysis


class DynamicIDEncodeFace(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynamicIDEncodeFace",
            display_name="Encode Face",
            category=CATEGORY,
            description="One person's face, from one photo or several. The preview numbers the faces it found.",
            search_aliases=[
                "face id",
                "encode identity",
                "reference face",
                "faceid embeds",
                "same person",
                "portrait",
                "character",
                "consistent character",
            ],
            **sent_again(),
            inputs=[
                DynamicID.Input("dynamicid", tooltip="From Load DynamicID."),
                io.ClipVision.Input("clip_vision", tooltip="CLIP-ViT-H-14-laion2B-s32B-b79K, from Load CLIP Vision."),
                io.Image.Input(
                    "image", tooltip="A photo; a batch is several photos of the same person, which are averaged."
                ),
                FaceAnalysis.Input(
                    "face_analysis",
                    optional=True,
                    tooltip="From Load Face Analysis. Without it only the appearance is taken, if on_no_face allows.",
                ),
                io.Combo.Input(
                    "face_order",
                    options=list(ORDERS),
                    default="large-small",
                    tooltip="How the faces of a group photo are numbered; see the preview.",
                ),
                io.Int.Input(
                    "face_index", default=0, min=0, max=99, tooltip="Which face, by its number in the preview."
                ),
                io.Float.Input(
                    "crop_factor",
                    default=0.0,
                    min=0.0,
                    max=10.0,
                    step=0.1,
                    tooltip="0: the whole photo, as published. For group photos about 2: a square of twice the face.",
                ),
                io.Combo.Input(
                    "combine",
                    options=["average"],
                    default="average",
                    advanced=True,
                    tooltip="How several photos become one face.",
                ),
                io.Combo.Input(
                    "on_no_face",
                    options=list(ON_NO_FACE),
                    default="error",
                    tooltip="A photo without a face: stop, take its appearance only, or leave it out of the batch.",
                ),
                io.String.Input(
                    "name", default="", optional=True, tooltip="The person's name, for previews, reports and messages."
                ),
            ],
            outputs=[Face.Output(display_name="face"), io.Image.Output(display_name="preview")],
        )

    @classmethod
    @hinted
    def execute(
        cls,
        dynamicid,
        clip_vision,
        image,
        face_order,
        face_index,
        crop_factor,
        combine,
        on_no_face,
        face_analysis=None,
        name: str = "",
    ) -> io.NodeOutput:
        from ..dynamicid_core.drawing import draw_encoded
        from ..dynamicid_core.encode import encode_photos
        from ..dynamicid_core.hosts import comfy as host
        from .pictures import preview_of, to_arrays, to_images

        encoded = encode_photos(
            to_arrays(image),
            face_analysis,
            host.ClipVision(clip_vision, dynamicid.saa.origin),
            dynamicid.token_encoder,
            order=face_order,
            index=face_index,
            crop_factor=crop_factor,
            on_no_face=on_no_face,
            name=one_line(name, LONGEST_NAME),
            progress=steps,
        )
        if encoded.message:
            warn(encoded.message)
        drawn = to_images(draw_encoded(encoded))
        return io.NodeOutput(encoded.face, drawn, ui=preview_of(cls, drawn))


class DynamicIDSaveFace(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynamicIDSaveFace",
            display_name="Save Face",
            category=CATEGORY,
            description="Writes a face file. It holds no photo, but it identifies a person: treat it like one.",
            search_aliases=["save identity", "export face", "face file"],
            is_output_node=True,
            inputs=[
                Face.Input("face", tooltip="The face to keep."),
                io.String.Input(
                    "filename_prefix",
                    default="dynamicid/face",
                    tooltip="Folder and name under the output folder; the name is used where there is no other.",
                ),
                io.String.Input(
                    "name", default="", optional=True, tooltip="The person's name, which the file gets and nodes show."
                ),
                io.Boolean.Input(
                    "portrait",
                    default=False,
                    optional=True,
                    tooltip="Keep a small portrait in the file, which Load Face shows. It is a photo of the person.",
                ),
            ],
        )

    @classmethod
    @hinted
    def execute(cls, face, filename_prefix: str, name: str = "", portrait: bool = False) -> io.NodeOutput:
        path, file, subfolder = new_face_path(filename_prefix, name)
        if portrait and face.thumbnail is None:
            warn("This face holds no portrait to keep: encode it from a photo in this graph.")
        save_face(path, face, portrait)
        shown = dataclasses.replace(face, name=os.path.splitext(file)[0])
        files = [{"filename": file, "subfolder": subfolder, "type": "output"}]
        return io.NodeOutput(ui={"files": files} | portrait_of(cls, shown).as_dict())


class DynamicIDLoadFace(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynamicIDLoadFace",
            display_name="Load Face",
            category=CATEGORY,
            description="Reads a face file, from the input folder or from what Save Face wrote.",
            search_aliases=["load identity", "import face", "face file"],
            **sent_again(),
            inputs=[
                io.Combo.Input(
                    "face_file",
                    options=face_files(),
                    tooltip="A face file in the input folder, or in the output folder (marked). Drop one onto the node to add it.",
                ),
            ],
            outputs=[Face.Output(display_name="face")],
        )

    @classmethod
    def validate_inputs(cls, face_file: str | None = None) -> bool | str:
        if face_file is None:
            return True
        try:
            found = os.path.isfile(face_path(face_file))
        except ValueError as error:  # a path that leaves the host's folders
            return str(error)
        return found or f"There is no face file {face_file!r}. Save one with Save Face, or drop one onto the node."

    @classmethod
    def fingerprint_inputs(cls, face_file: str) -> tuple[float, int]:
        status = os.stat(face_path(face_file))
        return status.st_mtime, status.st_size

    @classmethod
    @hinted
    def execute(cls, face_file: str) -> io.NodeOutput:
        if not face_file:
            raise DynamicIDError("Choose a face file.")
        face = load_face(face_path(face_file))
        return io.NodeOutput(face, ui=portrait_of(cls, face))


def portrait_of(cls, face):
    """A face's portrait and name, to be shown in the node."""
    from ..dynamicid_core.drawing import draw_portrait
    from .pictures import preview_of, to_images

    return preview_of(cls, to_images([draw_portrait(face)]))


NODES = [DynamicIDEncodeFace, DynamicIDSaveFace, DynamicIDLoadFace]
