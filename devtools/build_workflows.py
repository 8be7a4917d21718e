"""Write ``workflows/``: ``python devtools/build_workflows.py [--server URL]``, with a ComfyUI running that has this pack.

Every workflow is described once, below, for two settings. ``workflows/<title>.json`` is for the host's editor, which
lists it as a template: it runs as it is opened, on the drawn world. ``workflows/api/<name>.json`` is the same graph for
scripts, with photos and the published weights. Titles of nodes are part of the interface: scripts find nodes by them.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from graphs import NOTE, Graph, Group, Link, Node, to_api, to_ui

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT / "scripts") not in sys.path:
    sys.path.append(str(ROOT / "scripts"))

from comfyui.speaking import Client  # noqa: E402
from environment import SetupError, need_core, run_script  # noqa: E402

need_core()
from dynamicid_core.captions import person_color  # noqa: E402
from dynamicid_core.catalogue import ModelFile, model_file  # noqa: E402
from dynamicid_core.drawn import world  # noqa: E402
from dynamicid_core.prompts import preset_prompt  # noqa: E402

WORKFLOWS = ROOT / "workflows"
CHECKPOINT, VAE, CLIP_VISION, SAA, IMR = map(model_file, ("checkpoint", "vae", "clip_vision", "saa", "imr"))
PACK = model_file("face_pack")
# Those that the host's own loaders read, and so offers to download.
MODELS = {"CheckpointLoaderSimple": CHECKPOINT, "VAELoader": VAE, "CLIPVisionLoader": CLIP_VISION}
GROUPS = {  # colours by step
    "Start here": "#8a6d1f", "Models": "#555555", "Who": "#3f789e", "Where": "#3f8a5a", "Prompt": "#7a4f9e", "Picture": "#9e4f5a",
    "Faces": "#8a5a3f",
}  # fmt: skip
NOTES = ("What to do", "Models for photos", "In this graph")  # titles
START = "Press **Run**. Then choose other people: change **seed** in the photo nodes, or put a **Load Image** node with a photo in their place."
PHOTOS = (
    "Photos of real people need models that know them: press **models for photos** in **Load DynamicID**. "
    f"Where they come from: [DynamicID]({SAA.page}) (both files), [base model]({CHECKPOINT.page}), [VAE]({VAE.page}), "
    f"[CLIP vision]({CLIP_VISION.page}), to be named {CLIP_VISION.name}, [face models]({PACK.page})."
)


# --- two settings of one graph ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """The models and numbers of a graph, and what its photos are."""

    checkpoint: str
    vae: str
    clip_vision: str
    saa: str
    face_pack: str
    sampler: dict[str, Any]
    negative: str
    heights: int
    widths: tuple[int, int, int]  # of one, two, three people
    enlarge: bool = False
    crop_factor: float = 0.0  # of photos
    acting: dict[str, float] = field(default_factory=dict)  # of Apply DynamicID
    refining: dict[str, Any] = field(default_factory=dict)  # of Refine Faces

    def prompt(self, people: int, where: str = "side by side") -> str:
        """What the picture shows."""
        who = ("", "a person", "two people side by side", "three people side by side")[people]
        return f"photo of {who} in a sunlit park, upper {'body' if people == 1 else 'bodies'}, looking at the camera"

    def photo(self, number: int, who: int) -> Node:
        """The node that a person's photo comes from; ``example.png`` comes with the host. ``who``: of the drawn people."""
        return Node("LoadImage", f"Photo of person {number}", {"image": "example.png"})


class DrawnSetting(Setting):
    """The drawn world: small models of drawn people, which come with the pack."""

    def prompt(self, people: int, where: str = "") -> str:
        return f"a drawing of {('', 'one person', 'two people', 'three people')[people]}, blue background"

    def photo(self, number: int, who: int) -> Node:
        return Node("DynamicIDDrawnPerson", f"Photo of person {number}", {"seed": 9999 + who})


DDIM = {"seed": 42, "sampler_name": "ddim", "scheduler": "ddim_uniform"}
PUBLISHED = Setting(
    CHECKPOINT.name, VAE.name, CLIP_VISION.name, SAA.name, PACK.name, DDIM | {"steps": 50, "cfg": 5.0},
    "blurry, low quality, deformed, cropped, watermark, text", 768, (768, 768, 1024),
    refining=DDIM | {"steps": 20, "cfg": 5.0},
)  # fmt: skip
WORLD = DrawnSetting(
    *(f"drawn_world{part}.safetensors" for part in ("", "_vae", "_vision", "_saa")), "drawn",
    DDIM | {"steps": world.STEPS, "cfg": world.GUIDANCE}, "", 128, (128, 192, 256), True, world.CROP_FACTOR,
    {"gate_threshold": world.GATE_THRESHOLD, "layout_strength": world.LAYOUT_STRENGTH},
    DDIM | {
        "steps": world.REFINE_STEPS, "cfg": world.GUIDANCE, "gate_threshold": world.GATE_THRESHOLD,
        "size": world.REFINING.size, "crop_factor": world.REFINING.crop_factor,
    },
)  # fmt: skip


# --- parts that workflows share -----------------------------------------------------------------------------------


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


def preview(cast: Link) -> Node:
    return Node("DynamicIDPreviewCast", "Preview Cast", {"cast": cast, "latent": Link("Picture size", "LATENT")})


