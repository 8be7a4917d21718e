"""A graph of ComfyUI nodes, written once, in the host's two formats: for its editor (UI) and for its HTTP API.

Which inputs a node has, their order, and which of them are widgets is read from the host's ``/object_info``. The
layout is simple: groups from left to right, columns in a group, nodes from top to bottom.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

WIDGET_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "BOUNDING_BOXES"}
GROWING = "COMFY_AUTOGROW_V3"
OPTIONAL_SHAPE = 7  # how the editor draws the socket of an input that may stay empty
NOTE = "MarkdownNote"  # lives in the editor alone
SLOT, WIDGET, TITLE, GAP = 20, 26, 30, 40  # px
# Room under a node's widgets, for the pictures, texts and buttons that the editor shows there.
ROOM = {
    "LoadImage": 230,
    "DynamicIDDrawnPerson": 230,
    "DynamicIDLoader": 40,
    "DynamicIDFaceAnalysis": 40,
    "DynamicIDEncodeFace": 260,
    "DynamicIDLoadModels": 40,
    "DynamicIDCast": 560,
    "DynamicIDEncodeGroup": 340,
    "DynamicIDPlaceFace": 270,
    "DynamicIDPlaceFaces": 270,
    "DynamicIDBlendFaces": 40,
    "DynamicIDApply": 40,
    "DynamicIDPreviewCast": 300,
    "DynamicIDGateMaps": 480,
    "DynamicIDEditMotion": 130,
    "DynamicIDAnimateMotion": 90,
    "CLIPTextEncode": 110,
    "SaveImage": 480,
    "SaveAnimatedWEBP": 480,
    "PreviewImage": 230,
    "DynamicIDRefineFaces": 300,
    NOTE: 130,
}
SHORTER = {"KSampler": ("Sampler",), "ImageScaleBy": ("Enlarge",)}  # titles that say no more than the type's
WIDTH = {"SaveImage": 480, "SaveAnimatedWEBP": 480, NOTE: 420}
DEFAULT_WIDTH = 300


@dataclass(frozen=True)
class Link:
    """The output called ``output`` of the node titled ``title``."""

    title: str
    output: str


@dataclass(frozen=True)
class Node:
    """One node. ``title`` is unique in its graph; ``inputs`` left out get the host's defaults."""

    type: str
    title: str
    inputs: dict[str, Any] = field(default_factory=dict)
    color: str = ""  # of its title bar
    width: int = 0  # px; 0: that of its type


@dataclass(frozen=True)
class Group:
    title: str
    columns: tuple[tuple[Node, ...], ...]
    color: str = "#3f789e"


@dataclass(frozen=True)
class Graph:
    """A workflow. ``properties`` are written into nodes of a type: who publishes it, which models it needs."""

    name: str
    groups: tuple[Group, ...]
    properties: dict[str, dict] = field(default_factory=dict)

    @property
    def nodes(self) -> list[Node]:
        return [node for group in self.groups for column in group.columns for node in column]

    def number(self, title: str) -> int:
        """A node's id: its place in the graph, from 1. Raises KeyError for an unknown title."""
        for number, node in enumerate(self.nodes, 1):
            if node.title == title:
                return number
        raise KeyError(f"{self.name} has no node titled {title!r}")


@dataclass(frozen=True)
class Slot:
    """One input of a node as the host defines it; a growing list gives one slot for each item."""

    name: str
    type: str
    options: dict
    optional: bool
    label: str | None = None

    @property
    def is_widget(self) -> bool:
        return self.type in WIDGET_TYPES and not self.options.get("forceInput")


def slots(info: dict, given: dict) -> Iterator[Slot]:
    """All inputs of a node: ``info`` is its entry in ``/object_info``; ``given`` tells how far lists have grown."""
    for part in ("required", "optional"):
        for name in info["input_order"].get(part, ()):
            kind, options = (*info["input"][part][name], {})[:2]
            if kind == GROWING:
                yield from _items(name, options["template"], given)
            else:
                # A list in place of a type is a combo of these choices.
                yield Slot(name, "COMBO" if isinstance(kind, list) else kind, options, part == "optional")


def _items(name: str, template: dict, given: dict) -> Iterator[Slot]:
    """The items of a growing list that are in use, and an empty one to connect the next."""
    ((kind, options),) = template["input"]["required"].values()
    count = sum(key.startswith(f"{name}.") for key in given)
    for i in range(min(count + 1, template["max"])):
        label = f"{template['prefix']}{i}"
        yield Slot(f"{name}.{label}", kind, options, i >= template["min"], label)


def _choices(info: dict, slot: Slot) -> list:
    for part in ("required", "optional"):
        if slot.name in info["input"].get(part, {}):
            kind = info["input"][part][slot.name][0]
            return kind if isinstance(kind, list) else slot.options.get("options", [])
    return []


def _value(node: Node, slot: Slot, info: dict) -> Any:
    """What a widget shows: the graph's value, else the host's default."""
    if slot.name in node.inputs:
        return node.inputs[slot.name]
    return default_value(slot, info)


def default_value(slot: Slot, info: dict) -> Any:
    """What the host gives a widget that nobody set. Raises KeyError where it has nothing."""
    if "default" in slot.options:
        return slot.options["default"]
    if slot.type == "COMBO":
        return _choices(info, slot)[0]
    raise KeyError(f"{slot.name} has no default and the graph gives no value")


