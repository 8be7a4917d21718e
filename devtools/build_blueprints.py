"""Write ``subgraphs/`` and the shortest template: ``python devtools/build_blueprints.py [--server URL]``, with a ComfyUI running that has this pack.

A blueprint is one node that holds a whole graph, with the few sockets that a beginner needs; the host lists it among
its nodes. The parts are those of the workflows (``building``).
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import uuid
from dataclasses import dataclass

from building import ROOT, files, parts
from building.settings import WORLD
from environment import run_script
from graphs import Graph, Group, Link, Node, to_ui

from dynamicid_core.prompts import preset_prompt

BLUEPRINTS = ROOT / "subgraphs"
INPUT, OUTPUT = -10, -20  # ids of the frames at which a subgraph's links begin and end
CATEGORY = "DynamicID"
SETTING = WORLD  # runs as it is put down
RESULT = Link("Enlarge", "IMAGE")
PROMPTS = (("prompt", "Prompt", "text"), ("negative prompt", "Negative prompt", "text"))
PICTURE = (
    ("width", "Picture size", "width"),
    ("height", "Picture size", "height"),
    ("steps", "Sampler", "steps"),
    ("seed", "Sampler", "seed"),
    ("enlarge", "Enlarge", "scale_by"),
)
MODELS = (
    ("checkpoint", "Load Checkpoint", "ckpt_name"),
    ("vae", "Load VAE", "vae_name"),
    ("clip vision", "Load CLIP Vision", "clip_name"),
    ("dynamicid", "Load DynamicID", "saa_file"),
    ("face models", "Load Face Analysis", "model_pack"),
)
NODE_SIZE = (340, 480)


@dataclass(frozen=True)
class Blueprint:
    """``sockets``: (name outside, title of the node inside, its input), in the order in which they are shown."""

    name: str
    description: str
    groups: tuple[Group, ...]
    sockets: tuple[tuple[str, str, str], ...]


# --- the blueprints -----------------------------------------------------------------------------------------------


def encode(number: int) -> Node:
    """A person's face; the photo comes from outside."""
    node = parts.person(SETTING, number)[1]
    return dataclasses.replace(node, inputs={name: value for name, value in node.inputs.items() if name != "image"})


def place(number: int, face: Link, after: str | None = None) -> Node:
    inputs = {"face": face} | ({"cast": Link(after, "cast")} if after else {})
    return Node("DynamicIDPlaceFace", f"Place person {number}", inputs, parts.node_color(number - 1))


def picture(last: str, people: int) -> tuple[Group, ...]:
    """From the cast to the picture; saving it is left to the graph around."""
    prompts, made = parts.picture(SETTING, Link(last, "cast"), people)
    return prompts, dataclasses.replace(made, columns=made.columns[:1])


def one_person() -> Blueprint:
    groups = (
        parts.models(SETTING),
        parts.group(2, "Who", (encode(1), place(1, parts.face(1)))),
        *picture("Place person 1", 1),
    )
    sockets = (("photo", "Person 1", "image"), *PROMPTS, *PICTURE, *MODELS)
    return Blueprint("One Person (DynamicID)", "The person of one photo in a new picture.", groups, sockets)


def two_people() -> Blueprint:
    placed = (place(1, parts.face(1)), place(2, parts.face(2), after="Place person 1"))
    groups = (
        parts.models(SETTING),
        parts.group(2, "Who", (encode(1), encode(2)), placed),
        *picture("Place person 2", 2),
    )
    photos = tuple((f"photo {number}", f"Person {number}", "image") for number in (1, 2))
    description = "The people of two photos in one new picture: the first on the left, the second on the right."
    return Blueprint("Two People (DynamicID)", description, groups, (*photos, *PROMPTS, *PICTURE, *MODELS))


def edited_expression() -> Blueprint:
    inputs = {
        "dynamicid": Link("Load DynamicID", "dynamicid"),
        "face": parts.face(1),
        "clip": Link("Load Checkpoint", "CLIP"),
        "expression": preset_prompt("surprised"),
    }
    edit = Node("DynamicIDEditMotion", "Expression", inputs)
    groups = (
        parts.models(SETTING),
        parts.group(2, "Who, and how they look", (encode(1), edit, place(1, Link("Expression", "face")))),
        *picture("Place person 1", 1),
    )
    expression = (("expression", "Expression", "expression"), ("strength", "Expression", "strength"))
    sockets = (("photo", "Person 1", "image"), *expression, *PROMPTS, *PICTURE, *MODELS)
    description = "The person of one photo in a new picture, with another expression."
    return Blueprint("Edit Expression (DynamicID)", description, groups, sockets)


RECIPES = (one_person, two_people, edited_expression)
SHORT = "1 Two People"  # a template of four nodes


# --- files --------------------------------------------------------------------------------------------------------


