"""Load the weights and the face detector."""

from __future__ import annotations

from comfy_api.latest import io

from ..dynamicid_core.checkpoints import motion_warning
from ..dynamicid_core.types import DynamicIDError
from .folders import (
    checkpoint_path,
    checkpoints,
    companion,
    files_in,
    insightface_roots,
    pack_name,
    without_folders,
)
from .hints import hinted
from .motion import DynamicIDEditMotion
from .running import is_running
from .sockets import CATEGORY, DynamicID, FaceAnalysis

NONE, AUTO, BAKED = "none", "auto", "of the checkpoint"
GET_FILES = "Get the files of the published weights with 'python -m dynamicid_core download', or choose another."


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
                    options=[AUTO, *checkpoints("imr"), NONE],
                    tooltip="Weights for Edit Expression and Pose: imr.safetensors, or the published IMR.bin with "
                    "key_point_encoder.bin beside it. 'auto': the one that goes with saa_file, if it is there.",
                ),
            ],
            outputs=[DynamicID.Output(display_name="dynamicid")],
            hidden=[io.Hidden.prompt],
        )

    @classmethod
    def validate_inputs(cls, saa_file: str | None = None, imr_file: str | None = None) -> bool | str:
        for name in (saa_file, imr_file):
            if name not in (None, NONE, AUTO, *checkpoints("saa")):
                return f"There is no file {name!r} in models/dynamicid. {GET_FILES}"
        if saa_file in (NONE, AUTO):
            return "Load DynamicID needs a file for saa_file."
        return True

    @classmethod
    def fingerprint_inputs(cls, **inputs) -> bool:
        return is_running(DynamicIDEditMotion)  # so that what is missing is said before anything is encoded

    @classmethod
    @hinted
    def execute(cls, saa_file: str, imr_file: str) -> io.NodeOutput:
        from ..dynamicid_core.hosts import comfy as host
        from .progress import warn

        imr = companion(saa_file) if imr_file == AUTO else None if imr_file == NONE else imr_file
        if imr is None and is_running(DynamicIDEditMotion, cls.hidden.prompt):
            raise DynamicIDError(
                f"Expressions are edited in this graph, but imr_file is {imr_file!r} and models/dynamicid has no file that goes "
                f"with {saa_file}. {GET_FILES}"
            )
        loaded = host.load(checkpoint_path(saa_file), None if imr is None else checkpoint_path(imr))
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
    def validate_inputs(cls, model_pack: str | None = None) -> bool | str:
        from ..dynamicid_core.detection import find_pack, split_pack

        try:  # looked for before anything is computed; what is found is loaded later
            if model_pack and model_pack.strip():
                find_pack(split_pack(pack_name(model_pack))[0], insightface_roots())
        except DynamicIDError as error:
            return without_folders(str(error))
        return True

    @classmethod
    @hinted
    def execute(cls, model_pack: str, provider: str) -> io.NodeOutput:
        from ..dynamicid_core.detection import load_detector

        if not model_pack.strip():
            raise DynamicIDError("Name a face model pack, e.g. buffalo_l.")
        pack = pack_name(model_pack)
        from .progress import warn  # needs the host

        return io.NodeOutput(load_detector(pack, insightface_roots(), provider, warn=warn))


class DynamicIDLoadModels(io.ComfyNode):
    """Becomes the loaders that it stands for, so that each keeps its model when another is exchanged."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        saa, imr = DynamicIDLoader.define_schema().inputs
        return io.Schema(
            node_id="DynamicIDLoadModels",
            display_name="Load Models for DynamicID",
            category=CATEGORY,
            description="All models that a picture of people needs, in one node: it does what the five loaders do.",
            search_aliases=[
                "all loaders",
                "efficient loader",
                "unified loader",
                "checkpoint and dynamicid",
                "all in one",
            ],
            enable_expand=True,
            inputs=[
                io.Combo.Input(
                    "ckpt_name", options=files_in("checkpoints"), tooltip="The base model, as in Load Checkpoint."
                ),
                io.Combo.Input(
                    "vae_name",
                    options=[BAKED, *files_in("vae")],
                    default=BAKED,
                    tooltip="A VAE file as in Load VAE, or that of the checkpoint. Some checkpoints have none.",
                ),
                io.Combo.Input(
                    "clip_name",
                    options=files_in("clip_vision"),
                    tooltip="CLIP-ViT-H-14-laion2B-s32B-b79K, as in Load CLIP Vision.",
                ),
                saa,
                imr,
                DynamicIDFaceAnalysis.define_schema().inputs[0],
            ],
            outputs=[
                io.Model.Output(display_name="model"),
                io.Clip.Output(display_name="clip"),
                io.Vae.Output(display_name="vae"),
                DynamicID.Output(display_name="dynamicid"),
                io.ClipVision.Output(display_name="clip_vision"),
                FaceAnalysis.Output(display_name="face_analysis"),
            ],
        )

    @classmethod
    def validate_inputs(
        cls, saa_file: str | None = None, imr_file: str | None = None, model_pack: str | None = None
    ) -> bool | str:
        said = DynamicIDLoader.validate_inputs(saa_file, imr_file), DynamicIDFaceAnalysis.validate_inputs(model_pack)
        return next((one for one in said if one is not True), True)

    @classmethod
    @hinted
    def execute(cls, ckpt_name, vae_name, clip_name, saa_file, imr_file, model_pack) -> io.NodeOutput:
        from comfy_execution.graph_utils import GraphBuilder

        graph = GraphBuilder()
        checkpoint = graph.node("CheckpointLoaderSimple", ckpt_name=ckpt_name)
        vae = checkpoint.out(2) if vae_name == BAKED else graph.node("VAELoader", vae_name=vae_name).out(0)
        dynamicid = graph.node(DynamicIDLoader.GET_SCHEMA().node_id, saa_file=saa_file, imr_file=imr_file)
        vision = graph.node("CLIPVisionLoader", clip_name=clip_name)
        analysis = graph.node(DynamicIDFaceAnalysis.GET_SCHEMA().node_id, model_pack=model_pack, provider="auto")
        outputs = checkpoint.out(0), checkpoint.out(1), vae, dynamicid.out(0), vision.out(0), analysis.out(0)
        return io.NodeOutput(*outputs, expand=graph.finalize())


NODES = [DynamicIDLoader, DynamicIDFaceAnalysis, DynamicIDLoadModels]