def _output(graph: Graph, link: Link, object_info: dict) -> tuple[int, int, str]:
    """Node id, slot and type of the output that a link comes from."""
    number = graph.number(link.title)
    info = object_info[graph.nodes[number - 1].type]
    slot = info["output_name"].index(link.output)
    return number, slot, info["output"][slot]


# --- API format ---------------------------------------------------------------------------------------------------


def to_api(graph: Graph, object_info: dict) -> dict[str, dict]:
    """The graph as ``POST /prompt`` takes it; keys are the ids of the UI format."""
    prompt = {}
    for number, node in enumerate(graph.nodes, 1):
        if node.type == NOTE:
            continue
        info, inputs = object_info[node.type], {}
        known = {slot.name: slot for slot in slots(info, node.inputs)}
        if unknown := set(node.inputs) - set(known):
            raise KeyError(f"{graph.name}, {node.title}: no inputs {sorted(unknown)}")
        for name, slot in known.items():
            given = node.inputs.get(name)
            if isinstance(given, Link):
                inputs[name] = [str(_output(graph, given, object_info)[0]), _output(graph, given, object_info)[1]]
            elif slot.is_widget:
                value = _value(node, slot, info)
                # Lists mean links in this format, so the editor wraps those that are values.
                inputs[name] = {"__value__": value} if isinstance(value, list) else value
        prompt[str(number)] = {"inputs": inputs, "class_type": node.type, "_meta": {"title": node.title}}
    return prompt


# --- UI format ----------------------------------------------------------------------------------------------------


def to_ui(graph: Graph, object_info: dict) -> dict:
    """The graph as the editor saves it (version 0.4)."""
    nodes = [_ui_node(graph, number, node, object_info) for number, node in enumerate(graph.nodes, 1)]
    by_id = {node["id"]: node for node in nodes}
    links: list[list] = []
    for target in nodes:
        for place, entry in enumerate(target["inputs"]):
            link = graph.nodes[target["id"] - 1].inputs.get(entry["name"])
            if not isinstance(link, Link):
                continue
            source, slot, kind = _output(graph, link, object_info)
            entry["link"] = len(links) + 1
            by_id[source]["outputs"][slot]["links"].append(entry["link"])
            links.append([entry["link"], source, slot, target["id"], place, kind])
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"comfyui-dynamicid/{graph.name}")),
        "revision": 0,
        "last_node_id": len(nodes),
        "last_link_id": len(links),
        "nodes": nodes,
        "links": links,
        "groups": _arrange(graph, by_id),
        "config": {},
        "extra": {},
        "version": 0.4,
    }


def _ui_node(graph: Graph, number: int, node: Node, object_info: dict) -> dict:
    if node.type == NOTE:
        inputs, outputs, values = [], [], [node.inputs["text"]]
    else:
        info = object_info[node.type]
        found = list(slots(info, node.inputs))
        widgets = [slot for slot in found if slot.is_widget]
        inputs = [_ui_input(slot) for slot in found if not slot.is_widget] + [_ui_input(slot) for slot in widgets]
        names = zip(info["output_name"], info["output"], strict=True)
        outputs = [{"name": name, "type": kind, "links": []} for name, kind in names]
        values = [value for slot in widgets for value in _widget_values(node, slot, info)]
    rows = max(sum("widget" not in entry for entry in inputs), len(outputs))
    height = SLOT * rows + WIDGET * len(values) + ROOM.get(node.type, 0) + 10
    entry = {
        "id": number,
        "type": node.type,
        "pos": [0, 0],
        "size": [node.width or WIDTH.get(node.type, DEFAULT_WIDTH), height],
        "flags": {},
        "order": number - 1,
        "mode": 0,
        "inputs": inputs,
        "outputs": outputs,
        "properties": {"Node name for S&R": node.type, **graph.properties.get(node.type, {})},
        "widgets_values": values,
    }
    # The editor shows the title of the type in the artist's language where a node has none of its own.
    if node.type == NOTE or node.title not in (info["display_name"], *SHORTER.get(node.type, ())):
        entry["title"] = node.title
    return entry | ({"color": node.color} if node.color else {})


def _ui_input(slot: Slot) -> dict:
    entry: dict[str, Any] = {"name": slot.name, "type": slot.type, "link": None}
    if slot.label:
        entry["label"] = slot.label
    if slot.optional:
        entry["shape"] = OPTIONAL_SHAPE
    if slot.is_widget:
        entry["widget"] = {"name": slot.name}
    return entry


def _widget_values(node: Node, slot: Slot, info: dict) -> list:
    """A widget's value, and that of the widget that the editor adds to it."""
    value = _value(node, slot, info)
    if slot.options.get("control_after_generate"):
        return [value, "fixed"]
    if slot.options.get("image_upload"):
        return [value, "image"]
    return [value]


def _arrange(graph: Graph, by_id: dict[int, dict]) -> list[dict]:
    """Give every node its place and return the groups' frames."""
    frames, left, number = [], 0, 0
    for index, group in enumerate(graph.groups, 1):
        start, bottom = left, 0
        for column in group.columns:
            top, widest = 0, 0
            for _ in column:
                number += 1
                node = by_id[number]
                node["pos"] = [left, top]
                top += node["size"][1] + TITLE + GAP
                widest = max(widest, node["size"][0])
            left += widest + GAP
            bottom = max(bottom, top)
        bounding = [start - GAP // 2, -2 * TITLE - GAP // 2, left - start, bottom + TITLE + GAP // 2]
        frames.append({"id": index, "title": group.title, "bounding": bounding, "color": group.color, "flags": {}})
        left += GAP
    return frames
