"""The templates: each a function of the setting."""

from __future__ import annotations

import math
from dataclasses import replace

from graphs import Group, Link, Node

from dynamicid_core.prompts import preset_prompt

from . import cast_recipes
from .parts import (
    PHOTOS,
    START,
    face,
    group,
    models,
    node_color,
    person,
    picture,
    place_in_boxes,
    placed_in_turn,
    preview,
    sampled,
    saved,
    start,
)  # fmt: skip
from .settings import Setting


def single_person(to: Setting) -> tuple[Group, ...]:
    text = "**Person 1** numbers the faces of its photo: for a group photo, set **face_index** to the right one."
    placed, cast = Node("DynamicIDPlaceFace", "Place Face", {"face": face(1)}), Link("Place Face", "cast")
    return (
        start(START, PHOTOS, text),
        models(to),
        group(2, "Who", person(to, 1)),
        group(3, "Where", (placed, preview(cast))),
        *picture(to, cast, 1),
    )


def two_people(to: Setting) -> tuple[Group, ...]:
    text = "Drag the boxes in **Place Faces in Boxes** to where people shall be: box 1 belongs to person 1."
    cast = Link("Place Faces in Boxes", "cast")
    return (
        start(START, PHOTOS, text),
        models(to),
        group(2, "Who", person(to, 1), person(to, 2)),
        group(3, "Where", (place_in_boxes([face(1), face(2)]), preview(cast))),
        *picture(to, cast, 2),
    )


def edited_expression(to: Setting) -> tuple[Group, ...]:
    text = (
        "Write in **Expression of person 1** and **2** what each face shall show, or choose from its presets. With "
        "**strength** 0 a face keeps the expression of its photo; above 1 the new one is exaggerated."
    )

    def edit(number: int, expression: str) -> Node:
        inputs = {
            "dynamicid": Link("Load DynamicID", "dynamicid"),
            "face": face(number),
            "clip": Link("Load Checkpoint", "CLIP"),
            "expression": expression,
        }
        return Node("DynamicIDEditMotion", f"Expression of person {number}", inputs, node_color(number - 1))

    first, second = edit(1, preset_prompt("surprised")), edit(2, preset_prompt("happy"))
    cast = Link("Place Faces in Boxes", "cast")
    placed = place_in_boxes([Link(node.title, "face") for node in (first, second)])
    return (
        start(START, PHOTOS, text),
        models(to),
        group(2, "Who, and how they look", (*person(to, 1), first), (*person(to, 2), second)),
        group(3, "Where", (placed, preview(cast))),
        *picture(to, cast, 2),
    )


def blend(to: Setting) -> tuple[Group, ...]:
    text = (
        "Set in **Blend Faces** how much of each the new person gets: **2, 1** is two parts of person 1. The mode **tokens** "
        "averages the faces; **attention** shows both to the model, as published."
    )
    blended = Node("DynamicIDBlendFaces", "Blend Faces", {"faces.face0": face(1), "faces.face1": face(2)})
    placed = Node("DynamicIDPlaceFace", "Place Face", {"face": Link("Blend Faces", "face")})
    cast = Link("Place Face", "cast")
    return (
        start(START, PHOTOS, text),
        models(to),
        group(2, "Who", person(to, 1), person(to, 2)),
        group(3, "Where", (blended, placed, preview(cast))),
        *picture(to, cast, 1),
    )


def arch(middle: float, width: float = 0.36, top: float = 0.05) -> str:
    """An outline around head and shoulders, as drawn by hand in **Place Face**: upright, with a round top."""
    turns = [math.pi * step / 12 for step in range(13)]
    points = [(middle - math.cos(turn) * width / 2, top + (1 - math.sin(turn)) * 0.3) for turn in turns]
    points = [(middle - width / 2, 1.0), *points, (middle + width / 2, 1.0)]
    return " ".join(f"{min(max(x, 0.0), 1.0):.3f},{y:.3f}" for x, y in points)


def three_people_masks(to: Setting) -> tuple[Group, ...]:
    text = (
        "Draw in **Place person 1** to **3** around where each shall be: press, drag, let go. A double click removes a shape. A "
        "mask of another node, such as one painted with *Open in Mask Editor*, goes to **mask**."
    )
    places = placed_in_turn(*({"outline": arch((2 * number - 1) / 6)} for number in (1, 2, 3)))
    return (
        start(START, PHOTOS, text),
        models(to),
        group(2, "Who", person(to, 1), person(to, 2), person(to, 3)),
        group(3, "Where", places, (preview(Link("Place person 3", "cast")),)),
        *picture(to, Link("Place person 3", "cast"), 3),
    )


