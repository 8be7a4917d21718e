"""Parts that templates share, from what to do first to the saved picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from graphs import NOTE, Group, Link, Node

from dynamicid_core.captions import person_color

from .settings import CHECKPOINT, CLIP_VISION, PACK, PUBLISHED, SAA, VAE, Setting

GROUPS = {  # colours by step
    "Start here": "#8a6d1f", "Models": "#8c8c8c", "Who": "#3f789e", "Where": "#3f8a5a", "Prompt": "#7a4f9e", "Picture": "#9e4f5a",
    "Faces": "#8a5a3f",
}  # fmt: skip
NOTES = ("What to do", "Models for photos", "In this graph")  # titles
START = "Press **Run**. Then choose other people: change **seed** in the photo nodes, or put a **Load Image** node with a photo in their place."
PHOTOS = (
    "Photos of real people need models that know them: press **models for photos** in **Load DynamicID**. "
    f"Where they come from: [DynamicID]({SAA.page}) (both files), [base model]({CHECKPOINT.page}), [VAE]({VAE.page}), "
    f"[CLIP vision]({CLIP_VISION.page}), to be named {CLIP_VISION.name}, [face models]({PACK.page})."
)


def group(step: int, title: str, *columns: tuple[Node, ...]) -> Group:
    """A step's frame; ``title`` begins with a word of ``GROUPS``."""
    color = next(color for word, color in GROUPS.items() if title.startswith(word))
    return Group(f"{step}. {title}" if step else title, columns, color)


def start(*texts: str) -> Group:
    """What to do, before everything else: texts that ``locales`` translate."""
    notes = tuple(Node(NOTE, title, {"text": text}) for title, text in zip(NOTES, texts, strict=False))
    return group(0, "Start here", notes)


def models(to: Setting) -> Group:
    nodes = (
        Node("CheckpointLoaderSimple", "Load Checkpoint", {"ckpt_name": to.checkpoint}),
        Node("VAELoader", "Load VAE", {"vae_name": to.vae}),
        Node("CLIPVisionLoader", "Load CLIP Vision", {"clip_name": to.clip_vision}),
        Node("DynamicIDLoader", "Load DynamicID", {"saa_file": to.saa, "imr_file": "auto"}),
        Node("DynamicIDFaceAnalysis", "Load Face Analysis", {"model_pack": to.face_pack}),
    )
    return group(1, "Models", nodes)


def person(to: Setting, number: int, who: int = 0) -> tuple[Node, Node]:
    """A photo and its face, one above the other, in the person's colour. ``who``: which drawn person, if not that number."""
    photo = to.photo(number, who or number)
    inputs = {
        "dynamicid": Link("Load DynamicID", "dynamicid"),
        "clip_vision": Link("Load CLIP Vision", "CLIP_VISION"),
        "image": Link(photo.title, "IMAGE" if photo.type == "LoadImage" else "image"),
        "face_analysis": Link("Load Face Analysis", "face_analysis"),
    }
    inputs |= {"crop_factor": to.crop_factor}
    encoded = Node("DynamicIDEncodeFace", f"Person {number}", inputs)
    return tuple(replace(node, color=node_color(number - 1)) for node in (photo, encoded))


def node_color(number: int) -> str:
    """The colour of person ``number`` (from 0), dark enough for the white title of a node."""
    return "#" + bytes(value * 55 // 100 for value in person_color(number)).hex()


def face(number: int) -> Link:
    return Link(f"Person {number}", "face")


def place_in_boxes(faces: list[Link]) -> Node:
    growing = {f"faces.face{i}": link for i, link in enumerate(faces)}
    return Node("DynamicIDPlaceFaces", "Place Faces in Boxes", growing)


def placed_in_turn(*inputs: dict[str, Any]) -> tuple[Node, ...]:
    """A Place Face for each person, one after another, with inputs of their own: a cast."""
    places: list[Node] = []
    for number, own in enumerate(inputs, 1):
        before = {"cast": Link(places[-1].title, "cast")} if places else {}
        given = {"face": face(number)} | own | before
        places.append(Node("DynamicIDPlaceFace", f"Place person {number}", given, node_color(number - 1)))
    return tuple(places)


def preview(cast: Link) -> Node:
    return Node("DynamicIDPreviewCast", "Preview Cast", {"cast": cast, "latent": Link("Picture size", "LATENT")})


LOADED = {  # where a template's models come from
    "model": Link("Load Checkpoint", "MODEL"),
    "clip": Link("Load Checkpoint", "CLIP"),
    "vae": Link("Load VAE", "VAE"),
    "dynamicid": Link("Load DynamicID", "dynamicid"),
}


def sampled(
    to: Setting, cast: Link, people: int, loaded: Mapping[str, Link] = LOADED
) -> tuple[tuple[Node, ...], tuple[Node, ...]]:
    """From the cast to the decoded picture: what stands under Prompt, and under Picture."""
    clip, vae = loaded["clip"], loaded["vae"]
    applied = {"model": loaded["model"], "dynamicid": loaded["dynamicid"], "cast": cast}
    sampler: dict[str, Any] = {
        "model": Link("Apply DynamicID", "model"),
        "positive": Link("Prompt", "CONDITIONING"),
        "negative": Link("Negative prompt", "CONDITIONING"),
        "latent_image": Link("Picture size", "LATENT"),
    }
    prompts = (
        Node("DynamicIDApply", "Apply DynamicID", applied | to.acting),
        Node("CLIPTextEncode", "Prompt", {"text": to.prompt(people), "clip": clip}),
        Node("CLIPTextEncode", "Negative prompt", {"text": to.negative, "clip": clip}),
    )
    sampling = (
        Node("EmptyLatentImage", "Picture size", {"width": to.widths[people - 1], "height": height_of(to, people)}),
        Node("KSampler", "Sampler", sampler | to.sampler),
        Node("VAEDecode", "VAE Decode", {"samples": Link("Sampler", "LATENT"), "vae": vae}),
    )
    return prompts, sampling


def saved(to: Setting, made: Link) -> tuple[tuple[Node, ...], Node]:
    """A picture, enlarged where it is small, and saved."""
    enlarge = ()
    if to.enlarge:
        enlarge = (Node("ImageScaleBy", "Enlarge", {"image": made, "upscale_method": "lanczos", "scale_by": 4.0}),)
        made = Link("Enlarge", "IMAGE")
    return enlarge, Node("SaveImage", "Save Image", {"images": made, "filename_prefix": "dynamicid/picture"})


def picture(to: Setting, cast: Link, people: int, loaded: Mapping[str, Link] = LOADED) -> tuple[Group, Group]:
    """From the cast to the saved picture."""
    prompts, sampling = sampled(to, cast, people, loaded)
    enlarge, save = saved(to, Link("VAE Decode", "IMAGE"))
    return group(4, "Prompt", prompts), group(5, "Picture", (*sampling, *enlarge), (save,))


def height_of(to: Setting, people: int) -> int:
    return to.widths[people - 1] if to is PUBLISHED else to.heights