def sampled(to: Setting, cast: Link, people: int) -> tuple[tuple[Node, ...], tuple[Node, ...]]:
    """From the cast to the decoded picture: what stands under Prompt, and under Picture."""
    clip, vae = Link("Load Checkpoint", "CLIP"), Link("Load VAE", "VAE")
    applied = {
        "model": Link("Load Checkpoint", "MODEL"),
        "dynamicid": Link("Load DynamicID", "dynamicid"),
        "cast": cast,
    }
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


def picture(to: Setting, cast: Link, people: int) -> tuple[Group, Group]:
    """From the cast to the saved picture."""
    prompts, sampling = sampled(to, cast, people)
    enlarge, save = saved(to, Link("VAE Decode", "IMAGE"))
    return group(4, "Prompt", prompts), group(5, "Picture", (*sampling, *enlarge), (save,))


def height_of(to: Setting, people: int) -> int:
    return to.widths[people - 1] if to is PUBLISHED else to.heights


# --- the workflows ------------------------------------------------------------------------------------------------


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


def three_people_masks(to: Setting) -> tuple[Group, ...]:
    text = (
        "The masks are three upright strips with soft edges. For regions of your own, connect any mask to **mask** of **Place "
        "person 1** to **3**, for example one painted with *Open in Mask Editor* on a finished picture."
    )
    wide, high = to.widths[2], height_of(to, 3)
    masks = [
        Node("SolidMask", "Nowhere", {"value": 0.0, "width": wide, "height": high}),
        Node("SolidMask", "Strip", {"value": 1.0, "width": wide * 3 // 8, "height": high}),
        Node("FeatherMask", "Soft strip", {"mask": Link("Strip", "MASK"), "left": wide // 16, "right": wide // 16}),
    ]
    places = []
    for number in (1, 2, 3):
        strip = {
            "destination": Link("Nowhere", "MASK"),
            "source": Link("Soft strip", "MASK"),
            "x": wide * 5 * (number - 1) // 16,
            "operation": "add",
        }
        masks.append(Node("MaskComposite", f"Mask of person {number}", strip))
        inputs = {"face": face(number), "mask": Link(f"Mask of person {number}", "MASK")}
        if places:
            inputs["cast"] = Link(places[-1].title, "cast")
        places.append(Node("DynamicIDPlaceFace", f"Place person {number}", inputs, node_color(number - 1)))
    cast = Link("Place person 3", "cast")
    return (
        start(START, PHOTOS, text),
        models(to),
        group(2, "Who", person(to, 1), person(to, 2), person(to, 3)),
        group(3, "Where", tuple(masks), (*places, preview(cast))),
        *picture(to, cast, 3),
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
    "short_film": "12 Short Film",
}
RECIPES = {
    recipe.__name__: recipe
    for recipe in (single_person, two_people, edited_expression, blend, three_people_masks, refined_faces, short_film)
}


# --- files --------------------------------------------------------------------------------------------------------


def download(file: ModelFile) -> dict[str, str]:
    """What the host's editor needs to offer a file."""
    (url,) = file.urls
    return {"name": file.name, "url": url, "directory": file.folder}


def properties(types: set[str], host_version: str) -> dict[str, dict]:
    """Who publishes each type of node, and the models that the host offers to download."""
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)[1]
    found: dict[str, dict] = {}
    for name in types - {NOTE}:
        own = name.startswith("DynamicID")
        found[name] = {"cnr_id": "comfyui-dynamicid" if own else "comfy-core", "ver": version if own else host_version}
        if name in MODELS:
            found[name]["models"] = [download(MODELS[name])]
    return found


def switch(template: Graph, object_info: dict, published: dict[str, dict]) -> dict[str, dict]:
    """What the page sets for photos: node id of a template -> widget -> value, where the published setting differs."""
    drawn, by_title = (
        to_api(template, object_info),
        {node["_meta"]["title"]: node["inputs"] for node in published.values()},
    )
    found: dict[str, dict] = {}
    for number, node in drawn.items():
        other = by_title.get(node["_meta"]["title"], {})
        values = {key: value for key, value in other.items() if not isinstance(value, list) and key in node["inputs"]}
        values = {key: value for key, value in values.items() if node["inputs"][key] != value}
        if node["class_type"] == "ImageScaleBy":
            values = {"scale_by": 1.0}
        if values:
            found[number] = values
    return found


def build(object_info: dict, host_version: str) -> dict[str, dict]:
    """File below ``workflows/`` -> content, for the nodes of a host of this version."""
    files = {}
    for name, recipe in RECIPES.items():
        types = {node.type for node in Graph(name, recipe(WORLD)).nodes}
        graph = Graph(name, recipe(WORLD), properties(types, host_version))
        published = to_api(Graph(name, recipe(PUBLISHED)), object_info)
        template = to_ui(graph, object_info)
        template["extra"] = {"dynamicid": {"for_photos": switch(graph, object_info, published)}}
        files[f"{TITLES[name]}.json"] = template
        files[f"api/{name}.json"] = published
    return files


def write(files: dict[str, dict], folder: Path) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8", newline="\n")


def ask(server: str) -> tuple[dict, str]:
    """What a running ComfyUI says of its nodes, and its version. Raises SetupError if it lacks this pack's."""
    client = Client(server)
    object_info, stats = client.object_info(), client.get("/system_stats")
    if "DynamicIDApply" not in object_info:
        raise SetupError(f"The ComfyUI at {server} lacks this pack; run scripts/setup.py and restart it.")
    return object_info, stats["system"]["comfyui_version"]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Write workflows/ for the nodes of a running ComfyUI.")
    parser.add_argument("--server", default="http://127.0.0.1:8188", help="its address (default: %(default)s)")
    write(build(*ask(parser.parse_args(arguments).server)), WORKFLOWS)
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
