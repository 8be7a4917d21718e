"""What is combined with DynamicID, and where in the graph: each combination writes itself into a scene."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from .models import Base
from .scene import HEIGHT, PROMPT, WIDTH, Link, Scene

FIRST, LAST = "Apply DynamicID first", "Apply DynamicID last"  # of the two orders
Build = Callable[[Scene], Link]
Patch = Callable[[Scene, Link], Link]


@dataclass(frozen=True)
class Combination:
    """``orders``: the same with DynamicID in each place that it can have; in a scene without people, without it.

    ``plain``: the same picture without what is tried. ``second``: of second passes over that picture, the order in which the
    pass itself has nobody; what faces do in the other orders is measured against it. ``alters``: whether what is tried changes
    the picture at all. ``pack``: whose nodes are needed, "" for the host's own. ``base``: the only one that it can be tried on.
    ``notes``: by order, what does not work, also what the numbers do not show."""

    name: str
    orders: dict[str, Build]
    plain: Build = lambda scene: scene.sample(scene.faces(scene.model))
    second: str = ""
    alters: bool = True
    pack: str = ""
    frames: int = 1
    base: Base | None = None
    notes: dict[str, str] = field(default_factory=dict)


def on_model(patch: Patch, sample: Patch = Scene.sample) -> dict[str, Build]:
    """A node that patches a model, after Apply DynamicID and before it."""
    return {
        FIRST: lambda scene: sample(scene, patch(scene, scene.faces(scene.model))),
        LAST: lambda scene: sample(scene, scene.faces(patch(scene, scene.model))),
    }


def node(kind: str, **inputs) -> Patch:
    """A node that takes a model and gives one."""
    return lambda scene, model: scene.link(kind, model=model, **inputs)


# --- the host's own nodes -------------------------------------------------------------------------------------------


def with_lora(scene: Scene, model: Link) -> Link:
    return scene.link("LoraLoaderModelOnly", model=model, lora_name=scene.companion("lora"), strength_model=1.0)


def controlled(scene: Scene) -> Link:
    control = scene.link("ControlNetLoader", control_net_name=scene.companion("controlnet"))
    applied = scene.node(
        "ControlNetApplyAdvanced", positive=scene.positive, negative=scene.negative, control_net=control,
        image=scene.photo(2), strength=1.0,
    )  # fmt: skip
    return scene.sample(scene.faces(scene.model), positive=[applied, 0], negative=[applied, 1])


def hooked(scene: Scene) -> Link:
    hook = scene.link("CreateHookLora", lora_name=scene.companion("lora"), strength_model=1.0, strength_clip=0.0)
    positive = scene.link("ConditioningSetProperties", cond_NEW=scene.positive, strength=1.0, hooks=hook)
    return scene.sample(scene.faces(scene.model), positive=positive)


def dual_guided(scene: Scene) -> Link:
    model = scene.faces(scene.model)
    guider = scene.link(
        "DualCFGGuider", model=model, cond1=scene.positive, cond2=scene.text("a drawing of happy people"),
        negative=scene.negative, cfg_conds=3.0, cfg_cond2_negative=2.0,
    )  # fmt: skip
    noise = scene.link("RandomNoise", noise_seed=7)
    sampler = scene.link("KSamplerSelect", sampler_name="euler")
    sigmas = scene.link("BasicScheduler", model=model, scheduler="normal", steps=3, denoise=1.0)
    return scene.link(
        "SamplerCustomAdvanced", noise=noise, guider=guider, sampler=sampler, sigmas=sigmas,
        latent_image=scene.latent, **scene.again,
    )  # fmt: skip


def masked_latent(scene: Scene) -> Link:
    """A drawn picture of which the right half is to be sampled."""
    drawn = scene.link(
        "ImageScale", image=scene.photo(2), upscale_method="area", width=WIDTH, height=HEIGHT, crop="center"
    )
    return scene.link(
        "SetLatentNoiseMask", samples=scene.link("VAEEncode", pixels=drawn, vae=scene.vae), mask=scene.mask()
    )


def inpainted(scene: Scene, model: Link) -> Link:
    return scene.sample(model, latent_image=masked_latent(scene))


def inpainted_by_conditioning(scene: Scene) -> Link:
    drawn = scene.link(
        "ImageScale", image=scene.photo(2), upscale_method="area", width=WIDTH, height=HEIGHT, crop="center"
    )
    made = scene.node(
        "InpaintModelConditioning", positive=scene.positive, negative=scene.negative, vae=scene.vae, pixels=drawn,
        mask=scene.mask(), noise_mask=True,
    )  # fmt: skip
    model = scene.faces(scene.model)
    return scene.sample(model, positive=[made, 0], negative=[made, 1], latent_image=[made, 2])


def masked_prompts(scene: Scene) -> Link:
    """A prompt of its own for the right half."""
    right = scene.link(
        "ConditioningSetMask", conditioning=scene.text(f"{PROMPT}, happy"), mask=scene.mask(), strength=1.0
    )
    positive = scene.link("ConditioningCombine", conditioning_1=scene.positive, conditioning_2=right)
    return scene.sample(scene.faces(scene.model), positive=positive)


def windows(dimension: int, length: int, overlap: int) -> Patch:
    return node("ContextWindowsManual", context_length=length, context_overlap=overlap, dim=dimension)


HOST = (
    Combination("LoRA", on_model(with_lora)),
    Combination("ControlNet", {"": controlled}),
    Combination("FreeU", on_model(node("FreeU_V2"))),
    Combination("HyperTile", on_model(node("HyperTile", tile_size=32, swap_size=2, max_depth=1))),
    Combination("Token merging (ToMe)", on_model(node("TomePatchModel", ratio=0.5))),
    Combination("Perturbed attention guidance", on_model(node("PerturbedAttentionGuidance", scale=3.0))),
    Combination("Self-attention guidance", on_model(node("SelfAttentionGuidance", scale=0.5, blur_sigma=2.0))),
    Combination("Dual CFG", {"": dual_guided}),
    Combination(
        "Differential diffusion",
        on_model(node("DifferentialDiffusion"), inpainted),
        lambda scene: inpainted(scene, scene.faces(scene.model)),
    ),
    Combination("Inpainting, noise mask", {"": lambda scene: inpainted(scene, scene.faces(scene.model))}),
    Combination("Inpainting, InpaintModelConditioning", {"": inpainted_by_conditioning}),
    Combination("Prompts with masks", {"": masked_prompts}),
    Combination("Hooks (a LoRA on one prompt)", {"": hooked}),
    Combination("Context windows over width", on_model(windows(3, 10, 4))),
    # Frames know nothing of one another where no motion module joins them.
    Combination("Context windows of two, three frames", on_model(windows(0, 2, 1)), frames=3, alters=False),
)
COMPILED = Combination("torch.compile", on_model(node("TorchCompileModel", backend="inductor")))
