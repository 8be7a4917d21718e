"""Put the cast into the model."""

from __future__ import annotations

from comfy_api.latest import io

from ..dynamicid_core.checkpoints import encoder_warnings
from ..dynamicid_core.drawing import SHARED_LETTERS, draw_gate_maps, enlarged_maps, preview_size
from ..dynamicid_core.gate_maps import LAYERS, GateRecorder
from ..dynamicid_core.types import CHOICES, DynamicIDError, SAAOptions
from .hints import hinted
from .running import is_running
from .sockets import CATEGORY, Cast, DynamicID

DEFAULTS = SAAOptions()


def acts_in_order(start_at: float | None = None, end_at: float | None = None) -> bool | str:
    """A node's ``validate_inputs``; a value that another node will give is None."""
    given = {name: value for name, value in (("start_at", start_at), ("end_at", end_at)) if value is not None}
    try:
        SAAOptions(**given)
    except DynamicIDError as error:
        return str(error)
    return True


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
            search_aliases=[
                "apply face",
                "faceid",
                "identity",
                "instantid",
                "ipadapter face",
                "same person",
                "consistent character",
            ],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The kind of model that the weights were trained for (the published ones: Stable Diffusion 1.5), "
                    "with any LoRA or other patches.",
                ),
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
                    options=list(CHOICES["outside"]),
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
                # Optional, as graphs that were saved without them have to run.
                io.Combo.Input(
                    "placement",
                    options=list(CHOICES["placement"]),
                    default=DEFAULTS.placement,
                    optional=True,
                    tooltip="People without a region: 'regions' puts them side by side, or into what others leave free; "
                    "'automatic' finds a place for each where the picture itself wants people.",
                ),
                fraction(
                    "find_until",
                    DEFAULTS.find_until,
                    "With 'automatic': the part of the sampling in which people may be anywhere, before their places hold.",
                    advanced=True,
                    optional=True,
                ),
            ],
            outputs=[io.Model.Output(display_name="model")],
            hidden=[io.Hidden.prompt],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs) -> bool:
        # Only with Preview Activation in the graph is anything recorded, so putting it in means sampling again.
        return is_running(DynamicIDGateMaps)

    @classmethod
    def validate_inputs(cls, start_at: float | None = None, end_at: float | None = None) -> bool | str:
        return acts_in_order(start_at, end_at)

    @classmethod
    @hinted
    def execute(cls, model, dynamicid, cast, **options) -> io.NodeOutput:
        from ..dynamicid_core.hosts import comfy as host
        from .progress import warn

        for message in encoder_warnings((person.face for person in cast.people), dynamicid.saa):
            warn(message)
        recorder = GateRecorder() if is_running(DynamicIDGateMaps, cls.hidden.prompt) else None
        return io.NodeOutput(host.apply_faces(model, dynamicid, cast, SAAOptions(**options), recorder))


class DynamicIDGateMaps(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynamicIDGateMaps",
            display_name="Preview Activation",
            category=CATEGORY,
            description="Shows where each person's identity went while sampling, and where identity went at all.",
            search_aliases=["gate maps", "attention maps", "heatmap", "where is the face"],
            is_output_node=True,
            inputs=[
                io.Model.Input(
                    "model", tooltip="The model that comes out of Apply DynamicID and that was sampled with."
                ),
                io.Latent.Input("samples", tooltip="What the sampler made with it, so that this node comes after it."),
                io.Combo.Input(
                    "layers",
                    options=list(LAYERS),
                    default="all",
                    tooltip="Which layers of the model: 'fine' has the largest grid, 'coarse' the smallest.",
                ),
                fraction("start_at", 0.0, "First step that counts: 0 is the start of sampling."),
                fraction("end_at", 1.0, "Last step that counts: 1 is the end."),
            ],
            outputs=[io.Image.Output(display_name="maps", tooltip="A map for each person, then the gate of all.")],
        )

    @classmethod
    def validate_inputs(cls, start_at: float | None = None, end_at: float | None = None) -> bool | str:
        return acts_in_order(start_at, end_at)

    @classmethod
    @hinted
    def execute(cls, model, samples, layers="all", start_at=0.0, end_at=1.0) -> io.NodeOutput:
        from ..dynamicid_core.hosts import comfy as host
        from .pictures import picture_size, preview_of, to_images

        height, width = picture_size(samples)
        drawn, shown = [], []
        for cast, maps in host.gate_maps(model, height, width, layers=layers, start_at=start_at, end_at=end_at):
            for frame, people in enumerate(maps):
                drawn += list(draw_gate_maps(people, cast, frame=frame))
                large = enlarged_maps(people, *preview_size(width, height))
                shown += list(draw_gate_maps(large, cast, frame=frame, letters=SHARED_LETTERS))
        return io.NodeOutput(to_images(drawn), ui=preview_of(cls, to_images(shown)))


NODES = [DynamicIDApply, DynamicIDGateMaps]
