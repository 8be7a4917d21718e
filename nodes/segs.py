"""Hand the people of a finished picture to another pack's detailers."""

from __future__ import annotations

from comfy_api.latest import io

from ..dynamicid_core.checkpoints import encoder_warnings
from ..dynamicid_core.refining import RefineOptions, plan
from ..dynamicid_core.types import DynamicIDError, SAAOptions
from .hints import hinted
from .refine import ACTING, DEFAULTS, number, which_faces
from .sockets import CATEGORY, Cast, DynamicID, FaceAnalysis

Segs = io.Custom("SEGS")


class DynamicIDSegs(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynamicIDSegs",
            display_name="People for Detailer",
            category=CATEGORY,
            description="The faces of a finished picture as SEGS, so that Impact Pack's detailers draw each with its person.",
            search_aliases=["segs", "impact pack", "detailer", "face detailer", "adetailer"],
            inputs=[
                io.Image.Input("image", tooltip="The finished picture, the same that the detailer gets; one, not a batch."),
                DynamicID.Input("dynamicid", tooltip="From Load DynamicID."),
                Cast.Input("cast", tooltip="Who is in the picture. Faces that are nobody's of the cast stay as they are."),
                FaceAnalysis.Input("face_analysis", tooltip="The detector that encoded the faces."),
                *which_faces(),
                number("crop_factor", DEFAULTS.crop_factor, 1.0, 10.0, "How much is cut out, in sizes of the face."),
                number(
                    "padding", DEFAULTS.padding, 0.0, 2.0,
                    "How far around a face the new picture fades into the old, in sizes of the face.",
                ),
                number("weight", ACTING.weight, -1.0, 5.0, "How strongly identities act, as in Apply DynamicID.", advanced=True),
                number("gate_threshold", ACTING.gate_threshold, 0.0, 1.0, "As in Apply DynamicID.", advanced=True),
                number("lora_strength", ACTING.lora_strength, 0.0, 2.0, "As in Apply DynamicID. Leave it at 1.", advanced=True),
            ],
            outputs=[Segs.Output(display_name="segs")],
        )  # fmt: skip

    @classmethod
    @hinted
    def execute(
        cls, image, dynamicid, cast, face_analysis, weight, gate_threshold, lora_strength, **how
    ) -> io.NodeOutput:
        from ..dynamicid_core.hosts import comfy as host
        from .progress import warn

        if len(image) != 1:
            raise DynamicIDError(
                f"There are {len(image)} pictures, but detailers take one at a time. Put Image Batch to Image List before it."
            )
        for message in encoder_warnings((person.face for person in cast.people), dynamicid.saa):
            warn(message)
        planned = plan(image[0].float().cpu(), cast, face_analysis, RefineOptions(**how))
        acting = SAAOptions(weight=weight, gate_threshold=gate_threshold, lora_strength=lora_strength)
        return io.NodeOutput(host.to_segs(planned, host.PeopleInCrops(dynamicid, acting)))


NODES = [DynamicIDSegs]