def refined_faces(to: Setting) -> tuple[Group, ...]:
    text = (
        "**Refine Faces** samples each face of the finished picture again, enlarged and with its person alone. Its report says how "
        "alike everybody was before and is after. Set **which** to **unlike** to leave alone who is alike enough, and **tries** to "
        "keep the best of several seeds."
    )
    cast, made = Link("Place Faces in Boxes", "cast"), Link("VAE Decode", "IMAGE")
    prompts, sampling = sampled(to, cast, 2)
    inputs = {
        "image": made,
        "model": Link("Load Checkpoint", "MODEL"),
        "dynamicid": Link("Load DynamicID", "dynamicid"),
        "cast": cast,
        "positive": Link("Prompt of one face", "CONDITIONING"),
        "negative": Link("Negative prompt", "CONDITIONING"),
        "vae": Link("Load VAE", "VAE"),
        "face_analysis": Link("Load Face Analysis", "face_analysis"),
        "tries": 3,
        "mend": True,
    }
    refine = (
        Node("CLIPTextEncode", "Prompt of one face", {"text": to.prompt(1), "clip": Link("Load Checkpoint", "CLIP")}),
        Node("DynamicIDRefineFaces", "Refine Faces", inputs | to.refining),
    )
    enlarge, save = saved(to, Link("Refine Faces", "image"))
    return (
        start(START, PHOTOS, text),
        models(to),
        group(2, "Who", person(to, 1), person(to, 2)),
        group(3, "Where", (place_in_boxes([face(1), face(2)]), preview(cast))),
        group(4, "Prompt", prompts),
        group(5, "Picture", (*sampling, Node("PreviewImage", "Before", {"images": made}))),
        group(6, "Faces", refine, (*enlarge, save)),
    )


def found_places(to: Setting) -> tuple[Group, ...]:
    text = (
        "Nobody is told where to stand: **placement** of **Apply DynamicID** is **automatic**. In the first fifth of the sampling "
        "everybody may be anywhere; then each gets a place around a face that the picture has begun. **Preview Activation** shows "
        "the places as rims. Say in the prompt how many people there are."
    )
    (apply, *prompts), sampling = sampled(to, Link("Place person 3", "cast"), 3)
    apply = replace(apply, inputs=apply.inputs | {"placement": "automatic"})
    inputs = {"model": Link("Apply DynamicID", "model"), "samples": Link("Sampler", "LATENT")}
    enlarge, save = saved(to, Link("VAE Decode", "IMAGE"))
    return (
        start(START, PHOTOS, text),
        models(to),
        group(2, "Who", person(to, 1), person(to, 2), person(to, 3)),
        group(3, "Where", placed_in_turn({}, {}, {})),
        group(4, "Prompt", (apply, *prompts)),
        group(5, "Picture", (*sampling, *enlarge), (Node("DynamicIDGateMaps", "Preview Activation", inputs), save)),
    )


FRAMES, FPS = 16, 8  # of the short film
BEARDLESS = 4  # a drawn person; drawn beards come and go with expressions
MOTIONS = (
    "0: neutral, front view; 2: neutral; 5: very happy; 12: very happy; 15: neutral",
    "0: neutral, front view; 7: neutral; 10: very surprised",
)


def short_film(to: Setting) -> tuple[Group, ...]:
    text = (
        "Write in **Motion of person 1** and **2** what each face shows in which picture, each at times of its own. **One noise "
        "for all** lets every picture begin alike, so that nothing else changes. **batch_size** in **Picture size** is the "
        "film's length."
    )

    def moved(number: int, keyframes: str) -> Node:
        inputs = {
            "dynamicid": Link("Load DynamicID", "dynamicid"),
            "face": face(number),
            "clip": Link("Load Checkpoint", "CLIP"),
            "keyframes": keyframes,
        }
        return Node("DynamicIDAnimateMotion", f"Motion of person {number}", inputs, node_color(number - 1))

    first, second = (moved(number, keyframes) for number, keyframes in enumerate(MOTIONS, 1))
    cast = Link("Place Faces in Boxes", "cast")
    placed = place_in_boxes([Link(node.title, "face") for node in (first, second)])
    prompts, (size, sampler, decode) = sampled(to, cast, 2)
    size = replace(size, inputs=size.inputs | {"batch_size": FRAMES})
    noise = {"samples": Link(size.title, "LATENT"), "seed_behavior": "fixed"}
    alike = Node("LatentBatchSeedBehavior", "One noise for all", noise)
    sampler = replace(sampler, inputs=sampler.inputs | {"latent_image": Link(alike.title, "LATENT")})
    enlarge, save = saved(to, Link("VAE Decode", "IMAGE"))
    film = {"images": save.inputs["images"], "filename_prefix": "dynamicid/film", "fps": float(FPS)}
    save = Node("SaveAnimatedWEBP", "Save Animated WEBP", film)
    return (
        start(START, PHOTOS, text),
        models(to),
        group(2, "Who, and how they look", (*person(to, 1), first), (*person(to, 2, BEARDLESS), second)),
        group(3, "Where", (placed, preview(cast))),
        group(4, "Prompt", prompts),
        group(5, "Picture", (size, alike, sampler, decode, *enlarge), (save,)),
    )


# Name of the file for scripts, and the title that artists see, which is the template's file name.
TITLES = {
    "single_person": "2 One Person",
    "two_people": "3 Two People in Boxes",
    "edited_expression": "4 Expressions",
    "blend": "5 One New Person out of Two",
    "three_people_masks": "6 Three People with Masks",
    "refined_faces": "7 Refined Faces",
    "found_places": "10 Found Places",
    "short_film": "11 Short Film",
    **cast_recipes.TITLES,
}
RECIPES = {
    recipe.__name__: recipe
    for recipe in (
        single_person,
        two_people,
        edited_expression,
        blend,
        three_people_masks,
        refined_faces,
        found_places,
        short_film,
        *cast_recipes.RECIPES,
    )
}