def named(name: str) -> str:
    """An id that stays the same from build to build."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"comfyui-dynamicid/{name}"))


def to_subgraph(blueprint: Blueprint, graph: Graph, object_info: dict) -> tuple[dict, list[dict]]:
    """The definition of a subgraph, and the inputs of the node that stands for it."""
    inner = to_ui(graph, object_info)
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    links = [dict(zip(keys, link, strict=True)) for link in inner["links"]]
    right = max(node["pos"][0] + node["size"][0] for node in inner["nodes"])
    inputs, outer = [], []

    def link(*ends) -> int:
        links.append(dict(zip(keys, (len(links) + 1, *ends), strict=True)))
        return len(links)

    for slot, (name, title, target) in enumerate(blueprint.sockets):
        node = inner["nodes"][graph.number(title) - 1]
        place = next(i for i, entry in enumerate(node["inputs"]) if entry["name"] == target)
        entry = node["inputs"][place]
        entry["link"] = link(INPUT, slot, node["id"], place, entry["type"])
        socket = {"name": name, "type": entry["type"]}
        at = {"pos": [-120, 20 + 20 * slot]}
        inputs.append({"id": named(f"{blueprint.name}/{name}"), **socket, "linkIds": [entry["link"]], **at})
        outer.append({**socket, "link": None, **({"widget": {"name": name}} if "widget" in entry else {})})
    source = graph.number(RESULT.title)
    result = link(source, 0, OUTPUT, 0, "IMAGE")
    inner["nodes"][source - 1]["outputs"][0]["links"].append(result)
    output = {"id": named(f"{blueprint.name}/image"), "name": "image", "type": "IMAGE", "linkIds": [result]}
    state = {"lastGroupId": len(inner["groups"]), "lastNodeId": len(inner["nodes"]), "lastLinkId": len(links)}
    definition = {
        "id": named(blueprint.name),
        "version": 1,
        "state": {**state, "lastRerouteId": 0},
        "revision": 0,
        "config": {},
        "name": blueprint.name,
        "inputNode": {"id": INPUT, "bounding": [-200, 0, 120, 40 + 20 * len(inputs)]},
        "outputNode": {"id": OUTPUT, "bounding": [right + 80, 0, 120, 60]},
        "inputs": inputs,
        "outputs": [{**output, "pos": [right + 100, 20]}],
        "widgets": [],
        "nodes": inner["nodes"],
        "groups": inner["groups"],
        "links": links,
        "extra": {},
        "category": CATEGORY,
        "description": blueprint.description,
    }
    return definition, outer


def to_blueprint(blueprint: Blueprint, object_info: dict, host_version: str) -> dict:
    """The file that the host lists: a workflow of one node, and the subgraph that it is."""
    types = {node.type for node in Graph(blueprint.name, blueprint.groups).nodes}
    graph = Graph(blueprint.name, blueprint.groups, files.properties(types, host_version))
    definition, inputs = to_subgraph(blueprint, graph, object_info)
    node = {
        "id": 1,
        "type": definition["id"],
        "pos": [0, 0],
        "size": list(NODE_SIZE),
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": inputs,
        "outputs": [{"name": "image", "type": "IMAGE", "links": []}],
        "title": blueprint.name,
        "properties": {},
        "widgets_values": [],
    }
    return {
        "id": named(f"{blueprint.name}/workflow"),
        "revision": 0,
        "last_node_id": 1,
        "last_link_id": 0,
        "nodes": [node],
        "links": [],
        "groups": [],
        "definitions": {"subgraphs": [definition]},
        "config": {},
        "extra": {},
        "version": 0.4,
    }


def build(object_info: dict, host_version: str) -> dict[str, dict]:
    """File below ``subgraphs/`` -> content, for the nodes of a host of this version."""
    blueprints = [recipe() for recipe in RECIPES]
    return {f"{one.name}.json": to_blueprint(one, object_info, host_version) for one in blueprints}


def build_short(object_info: dict, host_version: str) -> dict:
    """The template that a beginner opens first: two photos, the blueprint, and the saved picture."""
    blueprint = to_blueprint(two_people(), object_info, host_version)
    (whole,), (definition,) = blueprint["nodes"], blueprint["definitions"]["subgraphs"]
    info = {
        "input": {"required": {entry["name"]: ["IMAGE", {}] for entry in whole["inputs"] if entry["type"] == "IMAGE"}},
        "input_order": {"required": [entry["name"] for entry in whole["inputs"] if entry["type"] == "IMAGE"]},
        "output": ["IMAGE"],
        "output_name": ["image"],
        "display_name": whole["title"],
    }
    photos = tuple(dataclasses.replace(SETTING.photo(n, n), color=parts.node_color(n - 1)) for n in (1, 2))
    inputs = {f"photo {n}": Link(photos[n - 1].title, "image") for n in (1, 2)}
    made = Node(definition["id"], whole["title"], inputs, width=NODE_SIZE[0])
    saved = Node(
        "SaveImage", "Save Image", {"images": Link(made.title, "image"), "filename_prefix": "dynamicid/picture"}
    )
    groups = (parts.start(parts.START), parts.group(0, "Who", photos), parts.group(0, "Picture", (made,), (saved,)))
    graph = Graph(SHORT, groups, files.properties({"DynamicIDDrawnPerson", "SaveImage"}, host_version))
    template = to_ui(graph, object_info | {definition["id"]: info})
    (node,) = [one for one in template["nodes"] if one["type"] == definition["id"]]
    node |= {"inputs": [*node["inputs"], *(entry for entry in whole["inputs"] if entry["type"] != "IMAGE")]}
    node |= {"size": whole["size"], "title": whole["title"], "properties": {}}
    return template | {"definitions": blueprint["definitions"], "extra": {"dynamicid": {"for_photos": {}}}}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Write subgraphs/ for the nodes of a running ComfyUI.")
    parser.add_argument("--server", default="http://127.0.0.1:8188", help="its address (default: %(default)s)")
    told = files.ask(parser.parse_args(arguments).server)
    files.write(build(*told), BLUEPRINTS)
    files.write({f"{SHORT}.json": build_short(*told)}, files.WORKFLOWS)
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
