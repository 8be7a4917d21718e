"""The drawn world for ``two_people.py``: its models and people, and what a graph must say to fit them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from environment import SetupError

SIZE = (192, 128)  # px of a picture of two people
PROMPT = "a drawing of two people, blue background"
EXPRESSIONS = ("the expression is happy, the face is front view", "the expression is surprised, the face is front view")
PHOTO = 256  # px of a drawn portrait
ENLARGED = 4  # times: so that people see something; nothing is added


def fill(models: Path, progress: Callable[[str, int, int], None]) -> None:
    """Write the world's files into a models folder; a few seconds."""
    from dynamicid_core.drawn import world
    from dynamicid_core.types import DynamicIDError

    try:
        world.fill(models, progress=progress)
    except DynamicIDError as error:
        raise SetupError(str(error)) from None


def draw_people(folder: Path) -> list[Path]:
    """Portraits of the first two people that nothing was trained on."""
    from PIL import Image

    from dynamicid_core.drawn.make import portrait, posed
    from dynamicid_core.drawn.people import HELD_OUT

    paths = [folder / f"person_{number}.png" for number in (1, 2)]
    for number, path in enumerate(paths):
        Image.fromarray(portrait(HELD_OUT + number, posed("neutral", "front view"), PHOTO)).save(path)
    return paths


def adapt(graph: dict[str, dict], options: argparse.Namespace) -> None:
    """Put the world's files, words and sizes into a graph made for real models, where the user said nothing else."""
    from dynamicid_core.drawn import world

    files = {
        "CheckpointLoaderSimple": {"ckpt_name": world.CHECKPOINT},
        "VAELoader": {"vae_name": world.VAE},
        "CLIPVisionLoader": {"clip_name": world.CLIP_VISION},
        "DynamicIDLoader": {"saa_file": world.SAA, "imr_file": world.IMR},
        "DynamicIDFaceAnalysis": {"model_pack": world.FACES},
    }
    for node in graph.values():
        chosen = files.get(node["class_type"], {})
        node["inputs"] |= {key: Path(path).name for key, path in chosen.items()}
        if node["class_type"] == "DynamicIDEncodeFace":
            node["inputs"]["crop_factor"] = world.CROP_FACTOR
        if node["class_type"] == "DynamicIDApply":
            node["inputs"] |= {"gate_threshold": world.GATE_THRESHOLD, "layout_strength": world.LAYOUT_STRENGTH}
    by_title = {node["_meta"]["title"]: node["inputs"] for node in graph.values()}
    by_title["Negative prompt"]["text"] = ""
    by_title["Sampler"] |= {"cfg": world.GUIDANCE, "steps": options.steps or world.STEPS}
    if not options.prompt:
        by_title["Prompt"]["text"] = PROMPT
    width, height = (options.size, options.size) if options.size else SIZE
    for title in ("Picture size", "Preview Cast"):
        by_title[title] |= {"width": width, "height": height}
    _enlarge(graph)


def _enlarge(graph: dict[str, dict]) -> None:
    """What is saved is the small picture, larger."""
    (save,) = (node for node in graph.values() if node["class_type"] == "SaveImage")
    graph["enlarge"] = {
        "class_type": "ImageScaleBy",
        "inputs": {"image": save["inputs"]["images"], "upscale_method": "lanczos", "scale_by": ENLARGED},
        "_meta": {"title": "Enlarge"},
    }
    save["inputs"]["images"] = ["enlarge", 0]
