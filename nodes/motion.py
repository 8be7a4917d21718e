"""Give a face another expression, pose, or identity."""

from __future__ import annotations

from comfy_api.latest import io

from ..dynamicid_core import blending, prompts
from ..dynamicid_core.motion import MAX_STRENGTH, edit_face
from .hints import hinted
from .sockets import CATEGORY, DynamicID, Face, FaceAnalysis, growing_faces, in_order


def clip_input() -> io.Clip.Input:
    return io.Clip.Input(
        "clip", tooltip="The text encoder of the checkpoint (the published weights: of Stable Diffusion 1.5)."
    )


def source_input() -> io.String.Input:
    return io.String.Input(
        "source",
        default="",
        advanced=True,
        tooltip="What the photo shows. Empty: read from the photo's landmarks and pose.",
    )


class DynamicIDEditMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynamicIDEditMotion",
            display_name="Edit Expression and Pose",
            category=CATEGORY,
            description="The same person with another expression or head pose, before the picture is made.",
            search_aliases=["expression", "emotion", "head pose", "smile", "imr", "face expression editor"],
            inputs=[
                DynamicID.Input("dynamicid", tooltip="From Load DynamicID, with an imr_file."),
                Face.Input("face", tooltip="The face to edit; it must come from a photo in which a face was found."),
                clip_input(),
                io.String.Input(
                    "expression",
                    multiline=True,
                    default="a very surprised expression, front view",
                    tooltip="What the face shall show, e.g. 'a happy expression, front view' or "
                    "'the expression is angry, the face is slightly turned to the left'.",
                ),
                source_input(),
                io.Image.Input(
                    "pose_image",
                    optional=True,
                    tooltip="A photo of anybody whose expression and pose to take. Needs face_analysis.",
                ),
                FaceAnalysis.Input("face_analysis", optional=True, tooltip="Finds the face in pose_image."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=MAX_STRENGTH,
                    step=0.05,
                    tooltip="0: the photo's expression; 1: the edited one; more exaggerates.",
                ),
            ],
            outputs=[Face.Output(display_name="face")],
        )

    @classmethod
    @hinted
    def execute(
        cls, dynamicid, face, clip, expression, source="", strength=1.0, pose_image=None, face_analysis=None
    ) -> io.NodeOutput:
        from .pictures import to_arrays

        edited = edit_face(
            face,
            dynamicid.motion_networks(clip),
            expression=expression,
            source=source,
            pose_image=None if pose_image is None else to_arrays(pose_image)[0],
            detector=face_analysis,
            strength=strength,
        )
        return io.NodeOutput(edited)


class DynamicIDBlendFaces(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynamicIDBlendFaces",
            display_name="Blend Faces",
            category=CATEGORY,
            description="One new person out of several faces.",
            search_aliases=["mix faces", "merge identities", "morph", "average faces"],
            inputs=[
                growing_faces("The faces to blend."),
                io.String.Input(
                    "weights",
                    default="1, 1",
                    tooltip="One number for each face, e.g. '2, 1' for two parts of the first.",
                ),
                io.Combo.Input(
                    "mode",
                    options=list(blending.BLEND_MODES),
                    default="tokens",
                    tooltip="'tokens' averages the faces; 'attention' shows both side by side to the model, as published.",
                ),
            ],
            outputs=[Face.Output(display_name="face")],
        )

    @classmethod
    @hinted
    def execute(cls, faces: io.Autogrow.Type, weights: str, mode: str) -> io.NodeOutput:
        return io.NodeOutput(blending.blend_faces(in_order(faces), blending.parse_weights(weights), mode))


class DynamicIDMotionPrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynamicIDMotionPrompt",
            display_name="Expression and Pose Presets",
            category=CATEGORY,
            description="A menu of expressions and poses, in the words that the weights were trained with.",
            search_aliases=["expression preset", "emotion list", "head pose preset"],
            inputs=[
                io.Combo.Input(
                    "expression",
                    options=list(prompts.GRID_EXPRESSIONS),
                    default="happy",
                    tooltip="What the face shows.",
                ),
                io.Combo.Input(
                    "intensity",
                    options=list(prompts.INTENSITY_LABELS),
                    default="normal",
                    tooltip="How strongly. The strength of Edit Expression and Pose scales it further.",
                ),
                io.Combo.Input(
                    "pose", options=list(prompts.GRID_POSES), default="front view", tooltip="Where the head points."
                ),
            ],
            outputs=[io.String.Output(display_name="expression")],
        )

    @classmethod
    @hinted
    def execute(cls, expression: str, intensity: str, pose: str) -> io.NodeOutput:
        return io.NodeOutput(prompts.preset_prompt(expression, intensity, pose))


NODES = [DynamicIDEditMotion, DynamicIDMotionPrompt, DynamicIDBlendFaces]
