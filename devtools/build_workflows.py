"""Write ``workflows/``: ``python devtools/build_workflows.py [--server URL]``, with a ComfyUI running that has this pack.

Every workflow is described once, below. ``workflows/<name>.json`` is for the host's editor, which lists it as a
template; ``workflows/api/<name>.json`` is the same graph for scripts. Titles are part of the interface: scripts find
nodes by them.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from graphs import NOTE, Graph, Group, Link, Node, to_api, to_ui

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT / "scripts") not in sys.path:
    sys.path.append(str(ROOT / "scripts"))

from comfyui.speaking import Client  # noqa: E402
from environment import SetupError, need_core, run_script  # noqa: E402

need_core()
from dynamicid_core.catalogue import ModelFile, model_file  # noqa: E402

WORKFLOWS = ROOT / "workflows"
PHOTO = "example.png"  # comes with the host, in its input folder
CHECKPOINT, VAE, CLIP_VISION, SAA, IMR = map(model_file, ("checkpoint", "vae", "clip_vision", "saa", "imr"))
# Those that the host's own loaders read, and so offers to download.
MODELS = {"CheckpointLoaderSimple": CHECKPOINT, "VAELoader": VAE, "CLIPVisionLoader": CLIP_VISION}
WHERE = (
    f"Model files go to *models/{CHECKPOINT.folder}*, *models/{VAE.folder}*, *models/{CLIP_VISION.folder}*, "
    f"*models/{SAA.folder}* (SAA and IMR) and *models/{model_file('face_pack').path}*; the README says where each comes from."
)
NEGATIVE = "blurry, low quality, deformed, cropped, watermark, text"
BOXES = "Boxes"
BOX_COLORS = ("#4f9de0", "#e0894f")  # one for each person


# --- parts that workflows share -----------------------------------------------------------------------------------


def note(text: str) -> Node:
    return Node(NOTE, "What to do", {"text": text})


def models(imr: str = "none") -> Group:
    nodes = (
        Node("CheckpointLoaderSimple", "Load Checkpoint", {"ckpt_name": CHECKPOINT.name}),
        Node("VAELoader", "Load VAE", {"vae_name": VAE.name}),
        Node("CLIPVisionLoader", "Load CLIP Vision", {"clip_name": CLIP_VISION.name}),
        Node("DynamicIDLoader", "Load DynamicID", {"saa_file": SAA.name, "imr_file": imr}),
        Node("DynamicIDFaceAnalysis", "Load Face Analysis"),
    )
    return Group("1. Models", (nodes,))


def person(number: int) -> tuple[Node, Node]:
    """A photo and its face, one above the other."""
    photo = f"Photo of person {number}"
    inputs = {
        "dynamicid": Link("Load DynamicID", "dynamicid"),
        "clip_vision": Link("Load CLIP Vision", "CLIP_VISION"),
        "image": Link(photo, "IMAGE"),
        "face_analysis": Link("Load Face Analysis", "face_analysis"),
    }
    return Node("LoadImage", photo, {"image": PHOTO}), Node("DynamicIDEncodeFace", f"Person {number}", inputs)


def face(number: int) -> Link:
    return Link(f"Person {number}", "face")


def place_in_boxes(faces: list[Link], size: int = 768) -> tuple[Node, ...]:
    """The editor with one box for each of two people, and the cast."""
    boxes = [
        {
            "x": x,
            "y": 96,
            "width": 312,
            "height": 640,
            "metadata": {"type": "obj", "text": "", "desc": name, "palette": [c]},
        }
        for x, name, c in zip((48, 408), ("person 1", "person 2"), BOX_COLORS, strict=True)
    ]
    canvas = {"width": size, "height": size}
    growing = {f"faces.face{i}": link for i, link in enumerate(faces)}
    return (
        Node("CreateBoundingBoxes", BOXES, {**canvas, "editor_state": boxes}),
        Node("DynamicIDPlaceFaces", "Place Faces in Boxes", {**growing, "bboxes": Link(BOXES, "bboxes"), **canvas}),
    )


def preview(cast: Link, size: int) -> Node:
    return Node("DynamicIDPreviewCast", "Preview Cast", {"cast": cast, "width": size, "height": size})


def picture(cast: Link, prompt: str, size: int = 768) -> tuple[Group, Group]:
    """From the cast to the saved picture, with the published settings."""
    clip, vae = Link("Load Checkpoint", "CLIP"), Link("Load VAE", "VAE")
    checkpoint, dynamicid = Link("Load Checkpoint", "MODEL"), Link("Load DynamicID", "dynamicid")
    sampler: dict[str, Any] = {
        "model": Link("Apply DynamicID", "model"),
        "positive": Link("Prompt", "CONDITIONING"),
        "negative": Link("Negative prompt", "CONDITIONING"),
        "latent_image": Link("Picture size", "LATENT"),
    }
    sampler |= {"seed": 42, "steps": 50, "cfg": 5.0, "sampler_name": "ddim", "scheduler": "ddim_uniform"}
    prompts = (
        Node("DynamicIDApply", "Apply DynamicID", {"model": checkpoint, "dynamicid": dynamicid, "cast": cast}),
        Node("CLIPTextEncode", "Prompt", {"text": prompt, "clip": clip}),
        Node("CLIPTextEncode", "Negative prompt", {"text": NEGATIVE, "clip": clip}),
    )
    sampling = (
        Node("EmptyLatentImage", "Picture size", {"width": size, "height": size}),
        Node("KSampler", "Sampler", sampler),
        Node("VAEDecode", "VAE Decode", {"samples": Link("Sampler", "LATENT"), "vae": vae}),
    )
    saved = (
        Node(
            "SaveImage", "Save Image", {"images": Link("VAE Decode", "IMAGE"), "filename_prefix": "dynamicid/picture"}
        ),
    )
    return Group("4. Prompt", (prompts,)), Group("5. Picture", (sampling, saved))


# --- the workflows ------------------------------------------------------------------------------------------------


def single_person() -> tuple[Group, ...]:
    text = (
        "Choose a photo in **Photo of person 1**, write a **Prompt**, and press **Run**. The preview in **Person 1** "
        f"numbers the faces that were found: for a group photo, set **face_index** to the right one. {WHERE}"
    )
    placed = Node("DynamicIDPlaceFace", "Place Face", {"face": face(1)})
    cast = Link("Place Face", "cast")
    return (
        models(),
        Group("2. Who", (person(1),)),
        Group("3. Where", ((note(text), placed, preview(cast, 768)),)),
        *picture(cast, "portrait photo of a person in a sunlit park, upper body, looking at the camera, sharp focus"),
    )


def two_people() -> tuple[Group, ...]:
    text = (
        "Choose a photo of each person, draw one box for each in **Boxes** (box 1 belongs to person 1; the editor needs "
        f"*Nodes 2.0*, in the main menu), and press **Run**. {WHERE} The boxes lie on a canvas of 768 x 768 that is "
        "stretched over the picture: for another shape set the same **width** and **height** in **Boxes**, **Place Faces in "
        "Boxes** and **Picture size**."
    )
    cast = Link("Place Faces in Boxes", "cast")
    return (
        models(),
        Group("2. Who", (person(1), person(2))),
        Group("3. Where", ((note(text), *place_in_boxes([face(1), face(2)])), (preview(cast, 768),))),
        *picture(cast, "photo of two people side by side in a sunlit park, upper bodies, looking at the camera"),
    )


def edited_expression() -> tuple[Group, ...]:
    text = (
        "Choose a photo of each person, write in **Expression of person 1** and **2** what each face shall show, and "
        f"press **Run**. {WHERE} With **strength** 0 a face keeps the expression of its photo, and above 1 the new one is "
        "exaggerated."
    )

    def edit(number: int, expression: str) -> Node:
        inputs = {
            "dynamicid": Link("Load DynamicID", "dynamicid"),
            "face": face(number),
            "clip": Link("Load Checkpoint", "CLIP"),
            "expression": expression,
        }
        return Node("DynamicIDEditMotion", f"Expression of person {number}", inputs)

    first = edit(1, "a very surprised expression, front view")
    second = edit(2, "a happy expression, front view")
    cast = Link("Place Faces in Boxes", "cast")
    edited = [Link(node.title, "face") for node in (first, second)]
    return (
        models(IMR.name),
        Group("2. Who, and how they look", ((*person(1), first), (*person(2), second))),
        Group("3. Where", ((note(text), *place_in_boxes(edited)), (preview(cast, 768),))),
        *picture(cast, "photo of two people side by side in a sunlit park, upper bodies, looking at the camera"),
    )


def blend() -> tuple[Group, ...]:
    text = (
        "Choose two photos, set in **Blend Faces** how much of each the new person gets (**2, 1** is two parts of person 1), "
        "and press **Run**. The mode **tokens** averages the faces; **attention** shows both to the model, as published. "
        f"{WHERE}"
    )
    blended = Node("DynamicIDBlendFaces", "Blend Faces", {"faces.face0": face(1), "faces.face1": face(2)})
    placed = Node("DynamicIDPlaceFace", "Place Face", {"face": Link("Blend Faces", "face")})
    cast = Link("Place Face", "cast")
    return (
        models(),
        Group("2. Who", (person(1), person(2))),
        Group("3. One new person", ((note(text), blended, placed, preview(cast, 768)),)),
        *picture(cast, "portrait photo of a person in a sunlit park, upper body, looking at the camera, sharp focus"),
    )


def three_people_masks() -> tuple[Group, ...]:
    text = (
        "Choose a photo of each person and press **Run**: the masks are three upright strips with soft edges. For regions "
        "of your own, connect any mask to **mask** of **Place person 1** to **3**, for example one painted with *Open in Mask "
        f"Editor* on a loaded picture. {WHERE}"
    )
    size, width, soft = 1024, 384, 64
    masks = [
        Node("SolidMask", "Nowhere", {"value": 0.0, "width": size, "height": size}),
        Node("SolidMask", "Strip", {"value": 1.0, "width": width, "height": size}),
        Node("FeatherMask", "Soft strip", {"mask": Link("Strip", "MASK"), "left": soft, "right": soft}),
    ]
    places = []
    for number, x in enumerate((0, 320, 640), 1):
        strip = {
            "destination": Link("Nowhere", "MASK"),
            "source": Link("Soft strip", "MASK"),
            "x": x,
            "operation": "add",
        }
        masks.append(Node("MaskComposite", f"Mask of person {number}", strip))
        inputs = {"face": face(number), "mask": Link(f"Mask of person {number}", "MASK")}
        if places:
            inputs["cast"] = Link(places[-1].title, "cast")
        places.append(Node("DynamicIDPlaceFace", f"Place person {number}", inputs))
    cast = Link("Place person 3", "cast")
    return (
        models(),
        Group("2. Who", (person(1), person(2), person(3))),
        Group("3. Where", (tuple(masks), (note(text), *places, preview(cast, size)))),
        *picture(
            cast, "photo of three people side by side in a sunlit park, upper bodies, looking at the camera", size
        ),
    )


RECIPES = {
    recipe.__name__: recipe for recipe in (single_person, two_people, edited_expression, blend, three_people_masks)
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


def build(object_info: dict, host_version: str) -> dict[str, dict]:
    """File below ``workflows/`` -> content, for the nodes of a host of this version."""
    files = {}
    for name, recipe in RECIPES.items():
        groups = recipe()
        types = {node.type for node in Graph(name, groups).nodes}
        graph = Graph(name, groups, properties(types, host_version))
        files[f"{name}.json"] = to_ui(graph, object_info)
        files[f"api/{name}.json"] = to_api(graph, object_info)
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
