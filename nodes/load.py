"""Load the weights and the face detector."""

from __future__ import annotations

from comfy_api.latest import io

from ..dynamicid_core.checkpoints import motion_warning
from ..dynamicid_core.types import DynamicIDError
from .folders import checkpoint_path, checkpoints, insightface_roots
from .hints import hinted
from .sockets import CATEGORY, DynamicID, FaceAnalysis

NONE = "none"


class DynamicIDLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynamicIDLoader",
            display_name="Load DynamicID",
            category=CATEGORY,
            description="Loads the DynamicID weights from models/dynamicid. Without an IMR file, expressions cannot be edited.",
            search_aliases=["dynamicid", "face identity", "saa", "imr", "faceid loader"],
            inputs=[
                io.Combo.Input(
                    "saa_file",
                    options=checkpoints("saa"),
                    tooltip="Face encoder and attention weights: saa.safetensors or the published SAA.bin, in models/dynamicid.",
                ),
                io.Combo.Input(
                    "imr_file",
                    options=[*checkpoints("imr"), NONE],
                    tooltip="Weights for Edit Expression and Pose: imr.safetensors, or the published IMR.bin with "
                    "key_point_encoder.bin beside it. 'none' if no expression is edited.",
                ),
            ],
            outputs=[DynamicID.Output(display_name="dynamicid")],
        )

    @classmethod
    def validate_inputs(cls, saa_file: str | None = None, imr_file: str | None = None) -> bool | str:
        for name in (saa_file, imr_file):
            if name not in (None, NONE, *checkpoints("saa")):
                return f"There is no file {name!r} in models/dynamicid. Run 'python -m dynamicid_core download' or choose another."
        if saa_file == NONE:
            return "Load DynamicID needs a file for saa_file."
        return True

    @classmethod
    @hinted
    def execute(cls, saa_file: str, imr_file: str) -> io.NodeOutput:
        from ..dynamicid_core.hosts import comfy as host
        from .progress import warn

        loaded = host.load(checkpoint_path(saa_file), None if imr_file == NONE else checkpoint_path(imr_file))
        if message := motion_warning(loaded.saa, loaded.motion):
            warn(message)
        return io.NodeOutput(loaded)


class DynamicIDFaceAnalysis(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynamicIDFaceAnalysis",
            display_name="Load Face Analysis",
            category=CATEGORY,
            description="Loads an InsightFace model pack, which finds faces. The packs are for non-commercial research only.",
            search_aliases=["insightface", "face detector", "buffalo_l", "arcface", "face analysis"],
            inputs=[
                io.String.Input(
                    "model_pack",
                    default="buffalo_l",
                    tooltip="Name of the pack: a folder in models/insightface/models. The published weights know buffalo_l.",
                ),
                io.Combo.Input(
                    "provider",
                    options=["auto", "CUDA", "CoreML", "DirectML", "CPU"],
                    default="auto",
                    advanced=True,
                    tooltip="Where the detector runs. 'auto' takes the fastest that your onnxruntime offers.",
                ),
            ],
            outputs=[FaceAnalysis.Output(display_name="face_analysis")],
        )

    @classmethod
    @hinted
    def execute(cls, model_pack: str, provider: str) -> io.NodeOutput:
        from ..dynamicid_core.detection import load_detector

        if not model_pack.strip():
            raise DynamicIDError("Name a face model pack, e.g. buffalo_l.")
        return io.NodeOutput(load_detector(model_pack.strip(), insightface_roots(), provider))


NODES = [DynamicIDLoader, DynamicIDFaceAnalysis]
