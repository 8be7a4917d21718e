"""Put the cast into the model."""

from __future__ import annotations

from comfy_api.latest import io

from ..dynamicid_core.types import SAAOptions
from .sockets import CATEGORY, Cast, DynamicID

DEFAULTS = SAAOptions()


def fraction(name: str, default: float, tooltip: str, **more) -> io.Float.Input:
    return io.Float.Input(name, default=default, min=0.0, max=1.0, step=0.01, tooltip=tooltip, **more)


class DynamicIDApply(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynamicIDApply",
            display_name="Apply DynamicID",
            category=CATEGORY,
            description="A model in whose pictures the people of the cast appear. Bypass it and the model is as before.",
            search_aliases=["apply face", "faceid", "identity", "instantid", "ipadapter face"],
            inputs=[
                io.Model.Input("model", tooltip="A Stable Diffusion 1.5 model, with any LoRA or other patches."),
                DynamicID.Input("dynamicid", tooltip="From Load DynamicID."),
                Cast.Input("cast", tooltip="Who appears, from Place Face or Place Faces in Boxes."),
                io.Float.Input(
                    "weight",
                    default=DEFAULTS.weight,
                    min=-1.0,
                    max=5.0,
                    step=0.05,
                    tooltip="How strongly all identities act. Each person has a weight of their own as well.",
                ),
                fraction("start_at", DEFAULTS.start_at, "When identities begin to act: 0 is the first step."),
                fraction("end_at", DEFAULTS.end_at, "When they cease to act: 1 is the last step."),
                io.Float.Input(
                    "layout_strength",
                    default=DEFAULTS.layout_strength,
                    min=0.0,
                    max=10.0,
                    step=0.1,
                    tooltip="Pushes people into their regions in the first steps. People without a region do not feel it.",
                ),
                fraction(
                    "layout_end", DEFAULTS.layout_end, "When that push ends: 0.24 is step 12 of 50.", advanced=True
                ),
                fraction(
                    "gate_threshold",
                    DEFAULTS.gate_threshold,
                    "Higher: identity goes only where the model looks for a face most.",
                    advanced=True,
                ),
                io.Combo.Input(
                    "outside",
                    options=["everyone", "nobody"],
                    default=DEFAULTS.outside,
                    advanced=True,
                    tooltip="Where nobody's region is: 'everyone' may show a little, or 'nobody' (keeps bystanders clean).",
                ),
                io.Float.Input(
                    "lora_strength",
                    default=DEFAULTS.lora_strength,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    advanced=True,
                    tooltip="Strength of the trained attention weights, which are merged into the model. Leave it at 1.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model")],
        )

    @classmethod
    def execute(cls, model, dynamicid, cast, **options) -> io.NodeOutput:
        from ..dynamicid_core.hosts import comfy as host

        return io.NodeOutput(host.apply_faces(model, dynamicid, cast, SAAOptions(**options)))


NODES = [DynamicIDApply]
