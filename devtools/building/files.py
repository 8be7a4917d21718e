"""Templates as files: what the host's editor and scripts need beside the graph."""

from __future__ import annotations

import json
import re
from pathlib import Path

from comfyui.speaking import Client
from environment import SetupError
from graphs import NOTE, Graph, to_api, to_ui

from dynamicid_core.catalogue import ModelFile

from . import ROOT
from .recipes import RECIPES, TITLES
from .settings import CHECKPOINT, CLIP_VISION, PUBLISHED, VAE, WORLD

WORKFLOWS = ROOT / "workflows"
# Those that the host's own loaders read, and so offers to download.
MODELS = {
    "CheckpointLoaderSimple": (CHECKPOINT,),
    "VAELoader": (VAE,),
    "CLIPVisionLoader": (CLIP_VISION,),
    "DynamicIDLoadModels": (CHECKPOINT, VAE, CLIP_VISION),
}


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
            found[name]["models"] = [download(file) for file in MODELS[name]]
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
