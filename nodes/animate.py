"""Give a face expressions and poses that change from picture to picture."""

from __future__ import annotations

from comfy_api.latest import io

from ..dynamicid_core.animation import MOST_SMOOTHING, AnimationOptions, animate_face
from ..dynamicid_core.keyframes import EASINGS
from ..dynamicid_core.motion import MAX_STRENGTH
from ..dynamicid_core.types import MOST_FRAMES
from .hints import hinted
from .motion import clip_input, source_input
from .sockets import CATEGORY, DynamicID, Face, FaceAnalysis

DEFAULTS = AnimationOptions()


class DynamicIDAnimateMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynamicIDAnimateMotion",
            display_name="Animate Expression and Pose",
            category=CATEGORY,
            description="The same person with another expression or head pose in every picture of a film.",
            search_aliases=["keyframes", "animation", "video", "driving video", "expression schedule", "live portrait"],
            inputs=[
                DynamicID.Input("dynamicid", tooltip="From Load DynamicID, with an imr_file."),
                Face.Input(
                    "face", tooltip="The face that shall move; it must come from a photo in which a face was found."
                ),
                clip_input(),
                io.String.Input(
                    "keyframes",
                    multiline=True,
                    default="0: neutral; 12: a very happy expression; 24: slightly turned to the left",
                    tooltip="What the face shows in which picture, counted from 0. What a keyframe does not name stays. Empty: "
                    "what driving shows.",
                ),
                io.Int.Input(
                    "frames",
                    default=DEFAULTS.frames,
                    min=0,
                    max=MOST_FRAMES,
                    tooltip="How many pictures have a face of their own; later ones show the last. 0: all of driving, or up to "
                    "the last keyframe.",
                ),
                io.Combo.Input(
                    "easing",
                    options=list(EASINGS),
                    default=DEFAULTS.easing,
                    tooltip="How one keyframe becomes the next; with 'hold' it stays until the next one's picture.",
                ),
                io.Float.Input(
                    "strength",
                    default=DEFAULTS.strength,
                    min=0.0,
                    max=MAX_STRENGTH,
                    step=0.05,
                    tooltip="0: the photo's expression; 1: what is asked for; more exaggerates.",
                ),
                io.Float.Input(
                    "smoothing",
                    default=DEFAULTS.smoothing,
                    min=0.0,
                    max=MOST_SMOOTHING,
                    step=0.1,
                    tooltip="Of driving: over how many pictures its motion is evened out. 0: not at all.",
                ),
                source_input(),
                io.Image.Input(
                    "driving",
                    optional=True,
                    tooltip="A video of anybody, a picture for each one of the film, whose expressions and poses to take. Needs "
                    "face_analysis.",
                ),
                FaceAnalysis.Input(
                    "face_analysis", optional=True, tooltip="Finds the face in each picture of driving."
                ),
            ],
            outputs=[Face.Output(display_name="face")],
        )

    @classmethod
    @hinted
    def execute(
        cls, dynamicid, face, clip, keyframes, frames, easing, strength, smoothing, source="", driving=None, face_analysis=None
    ) -> io.NodeOutput:  # fmt: skip
        from .pictures import to_arrays
        from .progress import steps, warn

        animated = animate_face(
            face,
            dynamicid.motion_networks(clip),
            keyframes=keyframes,
            driving=() if driving is None else to_arrays(driving),
            detector=face_analysis,
            source=source,
            options=AnimationOptions(frames, easing, smoothing, strength),
            progress=steps,
            warn=warn,
        )
        return io.NodeOutput(animated)


NODES = [DynamicIDAnimateMotion]
