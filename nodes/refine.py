"""Sample the faces of a finished picture again."""

from __future__ import annotations

from comfy_api.latest import io

from ..dynamicid_core.checkpoints import encoder_warnings
from ..dynamicid_core.refining import WHICH, RefineOptions, plan, refine
from ..dynamicid_core.types import SAAOptions
from .hints import hinted
from .previews import sent_again
from .sockets import CATEGORY, Cast, DynamicID, FaceAnalysis

DEFAULTS, ACTING = RefineOptions(), SAAOptions()


def number(name: str, default: float, low: float, high: float, tooltip: str, **more) -> io.Float.Input:
    return io.Float.Input(name, default=default, min=low, max=high, step=0.01, tooltip=tooltip, **more)


def which_faces() -> list[io.Input]:
    """The inputs that choose faces of a finished picture."""
    return [
        io.Combo.Input(
            "which",
            options=list(WHICH),
            default=DEFAULTS.which,
            tooltip="Which faces of the cast: 'all', those that are 'small', or those that are 'unlike' their person.",
        ),
        number("below", DEFAULTS.below, 0.0, 1.0, "For 'unlike': a similarity below this is not alike enough."),
        io.Int.Input(
            "small",
            default=DEFAULTS.small,
            min=1,
            max=16384,
            advanced=True,
            tooltip="For 'small': faces of less than so many pixels.",
        ),
    ]


class DynamicIDRefineFaces(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        import comfy.samplers

        return io.Schema(
            node_id="DynamicIDRefineFaces",
            display_name="Refine Faces",
            category=CATEGORY,
            description="Samples the faces of a finished picture again, each enlarged and with its person alone.",
            search_aliases=["face detailer", "face fix", "adetailer", "second pass", "small faces", "face swap", "retry"],
            **sent_again(),
            inputs=[
                io.Image.Input("image", tooltip="The finished picture, or a batch of them, wherever they were made."),
                io.Model.Input("model", tooltip="The model without faces, from before Apply DynamicID."),
                DynamicID.Input("dynamicid", tooltip="From Load DynamicID."),
                Cast.Input("cast", tooltip="Who is in the picture. Faces that are nobody's of the cast stay as they are."),
                io.Conditioning.Input("positive", tooltip="What each cut-out shows: one person, not all of them."),
                io.Conditioning.Input("negative", tooltip="What no cut-out shall show."),
                io.Vae.Input("vae", tooltip="The one that the picture was made with."),
                FaceAnalysis.Input("face_analysis", tooltip="The detector that encoded the faces."),
                *which_faces(),
                io.Int.Input(
                    "tries",
                    default=DEFAULTS.tries,
                    min=1,
                    max=100,
                    tooltip="How many seeds for each face; the one that is most alike is kept.",
                ),
                io.Boolean.Input(
                    "mend",
                    default=DEFAULTS.mend,
                    tooltip="Also sample again, in place, whoever is missing, and faces that show somebody twice.",
                ),
                io.Int.Input(
                    "seed",
                    default=DEFAULTS.seed,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="The noise of the first try; further tries take the next ones.",
                ),
                io.Int.Input("steps", default=20, min=1, max=10000, tooltip="Steps for each face and try."),
                io.Float.Input("cfg", default=5.0, min=0.0, max=100.0, step=0.1, tooltip="Guidance by the prompt."),
                io.Combo.Input(
                    "sampler_name", options=comfy.samplers.KSampler.SAMPLERS, default="euler", tooltip="As in KSampler."
                ),
                io.Combo.Input(
                    "scheduler", options=comfy.samplers.KSampler.SCHEDULERS, default="normal", tooltip="As in KSampler."
                ),
                number("denoise", DEFAULTS.denoise, 0.01, 1.0, "How much changes: little below 0.3, all of it at 1."),
                io.Int.Input(
                    "size",
                    default=DEFAULTS.size,
                    min=64,
                    max=8192,
                    step=64,
                    tooltip="Pixels of the square in which a face is sampled; what the model makes best.",
                ),
                number("crop_factor", DEFAULTS.crop_factor, 1.0, 10.0, "How much is cut out, in sizes of the face."),
                number(
                    "padding", DEFAULTS.padding, 0.0, 2.0,
                    "How far around a face the new picture fades into the old, in sizes of the face.", advanced=True,
                ),
                number(
                    "mend_denoise", DEFAULTS.mend_denoise, 0.01, 1.0,
                    "How much changes where somebody is missing or there twice.", advanced=True,
                ),
                number("weight", ACTING.weight, -1.0, 5.0, "How strongly identities act, as in Apply DynamicID.", advanced=True),
                number("gate_threshold", ACTING.gate_threshold, 0.0, 1.0, "As in Apply DynamicID.", advanced=True),
                number("lora_strength", ACTING.lora_strength, 0.0, 2.0, "As in Apply DynamicID. Leave it at 1.", advanced=True),
            ],
            outputs=[
                io.Image.Output(display_name="image"),
                io.String.Output(display_name="report"),
                io.Float.Output(display_name="worst_similarity"),
            ],
        )  # fmt: skip

    @classmethod
    @hinted
    def execute(
        cls, image, model, dynamicid, cast, positive, negative, vae, face_analysis, steps, cfg, sampler_name, scheduler,
        weight, gate_threshold, lora_strength, **how,
    ) -> io.NodeOutput:  # fmt: skip
        import torch

        from ..dynamicid_core.hosts import comfy as host
        from . import progress

        warnings = encoder_warnings((person.face for person in cast.people), dynamicid.saa)
        for message in warnings:
            progress.warn(message)
        bar, options = progress.SamplingBar(model, steps), RefineOptions(**how)
        acting = SAAOptions(weight=weight, gate_threshold=gate_threshold, lora_strength=lora_strength)
        sampling = host.Sampling(positive, negative, steps, cfg, sampler_name, scheduler)
        redraw = host.Redrawer(model, vae, dynamicid, sampling, acting, bar.callback)
        pictures = enumerate(progress.steps(list(image.float().cpu())))
        plans = [plan(picture, cast, face_analysis, options, frame) for frame, picture in pictures]
        bar.expect(sum(len(planned.jobs) for planned in plans) * options.tries)
        refined = [refine(planned, redraw, progress.tell) for planned in plans]
        progress.tell("\n".join(warnings))  # in the place of what was done last
        report = "\n\n".join(picture.report() for picture in refined)
        made = torch.stack([picture.picture for picture in refined]).to(image)
        worst = min(picture.worst for picture in refined)
        return io.NodeOutput(made, report, worst, ui={"text": [report]})


NODES = [DynamicIDRefineFaces]
