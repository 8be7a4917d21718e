"""Combinations with other packs, by the name of each pack's folder."""

from __future__ import annotations

from pathlib import Path

from .cells import COMPILED, HOST, Combination, node, on_model
from .models import FULL, MOTION
from .scene import HEIGHT, NEGATIVE, SEED, WIDTH, Link, Scene

IPADAPTER, IMPACT, ULTIMATE = "ComfyUI_IPAdapter_plus", "ComfyUI-Impact-Pack", "ComfyUI_UltimateSDUpscale"
TILED, ANIMATED = "ComfyUI-TiledDiffusion", "ComfyUI-AnimateDiff-Evolved"
LARGER = 2  # times: what a second pass works on
SECOND = {"steps": 2, "cfg": 4.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 0.6, "seed": SEED}
ONE_PERSON = "a drawing of one person, blue background"
IN_PICTURE = "in the picture alone; the second pass has the model without"
EVERYBODY = "everybody in the model of the second pass too"
MAPPED = "everybody in the second pass too, through Regions for Tiles"
ONE_EACH = "in the second pass, the one person whose crop it is"


def adapted(scene: Scene, model: Link) -> Link:
    adapter = scene.link("IPAdapterModelLoader", ipadapter_file=scene.companion("ip_adapter_plus"))
    return scene.link(
        "IPAdapterAdvanced", model=model, ipadapter=adapter, image=scene.photo(2), clip_vision=scene.vision, weight=0.8,
    )  # fmt: skip


def picture(scene: Scene) -> Link:
    """What a second pass begins with: the people's picture, enlarged."""
    made = scene.decode(scene.sample(scene.faces(scene.model)))
    size = {"width": LARGER * WIDTH, "height": LARGER * HEIGHT}
    return scene.link("ImageScale", image=made, upscale_method="bicubic", crop="disabled", **size)


def detailed(scene: Scene, model: Link) -> Link:
    """The right person's place sampled again by Impact Pack's detailer."""
    mask = scene.link("SolidMask", value=1.0, width=WIDTH // 2, height=HEIGHT)
    whole = scene.link("SolidMask", value=0.0, width=LARGER * WIDTH, height=LARGER * HEIGHT)
    right = scene.link(
        "MaskComposite", destination=whole, source=mask, x=WIDTH * 5 // 4, y=HEIGHT // 2, operation="add"
    )
    segs = scene.link("MaskToSEGS", mask=right, combined=True, crop_factor=1.5)
    return scene.link(
        "DetailerForEach", image=picture(scene), segs=segs, model=model, clip=scene.clip, vae=scene.vae, guide_size=128.0,
        max_size=128.0, positive=scene.text(ONE_PERSON), negative=scene.text(NEGATIVE), wildcard="", **SECOND,
        **scene.again,
    )  # fmt: skip


def upscaled(scene: Scene, model: Link, mapped: bool = False) -> Link:
    """The enlarged picture in tiles of 128 px by Ultimate SD Upscale; ``mapped``: people keep their places in them."""
    positive = scene.text(ONE_PERSON)
    if mapped:
        positive = scene.link("DynamicIDTileRegions", conditioning=positive)
    return scene.link(
        "UltimateSDUpscaleNoUpscale", upscaled_image=picture(scene), model=model, positive=positive,
        negative=scene.negative, vae=scene.vae, tile_width=128, tile_height=128, tile_padding=16, **SECOND, **scene.again,
    )  # fmt: skip


def animated(scene: Scene, model: Link) -> Link:
    return scene.link(
        "ADE_AnimateDiffLoaderGen1", model=model, model_name=Path(MOTION).name, beta_schedule="autoselect"
    )


def animated_in_windows(scene: Scene, model: Link) -> Link:
    windows = scene.link("ADE_StandardStaticContextOptions", context_length=2, context_overlap=1)
    return scene.link(
        "ADE_AnimateDiffLoaderGen1", model=model, model_name=Path(MOTION).name, beta_schedule="autoselect",
        context_options=windows,
    )  # fmt: skip


def tiled(method: str):
    return node("TiledDiffusion", method=method, tile_width=64, tile_height=64, tile_overlap=32, tile_batch_size=2)


PACKS = (
    Combination("IPAdapter_plus", on_model(adapted), pack=IPADAPTER),
    Combination(
        "Impact Pack, Detailer (SEGS)",
        {
            IN_PICTURE: lambda scene: detailed(scene, scene.model),
            EVERYBODY: lambda scene: detailed(scene, scene.faces(scene.model)),
            ONE_EACH: lambda scene: detailed(scene, scene.faces(scene.model, 1)),
        },
        picture,
        second=IN_PICTURE,
        pack=IMPACT,
        notes={
            EVERYBODY: "the places of both people are laid over the crop, so that faces land on the wrong ones. Give it the model "
            "with the person whose crop it is, or SEGS of **People for Detailer**."
        },
    ),
    Combination(
        "Ultimate SD Upscale",
        {
            IN_PICTURE: lambda scene: upscaled(scene, scene.model),
            EVERYBODY: lambda scene: upscaled(scene, scene.faces(scene.model)),
            MAPPED: lambda scene: upscaled(scene, scene.faces(scene.model), mapped=True),
        },
        picture,
        second=IN_PICTURE,
        pack=ULTIMATE,
        notes={
            EVERYBODY: "the places of both people are laid over each tile, so that faces land on the wrong ones. Put **Regions for "
            "Tiles** between prompt and upscaler, as in the next row."
        },
    ),
    Combination("TiledDiffusion, MultiDiffusion", on_model(tiled("MultiDiffusion")), pack=TILED),
    Combination("TiledDiffusion, Mixture of Diffusers", on_model(tiled("Mixture of Diffusers")), pack=TILED),
    Combination("TiledDiffusion, SpotDiffusion", on_model(tiled("SpotDiffusion")), pack=TILED),
    Combination("AnimateDiff-Evolved, two frames", on_model(animated), pack=ANIMATED, frames=2, base=FULL),
    Combination(
        "AnimateDiff-Evolved, windows of two, three frames",
        on_model(animated_in_windows),
        pack=ANIMATED,
        frames=3,
        base=FULL,
    ),
)
ALL = (*HOST, *PACKS, COMPILED)  # the slowest last
